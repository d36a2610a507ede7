"""One watcher per client: reads the jobs that are waited for, when the cadence says, and wakes who waits."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from copy import copy
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final

from dryapi_async.config import Settings
from dryapi_async.errors import (
    AuthenticationError,
    ClientClosedError,
    DryAPIError,
    NotFoundError,
    PermissionDeniedError,
    PollingFailedError,
    RateLimitError,
    StatusError,
    TransportError,
)
from dryapi_async.io.waits import Deadlines
from dryapi_async.protocol.cadence import LONGEST, NO_LIMIT, Budget, Durations, Turns, next_wait, silence
from dryapi_async.protocol.endpoint import STATUS_LANE
from dryapi_async.protocol.retry import MINUTE_WINDOW
from dryapi_async.protocol.status import Update
from dryapi_async.tracking.board import Entry, Poll, Waiter
from dryapi_async.tracking.just_made import NOT_FOUND_GRACE

if TYPE_CHECKING:
    from dryapi_async.teller import Teller

OUTAGE_FAILURES: Final = 3
"""From so many failed reads in a row on a job is left alone for longer and longer."""
MOST_READS: Final = 32
"""Reads on the wire at once: more wouldn't be faster under any tier's limit, and transfers need connections, too."""
MOST_KINDS: Final = 256
"""Kinds of jobs whose durations are remembered."""


class Watcher:
    """Follows jobs while somebody waits for them. It has no task of its own: a timer starts the reads whose turn it is."""

    def __init__(
        self,
        settings: Settings,
        read_status: Callable[[str], Awaitable[Update]],
        teller: "Teller | None",
        *,
        budget: Callable[[], Budget] | None = None,
    ) -> None:
        """Watch nothing yet; ``budget`` says what the lane of status reads has left."""
        self._settings = settings
        self._read_status = read_status
        self._teller = teller
        self._budget = budget or _no_limit
        self._loop = asyncio.get_running_loop()
        self._context = Context()
        self._deadlines = Deadlines()
        self._board: dict[str, Entry] = {}
        self._turns: Turns[Entry] = Turns()
        self._kinds: dict[str, Durations] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._reading = 0
        self._most_reads = min(MOST_READS, max(settings.pool_size // 2, 1))
        self._day_over: RateLimitError | None = None
        self._day_over_until = 0.0
        self._push_up_since = inf
        self._closed = False
        self.reads: int = 0
        """Status reads that were begun."""

    @property
    def tickets(self) -> tuple[str, ...]:
        """The tickets of the jobs that are waited for."""
        return tuple(entry.ticket for entry in self._board.values())

    @property
    def jobs(self) -> int:
        """How many jobs are waited for."""
        return len(self._board)

    @property
    def hears_push(self) -> bool:
        """Whether the push channel is up."""
        return self._push_up_since < inf

    def join(  # noqa: PLR0913  what is known of a wait
        self,
        request_id: str,
        slug: str,
        *,
        submitted_at: float | None,
        known: Update,
        poll: Poll,
        deadline: float,
        kind: str = "",
    ) -> Waiter:
        """Wait for a job: it is read from now on, until its last waiter leaves.

        ``kind`` is what jobs that take about as long have in common: an operation with a model.
        """
        if self._closed:
            ticket = f"{slug}:{request_id}"
            raise ClientClosedError(f"The client is closed. Take the job up again with client.job({ticket!r}).", tickets=(ticket,))
        now = self._loop.time()
        entry = self._board.get(request_id)
        if entry is None:
            entry = Entry(
                request_id=request_id,
                slug=slug,
                kind=kind,
                submitted_at=submitted_at,
                joined_at=now,
                seen_at=now if submitted_at is None else submitted_at,
                # A job of an older life may be done already, and so may one that was made before push came up: look at once.
                owed=submitted_at is None or (self._push_up_since < inf and submitted_at < self._push_up_since),
            )
            self._board[request_id] = entry
        if known.source != "submit":
            entry.take(known)
        waiter = Waiter(entry, self._deadlines, poll=poll, deadline=deadline)
        entry.waiters.append(waiter)
        if entry.reading is None:
            self._plan_next(entry, now)
        self._end_hopeless(entry, now)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """End a wait; with the last one the job is forgotten and a read that is out is cut."""
        entry = waiter.entry
        if waiter in entry.waiters:
            entry.waiters.remove(waiter)
        if not entry.waiters and self._board.get(entry.request_id) is entry:
            del self._board[entry.request_id]
            entry.due = inf
            self._turns.sweep(len(self._board), self._board.values())
            if entry.reading is not None:
                entry.reading.cancel()

    def hear(self, request_id: str, update: Update) -> bool:
        """Take news that came by push or webhook, and wake who waits; False where nobody waits for that job."""
        entry = self._board.get(request_id)
        if entry is None:
            return False
        now = self._loop.time()
        # It is told as it happens: the end, too.
        self._learn(entry, update, alive=now, seen=now)
        entry.owed = entry.missed = False
        self.take(entry, update)
        return True

    def push_is_up(self) -> None:
        """Read every pending job once, for nothing is replayed; from then on only those that stay silent, and seldom."""
        if self._push_up_since < inf:
            return
        self._push_up_since = now = self._loop.time()
        for entry in self._board.values():
            entry.owed = True
            if entry.reading is None and entry.wants_reads:
                self._plan(entry, now)

    def push_is_down(self) -> None:
        """Read as often as without push again."""
        if self._push_up_since == inf:
            return
        self._push_up_since, now = inf, self._loop.time()
        for entry in self._board.values():
            entry.owed = False
            if entry.reading is None and entry.wants_reads:
                self._plan_next(entry, now)
            self._end_hopeless(entry, now)

    async def close(self) -> None:
        """End every wait with ClientClosedError; the jobs go on."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        tickets = self.tickets
        reads = [entry.reading for entry in self._board.values() if entry.reading is not None]
        for entry in self._board.values():
            text = f"The client was closed while {entry.ticket} was waited for. The job goes on: take it up with client.job(ticket)."
            entry.fail(ClientClosedError(text, tickets=tickets))
        for read in reads:
            read.cancel()
        if reads:
            await asyncio.wait(reads)

    def take(self, entry: Entry, update: Update) -> None:
        """Fold news about a job in, from whatever source."""
        before = entry.update
        news = entry.take(update)
        if self._teller is not None and news and (before.state, before.progress) != (entry.update.state, entry.update.progress):
            self._teller.state_changed(entry.request_id, entry.update.state.value, entry.update.progress)
        if entry.update.finished:
            entry.due = inf

    def _poll(self, entry: Entry) -> float | None:
        asked = entry.poll()
        return self._settings.poll if asked is None else asked

    def _due(self, entry: Entry, now: float) -> float:
        """Say when to read a job next."""
        if not entry.wants_reads or entry.update.finished:
            return inf
        if entry.owed:
            return now
        if (poll := self._poll(entry)) is not None:
            return now + poll
        if self._push_up_since < inf and not entry.missed:
            return max(self._due_silent(entry), now)
        # So many failures end a wait: they must not all fall into one short outage.
        outage = 0.0 if entry.failures < OUTAGE_FAILURES else min(2.0 ** (entry.failures - OUTAGE_FAILURES), LONGEST)
        durations = None if entry.submitted_at is None else self._kinds.get(entry.kind)
        chance = random.random()  # noqa: S311  jitter, no secret
        return now + outage + next_wait(durations, entry.age(now), first=not entry.reads, budget=self._budget(), chance=chance)

    def _due_silent(self, entry: Entry) -> float:
        """Say when to read a job of which push tells nothing more."""
        return entry.seen_at + silence(len(self._board), self._budget())

    def _plan_next(self, entry: Entry, now: float) -> None:
        """Plan a job's next read."""
        try:
            due = self._due(entry, now)
        except Exception as bug:  # noqa: BLE001  whatever it is, it mustn't leave a wait without reads
            self._give_up(bug, entry)
        else:
            self._plan(entry, due)

    def _plan(self, entry: Entry, due: float) -> None:
        """Note when a job is read next; an earlier plan that stands is kept."""
        if self._turns.plan(entry, due) or self._timer is None:
            self._arm()

    def _arm(self) -> None:
        """Set the timer for the next turn."""
        if self._closed or self._reading >= self._most_reads:
            return
        try:
            at = self._turns.at(self._loop.time(), self._budget())
        except Exception as bug:  # noqa: BLE001  as above
            self._give_up(bug, *self._board.values())
            return
        if self._timer is not None:
            if at >= self._timer_at:
                return
            self._timer.cancel()
            self._timer = None
        if at < inf:
            self._timer_at = at
            # In a context of its own: else reads would run in that of whoever set the timer, and traces of them with it.
            self._timer = self._loop.call_at(at, self._tick, context=self._context)

    def _tick(self) -> None:
        """Start the reads whose turn it is, and set the timer for the next."""
        self._timer, self._timer_at = None, inf
        try:
            self._start_due()
        except Exception as bug:  # noqa: BLE001  as above
            self._give_up(bug, *self._board.values())
        self._arm()

    def _start_due(self) -> None:
        now, budget = self._loop.time(), self._budget()
        while self._reading < self._most_reads and (entry := self._turns.peek(now, budget)) is not None:
            if self._push_up_since < inf and not (entry.owed or entry.missed) and self._poll(entry) is None:
                # There may be news of it since it was planned.
                due = self._due_silent(entry)
                if due > now:
                    self._turns.put_off(entry, due)
                    continue
            self._turns.take(entry, now, budget)
            self._start(entry)

    def _start(self, entry: Entry) -> None:
        self._reading += 1
        self.reads += 1
        entry.reads += 1
        entry.owed, entry.missed = False, True
        entry.reading = self._loop.create_task(self._read(entry))
        # Not in the task's own finally: one that is cancelled before its first step never gets there.
        entry.reading.add_done_callback(partial(self._end_read, entry), context=self._context)

    async def _read(self, entry: Entry) -> None:
        """Read one job once, and take the news."""
        began = self._loop.time()
        try:
            update = await self._read_status(entry.request_id)
        except DryAPIError as error:
            if self._teller is not None:
                self._teller.polled(entry.request_id, None)
            self._take_failure(entry, error)
        else:
            entry.failures, entry.missed = 0, False
            self._learn(entry, update, alive=entry.seen_at, seen=began)
            if self._teller is not None:
                self._teller.polled(entry.request_id, update.state.value)
            self.take(entry, update)

    def _end_read(self, entry: Entry, read: asyncio.Task[None]) -> None:
        entry.reading = None
        self._reading -= 1
        bug = None if read.cancelled() else read.exception()
        if bug is not None:
            self._give_up(bug, entry)
        elif entry.waiters:
            self._plan_next(entry, self._loop.time())
        self._arm()

    def _give_up(self, bug: BaseException, *entries: Entry) -> None:
        """End the waits for jobs that can't be read on: what a callback raises is logged at most, and they would wait for nothing."""
        for entry in entries:
            entry.due = inf
            error = PollingFailedError(
                f"Job {entry.ticket} can't be followed any further, which is a fault of this library: {type(bug).__name__}: {bug}. "
                "The job goes on and is paid for: wait for it again, by its ticket.",
                request_id=entry.request_id,
                ticket=entry.ticket,
                failures=entry.failures,
                cause=f"{type(bug).__name__}: {bug}",
            )
            error.__cause__ = bug
            entry.fail(error)

    def _learn(self, entry: Entry, update: Update, *, alive: float, seen: float) -> None:
        """Learn how long jobs of its kind take from one that had ended at ``seen``, not before ``alive``; or that it hadn't ended then."""
        if entry.update.finished:
            return
        if not update.finished:
            entry.seen_at = max(entry.seen_at, seen)
        elif entry.submitted_at is not None:
            if entry.kind not in self._kinds:
                while len(self._kinds) >= MOST_KINDS:
                    del self._kinds[next(iter(self._kinds))]
                self._kinds[entry.kind] = Durations()
            self._kinds[entry.kind].learn(entry.age(alive), entry.age(seen))

    def _take_failure(self, entry: Entry, error: DryAPIError) -> None:
        """Decide what a failed read means: nothing by itself, unless reading is refused for good or failed too often."""
        now = self._loop.time()
        if isinstance(error, RateLimitError):
            self._slow_down(error, now)
        elif isinstance(error, AuthenticationError | PermissionDeniedError):
            entry.fail(error)
        elif isinstance(error, NotFoundError):
            if entry.submitted_at is None or now - entry.submitted_at >= NOT_FOUND_GRACE:
                entry.fail(error)
        elif isinstance(error, TransportError | StatusError):
            entry.failures += 1
            if entry.failures >= self._settings.retry.polls:
                entry.fail(
                    PollingFailedError(
                        f"{entry.failures} status reads of job {entry.ticket} failed in a row, the last with: {error} "
                        "The job goes on and is paid for: wait for it again later, by its ticket.",
                        request_id=entry.request_id,
                        ticket=entry.ticket,
                        failures=entry.failures,
                        cause=str(error),
                    )
                )
        else:
            entry.fail(error)

    def _slow_down(self, error: RateLimitError, now: float) -> None:
        """Hold all reads back for as long as a 429 asks; whose deadline is before that learns it at once where it is the day's."""
        seconds = MINUTE_WINDOW if error.retry_after is None else error.retry_after
        if error.kind == "daily" and error.resets_at is not None:
            seconds = max(seconds, error.resets_at - time.time()) if error.retry_after is None else seconds
        jitter = random.random() * (0.25 + seconds / 10)  # noqa: S311  jitter, no secret
        self._turns.not_before = max(self._turns.not_before, now + seconds + jitter)
        if self._teller is not None:
            self._teller.rate_limited(STATUS_LANE, seconds)
        if error.kind == "daily":
            self._day_over, self._day_over_until = error, now + seconds
            for entry in self._board.values():
                self._end_hopeless(entry, now)

    def _end_hopeless(self, entry: Entry, now: float) -> None:
        """End the waits that the day's used-up reads can't serve before their deadline, where nothing else would bring news."""
        if self._day_over is None or now >= self._day_over_until or self._push_up_since < inf or self._settings.webhook_secrets:
            return
        for waiter in entry.waiters:
            if waiter.deadline < self._day_over_until:
                # Each its own, with its ticket: a raised error collects the traceback of who raised it.
                error = copy(self._day_over)
                error.ticket = entry.ticket
                waiter.fail(error)


def _no_limit() -> Budget:
    return NO_LIMIT
