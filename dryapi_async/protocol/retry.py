"""What to do after an attempt: take the answer, try again, give up, or say that a payment's fate is unknown."""

from typing import Final

from attrs import define, frozen

from dryapi_async.config import Retry
from dryapi_async.values import Value

BACKOFF_BASE: Final = 0.25
"""Seconds: the first pause is drawn between 0 and this (full jitter), and doubles."""
BACKOFF_CAP: Final = 8.0
MINUTE_WINDOW: Final = 60.0
"""Seconds to wait after a minute's 429 that names none: the length of the service's window."""

TRANSIENT: Final = frozenset({408, 425, 500, 502, 503, 504, *range(520, 531)})
"""Statuses that say the service or its gateway is in trouble: a reading may be made again."""


@frozen(kw_only=True, eq=False, repr=False)
class Answered(Value):
    """An answer's status came. ``retry_after`` and ``daily`` are only looked at for a 429."""

    status: int
    retry_after: float | None = None
    daily: bool = False


@frozen(kw_only=True, eq=False, repr=False)
class Broke(Value):
    """No usable answer came. ``sent`` is whether a byte of the request's headers may have left."""

    sent: bool


@frozen(eq=False, repr=False)
class Accept(Value):
    """Read the answer."""


@frozen(eq=False, repr=False)
class Again(Value):
    """Send the request once more after ``seconds``."""

    seconds: float


@frozen(eq=False, repr=False)
class GiveUp(Value):
    """Raise what happened as its own error: nothing was billed."""


@frozen(eq=False, repr=False)
class Unknown(Value):
    """It may have been accepted and billed: never send it again."""


Verdict = Accept | Again | GiveUp | Unknown


def decide(  # noqa: PLR0911, PLR0913  each row of the table returns; all that a decision hangs on
    happened: Answered | Broke,
    *,
    billed: bool,
    attempt: int,
    retry: Retry,
    chance: float,
    seconds_left: float | None = None,
    resubmit: bool = False,
) -> Verdict:
    """Decide what to do after attempt number ``attempt`` (from 1).

    ``billed`` is whether the request may cost money, ``chance`` a random number in [0, 1), ``seconds_left`` what the deadline leaves.
    A billed request is repeated only where the service can't have accepted it: no byte of its headers left, a 429, or a status that the
    user lists in ``Retry.unexecuted``. ``resubmit`` is the user's word that it may be repeated although it may be paid for twice.
    """
    again = _again(backoff(attempt, chance), attempt, retry, seconds_left)
    if isinstance(happened, Broke):
        if not (billed and happened.sent):
            return again
        return again if resubmit and isinstance(again, Again) else Unknown()
    status = happened.status
    if 200 <= status < 300:  # noqa: PLR2004  success
        return Accept()
    if status == 429:  # noqa: PLR2004  Too Many Requests
        return _after_limit(happened, attempt, retry, chance, seconds_left)
    if 400 <= status < 500 and status not in TRANSIENT:  # noqa: PLR2004  refused
        return GiveUp()
    if billed and status not in retry.unexecuted:
        return again if resubmit and status in TRANSIENT and isinstance(again, Again) else Unknown()
    return again if status in TRANSIENT or status in retry.unexecuted else GiveUp()


def backoff(attempt: int, chance: float) -> float:
    """Draw a pause in seconds with full jitter: between 0 and base * 2^(attempt-1), capped."""
    return chance * min(BACKOFF_BASE * 2.0 ** min(attempt - 1, 16), BACKOFF_CAP)


@define(eq=False, repr=False)
class RetryQuota:
    """What one client may repeat of its readings: a service in trouble isn't buried under retries. The numbers are botocore's."""

    tokens: int = 500
    most: int = 500
    cost: int = 5

    def take(self) -> bool:
        """Pay for a retry; False where too many failed lately, so that this failure is told at once."""
        if self.tokens < self.cost:
            return False
        self.tokens -= self.cost
        return True

    def put(self) -> None:
        """Give one token back after a success."""
        self.tokens = min(self.tokens + 1, self.most)


def _after_limit(happened: Answered, attempt: int, retry: Retry, chance: float, seconds_left: float | None) -> Verdict:
    asked = MINUTE_WINDOW if happened.retry_after is None else happened.retry_after
    if happened.daily or asked > retry.max_retry_after:
        return GiveUp()
    return _again(asked + spread(asked, chance), attempt, retry, seconds_left)


def spread(asked: float, chance: float) -> float:
    """Draw the seconds that one of a crowd waits longer than asked: never early, and who was told the same doesn't come back as one."""
    return chance * (0.25 + asked / 10)


def _again(seconds: float, attempt: int, retry: Retry, seconds_left: float | None) -> Verdict:
    if attempt >= retry.attempts or (seconds_left is not None and seconds >= seconds_left):
        return GiveUp()
    return Again(seconds)
