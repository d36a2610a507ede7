"""Jobs in the order in which they end."""

import asyncio

import pytest

from dryapi_async import Client, Image, Job, JobFailedError, JobTimeoutError
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, now

pytestmark = pytest.mark.anyio


async def test_jobs_come_as_they_end_failed_ones_too(sim: Simulator, client: Client) -> None:
    jobs: list[Job[Image]] = []
    for seconds in (9.0, 3.0, 6.0):
        sim.board.duration = seconds
        jobs.append(await client.call(FOX))
    sim.script("txt2img", Fault.job_error())
    sim.board.duration = 4.5
    jobs.append(await client.call(FOX))
    ended = [job async for job in client.as_completed(jobs)]
    assert ended == [jobs[1], jobs[3], jobs[2], jobs[0]]
    reads = len(sim.requests)
    assert isinstance(await ended[0].result(), Image)
    with pytest.raises(JobFailedError):
        await ended[1].result()
    assert len(sim.requests) == reads, "what has ended isn't read again"


async def test_leaving_cancels_the_waiting_and_nothing_else(sim: Simulator, client: Client) -> None:
    sim.board.duration = 3
    jobs = [await client.call(FOX)]
    sim.board.duration = 300
    jobs += [await client.call(FOX) for _ in range(5)]
    before = asyncio.all_tasks()
    stream = client.as_completed(jobs)
    async for job in stream:
        assert job is jobs[0]
        break
    await stream.aclose()  # type: ignore[attr-defined]  # it is an async generator
    assert asyncio.all_tasks() == before
    assert client._engine().watcher.tickets == ()
    assert isinstance(await jobs[1].result(), Image)


async def test_the_time_is_over_all_of_them(sim: Simulator, client: Client) -> None:
    sim.board.duration = 100
    jobs = [await client.call(FOX) for _ in range(3)]
    with pytest.raises(JobTimeoutError):
        _ = [job async for job in client.as_completed(jobs, timeout=10)]
    assert now() == pytest.approx(10, abs=0.5)
    assert [job async for job in client.as_completed([])] == []
    assert (await jobs[0].wait()).finished
