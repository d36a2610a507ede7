"""How long jobs of one kind take, learned from what is seen of them. Pure: ages come from outside."""

from array import array
from bisect import bisect
from math import sqrt
from typing import Final

_RATIO: Final = 2**0.25
_EDGES: Final = tuple(0.25 * _RATIO**step for step in range(77))
"""Upper edges of the spans in which durations are counted, in seconds: four to each doubling, up to a day and a half."""
_PRIOR_RISK: Final = 1 - 1 / _RATIO
"""Where nothing is known a job ends within the time it has lived so far with a probability of one half, whatever its age."""
_PRIOR_WEIGHT: Final = 0.3
"""In jobs: what was seen outweighs the guess from the first job on."""
_SURPRISE: Final = 0.05
"""A job that is found ended when no more than so many were expected to be."""
_MOST_SEEN: Final = 200.0
"""Jobs seen in a span: beyond that the old ones count half, so that what changed is learned."""


class Durations:
    """How long jobs of one kind take: for each span of ages, how many were seen alive in it and how many of these ended.

    Jobs that are still unfinished are evidence, too: left out, the first to end would make all look short. Memory is 1.3 KB, for ever.
    """

    __slots__ = ("_alive", "_ended", "ends")

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._alive = array("d", [0.0]) * len(_EDGES)
        self._ended = array("d", [0.0]) * len(_EDGES)
        self.ends: int = 0
        """Jobs that were seen to end."""

    def learn(self, earlier: float, later: float, *, ended: bool) -> None:
        """Note that a job was unfinished at the age of ``earlier`` seconds, and at ``later`` had ended or not.

        Where in between it ended isn't known: the span is shared out by what was learned before. A first look that finds a job ended
        against all expectation ends that expectation: shared out by it, the news would confirm what it disproves.
        """
        if later <= earlier:
            return
        parts, alive = self._live(earlier, later)
        if ended and earlier <= 0 and 1 - alive < _SURPRISE:
            self._forget()
            parts, alive = self._live(earlier, later)
        left = 1.0
        for span, start, end, ends in parts:
            share = ends / (1 - alive) if ended and alive < 1 else 0.0
            # Who ends in a span counts as one who was alive in the whole of it; what came before `start` was counted then.
            self._ended[span] += share
            self._alive[span] += share * (1 - start) + (left - share) * (end - start)
            left -= share
            if self._alive[span] > _MOST_SEEN:
                self._alive[span] /= 2
                self._ended[span] /= 2
        self.ends += ended

    def _live(self, earlier: float, later: float) -> tuple[list[tuple[int, float, float, float]], float]:
        """List the spans that a job lives through, as far as it does, with the chance to end in each; and the chance to live on."""
        parts: list[tuple[int, float, float, float]] = []
        alive = 1.0
        for span in range(bisect(_EDGES, earlier), len(_EDGES)):
            low, high = _bounds(span)
            if low >= later:
                break
            start, end = max((earlier - low) / (high - low), 0.0), min((later - low) / (high - low), 1.0)
            ends = alive * self._risk(span) * (end - start)
            parts.append((span, start, end, ends))
            alive -= ends
        return parts, alive

    def _risk(self, span: int) -> float:
        return (self._ended[span] + _PRIOR_WEIGHT * _PRIOR_RISK) / (self._alive[span] + _PRIOR_WEIGHT)

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
                base, need = 1 - alive, sitting - sat
                root = base + sqrt(base * base + 2 * ends / width * need)
                return at + min(2 * need / root if root else 0.0, width)
            at, alive, sat = high, alive - ends, sat + more
        return at + sitting


def _bounds(span: int) -> tuple[float, float]:
    return (_EDGES[span - 1] if span else 0.0), _EDGES[span]
