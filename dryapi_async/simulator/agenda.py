"""What happens to jobs by itself: one heap, one timer, for whoever listens."""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from dryapi_async.simulator.jobs import SimJob

Moment = Literal["started", "progress", "ended"]


class Agenda:
    """Calls back when a job starts, makes progress, ends. Costs nothing while nobody follows a job."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tell: Callable[[SimJob, Moment], None]) -> None:
        self._loop = loop
        self._tell = tell
        self._heap: list[tuple[float, int, SimJob, Moment]] = []
        self._order = count()
        self._timer: asyncio.TimerHandle | None = None
        self._due = float("inf")

    def follow(self, job: SimJob, steps: int, *, since: float) -> None:
        """Tell of a job's start and end, and of its progress so many times in between; what was before ``since`` isn't told."""
        if job.starts >= since:
            self._add(job.starts, job, "started")
        if job.held:
            self._arm()
            return
        for step in range(1, steps + 1):
            at = job.starts + (job.ends - job.starts) * step / (steps + 1)
            if since <= at < job.ends:
                self._add(at, job, "progress")
        if job.ends >= since:
            self._add(job.ends, job, "ended")
        self._arm()

    def stop(self) -> None:
        """Forget everything."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = float("inf")

    def _add(self, at: float, job: SimJob, moment: Moment) -> None:
        heapq.heappush(self._heap, (at, next(self._order), job, moment))

    def _arm(self) -> None:
        if not self._heap or self._heap[0][0] >= self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = self._heap[0][0]
        self._timer = self._loop.call_at(self._due, self._fire)

    def _fire(self) -> None:
        self._timer, self._due = None, float("inf")
        now = self._loop.time()
        while self._heap and self._heap[0][0] <= now:
            at, _, job, moment = heapq.heappop(self._heap)
            # A job moved by hand has told of it already.
            if at == {"started": job.starts, "ended": job.ends}.get(moment, at) and not (moment == "progress" and now >= job.ends):
                self._tell(job, moment)
        self._arm()
