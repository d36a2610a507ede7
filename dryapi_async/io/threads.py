"""Threads for file work alone: DNS and the program's own thread calls never wait behind a slow disk."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MOST_THREADS: Final = 4
"""On a quiet machine 16 were no faster and stalled the loop no less (15 repetitions: 9.5 ms against 10.1): few are enough for a disk."""


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

    def close(self) -> None:
        """Let the threads go: they end with the last piece of work that holds them, such as the close of a cut download's file."""
        self._executor = None
