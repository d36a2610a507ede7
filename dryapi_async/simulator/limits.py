"""The service's rate limits: a pot per endpoint, a minute and a day, with the documented headers."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Literal

from attrs import define, field, frozen

from dryapi_async.simulator.contract import PRICE, WHISPER

if TYPE_CHECKING:
    from collections.abc import Mapping

Tier = Literal["none", "basic", "premium"]
Window = Literal["fixed", "sliding"]
LimitLike = tuple[float, float] | tuple[float, float, float | None]
"""(requests, seconds) or (requests, seconds, requests a day)."""

DAY = 86_400.0

_SLOW = (1, 60.0, 15)
BASIC: dict[str, LimitLike] = {
    "txt2img": (3, 60.0, 100),
    "txt2video": _SLOW,
    "img2video": _SLOW,
    "aud2video": _SLOW,
    "txt2music": _SLOW,
    "img2img": _SLOW,
    "txt2audio": (5, 60.0, 300),
    "txt2embedding": (10, 60.0, 500),
    "img2txt": (5, 60.0, 50),
    "whisper": (1, 60.0, 10),
    "img-rmbg": (5, 60.0, 100),
    "img-upscale": (5, 60.0, 100),
    "prices": (50, 60.0, 200),
    "status": (50, 60.0, 200),
}
PREMIUM: dict[str, LimitLike] = {"*": (300, 60.0)}
TIERS: dict[Tier, dict[str, LimitLike]] = {"none": {}, "basic": BASIC, "premium": PREMIUM}
_UNLIMITED = frozenset({"balance", "models"})


@frozen
class Verdict:
    """What a pot says to one request."""

    refused: Literal["minute", "daily"] | None
    retry_after: int
    headers: dict[str, str]
    counts: dict[str, int]


@define
class Pot:
    """One limit, counted. A refused request doesn't consume."""

    limit: int
    seconds: float
    daily: int | None
    window: Window
    used: int = 0
    used_today: int = 0
    _opened: float = -math.inf
    _day: int = -1
    _grants: deque[float] = field(factory=deque[float])

    def take(self, now: float, wall: float) -> Verdict:
        """Count one request at loop time ``now`` (windows) and wall-clock time ``wall`` (the day ends at midnight UTC)."""
        self._roll(now, wall)
        refused: Literal["minute", "daily"] | None = None
        wait = 0.0
        if self.daily is not None and self.used_today >= self.daily:
            refused, wait = "daily", DAY - wall % DAY
        elif self.used >= self.limit:
            refused, wait = "minute", (self._grants[0] if self.window == "sliding" else self._opened) + self.seconds - now
        else:
            self._count(now)
        retry_after = max(1, math.ceil(wait)) if refused else 0
        return Verdict(refused, retry_after, self._headers(refused, retry_after), self._counts())

    def _roll(self, now: float, wall: float) -> None:
        if self.window == "sliding":
            while self._grants and self._grants[0] <= now - self.seconds:
                self._grants.popleft()
            self.used = len(self._grants)
        elif now >= self._opened + self.seconds:
            self.used = 0
        if (day := int(wall // DAY)) != self._day:
            self._day, self.used_today = day, 0

    def _count(self, now: float) -> None:
        if self.window == "sliding":
            self._grants.append(now)
        elif not self.used:  # a window opens with its first request, as in the service's framework
            self._opened = now
        self.used += 1
        self.used_today += 1

    def _headers(self, refused: str | None, retry_after: int) -> dict[str, str]:
        headers = {"X-RateLimit-Limit": str(self.limit), "X-RateLimit-Remaining": str(self.limit - self.used)}
        if self.daily is not None:
            headers["X-RateLimit-Daily-Limit"] = str(self.daily)
            headers["X-RateLimit-Daily-Remaining"] = str(self.daily - self.used_today)
        if refused:
            headers["X-RateLimit-Type"] = refused
            headers["Retry-After"] = str(retry_after)
        return headers

    def _counts(self) -> dict[str, int]:
        counts = {"minuteUsed": self.used, "minuteLimit": self.limit}
        return counts if self.daily is None else {**counts, "dayUsed": self.used_today, "dayLimit": self.daily}


class Limiter:
    """All pots of the account.

    ``limits`` overrides the tier: keys are operation slugs, ``whisper`` (the four transcriptions in one pot), ``prices``
    (all price calculations), ``status``, and ``*`` (each other operation, a pot of its own). ``shared`` is one pot for
    everything that is limited. Balance and models never are.
    """

    def __init__(
        self, tier: Tier, limits: Mapping[str, LimitLike] | None = None, *, shared: LimitLike | None = None, window: Window = "fixed"
    ) -> None:
        self._limits: dict[str, LimitLike] = {**TIERS[tier], **(limits or {})}
        self._shared = shared
        self._window: Window = window
        self._pots: dict[str, Pot | None] = {}

    def fresh(self) -> Limiter:
        """Make the same limits for another key, nothing used."""
        return Limiter("none", self._limits, shared=self._shared, window=self._window)

    def pot(self, operation: str) -> Pot | None:
        """Give the pot that an operation takes from, or None."""
        if operation not in self._pots:
            self._pots[operation] = self._find(operation)
        return self._pots[operation]

    def _find(self, operation: str) -> Pot | None:
        if operation in _UNLIMITED:
            return None
        if self._shared is not None:
            return self._named("shared", self._shared)
        for name in self._names(operation):
            if name in self._limits:
                return self._named(name if name != "*" else operation, self._limits[name])
        return None

    def _names(self, operation: str) -> list[str]:
        names = [operation]
        if operation.endswith(PRICE):
            names.append("prices")
        elif operation == "request-status":
            names.append("status")
        elif operation in WHISPER:
            names.append("whisper")
        return [*names, "*"]

    def _named(self, name: str, limit: LimitLike) -> Pot:
        key = f"pot:{name}"
        found = self._pots.get(key)
        if found is None:
            daily = (*limit, None)[2]
            found = Pot(int(limit[0]), limit[1], int(daily) if daily is not None else None, self._window)
            self._pots[key] = found
        return found
