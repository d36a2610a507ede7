"""Jobs and their lives: pending, processing, done or error, worked out from the time whenever somebody asks."""

from __future__ import annotations

import math
import uuid
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from attrs import define, field

from dryapi_async.simulator.blobs import Blob
from dryapi_async.simulator.contract import OPERATIONS
from dryapi_async.simulator.received import ReceivedFile

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from dryapi_async.simulator.contract import Operation

State = Literal["pending", "processing", "done", "error"]
Change = Literal["made", "moved", "pinned"]

# Median seconds and sigma of the logarithm, by kind of result.
DURATIONS: dict[str, tuple[float, float]] = {
    "image": (2.0, 0.4),
    "cutout": (2.0, 0.4),
    "upscale": (3.0, 0.4),
    "ocr": (3.0, 0.4),
    "video": (30.0, 0.5),
    "speech": (3.0, 0.5),
    "music": (20.0, 0.4),
    "transcript": (8.0, 0.6),
    "embedding": (1.0, 0.3),
}
PENDING_PART = 0.15
_HELD_MOST = 95.0


@define(eq=False)
class SimJob:
    """One job. ``created``, ``starts``, ``ends`` are the loop's time; ``ends`` is infinite while it is held."""

    request_id: str
    operation: str
    fields: dict[str, Any]
    files: dict[str, list[ReceivedFile]]
    price: Decimal
    digest: str
    created: float
    starts: float
    ends: float
    planned: float
    """Seconds that the job was drawn to take."""
    failing: bool = False
    code: str = "PROCESSING_ERROR"
    message: str = "Processing failed."
    pinned: float | None = None
    """A progress set by hand."""
    webhook_url: str | None = None
    followed: bool = False
    """Whether its moments are on the agenda."""
    blobs: dict[str, Blob] = field(factory=dict[str, "Blob"])
    """Results made so far, by name; drawn when first asked for."""
    text: str | None = None
    """The text result, once it was asked for."""

    @property
    def row(self) -> Operation:
        """The contract's row of its operation."""
        return OPERATIONS[self.operation]

    @property
    def duration(self) -> float:
        """Seconds from submit to end; infinite while held."""
        return self.ends - self.created

    @property
    def held(self) -> bool:
        """Whether it waits to be finished by hand."""
        return math.isinf(self.ends)

    def state(self, now: float) -> State:
        """Give its state at a time of the loop."""
        if now >= self.ends:
            return "error" if self.failing else "done"
        return "processing" if now >= self.starts else "pending"

    def progress(self, now: float) -> float:
        """Give 0 to 100: in proportion to its time; below 95 while it is held, 100 only when done."""
        if now >= self.ends and not self.failing:
            return 100.0
        if self.pinned is not None:
            return self.pinned
        until = min(now, self.ends)
        span = self.planned * (1 - PENDING_PART)
        share = (until - self.starts) / span if span > 0 else 0.0
        return round(min(max(share * 100, 0.0), _HELD_MOST if self.held else 99.9), 1)


class Board:
    """All jobs of the account, and how long new ones take."""

    def __init__(  # noqa: PLR0913 - the options of the simulator that touch jobs
        self,
        rng: random.Random,
        *,
        speed: float,
        duration: float | None,
        durations: Mapping[str, tuple[float, float]],
        fail: float,
        most: int,
        now: Callable[[], float],
    ) -> None:
        self.jobs: dict[str, SimJob] = {}
        self.billed: Counter[str] = Counter()
        self.jobs_billed: int = 0
        self.speed = speed
        self.duration = duration
        self.durations: dict[str, tuple[float, float]] = dict(durations)
        self.fail = fail
        self.listeners: list[Callable[[SimJob, Change], None]] = []
        """Called when a job was made, ended by hand, or given a progress by hand."""
        self._rng = rng
        self._most = most
        self._now = now
        self._held: dict[str, float] = {}

    def bill(self, digest: str) -> None:
        """Count one charge."""
        self.jobs_billed += 1
        if digest:
            self.billed[digest] += 1

    def add(  # noqa: PLR0913 - the facts of a submit
        self,
        row: Operation,
        fields: dict[str, Any],
        files: dict[str, list[ReceivedFile]],
        *,
        price: Decimal,
        digest: str,
        number: bool,
        error: tuple[str, str] | None,
    ) -> SimJob:
        """Make a job; ``error`` is the code and message that it will end in."""
        now = self._now()
        planned = self._draw(row)
        rng = self._rng
        request_id = str(rng.randrange(10**8, 10**9)) if number else str(uuid.UUID(int=rng.getrandbits(128), version=4))
        failing = self.fail > 0 and rng.random() < self.fail
        job = SimJob(
            request_id, row.slug, fields, files, price, digest, now, now + planned * PENDING_PART, now + planned, planned, failing=failing,
            webhook_url=fields.get("webhook_url"),
        )  # fmt: skip
        if error is not None:
            job.failing, (job.code, job.message) = True, error
        if self._take_hold(row.slug):
            job.starts, job.ends = now, math.inf
        self.jobs[request_id] = job
        if len(self.jobs) > self._most:
            del self.jobs[next(iter(self.jobs))]
        for listener in self.listeners:
            listener(job, "made")
        return job

    def _draw(self, row: Operation) -> float:
        if math.isinf(self.speed):
            return 0.0
        if self.duration is not None:
            return self.duration / self.speed
        median, sigma = self.durations.get(row.slug) or DURATIONS[row.result]
        return self._rng.lognormvariate(math.log(median), sigma) / self.speed

    def _take_hold(self, slug: str) -> bool:
        for key in (slug, "*"):
            if self._held.get(key, 0) > 0:
                self._held[key] -= 1
                return True
        return False

    def hold(self, operation: str, times: float) -> None:
        """Keep the next jobs of an operation processing until they are moved by hand."""
        self._held[operation] = times

    def release(self, operation: str) -> None:
        """Hold no more; end what is held."""
        self._held.pop(operation, None)
        for job in list(self.jobs.values()):
            if job.held and operation in {"*", job.operation}:
                self.move(job.request_id)

    def move(self, request_id: str, *, failing: bool | None = None, code: str | None = None, message: str | None = None) -> SimJob:
        """End a job now."""
        job = self.jobs[request_id]
        now = self._now()
        job.starts, job.ends = min(job.starts, now), now
        job.failing = job.failing if failing is None else failing
        job.code, job.message = code or job.code, message or job.message
        for listener in self.listeners:
            listener(job, "moved")
        return job

    def pin(self, request_id: str, progress: float) -> SimJob:
        """Set a job's progress by hand; it is processing from now on."""
        job = self.jobs[request_id]
        job.starts, job.pinned = min(job.starts, self._now()), progress
        for listener in self.listeners:
            listener(job, "pinned")
        return job
