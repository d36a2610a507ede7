"""One watcher per client: reads the jobs that are waited for, when the cadence says, and wakes who waits."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from heapq import heappop, heappush
from math import inf
from typing import Final

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
from dryapi_async.events import Event, Polled, RateLimited, StateChanged
from dryapi_async.protocol.cadence import LONGEST, next_interval
from dryapi_async.protocol.endpoint import STATUS_LANE
from dryapi_async.protocol.retry import MINUTE_WINDOW
from dryapi_async.protocol.status import Update
from dryapi_async.tracking.board import Entry, Poll, Waiter

NOT_FOUND_GRACE: Final = 10.0
"""Seconds after a submit in which a 404 means "not yet": the service's own replicas may lag."""
SAFETY_SECONDS: Final = 30.0
"""While push is healthy a silent job is left unread no longer than this, unless there are too many of them."""
READS_A_SECOND: Final = 0.4
"""Half of what the smallest known budget has (50 a minute): all silent jobs share it."""
OUTAGE_FAILURES: Final = 3
"""From so many failed reads in a row on a job is left alone for longer and longer."""
MOST_READS: Final = 32
"""Reads on the wire at once: more wouldn't be faster under any tier's limit, and transfers need connections, too."""


class Watcher:
    """Follows jobs while somebody waits for them. It has no task of its own: a timer starts the reads that are due."""

    def __init__(self, settings: Settings, read_status: Callable[[str], Awaitable[Update]], tell: Callable[[Event], None]) -> None:
        self._settings = settings
        self._read_status = read_status
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._board: dict[str, Entry] = {}
        self._due: list[tuple[float, int, Entry]] = []
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._reading = 0
        self._most_reads = min(MOST_READS, max(settings.pool_size // 2, 1))
        self._not_before = 0.0
        self._pushed = False
        self._closed = False

    @property
    def tickets(self) -> tuple[str, ...]:
        """The tickets of the jobs that are waited for."""
        return tuple(entry.ticket for entry in self._board.values())

    def join(self, request_id: str, ticket: str, *, submitted_at: float | None, known: Update, poll: Poll, deadline: float) -> Waiter:
        """Wait for a job: it is read from now on, until its last waiter leaves."""
        if self._closed:
            raise ClientClosedError(f"The client is closed. Take the job up again with client.job({ticket!r}).", tickets=(ticket,))
        now = self._loop.time()
        entry = self._board.get(request_id)
        if entry is None:
            entry = Entry(request_id=request_id, ticket=ticket, submitted_at=submitted_at, joined_at=now)
            self._board[request_id] = entry
        if known.source != "submit":
            entry.take(known)
        waiter = Waiter(entry, poll=poll, deadline=deadline)
        entry.waiters.add(waiter)
        if entry.reading is None:
            # A job of an older life may be done already: look at once.
            interval = self._interval(entry, now)
            self._plan(entry, now + interval if entry.submitted_at is not None or interval == inf else now)
        return waiter

    def hear(self, request_id: str, update: Update) -> bool:
        """Take news that came by push or webhook; False where nobody waits for that job."""
        entry = self._board.get(request_id)
        if entry is None:
            return False
        self.take(entry, update)
        if not entry.update.finished and entry.reading is None:
            entry.due = inf
            now = self._loop.time()
            self._plan(entry, now + self._interval(entry, now))
        return True

    def push_is_up(self) -> None:
        """Read every pending job once, for nothing is replayed; from then on only those that stay silent, slowly."""
        self._pushed = True
        now, spread = self._loop.time(), len(self._board) / READS_A_SECOND
        for entry in self._board.values():
            if entry.reading is None and entry.wants_reads:
                self._plan(entry, now + spread * random.random())  # noqa: S311  jitter, no secret

    def push_is_down(self) -> None:
        """Read as often as without push again."""
        if not self._pushed:
            return
        self._pushed = False
        now = self._loop.time()
        for entry in self._board.values():
            if entry.reading is None:
                self._plan(entry, now + self._interval(entry, now))

    def leave(self, waiter: Waiter) -> None:
        """End a wait; with the last one the job is forgotten and a read that is out is cut."""
        entry = waiter.entry
        entry.waiters.discard(waiter)
        if not entry.waiters and self._board.get(entry.request_id) is entry:
            del self._board[entry.request_id]
            entry.due = inf
            if entry.reading is not None:
                entry.reading.cancel()

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

    def _interval(self, entry: Entry, now: float) -> float:
        """Say how long a job is left unread from now."""
        if not entry.wants_reads:
            return inf
        asked = entry.poll()
        poll = self._settings.poll if asked is None else asked
        if poll is None and self._pushed:
            # Push never tells a failure: a silent job is read, though seldom.
            return max(SAFETY_SECONDS, len(self._board) / READS_A_SECOND)
        # So many failures end a wait: they must not all fall into one short outage.
        outage = 0.0 if poll is not None or entry.failures < OUTAGE_FAILURES else min(2.0 ** (entry.failures - OUTAGE_FAILURES), LONGEST)
        return outage + next_interval(entry.age(now), poll=poll, chance=random.random())  # noqa: S311  jitter, no secret

    def _plan(self, entry: Entry, due: float) -> None:
        """Note when a job is read next; an earlier plan that stands is kept."""
        if entry.due <= due:
            return
        entry.due = due
        self._count += 1
        heappush(self._due, (due, self._count, entry))
        self._arm()

    def _arm(self) -> None:
        """Set the timer for the next job that is due."""
        if self._closed or not self._due or self._reading >= self._most_reads:
            return
        at = max(self._due[0][0], self._not_before)
        if self._timer is not None:
            if at >= self._timer_at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        """Start the reads that are due."""
        self._timer, self._timer_at = None, inf
        now = self._loop.time()
        while self._due and self._reading < self._most_reads and now >= self._not_before:
            due, _, entry = self._due[0]
            if due > now:
                break
            heappop(self._due)
            if due == entry.due and entry.reading is None and entry.waiters:
                entry.due = inf
                self._reading += 1
                entry.reading = self._loop.create_task(self._read(entry))
                # Not in the task's own finally: one that is cancelled before its first step never gets there.
                entry.reading.add_done_callback(partial(self._end_read, entry))
        self._arm()

    async def _read(self, entry: Entry) -> None:
        """Read one job once, take the news, and plan its next read."""
        entry.reads += 1
        try:
            update = await self._read_status(entry.request_id)
        except DryAPIError as error:
            self._tell(Polled(request_id=entry.request_id, state=None))
            self._take_failure(entry, error)
        else:
            entry.failures = 0
            self._tell(Polled(request_id=entry.request_id, state=update.state.value))
            self.take(entry, update)

    def _end_read(self, entry: Entry, _: asyncio.Task[None]) -> None:
        entry.reading = None
        self._reading -= 1
        if entry.waiters and not entry.update.finished:
            now = self._loop.time()
            self._plan(entry, now + self._interval(entry, now))
        self._arm()

    def take(self, entry: Entry, update: Update) -> None:
        """Fold news about a job in, from whatever source."""
        before = entry.update
        if entry.take(update) and (before.state, before.progress) != (entry.update.state, entry.update.progress):
            self._tell(StateChanged(request_id=entry.request_id, state=entry.update.state.value, progress=entry.update.progress))

    def _take_failure(self, entry: Entry, error: DryAPIError) -> None:
        """Decide what a failed read means: nothing by itself, unless reading is refused for good or failed too often."""
        now = self._loop.time()
        if isinstance(error, RateLimitError):
            self._slow_down(entry, error, now)
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

    def _slow_down(self, entry: Entry, error: RateLimitError, now: float) -> None:
        """Hold all reads back for as long as a 429 asks; whose deadline is before that learns it at once where it is the day's."""
        seconds = MINUTE_WINDOW if error.retry_after is None else error.retry_after
        if error.kind == "daily" and error.resets_at is not None:
            seconds = max(seconds, error.resets_at - time.time()) if error.retry_after is None else seconds
        jitter = random.random() * (0.25 + seconds / 10)  # noqa: S311  jitter, no secret
        self._not_before = max(self._not_before, now + seconds + jitter)
        self._tell(RateLimited(lane=STATUS_LANE, seconds=seconds))
        if error.kind == "daily":
            error.ticket = entry.ticket
            for waiter in entry.waiters:
                if waiter.deadline < now + seconds:
                    waiter.fail(error)
