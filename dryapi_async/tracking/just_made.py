"""The jobs that a client made in the last seconds, of which a 404 isn't believed."""

from array import array
from collections import deque
from typing import Final

NOT_FOUND_GRACE: Final = 10.0
"""Seconds after a submit in which a 404 means "not yet": the service's own replicas may lag."""
TOGETHER: Final = 0.1
"""Seconds: jobs made within them share one time, so that each takes eight bytes. A pipeline makes thousands a second."""


class JustMade:
    """Remembers when jobs were made, by the hash of their ids: of two alike one would be patient for a few seconds too long."""

    def __init__(self) -> None:
        self._made: deque[tuple[float, array[int]]] = deque()

    def add(self, request_id: str, now: float) -> None:
        """Note a job, and forget those whose time is over."""
        made = self._made
        while made and now - made[0][0] > NOT_FOUND_GRACE:
            made.popleft()
        if not made or now - made[-1][0] >= TOGETHER:
            made.append((now, array("q")))
        made[-1][1].append(hash(request_id))

    def when(self, request_id: str) -> float | None:
        """Say when a job was made, in the time it was noted with and at most a tenth of a second too early; None where it isn't known."""
        wanted = hash(request_id)
        return next((since for since, jobs in reversed(self._made) if wanted in jobs), None)
