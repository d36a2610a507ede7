"""P6: many calls at once are bounded, and a job that is waited for holds neither a slot nor a connection."""

import asyncio
import math
from statistics import median
from typing import Any

import pytest

from dryapi_async import Client, ConfigurationError, Image, PoolTimeoutError, Retry, SubmissionUnknownError, Timeouts
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, PNG, edit, make_client, now, seen, until

pytestmark = pytest.mark.anyio


def most_at_once(requests: list[Any]) -> int:
    """Count how many requests overlapped at most, by the simulator's own times."""
    edges = sorted([(one.started, 1) for one in requests] + [(one.ended, -1) for one in requests])
    level = most = 0
    for _, step in edges:
        level += step
        most = max(most, level)
    return most


async def test_p06_max_in_flight_bounds_submits(sim: Simulator) -> None:
    sim.script("txt2img", Fault.delay(1), times=math.inf)
    async with make_client(sim, max_in_flight=5) as client:
        await asyncio.gather(*(client.call(FOX) for _ in range(40)))
    assert most_at_once(seen(sim, "txt2img")) == 5
    assert now() == pytest.approx(8, abs=0.1)


async def test_p06_max_in_flight_bounds_downloads(sim: Simulator) -> None:
    async with make_client(sim, max_in_flight=5) as client:
        images = await asyncio.gather(*(client.call(FOX).result() for _ in range(20)))
        sim.script("storage", Fault.delay(1), times=math.inf)
        before = now()
        await asyncio.gather(*(image.read() for image in images))
    assert most_at_once(list(sim.storage_requests)) == 5
    assert now() - before == pytest.approx(4, abs=0.1)


async def test_p06_max_in_flight_bounds_both_together(sim: Simulator) -> None:
    async with make_client(sim, max_in_flight=3) as client:
        image = await client.call(FOX).result()
        sim.script("storage", Fault.delay(1), times=math.inf)
        sim.script("txt2img", Fault.delay(1), times=math.inf)
        done = len(sim.requests)
        await asyncio.gather(*(image.read() for _ in range(6)), *(client.call(FOX) for _ in range(6)))
    assert most_at_once([*list(sim.requests)[done:], *sim.storage_requests]) == 3


async def test_p06_a_job_that_is_waited_for_holds_neither_slot_nor_connection(sim: Simulator) -> None:
    sim.hold("txt2img", times=30)
    async with make_client(sim, max_in_flight=2, pool_size=4) as client:
        waits = [asyncio.create_task(client.call(FOX).result(poll=5)) for _ in range(30)]
        await until(lambda: len(sim.jobs) >= 30)
        await asyncio.sleep(60)
        assert not any(wait.done() for wait in waits)
        # Slots and connections are free for who comes now.
        before = now()
        assert isinstance(await edit(client, image=PNG).result(), Image)
        assert now() - before < 4
        assert sim.connections.peak <= 4
        sim.release("txt2img")
        await asyncio.gather(*waits)


@pytest.mark.parametrize("places", [16, 3])
async def test_no_job_is_overtaken_by_others_of_its_crowd(sim: Simulator, places: int) -> None:
    # In moments of a clock p99 / p50 is the processor's as much as the client's; in jobs that end meanwhile it is the client's alone.
    sim.board.duration = 0
    turns, ended, meanwhile = iter(range(320)), 0, list[int]()

    async def work(client: Client) -> None:
        nonlocal ended
        for _ in turns:
            before = ended
            await (await client.call(FOX).result(poll=0)).read()
            ended += 1
            meanwhile.append(ended - before)

    async with make_client(sim, max_in_flight=places) as client, asyncio.TaskGroup() as crowd:
        for _ in range(16):
            crowd.create_task(work(client))
    assert median(meanwhile) == 16
    assert max(meanwhile) <= 1.25 * 16


async def test_p06_two_thousand_waits_share_a_pool_of_fifty(sim: Simulator) -> None:
    sim.board.duration = 30
    async with make_client(sim, pool_size=50, poll=10) as client:
        images = await asyncio.gather(*(client.call(FOX).result() for _ in range(2_000)))
    assert len({image.request_id for image in images}) == 2_000
    assert sim.connections.peak <= 50
    assert len(seen(sim, "txt2img")) == sim.jobs_billed == 2_000


async def test_p06_reads_take_no_slot(sim: Simulator) -> None:
    async with make_client(sim, max_in_flight=1) as client:
        sim.script("txt2img", Fault.delay(30))
        submit = asyncio.create_task(client.call(FOX))
        await until(lambda: seen(sim, "txt2img"))
        await client.balance()
        await client.call(FOX).price()
        assert now() < 1
        await submit


async def test_p06_transfers_cancelled_all_at_once_let_no_more_through_than_before(sim: Simulator) -> None:
    """Their places come back while others, cancelled in the same step, still wait for them."""
    async with make_client(sim, max_in_flight=2) as client:
        image = await client.call(FOX).result()
        sim.script("storage", Fault.delay(5), times=2)
        reads = [asyncio.create_task(image.read()) for _ in range(4)]
        await asyncio.sleep(1)
        for read in reads:
            read.cancel()
        await asyncio.wait(reads)
        sim.script("txt2img", Fault.delay(5), times=6)
        await asyncio.gather(*(client.call(FOX) for _ in range(6)))
        submits = seen(sim, "txt2img")[1:]
        assert max(sum(one.started <= other.started < (one.ended or now()) for one in submits) for other in submits) == 2


async def occupy(sim: Simulator, client: Client, number: int) -> list["asyncio.Task[Any]"]:
    """Let so many submits hold a connection each."""
    sim.script("txt2img", Fault.delay(1000), times=number)
    tasks = [asyncio.create_task(client.call(FOX)) for _ in range(number)]
    await until(lambda: len(seen(sim, "txt2img")) >= number)
    return tasks


async def test_p06_waiting_for_a_connection_has_its_own_time_and_error(sim: Simulator) -> None:
    async with make_client(
        sim, max_in_flight=3, pool_size=3, timeouts=Timeouts(pool=7, idle=None, orphan=0), retry=Retry(attempts=1)
    ) as client:
        busy = await occupy(sim, client, 3)
        before = now()
        with pytest.raises(PoolTimeoutError, match=r"All 3 connections stayed busy for 7 s: nothing was sent\. Raise pool_size") as caught:
            await client.balance()
        assert now() - before == pytest.approx(7, abs=0.1)
        assert isinstance(caught.value, TimeoutError)
        assert not seen(sim, "balance")
        assert sim.connections.peak == 3
    for task in busy:
        with pytest.raises(SubmissionUnknownError):
            await task


async def test_p06_a_connection_that_comes_free_in_time_is_taken(sim: Simulator) -> None:
    async with make_client(sim, max_in_flight=1, pool_size=1, timeouts=Timeouts(pool=60)) as client:
        sim.script("txt2img", Fault.delay(20))
        submit = asyncio.create_task(client.call(FOX))
        await until(lambda: seen(sim, "txt2img"))
        await client.balance()
        assert now() == pytest.approx(20, abs=0.1)
        await submit


async def test_p06_a_download_waits_for_a_connection_no_longer_than_that(sim: Simulator) -> None:
    async with make_client(sim, max_in_flight=2, pool_size=2, timeouts=Timeouts(pool=7), poll=1) as client:
        image = await client.call(FOX).result()
        sim.script("*", Fault.hang(seconds=50), times=2)
        readings = [asyncio.ensure_future(client.call(FOX).price()) for _ in range(2)]
        await until(lambda: len(seen(sim, "txt2img/price-calculation")) >= 2)
        before = now()
        with pytest.raises(PoolTimeoutError):
            await image.read()
        assert now() - before == pytest.approx(7, abs=0.1)
        assert not sim.storage_requests
        await asyncio.gather(*readings)


async def test_p06_a_wait_goes_on_where_no_connection_is_free_for_a_while(sim: Simulator) -> None:
    async with make_client(sim, max_in_flight=2, pool_size=2, timeouts=Timeouts(pool=7)) as client:
        job = await client.call(FOX)
        sim.script("*", Fault.hang(seconds=30), times=2)
        readings = [asyncio.ensure_future(client.call(FOX).price()) for _ in range(2)]
        await until(lambda: len(seen(sim, "txt2img/price-calculation")) >= 2)
        assert isinstance(await job.result(timeout=60), Image)
        await asyncio.gather(*readings)


async def test_p06_the_pool_is_never_below_max_in_flight(sim: Simulator) -> None:
    client = make_client(sim, max_in_flight=40, pool_size=10)
    assert client.settings.pool_size == 40
    with pytest.raises(ConfigurationError):
        make_client(sim, max_in_flight=-1)
    await client.aclose()


async def test_p06_cancelled_in_every_queue_nothing_is_lost(sim: Simulator) -> None:
    """Slots and places are given back by whoever is cancelled while it holds or awaits one."""
    async with make_client(sim, max_in_flight=2, pool_size=2, timeouts=Timeouts(orphan=1, pool=5)) as client:
        sim.script("*", Fault.delay(3), times=40)
        tasks = [asyncio.ensure_future(client.call(FOX) if number % 2 else client.call(FOX).price()) for number in range(40)]
        for number, task in enumerate(tasks):
            asyncio.get_running_loop().call_later(number * 0.17, task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        sim.clear_script()
        await asyncio.sleep(10)
        before = now()
        await asyncio.gather(*(client.call(FOX) for _ in range(4)), *(client.balance() for _ in range(4)))
        assert now() - before < 1
