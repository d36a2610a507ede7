"""The jobs that somebody waits for, and what is known of each."""

import asyncio
from math import inf
from typing import Literal

from attrs import define, field

from dryapi_async.errors import DryAPIError
from dryapi_async.io.waits import Deadlines
from dryapi_async.protocol.status import SUBMITTED, Update, fold

Poll = float | Literal[False] | None
"""None is the client's cadence, a number seconds between reads, False no reads."""


@define(eq=False, repr=False)
class Entry:
    """One job, from its first waiter to its last."""

    request_id: str
    slug: str
    """The operation's."""
    kind: str
    """Jobs of one kind take about as long as each other."""
    submitted_at: float | None
    """Loop time, for jobs that this client made; None for those taken up by their ticket."""
    joined_at: float
    seen_at: float
    """Loop time at which the job was last known to be unfinished, from whatever source."""
    update: Update = SUBMITTED
    version: int = 0
    waiters: "list[Waiter]" = field(factory=list)  # pyright: ignore[reportUnknownVariableType]  list[Waiter]() takes seven times as long
    reads: int = 0
    failures: int = 0
    due: float = inf
    missed: bool = False
    """Whether the last read brought no news."""
    owed: bool = False
    """Whether push came up after the job was last looked at: what was told before isn't told again."""
    reading: asyncio.Task[None] | None = None

    @property
    def ticket(self) -> str:
        """The job's ticket; made when asked for, since a hundred thousand texts that nobody reads are ten megabytes."""
        return f"{self.slug}:{self.request_id}"

    @property
    def born_at(self) -> float:
        """Loop time at which the job was made, as far as is known here."""
        return self.joined_at if self.submitted_at is None else self.submitted_at

    def age(self, now: float) -> float:
        """How old the job is, in seconds, as far as is known here."""
        return now - self.born_at

    def poll(self) -> float | None:
        """The shortest interval that a waiter asks for, or None where all leave it to the client."""
        asked = [waiter.poll for waiter in self.waiters if waiter.poll is not None and waiter.poll is not False]
        return min(asked, default=None)

    @property
    def wants_reads(self) -> bool:
        """Whether any waiter wants it read: with ``poll=False`` its news comes by webhook alone."""
        return any(waiter.poll is not False for waiter in self.waiters)

    def take(self, update: Update) -> bool:
        """Fold news in, wake who waits, and say whether it was any."""
        known = fold(self.update, update)
        if known is self.update and self.version:
            return False
        self.update = known
        self.version += 1
        for waiter in self.waiters:
            waiter.wake()
        return True

    def fail(self, error: DryAPIError) -> None:
        """End every wait for this job with an error."""
        for waiter in self.waiters:
            waiter.fail(error)


class Waiter:
    """One wait for a job; it sees the newest state only, so a slow reader costs no memory."""

    __slots__ = ("_deadlines", "_error", "_future", "_seen", "deadline", "entry", "poll")

    def __init__(self, entry: Entry, deadlines: Deadlines, *, poll: Poll, deadline: float) -> None:
        self.entry: Entry = entry
        self._deadlines = deadlines
        self.poll: Poll = poll
        self.deadline: float = deadline
        self._seen = 0
        self._error: DryAPIError | None = None
        self._future: asyncio.Future[bool] | None = None

    def wake(self) -> None:
        """Let the wait look again."""
        if self._future is not None and not self._future.done():
            self._future.set_result(False)

    def fail(self, error: DryAPIError) -> None:
        """End the wait with an error."""
        self._error = error
        self.wake()

    async def next(self) -> Update:
        """Wait for news that this waiter hasn't seen.

        Raises:
            TimeoutError: The deadline passed.
            DryAPIError: What ended the wait.
        """
        loop, entry = asyncio.get_running_loop(), self.entry
        while entry.version <= self._seen:
            if self._error is not None:
                raise self._error
            self._future = loop.create_future()
            self._deadlines.add(self._future, self.deadline)
            try:
                expired = await self._future
            finally:
                self._future = None
                self._deadlines.remove()
            if expired:
                raise TimeoutError
        self._seen = entry.version
        return entry.update
