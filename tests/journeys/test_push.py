"""P15 and P22, as a user meets them: push ends a wait that goes well; reads find what push never tells."""

import asyncio
from typing import Any

import pytest

from dryapi_async import Client, Image, Job, JobFailedError, Limits
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, make_client, make_sim, now, seen, until

pytestmark = pytest.mark.anyio


def listener(sim: Simulator, **options: Any) -> Client:
    return make_client(sim, client_id=sim.client_id, **options)


async def warm_up(sim: Simulator, client: Client) -> None:
    """Let the socket come up, with a job of its own; forget what that took."""
    await client.call(FOX).result()
    await until(lambda: sim.push.subscribed)
    sim.requests.clear()


async def test_p15_a_wait_that_goes_well_needs_no_read(sim: Simulator) -> None:
    async with listener(sim) as client:
        await warm_up(sim, client)
        before = now()
        image = await client.call(FOX).result()
        assert isinstance(image, Image)
        assert await image.read()
        assert now() - before == pytest.approx(2, abs=0.1)
        assert seen(sim, "request-status") == []


async def test_p15_a_silent_failure_is_found_within_one_safety_interval(sim: Simulator) -> None:
    async with listener(sim) as client:
        await warm_up(sim, client)
        sim.script("txt2img", Fault.job_error("WORKER_ERROR", "It broke."))
        before = now()
        with pytest.raises(JobFailedError):
            await client.call(FOX).result()
        assert now() - before <= 2 + 31
        assert len(seen(sim, "request-status")) <= 2


async def test_p15_p42_states_and_progress_never_go_back(sim: Simulator) -> None:
    sim.push.copies = 2
    async with listener(sim) as client:
        await warm_up(sim, client)
        job = await client.call(FOX)
        updates = [update async for update in job.updates(poll=0.3)]
        progress = [update.progress for update in updates if update.progress is not None]
        assert progress == sorted(progress)
        assert [update.finished for update in updates].count(True) == 1
        assert {update.source for update in updates} >= {"push"}
        sim.push.send("request.status.updated", {"request_id": job.id, "status": "processing", "progress": "10.00"})
        await asyncio.sleep(1)
        assert (await job.wait()).finished


async def test_p15_without_health_the_normal_cadence_comes_back(sim: Simulator) -> None:
    async with listener(sim) as client:
        await warm_up(sim, client)
        sim.push.down = True
        await sim.push.drop(4200)
        sim.push.muted = True
        before = now()
        await client.call(FOX).result()
        assert now() - before < 5
        assert seen(sim, "request-status")


@pytest.mark.parametrize("trouble", ["4200", "4100", "half-open", "auth", "restart", "outage", "4001"])
async def test_p22_whatever_becomes_of_the_socket_every_job_ends(trouble: str) -> None:
    async with make_sim(duration=20.0) as sim, listener(sim, limits=Limits.none()) as client:
        await client.call(FOX).result()
        jobs: list[Job[Image]] = [await client.call(FOX) for _ in range(20)]
        waits = [asyncio.create_task(job.result(timeout=300)) for job in jobs]
        await until(lambda: sim.push.subscribed)
        await asyncio.sleep(3)
        if trouble in {"4200", "4100", "4001"}:
            await sim.push.drop(int(trouble))
        elif trouble == "half-open":
            sim.push.freeze()
        elif trouble == "auth":
            sim.push.refuse_auth = 1
            await sim.push.drop(4200)
        elif trouble == "restart":
            await sim.go_down()
            await asyncio.sleep(2)
            await sim.come_up()
        else:
            await sim.go_down()
            await asyncio.sleep(30)
            await sim.come_up()
        images = await asyncio.gather(*waits)
        assert len({image.request_id for image in images}) == 20
        assert sim.push.peak <= 1
        assert now() < 120


async def test_p22_after_a_reconnect_each_pending_job_is_read_once(sim: Simulator) -> None:
    sim.hold("txt2img")
    async with listener(sim) as client:
        jobs = [await client.call(FOX) for _ in range(10)]
        waits = [asyncio.create_task(job.wait(timeout=600)) for job in jobs]
        await until(lambda: sim.push.subscribed)
        await asyncio.sleep(60)
        sim.requests.clear()
        await sim.push.drop(4200)
        await asyncio.sleep(27)
        reads = [one.request_id or one.path.rpartition("/")[2] for one in seen(sim, "request-status")]
        assert {job.id for job in jobs} <= set(reads)
        assert len(reads) <= 20
        for job in jobs:
            sim.finish(job.id)
        assert all(update.finished for update in await asyncio.gather(*waits))


async def test_p21_closing_leaves_no_socket(sim: Simulator) -> None:
    async with listener(sim) as client:
        await warm_up(sim, client)
        assert sim.push.sockets
    await asyncio.sleep(1)
    assert not sim.push.sockets
    assert not sim.connections.open


async def test_a_job_of_nobody_here_costs_nothing(sim: Simulator) -> None:
    async with listener(sim) as client, make_client(sim) as other:
        await warm_up(sim, client)
        job = await other.call(FOX)
        await asyncio.sleep(10)
        assert seen(sim, "request-status") == []
        # Its news was kept a while, for who asks by its ticket.
        assert isinstance(await client.job(job.ticket).result(), Image)
        assert seen(sim, "request-status") == []
