"""When to read a job's status next. Pure: ages and random numbers come from outside."""

from typing import Final

SHORTEST: Final = 0.5
"""Seconds: no job is read more often unless the user says so."""
LONGEST: Final = 15.0
"""Seconds: no job that is waited for is left unread longer, but for a 429."""
SHARE: Final = 0.25
"""Intervals in proportion to a job's age: a quarter matches a fixed second for short jobs and scales to minutes."""


def next_interval(age: float, *, poll: float | None, chance: float) -> float:
    """Say how many seconds to leave a job unread that is ``age`` seconds old.

    ``poll`` is the user's own interval and wins; else a share of the age with a tenth of jitter, so that jobs submitted together aren't
    read together. ``chance`` is a random number in [0, 1).
    """
    if poll is not None:
        return poll
    return min(max(age * SHARE, SHORTEST), LONGEST) * (0.9 + 0.2 * chance)
