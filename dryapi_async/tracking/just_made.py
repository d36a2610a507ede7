"""The jobs that a client made in the last seconds, of which a 404 isn't believed."""

from array import array
from collections import deque
from collections.abc import Collection
from typing import Final

NOT_FOUND_GRACE: Final = 10.0
"""Seconds after a submit in which a 404 means "not yet": the service's own replicas may lag."""
TOGETHER: Final = 0.1
"""Seconds: jobs made within them share one time, so that each takes eight bytes. A pipeline makes thousands a second."""


class JustMade:
    """Remembers when jobs were made, by the hash of their ids: of two alike one would be patient for a few seconds too long."""

    def __init__(self) -> None:
        self._made: deque[tuple[float, Collection[int]]] = deque()
        self._newest: array[int] = array("q")

    def add(self, request_id: str, now: float) -> None:
        """Note a job, and forget those whose time is over."""
        made = self._made
        while made and now - made[0][0] > NOT_FOUND_GRACE:
            made.popleft()
        if not made or now - made[-1][0] >= TOGETHER:
            self._newest = array("q")
            made.append((now, self._newest))
        self._newest.append(hash(request_id))

    def when(self, request_id: str) -> float | None:
        """Say when a job was made, in the time it was noted with and at most a tenth of a second too early; None where it isn't known."""
        wanted = hash(request_id)
        for place, (since, jobs) in enumerate(self._made):
            if wanted in self._indexed(place, since, jobs):
                return since
        return None

    def _indexed(self, place: int, since: float, jobs: Collection[int]) -> Collection[int]:
        """Give jobs in a set where no more will come: who asks for one asks for many, and thousands take a millisecond to walk."""
        if isinstance(jobs, frozenset) or jobs is self._newest:
            return jobs
        indexed = frozenset(jobs)
        self._made[place] = since, indexed
        return indexed
