"""Who writes the journal: one thread, groups of writes, from one event loop after another and over forks."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar
from weakref import WeakSet

from dryapi_async.errors import AlreadySubmittedError, JournalError
from dryapi_async.io.ledger import Intent, Ledger, Turn

logger: logging.Logger = logging.getLogger("dryapi_async")
P = ParamSpec("P")
T = TypeVar("T")

LAZY_SECONDS: Final = 1.0
"""Notes that needn't be on disk at once go with the next group, or after so long."""

Pending = tuple[Intent | Turn, "asyncio.Future[None] | None"]
Written = Sequence[JournalError | AlreadySubmittedError | None]


class Writer:
    """Writes one journal's file, for all accounts that are kept in it.

    Writes queue while one group is written, and the next group takes all that came meanwhile: one transaction for many jobs.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger: Ledger = ledger
        self._thread: ThreadPoolExecutor | None = None
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: list[Pending] = []
        self._writing: asyncio.Future[Written] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._opened = False
        _ledgers.add(ledger)

    async def open(self) -> None:
        """Open the file; every other method does that, too.

        Raises:
            JournalError: It can't be trusted: locked, read-only, full, of a newer version.
        """
        self._enter()
        if not self._opened:
            await self.start(self.ledger.open)
            self._opened = True

    async def put(self, write: Intent | Turn) -> None:
        """Write something with the next group; it is on disk when this returns.

        Raises:
            JournalError: It isn't.
            AlreadySubmittedError: Another call has its label.
        """
        self._enter()
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._queue.append((write, future))
        # Not at once: all that is put in this step of the loop goes together.
        loop.call_soon(self._write)
        await future

    def put_later(self, turn: Turn) -> None:
        """Note a call's next state with the next group, or in a second. A failure is only logged."""
        self._enter()
        self._queue.append((turn, None))
        if self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(LAZY_SECONDS, self._write)

    async def ask(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function of the ledger in the thread, behind all that was written by now."""
        await self._flush()
        return await self.start(function, *args, **kwargs)

    async def close(self) -> None:
        """Write what is left, and let go of the file; a later use opens it anew."""
        self._enter()
        if self._thread is None and not self._queue:
            return
        try:
            await self._flush()
        finally:
            closing = self.start(self.ledger.close)
            thread, self._thread, self._opened = self._thread, None, False
            if thread is not None:
                # It does what it was given; what comes from now on opens the file anew, and is closed by the next close.
                thread.shutdown(wait=False)
            await asyncio.shield(closing)

    def _enter(self) -> None:
        """Follow the running loop; what an ended loop left is written by the next, what a forked child finds is its parent's to write."""
        loop = asyncio.get_running_loop()
        if self._pid != os.getpid():
            self._pid, self._queue, self._loop, self._thread, self._opened = os.getpid(), [], None, None, False
        if self._loop is not loop:
            # An intent that nobody was told of wasn't sent.
            self._queue = [(write, None) for write, _ in self._queue if not isinstance(write, Intent)]
            self._loop, self._writing, self._timer = loop, None, None

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Run a function of the ledger in the thread."""
        self._enter()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="dryapi-journal")
        return asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *args, **kwargs))

    async def _flush(self) -> None:
        """Write what is queued by now, before anything that is started after this; others may go on queueing."""
        self._enter()
        self._write()
        if self._writing is not None:
            # What is queued still is given to the thread as this ends, and so before what the caller gives it.
            await asyncio.wait([self._writing])

    def _write(self) -> None:
        """Write a group, unless one is being written: then the next takes all that came meanwhile."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is not None or not self._queue:
            return
        group, self._queue = self._queue, []
        self._writing = self.start(self.ledger.apply, [write for write, _ in group])
        self._writing.add_done_callback(partial(self._end_write, group))

    def _end_write(
        self, group: Sequence[Pending], written: "asyncio.Future[Sequence[JournalError | AlreadySubmittedError | None]]"
    ) -> None:
        self._writing = None
        failure = asyncio.CancelledError() if written.cancelled() else written.exception()
        errors = written.result() if failure is None else [failure] * len(group)
        for (write, future), error in zip(group, errors, strict=True):
            if future is not None and not future.done():
                _answer(future, error)
            elif error is not None:
                logger.warning("%s of %s isn't in the journal: %s", getattr(write, "state", "intent"), write.key, error)
        self._write()


def _answer(future: "asyncio.Future[None]", error: BaseException | None) -> None:
    if error is None:
        future.set_result(None)
    else:
        # Each waiter its own: a raised error collects the traceback of who raised it.
        future.set_exception(JournalError(str(error)) if isinstance(error, JournalError) else error)


_ledgers: Final[WeakSet[Ledger]] = WeakSet()
_paused: Final[dict[int, list[Ledger]]] = {}


def _pause() -> None:
    """Wait until no file is in use, and keep it so: a fork in the middle of a write would leave its child sqlite's locks for ever."""
    # In one order: two threads that fork at once wait for each other.
    ledgers = _paused[threading.get_ident()] = sorted(_ledgers, key=id)
    for ledger in ledgers:
        ledger.in_use.acquire()


def _go_on() -> None:
    for ledger in _paused.pop(threading.get_ident(), ()):
        ledger.in_use.release()


def _go_on_in_child() -> None:
    for ledger in _paused.pop(threading.get_ident(), ()):
        ledger.disown()


os.register_at_fork(before=_pause, after_in_parent=_go_on, after_in_child=_go_on_in_child)
