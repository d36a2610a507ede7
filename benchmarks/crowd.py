"""A crowd of waits: many jobs at once on a tight budget of requests, and how late each end is seen. On the real clock or a jumping one."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from statistics import fmean
from typing import Final, Protocol

import aiohttp
from attrs import frozen

from dryapi_async import DryAPIError
from dryapi_async.simulator import Simulator
from dryapi_async.testing import JumpingLoop

OPERATION: Final = "txt2img"
PATIENCE: Final = 1800.0
"""Seconds of the loop's clock after which a run is cut: what hasn't ended by then counts as lost."""

Rate = tuple[int, float]
"""So many requests in so many seconds."""
Finish = Callable[[], Awaitable[str]]
"""Submits one job, waits until its end is known, and gives its request_id."""


@frozen(kw_only=True)
class Load:
    """How many jobs there are, how long they take, and what the service allows."""

    jobs: int
    at_once: int
    """Jobs between submit and known end."""
    median: float
    """Seconds that half of the jobs take; durations are lognormal."""
    sigma: float = 0.5
    """The deviation of their logarithm."""
    reads: Rate | None = None
    """The limit of status reads, where they have one of their own."""
    shared: Rate | None = None
    """The limit of all requests together, a minute's; the service keeps it in fixed windows."""
    push: bool = False
    """Whether the account's websocket tells what becomes of jobs; then one job is finished first, uncounted, so that it is up."""

    def describe(self) -> str:
        """Say it in words."""
        reads = "" if self.reads is None else f", {self.reads[0]} status reads per {self.reads[1]:g} s"
        shared = "" if self.shared is None else f", {self.shared[0]} requests per {self.shared[1]:g} s in all"
        push = ", with push" if self.push else ""
        return f"{self.jobs:,} jobs, {self.at_once} at once, median {self.median:g} s (sigma {self.sigma:g}){reads}{shared}{push}"


class Policy(Protocol):
    """A way to wait."""

    @property
    def name(self) -> str:
        """Its name in a table."""
        ...

    def open(self, sim: Simulator, load: Load) -> AbstractAsyncContextManager[Finish]:
        """Open what it waits with: a client or a session."""
        ...


@frozen(kw_only=True)
class Seen:
    """What was seen of one run."""

    jobs: int
    seconds: float
    """From the first submit to the last end that was seen."""
    delays: tuple[float, ...]
    """Of each job whose end was seen, the seconds from its end at the service to the moment its waiter was awake."""
    reads: int
    """Status requests that came to the service, refused ones included."""
    refused: int
    """Requests of any kind that were answered 429."""

    @property
    def lost(self) -> int:
        """Jobs, paid for, whose end nobody saw."""
        return self.jobs - len(self.delays)

    @property
    def jobs_a_minute(self) -> float:
        """Jobs whose end was seen, over the time of the run: its beginning and its tail count."""
        return len(self.delays) / self.seconds * 60 if self.delays else 0.0

    @property
    def mean_delay(self) -> float:
        """Seconds."""
        return fmean(self.delays) if self.delays else 0.0

    @property
    def reads_a_job(self) -> float:
        """Status reads over jobs."""
        return self.reads / self.jobs


def run_virtual(load: Load, policy: Policy, *, seed: int) -> Seen:
    """Run service and crowd in one loop over real sockets, on a clock that jumps: exact, and the same on every machine."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(_run(load, policy, seed))


def run_real(load: Load, policy: Policy, *, seed: int) -> Seen:
    """Run service and crowd in one loop over real sockets, on the real clock."""
    return asyncio.run(_run(load, policy, seed))


async def _run(load: Load, policy: Policy, seed: int) -> Seen:
    random.seed(seed)  # the client's own jitter
    async with (
        Simulator(
            pictures=False,
            seed=seed,
            durations={OPERATION: (load.median, load.sigma)},
            limits=None if load.reads is None else {"status": load.reads},
            shared=load.shared,
            most_records=10_000_000,
        ) as sim,
        policy.open(sim, load) as finish,
    ):
        if load.push:
            await finish()
            sim.requests.clear()
        delays, seconds = await _finish_all(load, sim, finish)
        return Seen(
            jobs=load.jobs,
            seconds=seconds,
            delays=tuple(delays),
            reads=sum(request.operation == "request-status" for request in sim.requests),
            refused=sum(request.status == 429 for request in sim.requests),  # noqa: PLR2004  Too Many Requests
        )


async def _finish_all(load: Load, sim: Simulator, finish: Finish) -> tuple[list[float], float]:
    """Finish all jobs, so many at once; give the delays, and the seconds until the last end was seen."""
    loop = asyncio.get_running_loop()
    places, began, delays, last = asyncio.Semaphore(load.at_once), loop.time(), list[float](), loop.time()

    async def work() -> None:
        nonlocal last
        async with places:
            try:
                request_id = await finish()
            except (DryAPIError, aiohttp.ClientError):
                return  # it is lost, and counted as that
            last = loop.time()
            delays.append(last - sim.jobs[request_id].ends)

    tasks = [asyncio.create_task(work()) for _ in range(load.jobs)]
    _, late = await asyncio.wait(tasks, timeout=PATIENCE)
    for task in late:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=bool(late))
    return delays, (loop.time() if late else last) - began
