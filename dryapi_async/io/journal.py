"""The journal of paid calls: an intent is on disk before its request leaves, a job's id before anybody has it."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Final, ParamSpec, TypeVar
from weakref import WeakSet

from dryapi_async.errors import AlreadySubmittedError, ConfigurationError, JournalError
from dryapi_async.io.ledger import BUSY_SECONDS, COMES_FROM, Intent, JournalRow, Ledger, Turn

__all__ = ["Journal", "JournalRow"]

logger: logging.Logger = logging.getLogger("dryapi_async")
P = ParamSpec("P")
T = TypeVar("T")

LAZY_SECONDS: Final = 1.0
"""Notes that needn't be on disk at once go with the next group, or after so long."""

Pending = tuple[Intent | Turn, "asyncio.Future[None] | None"]


class Journal:
    """A file that knows each paid call of an account: sqlite in WAL mode on a local disk (not NFS), mode 0600.

    Writes queue while one group is written, and the next group takes all that came meanwhile: one transaction for many jobs. It may be
    used from one event loop after another, and by several processes at once. Don't open the file by other means in a process that has it
    open: to close a copy's or a reader's handle takes sqlite's locks away (POSIX), and with them what keeps other processes from the log.
    """

    def __init__(self, path: str | PathLike[str], *, base_url: str, account: str, busy_seconds: float = BUSY_SECONDS) -> None:
        self._ledger = Ledger(Path(path).absolute(), base_url=base_url, account=account, busy_seconds=busy_seconds)
        self._thread: ThreadPoolExecutor | None = None
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: list[Pending] = []
        self._writing: asyncio.Future[Sequence[JournalError | AlreadySubmittedError | None]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._opened = False
        _ledgers.add(self._ledger)

    def __repr__(self) -> str:
        return f"<Journal {self._ledger.path}>"

    @property
    def path(self) -> Path:
        """The file."""
        return self._ledger.path

    async def open(self) -> None:
        """Open the file; every other method does that, too.

        Raises:
            JournalError: It can't be trusted: locked, read-only, full, of a newer version.
        """
        self._enter()
        if not self._opened:
            await self._start(self._ledger.open)
            self._opened = True

    async def intend(self, key: str, *, operation: str, digest: str, attempt: int, label: str = "", unless: Collection[str] = ()) -> None:
        """Note that a call leaves now; it is on disk when this returns.

        Raises:
            JournalError: It isn't: nothing may be submitted.
            AlreadySubmittedError: A call of the same label is in one of the states ``unless``.
        """
        _check_states(unless)
        await self._put(Intent(key=key, operation=operation, digest=digest, label=label, attempt=attempt, unless=tuple(unless)))

    async def record(self, key: str, state: str, *, request_id: str | None = None, cause: str = "") -> None:
        """Note a call's next state; it is on disk when this returns.

        Raises:
            JournalError: It isn't.
        """
        await self._put(Turn(key=key, state=state, request_id=request_id, cause=cause))

    def note(self, key: str, state: str, *, cause: str = "") -> None:
        """Note a call's next state with the next group, or in a second; ``key`` may be its job's request_id. A failure is only logged."""
        self._enter()
        self._queue.append((Turn(key=key, state=state, cause=cause), None))
        if self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(LAZY_SECONDS, self._write)

    async def find(self, key: str) -> JournalRow | None:
        """Find one call by its key."""
        await self._flush()
        return await self._start(self._ledger.find, key)

    async def list(self, *states: str) -> tuple[JournalRow, ...]:
        """List this account's calls in some states, or in all, oldest first.

        Raises:
            ConfigurationError: There is no such state.
        """
        _check_states(states)
        await self._flush()
        return await self._start(self._ledger.rows, states)

    async def is_alive(self, owner: str) -> bool:
        """Say whether the process that a row belongs to (``row.owner``) still lives and has the journal open."""
        return await self._start(self._ledger.is_alive, owner)

    async def take_over(self) -> tuple[JournalRow, ...]:
        """Make the jobs that dead processes left this process's own: each is given to one caller only."""
        await self._flush()
        return await self._start(self._ledger.take_over)

    async def prune(self, *, older_than: float = 0.0, states: Collection[str] = ("saved", "failed", "refused")) -> int:
        """Forget calls whose last news is older than so many seconds; say how many. What is unknown or unfinished goes only if named."""
        _check_states(states)
        await self._flush()
        return await self._start(self._ledger.prune, older_than, tuple(states))

    async def close(self) -> None:
        """Write what is left, and let go of the file; a later use opens it anew."""
        self._enter()
        if self._thread is None and not self._queue:
            return
        try:
            await self._flush()
        finally:
            closing = self._start(self._ledger.close)
            thread, self._thread, self._opened = self._thread, None, False
            if thread is not None:
                # It does what it was given; what comes from now on opens the file anew, and is closed by the next close.
                thread.shutdown(wait=False)
            await asyncio.shield(closing)

    @property
    def commits(self) -> int:
        """Transactions so far."""
        return self._ledger.commits

    def _enter(self) -> None:
        """Follow the running loop; what an ended loop left is written by the next, what a forked child finds is its parent's to write."""
        loop = asyncio.get_running_loop()
        if self._pid != os.getpid():
            self._pid, self._queue, self._loop, self._thread, self._opened = os.getpid(), [], None, None, False
        if self._loop is not loop:
            # An intent that nobody was told of wasn't sent.
            self._queue = [(write, None) for write, _ in self._queue if not isinstance(write, Intent)]
            self._loop, self._writing, self._timer = loop, None, None

    def _start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        self._enter()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="dryapi-journal")
        return asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *args, **kwargs))

    async def _put(self, write: Intent | Turn) -> None:
        self._enter()
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._queue.append((write, future))
        # Not at once: all that is put in this step of the loop goes together.
        loop.call_soon(self._write)
        await future

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
        self._writing = self._start(self._ledger.apply, [write for write, _ in group])
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


def _check_states(states: Collection[str]) -> None:
    if wrong := sorted(set(states) - {*COMES_FROM, "intent"}):
        raise ConfigurationError(f"The journal knows no state {wrong[0]!r}: intent, {', '.join(COMES_FROM)}.")
