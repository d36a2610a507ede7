"""The account's limits as reservations: who may send now, who waits how long, and what the service's headers teach. ``now`` is given."""

from collections import deque
from collections.abc import Mapping
from math import floor, inf
from typing import Final, Literal

from attrs import define, field

from dryapi_async.config import DAY_SECONDS, Limits, Rate
from dryapi_async.protocol.endpoint import FREE_LANE
from dryapi_async.protocol.retry import MINUTE_WINDOW

MARGIN: Final = 0.01
"""Seconds added to each window: the service's clock and ours needn't agree on its very edge."""
MOST_DIGITS: Final = 12
"""A header with more is no count: Python refuses to read more than 4,300."""
_LIMIT: Final = "x-ratelimit-limit"
_REMAINING: Final = "x-ratelimit-remaining"
_DAY_LIMIT: Final = "x-ratelimit-daily-limit"
_DAY_REMAINING: Final = "x-ratelimit-daily-remaining"


@define(eq=False, repr=False)
class Window:
    """One limit: at most ``limit`` requests in any ``seconds``, however the service counts them.

    A grant is held from when it is given until its answer came plus the window. Wherever between the two the service counted the request,
    no window of its own, fixed or sliding, then has more than the limit.
    """

    limit: float
    seconds: float
    guess: float | None = None
    """The limit where it is a guess, which the service's headers replace; None where the user said it or the headers taught it."""
    out: int = 0
    """Grants whose answers haven't come."""
    held: deque[float] = field(factory=deque[float])
    """When each answered grant is free again, in order."""
    closed_until: float = -inf
    """Nothing is free before, however high the limit is; of no use to a day's window."""

    @property
    def free(self) -> float:
        """How many grants are left now; fewer than none where a smaller limit was learned after they went out."""
        return self.limit - self.out - len(self.held)

    def wait(self, now: float) -> float:
        """Say how many seconds until there is room: 0 is now, infinity is after an answer that isn't here yet."""
        while self.held and self.held[0] <= now:
            self.held.popleft()
        if now < self.closed_until:
            return self.closed_until - now
        if self.free >= 1:
            return 0.0
        needed = floor(1 - self.free)
        return self.held[needed - 1] - now if needed <= len(self.held) else inf

    def settle(self, now: float) -> None:
        """Hold a grant whose answer came for one more window."""
        self.out -= 1
        self.held.append(self.free_at(now))

    def free_at(self, now: float) -> float:
        """Say when a grant whose answer came now is free again."""
        return now + self.seconds + MARGIN

    @property
    def blocks(self) -> bool:
        """Whether it holds requests back."""
        return True


@define(eq=False, repr=False)
class DayWindow(Window):
    """A day's limit: it starts anew at midnight UTC. ``midnight`` is the next one, on the same clock as ``now``."""

    midnight: float = inf
    others: float = 0.0
    """How many of the day's requests others took, by what the service said."""

    @property
    def free(self) -> float:
        """How many grants are left now."""
        return self.limit - self.out - len(self.held) - self.others

    def wait(self, now: float) -> float:
        """Say how many seconds until there is room."""
        if now >= self.midnight:
            self.held.clear()
            self.others = 0.0
            self.midnight += DAY_SECONDS * (1 + floor((now - self.midnight) / DAY_SECONDS))
        return 0.0 if self.free >= 1 else self.midnight - now

    def free_at(self, now: float) -> float:  # noqa: ARG002  as every window's
        """Say when a grant is free again: at midnight."""
        return self.midnight

    @property
    def blocks(self) -> bool:
        """Whether it holds requests back: a guess about a day mustn't stop anybody for hours."""
        return self.guess is None

    def left(self, now: float) -> float:
        """Say how many requests the day still has."""
        return self.free if self.wait(now) == 0 else 0.0


LimitKind = Literal["minute", "daily"]


class Lane:
    """What the service counts together. Not before ``not_before`` anything is sent, whatever the windows say."""

    def __init__(self, name: str, windows: tuple[Window, ...], *, learns: bool) -> None:
        self.name: str = name
        self.windows: tuple[Window, ...] = windows
        self.learns: bool = learns
        self.not_before: float = 0.0
        self.day_over_until: float | None = None
        """When the day's limit that the service or the user set starts anew, where it is used up."""

    def reserve(self, now: float) -> float:
        """Take a place if there is one: 0.0. Else say how many seconds to wait before asking again; infinity waits for an answer."""
        wait = self.wait(now)
        if wait > 0:
            return wait
        for window in self.windows:
            window.out += 1
        return 0.0

    def wait(self, now: float, ahead: int = 0) -> float:
        """Say how many seconds until there is a place, with so many others ``ahead``: a guess where they span several windows."""
        wait = self.not_before - now if self.not_before > now else 0.0
        for window in self.windows:
            if window.blocks:
                wait = max(wait, window.wait(now))
        if not ahead:
            return wait
        return wait + max((ahead // max(one.limit, 1) * one.seconds for one in self.windows if one.seconds != DAY_SECONDS), default=0.0)

    def give_back(self) -> None:
        """Return a place that nothing was sent with."""
        for window in self.windows:
            window.out -= 1

    def settle(self, now: float) -> None:
        """Note that the answer to a request came, or that none will."""
        for window in self.windows:
            window.settle(now)

    def is_overdrawn(self, now: float) -> bool:
        """Say whether places went out that shouldn't be used any more: a 429 or a learned limit came after them."""
        return self.not_before > now or any(one.blocks and one.free < 0 for one in self.windows)

    def day_over(self, now: float, ahead: int = 0) -> float | None:
        """Say when the day's limit starts anew, where it is used up (by those ``ahead``, too) and no guess; else None."""
        if self.day_over_until is not None and now < self.day_over_until:
            return self.day_over_until
        self.day_over_until = None
        for window in self.windows:
            if isinstance(window, DayWindow) and window.blocks and window.left(now) < ahead + 1:
                return window.midnight
        return None

    def learn(self, headers: Mapping[str, str], now: float) -> None:
        """Learn from an answer that wasn't a 429. Headers carry no window, so they replace guesses only."""
        limit, remaining = _read_counts(headers, _LIMIT, _REMAINING)
        day_limit, day_remaining = _read_counts(headers, _DAY_LIMIT, _DAY_REMAINING)
        minutes = [window for window in self.windows if not isinstance(window, DayWindow)]
        days = [window for window in self.windows if isinstance(window, DayWindow)]
        if self.learns:
            if headers.keys().isdisjoint((_LIMIT, _REMAINING, _DAY_LIMIT, _DAY_REMAINING)):
                self._lift()
            for window, said in (*((one, limit) for one in minutes), *((one, day_limit) for one in days)):
                if said is not None:
                    window.limit, window.guess = said, None
        for window in minutes:
            if remaining == 0 and window.wait(now) <= 0:
                # Somebody else uses this account, too: when their requests are free again isn't known here.
                self.not_before = max(self.not_before, now + window.seconds)
        for day in days:
            if self.learns and day.guess is None and day_remaining is not None and day.left(now) > day_remaining:
                # What others took of the same account's day.
                day.others += floor(day.left(now) - day_remaining)
            elif day_remaining == 0:
                self.day_over_until = day.midnight

    def _lift(self) -> None:
        """Take guesses away: an answer without any header says that nothing is limited here, until a 429 says otherwise."""
        for window in self.windows:
            if window.guess is not None:
                window.limit = inf

    def refuse(self, now: float, retry_after: float | None, kind: LimitKind) -> None:
        """Hold everyone in the lane back after a 429; a guess that was lifted counts again."""
        for window in self.windows:
            if window.guess is not None and window.limit == inf:
                window.limit = window.guess
        seconds = MINUTE_WINDOW if retry_after is None else retry_after
        self.not_before = max(self.not_before, now + seconds)
        if kind == "daily":
            self.day_over_until = max(self.day_over_until or 0.0, now + seconds)


def _read_count(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name, "").strip()
    return int(text) if text.isdecimal() and len(text) <= MOST_DIGITS else None


def _read_counts(headers: Mapping[str, str], limit: str, remaining: str) -> tuple[int | None, int | None]:
    """Read a limit and what is left of it. A limit of nothing, which was just not kept to, teaches nothing, nor does what is left of it."""
    said = _read_count(headers, limit)
    return (None, None) if said == 0 else (said, _read_count(headers, remaining))


def make_lane(name: str, limits: Limits, pot: Window | None, midnight: float) -> Lane:
    """Make the lane of a name; ``pot`` is the window that all lanes share, ``midnight`` the next one on the lanes' clock."""
    given = limits.lanes.get(name, limits.default)
    rates: tuple[Rate, ...] = () if given is None else given if isinstance(given, tuple) else (given,)
    if name == FREE_LANE and name not in limits.lanes:
        rates = ()
    windows: list[Window] = [
        DayWindow(limit=rate.limit, seconds=rate.seconds, guess=rate.limit if limits.learns else None, midnight=midnight)
        if rate.seconds == DAY_SECONDS
        else Window(limit=rate.limit, seconds=rate.seconds, guess=rate.limit if limits.learns else None)
        for rate in rates
    ]
    if pot is not None:
        windows.append(pot)
    return Lane(name, tuple(windows), learns=limits.learns)
