"""How fast the processor is just now, by small pieces of equal work: what is its own doing can be told from a subject's."""

import time
from bisect import bisect
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

PIECE: Final = 400
"""Steps of a piece, some 20 us."""


class Pace:
    """Pieces of equal work, done in between, and how long each took."""

    def __init__(self) -> None:
        """Do the first piece."""
        self._at: list[float] = []
        self._seconds: list[float] = []
        self.note()

    def note(self) -> None:
        """Do a piece."""
        began = time.perf_counter()
        sum(step * step for step in range(PIECE))
        ended = time.perf_counter()
        self._at.append(ended)
        self._seconds.append(ended - began)

    def measure(self, spans: Sequence[tuple[float, float]]) -> list[float]:
        """Say how many pieces the processor could have done in each span, from one moment to another.

        Between two pieces it is as fast as both of them on average.
        """
        done = [0.0]
        for (before, at), (first, second) in zip(pairwise(self._at), pairwise(self._seconds), strict=True):
            done.append(done[-1] + (at - before) * 2 / (first + second))

        def done_at(moment: float) -> float:
            after = min(max(bisect(self._at, moment), 1), len(self._at) - 1)
            before = after - 1
            part = (moment - self._at[before]) / (self._at[after] - self._at[before])
            return done[before] + (done[after] - done[before]) * part

        return [done_at(end) - done_at(begin) for begin, end in spans]
