"""Which job to read next, and when: on a budget, and by the durations that were learned. Pure: times and chances come from outside."""

from array import array
from bisect import bisect
from collections.abc import Iterable
from heapq import heapify, heappop, heappush, heapreplace
from math import inf, sqrt
from typing import Final, Generic, Protocol, TypeVar

from attrs import frozen

from dryapi_async.protocol.lanes import DayWindow, Lane

SHORTEST: Final = 0.5
"""Seconds: no job is read more often unless the user says so."""
LONGEST: Final = 15.0
"""Seconds: no job that is waited for is left unread longer, but for a 429, push, or a budget that is spared."""
SHARE: Final = 0.25
"""Intervals in proportion to a job's age: a quarter matches a fixed second for short jobs and scales to minutes."""

SITTING: Final = 0.08
"""Seconds that a job may be expected to have sat finished and unread, where reads have a budget of their own."""
SITTING_SHARE: Final = 0.0125
"""The same as a share of the job's age, for long ones."""
SITTING_SPARED: Final = 5.0
"""The same where submits wait for the very requests that reads cost: jobs a minute are bought with delay, and this is the price's cap."""
DAY_SHARE: Final = 0.01
"""The same on a day's budget, as a share of the gap between reads that are spread over what is left of the day."""
DAY_FREE: Final = 0.25
"""The part of a day's budget that is spent before sparing is in full force: one job alone is read as if there were no day's limit."""
LONGEST_SPARED: Final = 120.0
"""Seconds: the most that sparing a day's budget lets a job sit, so that no wait stalls."""
LONGEST_UNREAD: Final = 900.0
"""Seconds: however much is spared, no job that is waited for is left unread longer."""
KNOWN_ENDS: Final = 8
"""So many jobs of a kind must have ended before their durations say when to read; until then it is in proportion to the age."""
SCOUTS: Final = 0.05
"""The part of jobs whose first read comes early at random: else a kind that became faster would never be noticed."""
SILENCE: Final = 30.0
"""Seconds: while push is up a job of which nothing is heard is read this seldom, for failures aren't pushed."""
BURST_SHARE: Final = 1 / 8
"""The part of a window that may be read at once after a pause; under pressure the rest is spread evenly over the window."""


@frozen(kw_only=True)
class Budget:
    """What a lane has for reads now: its tightest window, and its day where it has one."""

    limit: float = inf
    """Requests in any ``seconds``."""
    seconds: float = 60.0
    free: float = inf
    """How many of them are left now."""
    frees_in: float = 0.0
    """Seconds until the oldest that was used is free again."""
    waiting: int = 0
    """Submits and other calls that wait for the same requests; 0 where reads have a budget of their own."""
    day_limit: float = inf
    """The day's reads, known or guessed."""
    day_left: float = inf
    day_seconds: float = inf
    """Seconds until the day starts anew."""

    @property
    def gap(self) -> float:
        """Seconds between reads that are spread evenly, so that what is left lasts until the oldest is free again."""
        if self.limit == inf:
            return 0.0
        # At least a place is waited for at full pace: the lane itself says when there is none.
        return max(self.seconds / self.limit, self.frees_in / (self.free + 1) if self.free >= 1 else 0.0)

    @property
    def burst(self) -> int:
        """How many reads may go at once after a pause."""
        return 1 if self.limit == inf else max(int(self.limit * BURST_SHARE), 1)


NO_LIMIT: Final = Budget()


def read_budget(lane: Lane, now: float, *, shared: bool, waiting: int) -> Budget:
    """Say what a lane has left; ``shared`` is whether other lanes take from the same pot, ``waiting`` how many of their calls wait."""
    minutes = [window for window in lane.windows if not isinstance(window, DayWindow)]
    days = [window for window in lane.windows if isinstance(window, DayWindow)]
    tightest = max(minutes, key=lambda window: window.seconds / window.limit, default=None)
    day = min(days, key=lambda window: window.limit, default=None)
    for window in (tightest, day):
        if window is not None:
            window.wait(now)  # it lets go of what is free again by now
    return Budget(
        limit=inf if tightest is None else tightest.limit,
        seconds=60.0 if tightest is None else tightest.seconds,
        free=inf if tightest is None else tightest.limit - tightest.out - len(tightest.held),
        # What others leave of a pot says nothing of how fast reads may go: they have the first turn in it.
        frees_in=tightest.held[0] - now if tightest is not None and tightest.held and not shared else 0.0,
        waiting=waiting if shared else 0,
        day_limit=inf if day is None else day.limit,
        day_left=inf if day is None else day.limit - day.out - len(day.held),
        day_seconds=inf if day is None else day.midnight - now,
    )


def next_interval(age: float, *, poll: float | None, chance: float) -> float:
    """Say how many seconds to leave a job unread that is ``age`` seconds old, where nothing is known of its kind.

    ``poll`` is the user's own interval and wins; else a share of the age with a tenth of jitter, so that jobs submitted together aren't
    read together. ``chance`` is a random number in [0, 1).
    """
    if poll is not None:
        return poll
    return min(max(age * SHARE, SHORTEST), LONGEST) * _jitter(chance)


def _jitter(chance: float) -> float:
    return 0.9 + 0.2 * chance


def spared(budget: Budget) -> float:
    """Say how long a job may sit finished and unread for the budget's sake, in expected seconds; 0 is as short as can be."""
    sitting = SITTING_SPARED if budget.waiting else 0.0
    if budget.day_limit < inf:
        used = 1 - max(budget.day_left, 0.0) / budget.day_limit
        gap = budget.day_seconds / max(budget.day_left, 1.0)
        sitting = max(sitting, min(gap * DAY_SHARE * min(used / DAY_FREE, 1.0), LONGEST_SPARED))
    return sitting


def silence(jobs: int, budget: Budget) -> float:
    """Say how many seconds a job of which push tells nothing is left unread: half of the lane's reads are for such ones, at most."""
    return max(SILENCE, jobs * 2 * budget.seconds / budget.limit, spared(budget))


_RATIO: Final = 2**0.25
_EDGES: Final = tuple(0.25 * _RATIO**step for step in range(77))
"""Upper edges of the spans in which durations are counted, in seconds: four to each doubling, up to a day and a half."""
_PRIOR_RISK: Final = 1 - 1 / _RATIO
"""Where nothing is known a job ends within the time it has lived so far with a probability of one half, whatever its age."""
_PRIOR_WEIGHT: Final = 0.3
"""In jobs: what was seen outweighs the guess from the first job on."""
_MOST_SEEN: Final = 200.0
"""Jobs seen in a span: beyond that the old ones count half, so that what changed is learned."""


class Durations:
    """How long jobs of one kind take: for each span of ages, how many were seen alive in it and how many of these ended.

    Jobs that are still unfinished are evidence, too: left out, the first to end would make all look short. Memory is 1.3 KB, for ever.
    """

    __slots__ = ("_alive", "_ended", "ends")

    def __init__(self) -> None:
        self._alive = array("d", [_PRIOR_WEIGHT]) * len(_EDGES)
        self._ended = array("d", [_PRIOR_WEIGHT * _PRIOR_RISK]) * len(_EDGES)
        self.ends: int = 0
        """Jobs that were seen to end."""

    def learn(self, earlier: float, later: float, *, ended: bool) -> None:
        """Note that a job was unfinished at the age of ``earlier`` seconds, and at ``later`` had ended or not.

        Where in between it ended isn't known: the span is shared out by what was learned before.
        """
        parts: list[tuple[int, float, float]] = []
        alive, at = 1.0, earlier
        for span in range(bisect(_EDGES, earlier), len(_EDGES)):
            if at >= later:
                break
            low, high = _bounds(span)
            part = (min(high, later) - at) / (high - low)
            ends = alive * self._risk(span) * part
            parts.append((span, part, ends))
            alive, at = alive - ends, min(high, later)
        self._count(parts, 1 - alive, ended=ended)
        self.ends += ended

    def _count(self, parts: list[tuple[int, float, float]], total: float, *, ended: bool) -> None:
        left = 1.0
        for span, part, ends in parts:
            share = ends / total if ended else 0.0
            self._ended[span] += share
            self._alive[span] += max(part * left, share)
            left -= share
            if self._alive[span] > _MOST_SEEN:
                self._alive[span] /= 2
                self._ended[span] /= 2

    def _risk(self, span: int) -> float:
        return self._ended[span] / self._alive[span]

    def due(self, age: float, sitting: float) -> float:
        """Say at what age a job, unfinished at ``age``, is expected to have sat finished for ``sitting`` seconds.

        That is the t where the integral from ``age`` to t of (F(s) - F(age)) / (1 - F(age)) ds reaches it; F is what was learned.
        """
        at, alive, sat = age, 1.0, 0.0
        for span in range(bisect(_EDGES, age), len(_EDGES)):
            low, high = _bounds(span)
            width = high - at
            ends = alive * self._risk(span) * width / (high - low)
            more = width * (1 - alive + ends / 2)
            if sat + more >= sitting:
                # The share that has ended grows evenly in the span: a quadratic.
                slope, base, need = ends / width, 1 - alive, sitting - sat
                return at + (2 * need / (base + sqrt(base * base + 2 * slope * need)) if need else 0.0)
            at, alive, sat = high, alive - ends, sat + more
        return at + sitting


def _bounds(span: int) -> tuple[float, float]:
    return (_EDGES[span - 1] if span else 0.0), _EDGES[span]


UNKNOWN: Final = Durations()
"""Where nothing was learned; never written to."""


def next_read(durations: Durations, age: float, *, budget: Budget, chance: float) -> float:
    """Say at what age to read a job again that was last seen unfinished at ``age``, 0 where it never was.

    On a budget of its own it is read before it is expected to have sat finished for long; where nothing is known, in proportion to its age.
    On a budget that is spared it is read when it is expected to have sat for as long as `spared` says. ``chance`` is a random number in
    [0, 1), drawn once for each read, so that the answer stays while nothing is learned.
    """
    patience = spared(budget)
    known = durations.ends >= KNOWN_ENDS
    if patience <= SITTING and not known:
        return age + next_interval(age, poll=None, chance=chance)
    due = durations.due(age, max(patience, SITTING, SITTING_SHARE * age))
    if known and age <= 0 and chance < SCOUTS:
        due *= chance / SCOUTS
    longest = LONGEST * _jitter(chance) if patience <= SITTING else LONGEST_UNREAD
    return age + min(max(due - age, SHORTEST), longest)


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
        gap, ahead = budget.gap, (budget.burst - 1) * budget.gap
        # The budget may have been another when the last read was made.
        return min(self._next, now + ahead + gap) - ahead - gap * 1e-9 if gap else -inf

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
        # A virtual schedule with a gap between reads: a burst may run ahead of it, and never makes up for what was waited for.
        self._next = max(self._next, now) + budget.gap
