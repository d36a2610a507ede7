"""Waiting at a low price: the deadlines of all waits of a client."""

import asyncio
from contextvars import Context
from heapq import heapify, heappop, heappush
from math import inf


class Deadlines:
    """The deadlines of many waits, on one timer of the loop.

    Hardly any is ever over, since jobs end before. A timer for each wait costs four times as much (on uvloop's loop nearly three times) and
    0.15 KiB more; every job has two such waits, and a hundred thousand may be under way.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._heap: list[tuple[float, int, asyncio.Future[bool]]] = []
        self._count = 0
        self._waits = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        # Of its own: else the timer would keep that of whoever set it.
        self._context = Context()

    def __len__(self) -> int:
        """Count the waits."""
        return self._waits

    def add(self, wait: asyncio.Future[bool], deadline: float) -> None:
        """Set the result of a wait to True at a moment of the loop's time; `remove` follows, however the wait ends."""
        self._waits += 1
        self._count += 1
        heappush(self._heap, (deadline, self._count, wait))
        if deadline < self._timer_at:
            self._arm()

    def remove(self) -> None:
        """Note that a wait has ended. It is found by its future, which is done; after the last wait nothing is left."""
        self._waits -= 1
        if not self._waits:
            self._heap.clear()
            self._stop()
        elif len(self._heap) > 2 * self._waits + 64:
            self._heap = [one for one in self._heap if not one[2].done()]
            heapify(self._heap)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = None, inf

    def _arm(self) -> None:
        """Set the timer for the earliest deadline."""
        self._stop()
        while self._heap and self._heap[0][2].done():
            heappop(self._heap)
        if self._heap and self._heap[0][0] < inf:
            self._timer_at = self._heap[0][0]
            self._timer = self._loop.call_at(self._timer_at, self._expire, context=self._context)

    def _expire(self) -> None:
        """End the waits whose deadline has come; loops round, and may be early by what they round."""
        now = max(self._loop.time(), self._timer_at)
        while self._heap and self._heap[0][0] <= now:
            wait = heappop(self._heap)[2]
            if not wait.done():
                wait.set_result(True)
        self._arm()
