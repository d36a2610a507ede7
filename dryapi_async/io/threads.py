"""Threads for file work alone: DNS and the program's own thread calls never wait behind a slow disk."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MOST_THREADS: Final = 4
"""On a quiet machine 16 were no faster and stalled the loop no less (15 repetitions: 9.5 ms against 10.1): few are enough for a disk."""


class OwnThread(Executor):
    """One thread for what a user's own file object does, since that may take as long as it likes: nobody else waits behind it.

    It is made at the first piece of work and ends after the last one. It is a daemon: a read that hangs for ever doesn't keep the
    program from ending.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._begun = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function after those that were given before."""
        future: Future[T] = Future()
        self._work.put((future, partial(fn, *args, **kwargs)))
        if not self._begun:
            self._begun = True
            Thread(target=_run, args=(self._work,), name="dryapi-source", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT002  the base class's signature
        """Let the thread end once it has done what it was given; nothing is waited for."""
        self._work.put(None)


def _run(work: "SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]") -> None:
    while (item := work.get()) is not None:
        future, function = item
        if not future.set_running_or_notify_cancel():
            continue
        try:
            answer = function()
        except BaseException as error:  # noqa: BLE001  it belongs to who waits for the future
            future.set_exception(error)
        else:
            future.set_result(answer)
        # Else the last answer and its buffers would live until the next piece of work.
        del item, future, function
        answer = None


class FileThreads:
    """A bounded pool, made at its first use. Calls go through ``loop.run_in_executor``, so that a clock that jumps can count them."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None

    @property
    def executor(self) -> ThreadPoolExecutor:
        """The pool itself, for aiofiles."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="dryapi-file")
        return self._executor

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Run a function in a thread, and wait for it with the future that is given."""
        return asyncio.get_running_loop().run_in_executor(self.executor, partial(function, *args, **kwargs))

    def begin(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run a function in a thread that nobody waits for, such as a close."""
        _ = self.start(function, *args, **kwargs)

    def start_in(self, thread: OwnThread | None, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Run a function in a thread of its own, where there is one, else in the pool."""
        return asyncio.get_running_loop().run_in_executor(thread or self.executor, partial(function, *args, **kwargs))

    def begin_in(self, thread: OwnThread | None, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run a function in a thread of its own or in the pool, and wait for nothing."""
        _ = self.start_in(thread, function, *args, **kwargs)

    def close(self) -> None:
        """Let the threads go: they end with the last piece of work that holds them, such as the close of a cut download's file."""
        self._executor = None
