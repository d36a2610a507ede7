"""Which job to read next, and when: on a budget, and by how long jobs of its kind took. Pure: times and chances come from outside."""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush, heapreplace
from math import inf
from typing import Final, Generic, Protocol, TypeVar

from attrs import define, frozen

from dryapi_async.protocol.lanes import DayWindow, Lane
from dryapi_async.values import Value

SHORTEST: Final = 0.5
"""Seconds: no job is read more often unless the user says so."""
LONGEST: Final = 15.0
"""Seconds: no job that is waited for is left unread longer once its first read is due, but for a 429, push, or a day's budget."""
SHARE: Final = 0.25
"""Intervals in proportion to a job's age: a quarter matches a fixed second for short jobs and scales to minutes."""
FIRST: Final = 0.6
"""The part of its kind's mean duration after which a job is looked at first."""
LONGEST_FIRST: Final = 600.0
"""Seconds: nor is the first look later than that, whatever the mean."""
LATER: Final = 0.1
"""Intervals from then on, as a share of the age: closer, for it may end at any moment."""
KNOWN_ENDS: Final = 8
"""So many jobs of a kind must have ended before their mean says when to look."""
REMEMBERED: Final = 20
"""About so many ends make the mean: a kind that became faster or slower is noticed within as many."""
DAY_SHARE: Final = 0.06
"""How long a job may sit finished for the sake of a day's budget, as a share of the gap between reads spread over what is ahead."""
DAY_FREE: Final = 0.2
"""The part of a day's budget that is spent before sparing is in full force: one job alone is read as if there were no day's limit."""
DAY_AHEAD: Final = 9 * 3600.0
"""Seconds: late in the day sparing looks as far ahead all the same, or a hundred jobs in its last hours would use up all the reads..."""
MOST_AHEAD: Final = 6.0
"""...but no more than so many times what is left of the day: its last reads may be used."""
LONGEST_SPARED: Final = 120.0
"""Seconds: the most that sparing a day's budget makes of an interval, so that no wait stalls."""
SILENCE: Final = 30.0
"""Seconds: while push is up a job of which nothing is heard is read this seldom, for failures aren't pushed."""
BURST_SHARE: Final = 1 / 8
"""The part of a window that may be read at once after a pause; under pressure the rest is spread evenly over the window."""
POT_SHARE: Final = 0.6
"""The part of a shared pot that reads take at the most while submits wait: it sets how many jobs a minute are had, at what delay."""


@frozen(kw_only=True, eq=False, repr=False)
class Budget(Value):
    """What a lane has for reads now: its tightest window, and its day where it has one."""

    limit: float = inf
    """Requests in any ``seconds``."""
    seconds: float = 60.0
    free: float = inf
    """How many of them are left now."""
    frees_in: float = 0.0
    """Seconds until the oldest that was used is free again."""
    shared: bool = False
    """Whether submits and other calls take from the same requests."""
    waiting: int = 0
    """How many of these wait; 0 where reads have a budget of their own."""
    day_limit: float = inf
    """The day's reads, known or guessed."""
    day_left: float = inf
    day_seconds: float = inf
    """Seconds until the day starts anew."""

    @property
    def even(self) -> float:
        """Seconds between reads that are spread evenly over the window."""
        return self.seconds / max(self.limit, 1.0)

    @property
    def gap(self) -> float:
        """Seconds from a read that is made now to the next, so that what is left lasts until the oldest is free again."""
        if self.shared:
            # Reads have the first turn in a pot: this keeps a crowd of them from shutting submits out.
            return self.even / POT_SHARE if self.waiting else self.even
        # Where no place is left the lane itself says when there is one.
        return max(self.even, self.frees_in / self.free if self.free >= 1 else 0.0)

    @property
    def burst(self) -> int:
        """How many reads may go at once after a pause."""
        if self.limit == inf:
            return 1
        return max(int(self.limit * BURST_SHARE), 1)


NO_LIMIT: Final = Budget()


def read_budget(lane: Lane, now: float, *, shared: bool, waiting: int) -> Budget:
    """Say what a lane has left; ``shared`` is whether other lanes take from the same pot, ``waiting`` how many of their calls wait."""
    if not lane.windows:
        return NO_LIMIT
    minutes = [window for window in lane.windows if not isinstance(window, DayWindow)]
    days = [window for window in lane.windows if isinstance(window, DayWindow)]
    tightest = max(minutes, key=lambda window: window.seconds / max(window.limit, 1.0), default=None)
    day = min(days, key=lambda window: window.limit, default=None)
    for window in (tightest, day):
        if window is not None:
            window.wait(now)  # it lets go of what is free again by now
    return Budget(
        limit=inf if tightest is None else tightest.limit,
        seconds=60.0 if tightest is None else tightest.free_at(now) - now,
        free=inf if tightest is None else tightest.free,
        frees_in=tightest.held[0] - now if tightest is not None and tightest.held else 0.0,
        shared=shared,
        waiting=waiting if shared else 0,
        day_limit=inf if day is None else day.limit,
        day_left=inf if day is None else day.free,
        day_seconds=inf if day is None else day.midnight - now,
    )


def _jitter(chance: float) -> float:
    return 0.9 + 0.2 * chance


@define(eq=False, repr=False)
class Durations:
    """How long jobs of one kind take: a running mean of their ages at the end."""

    mean: float = 0.0
    ends: int = 0

    def learn(self, earlier: float, later: float) -> None:
        """Note that a job was unfinished at one age and had ended at a later one: halfway between, for all that is known.

        A mean that is too long mends itself: a job that was found ended at its first look counts half of that.
        """
        self.ends += 1
        self.mean += ((earlier + later) / 2 - self.mean) / min(self.ends, REMEMBERED)


def spared(budget: Budget) -> float:
    """Say how many seconds the reads of a job lie apart at the least for the sake of a day's budget."""
    if budget.day_limit == inf:
        return 0.0
    used = max(1 - max(budget.day_left, 0.0) / max(budget.day_limit, 1.0), 0.0)
    ahead = max(budget.day_seconds, min(DAY_AHEAD, MOST_AHEAD * budget.day_seconds))
    gap = ahead / max(budget.day_left, 1.0)
    return min(gap * DAY_SHARE * min(used / DAY_FREE, 1.0), LONGEST_SPARED)


def silence(jobs: int, budget: Budget) -> float:
    """Say how many seconds a job of which push tells nothing is left unread: half of the lane's reads are for such ones, at most."""
    return max(SILENCE, jobs * 2 * budget.even, spared(budget))


def next_wait(durations: Durations | None, age: float, *, first: bool, budget: Budget, chance: float) -> float:
    """Say how many seconds to leave a job unread that is ``age`` seconds old; ``first`` is whether it never was looked at.

    A kind that is known is looked at first when a part of its mean duration is over, and then at close intervals; what isn't known in
    proportion to its age. ``chance`` is a random number in [0, 1).
    """
    known = durations is not None and durations.ends >= KNOWN_ENDS
    if first and known and durations is not None:
        return max(min(durations.mean * FIRST, LONGEST_FIRST) * _jitter(chance) - age, SHORTEST) + spared(budget)
    return max(min(max(age * (LATER if known else SHARE), SHORTEST), LONGEST) * _jitter(chance), spared(budget))


class HasDue(Protocol):
    """What can be planned: ``due`` is when it is read next, infinity is never."""

    due: float


T = TypeVar("T", bound=HasDue)


class Turns(Generic[T]):
    """Whose turn it is: what is due longest goes first, paced so that a window's reads are spread over it.

    Planning and taking cost the logarithm of the number of jobs; nothing is linear in them, but for a sweep after as many changes.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._count = 0
        self._next = -inf
        self.not_before: float = 0.0
        """Nobody's turn comes before this, whatever is due."""

    def __len__(self) -> int:
        """Count the plans, those that were changed since included."""
        return len(self._heap)

    def plan(self, item: T, due: float) -> bool:
        """Note when an item is read next, where that is earlier than its plan, and say whether it is the first of all now."""
        if item.due <= due:
            return False
        item.due = due
        self._count += 1
        heappush(self._heap, (due, self._count, item))
        return self._heap[0][2] is item

    def sweep(self, kept: int, items: Iterable[T]) -> None:
        """Forget plans that were changed, once they are many: ``kept`` is how many ``items`` there are."""
        if len(self._heap) > 2 * kept + 64:
            self._heap = [(item.due, count, item) for count, item in enumerate(items) if item.due < inf]
            self._count = len(self._heap)
            heapify(self._heap)

    def at(self, now: float, budget: Budget) -> float:
        """Say when it may be somebody's turn: infinity is never, as things are."""
        while self._heap and self._heap[0][0] != self._heap[0][2].due:
            heappop(self._heap)
        return max(self._heap[0][0], self._paced_until(now, budget), self.not_before) if self._heap else inf

    def _paced_until(self, now: float, budget: Budget) -> float:
        # The budget may have been a smaller one when the last read was made.
        return self._next if self._next <= now else min(self._next, now + budget.gap)

    def peek(self, now: float, budget: Budget) -> T | None:
        """Give the item whose turn it is, if it is anybody's."""
        return self._heap[0][2] if self.at(now, budget) <= now else None

    def put_off(self, item: T, due: float) -> None:
        """Plan the item whose turn it is for later: there was news of it."""
        item.due = due
        self._count += 1
        heapreplace(self._heap, (due, self._count, item))

    def take(self, item: T, now: float, budget: Budget) -> None:
        """Take the item whose turn it is off the plan, to be read now; the next turn comes when the budget allows."""
        heappop(self._heap)
        item.due = inf
        # Reads follow each other at the gap; after a pause as many as a burst has go at once, and nothing else is made up for.
        self._next = max(self._next, now - (budget.burst - 1) * budget.even) + budget.gap
