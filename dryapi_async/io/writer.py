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
from dryapi_async.io.ledger import COMES_FROM, Intent, Ledger, Turn

logger: logging.Logger = logging.getLogger("dryapi_async")
P = ParamSpec("P")
T = TypeVar("T")

LAZY_SECONDS: Final = 1.0
"""Notes that needn't be on disk at once go with the next group, or after so long."""
LATE_SECONDS: Final = 60.0
"""What couldn't be written is tried again after as long as that has lasted by now: 1 s at least, and so long at most."""
MOST_LATE: Final = 10_000
"""So many notes wait until the file can be written again: the newest."""

Pending = tuple[Intent | Turn, "asyncio.Future[None] | None"]
Written = Sequence[JournalError | AlreadySubmittedError | None]


class Writer:
    """Writes one journal's file, for all accounts that are kept in it.

    Writes queue while one group is written, and the next group takes all that came meanwhile: one transaction for many jobs. A turn that
    can't be written because of the file (locked by another program, a full disk) is late: it goes first in the next group, and is tried
    again by itself, until the writer is closed. An intent isn't: who put it was told, and sends nothing.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger: Ledger = ledger
        self._thread: ThreadPoolExecutor | None = None
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: list[Pending] = []
        self._writing: asyncio.Future[Written] | None = None
        self._group: list[Pending] = []
        self._late: list[Turn] = []
        self._late_since: float | None = None
        self._late_dropped = 0
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
            JournalError: It isn't, or not yet: a turn is kept and tried again where that can help, an intent never is.
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
        self._wake_in(LAZY_SECONDS)

    async def ask(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function of the ledger in the thread, behind all that was written by now."""
        await self._flush()
        return await self.start(function, *args, **kwargs)

    async def close(self) -> None:
        """Write what is left, and let go of the file; a later use opens it anew. What can't be written even now is logged."""
        self._enter()
        if self._thread is None and not self._queue and not self._late:
            return
        try:
            if self._writing is not None:
                await asyncio.wait([self._writing])
            # The last try, also for what that group couldn't write.
            await self._flush()
        finally:
            await self._let_go()

    async def _let_go(self) -> None:
        closing: asyncio.Future[None] | None = None
        try:
            closing = self.start(self.ledger.close)
        except JournalError:
            # No thread can be had, so none of this writer's is at work on the file.
            self.ledger.close()
        thread, self._thread, self._opened = self._thread, None, False
        if thread is not None:
            # It does what it was given; what comes from now on opens the file anew, and is closed by the next close.
            thread.shutdown(wait=False)
        try:
            if closing is not None:
                await asyncio.shield(closing)
        finally:
            # Not earlier: what the thread had still to write is known to be written or not only now.
            self._drop_late()

    def _enter(self) -> None:
        """Follow the running loop; what an ended loop left is written by the next, what a forked child finds is its parent's to write."""
        loop = asyncio.get_running_loop()
        if self._pid != os.getpid():
            self._pid, self._loop, self._thread, self._opened = os.getpid(), None, None, False
            self._queue, self._group, self._late = [], [], []
        if self._loop is not loop:
            # An intent that nobody was told of wasn't sent. What was being written as the loop ended may have failed: to write a turn
            # twice does no harm, since a state never goes back.
            self._late = [*self._late, *_pick_turns(self._group)][-MOST_LATE:]
            self._queue = [(turn, None) for turn in _pick_turns(self._queue)]
            self._loop, self._writing, self._timer, self._group, self._late_since = loop, None, None, [], None
            if self._queue or self._late:
                self._wake_in(LAZY_SECONDS)

    def _wake_in(self, seconds: float) -> None:
        """Write what there is in so many seconds, or earlier where that is set already."""
        assert self._loop is not None  # noqa: S101  for the type checker
        when = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._write)

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Run a function of the ledger in the thread.

        Raises:
            JournalError: There can be no thread; the function is never run.
        """
        self._enter()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="dryapi-journal")
        try:
            return asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *args, **kwargs))
        except RuntimeError as error:
            # The pool has queued the function all the same: a thread that it could start later would write what was called unwritten.
            self._thread = None
            raise JournalError(
                f"Journal {self.ledger.path} can't be used: no thread could be started for it ({error}). Nothing is submitted without it: "
                "let the process have more threads."
            ) from error

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
        if self._writing is not None or not (self._queue or self._late):
            return
        # The late ones first: what is new may build on them.
        group: list[Pending] = [*((turn, None) for turn in self._late), *self._queue]
        told, self._late, self._queue = len(self._late), [], []
        try:
            self._writing = self.start(self.ledger.apply, [write for write, _ in group])
        except JournalError as error:
            self._keep(_answer_group(group, [error] * len(group), told))
        else:
            self._group = group
            self._writing.add_done_callback(partial(self._end_write, group, told))

    def _end_write(self, group: Sequence[Pending], told: int, written: "asyncio.Future[Written]") -> None:
        failure = asyncio.CancelledError() if written.cancelled() else written.exception()
        late = _answer_group(group, written.result() if failure is None else [failure] * len(group), told)
        if written is not self._writing:
            # Another loop has taken over, and with the journal this group's turns.
            return
        self._writing, self._group = None, []
        self._keep(late)
        if self._queue:
            self._write()

    def _keep(self, late: list[Turn]) -> None:
        """Keep what a group couldn't write for the next one, and for the next try; nothing where all was written."""
        assert self._loop is not None  # noqa: S101  for the type checker
        now = self._loop.time()
        if not late:
            self._late_since, self._late_dropped = None, 0
            return
        if self._late_since is None:
            self._late_since = now
        self._late = late[-MOST_LATE:]
        if len(late) > MOST_LATE:
            if not self._late_dropped:
                logger.warning("more than %d notes wait for the journal %s: the oldest are dropped", MOST_LATE, self.ledger.path)
            self._late_dropped += len(late) - MOST_LATE
        self._wake_in(min(max(now - self._late_since, LAZY_SECONDS), LATE_SECONDS))

    def _drop_late(self) -> None:
        """Say what the file will never have."""
        if not self._late:
            return
        if self._timer is not None and not self._queue:
            self._timer.cancel()
            self._timer = None
        logger.error(
            "the journal %s was closed without %d notes: %s",
            self.ledger.path,
            len(self._late) + self._late_dropped,
            ", ".join(f"{turn.state} of {turn.key}" + (f" (job {turn.request_id})" if turn.request_id else "") for turn in self._late),
        )
        self._late, self._late_since, self._late_dropped = [], None, 0


def _pick_turns(group: Sequence[Pending]) -> list[Turn]:
    return [write for write, _ in group if isinstance(write, Turn)]


def _answer_group(group: Sequence[Pending], errors: Sequence[BaseException | None], told: int) -> list[Turn]:
    """Answer who waits for a group's writes, log what nobody waits for (the first ``told`` were), and give what to write again."""
    late = _find_late([write for write, _ in group], errors)
    for index, ((write, future), error) in enumerate(zip(group, errors, strict=True)):
        if future is not None and not future.done():
            _answer(future, error)
        elif error is not None and (index >= told or index not in late):
            logger.warning("%s of %s isn't in the journal: %s", getattr(write, "state", "intent"), write.key, error)
    return list(late.values())


def _find_late(writes: Sequence[Intent | Turn], errors: Sequence[BaseException | None]) -> dict[int, Turn]:
    """Find the turns of a group that are to be written again, by their places: those that failed, and what came after them for their call.

    What comes after one that failed matched no row, it may be. A turn that an intent of its call has followed is over: written later, it
    would say of a call on its way that it still waits.
    """
    if not any(errors):
        return {}
    begun = {
        write.key: index for index, (write, error) in enumerate(zip(writes, errors, strict=True)) if isinstance(write, Intent) and not error
    }
    late: dict[int, Turn] = {}
    names: set[str] = set()
    for index, (write, error) in enumerate(zip(writes, errors, strict=True)):
        if isinstance(write, Intent) or index < begun.get(write.key, -1):
            continue
        if _may_pass(write, error) if error else write.key in names:
            late[index] = write
            names.update((write.key, write.request_id or write.key))
    return late


def _may_pass(turn: Turn, error: BaseException) -> bool:
    """Say whether a turn that failed may be written later: not where it is the turn itself that is wrong."""
    if not isinstance(error, JournalError | asyncio.CancelledError) or isinstance(error.__cause__, ValueError | KeyError):
        return False
    try:
        # As sqlite takes them. The error of one turn doesn't say what it came from.
        f"{turn.key}{turn.request_id}{turn.cause}".encode()
    except UnicodeEncodeError:
        return False
    return turn.state in COMES_FROM


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
