"""P42, P21: news of a job as a stream that never goes back; leaving and cancelling leave no trace."""

import asyncio
import math
from contextlib import aclosing

import pytest

from dryapi_async import Client, Image, Job, JobState, JobTimeoutError, PollingFailedError, Update
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, make_client, now, seen, settle, until

pytestmark = pytest.mark.anyio


def board(client: Client) -> tuple[str, ...]:
    """Name the jobs that the client's watcher follows."""
    assert client._life.current is not None
    return client._life.current.watcher.tickets


def check_stream(updates: list[Update], end: JobState) -> None:
    """Hold a whole stream to what it promises."""
    ranks = [JobState.PENDING, JobState.PROCESSING, end]
    assert [ranks.index(one.state) for one in updates] == sorted(ranks.index(one.state) for one in updates)
    progress = [one.progress for one in updates if one.progress is not None]
    assert progress == sorted(progress)
    assert [one.finished for one in updates] == [False] * (len(updates) - 1) + [True]
    assert updates[-1].state is end


async def test_p42_progress_never_goes_back_and_one_terminal_update_ends_it(sim: Simulator, client: Client) -> None:
    sim.board.duration = 60
    job = await client.call(FOX)
    updates = [update async for update in job.updates()]
    check_stream(updates, JobState.DONE)
    assert len(updates) > 5
    assert updates[-1].progress == 100
    assert updates[-1].url
    assert board(client) == ()


async def test_p42_what_the_service_takes_back_isnt_told(sim: Simulator, client: Client) -> None:
    sim.hold("txt2img")
    job = await client.call(FOX)
    words = [
        {"status": "processing", "progress": 50},
        {"status": "pending", "progress": 0},
        {"status": "processing", "progress": "20.5"},
        {"status": "in_progress"},
        {"status": "processing", "progress": None},
        {"status": "what is this", "progress": 70.0},
        {"status": "PROCESSING", "progress": "110"},
        {"status": "Completed", "progress": 3},
    ]
    sim.script("request-status", *[Fault.status(200, {"data": one}) for one in words])
    updates = [update async for update in job.updates(poll=1)]
    check_stream(updates, JobState.DONE)
    assert [one.progress for one in updates] == sorted(one.progress or 0 for one in updates)
    assert {one.word for one in updates} >= {"what is this", "Completed"}


async def test_p42_a_failed_job_ends_the_stream_with_its_update(sim: Simulator, client: Client) -> None:
    sim.variants("status-error-fields")
    sim.script("txt2img", Fault.job_error("WORKER_ERROR", "It broke."))
    updates = [update async for update in (await client.call(FOX)).updates()]
    check_stream(updates, JobState.ERROR)
    assert (updates[-1].code, updates[-1].reason) == ("WORKER_ERROR", "It broke.")


async def test_p42_dropped_reads_arent_told(sim: Simulator, client: Client) -> None:
    job = await client.call(FOX)
    # The 404 first: ten seconds after the submit it is believed, and how soon the fifth read comes is up to the hour of the day.
    sim.script("request-status", Fault.not_found(), Fault.reset(), Fault.html(502), Fault.truncate(), Fault.rate_limited(retry_after=2))
    check_stream([update async for update in job.updates()], JobState.DONE)


async def test_p42_a_finished_job_has_one_update(sim: Simulator, client: Client) -> None:
    job = await client.call(FOX)
    await job.result()
    reads = len(seen(sim, "request-status"))
    assert [update.state for update in [update async for update in job.updates()]] == [JobState.DONE]
    assert len(seen(sim, "request-status")) <= reads + 1
    assert [update.state async for update in client.job(job.ticket).updates()] == [JobState.DONE]


async def test_p42_a_slow_reader_sees_the_newest_only(sim: Simulator, client: Client) -> None:
    sim.board.duration = 60
    job = await client.call(FOX)
    updates: list[Update] = []
    async for update in job.updates(poll=1):
        updates.append(update)
        await asyncio.sleep(25)
    check_stream(updates, JobState.DONE)
    assert len(updates) <= 4


async def test_p42_a_stream_ends_on_time(sim: Simulator, client: Client) -> None:
    sim.hold("txt2img")
    job = await client.call(FOX)
    updates: list[Update] = []

    async def listen() -> None:
        async for update in job.updates(timeout=20):
            updates.append(update)  # noqa: PERF401  what came before the error counts

    with pytest.raises(JobTimeoutError) as caught:
        await listen()
    assert 20 <= now() <= 20.2
    assert updates
    assert not updates[-1].finished
    assert caught.value.ticket == job.ticket
    assert board(client) == ()


async def test_p42_a_stream_ends_where_reading_fails_for_good(sim: Simulator, client: Client) -> None:
    job = await client.call(FOX)
    sim.script("request-status", Fault.reset(), times=math.inf)
    with pytest.raises(PollingFailedError):
        async for _ in job.updates():
            pass
    assert board(client) == ()


async def test_p42_leaving_the_loop_cancels_nothing_and_leaves_no_trace(sim: Simulator, client: Client) -> None:
    sim.board.duration = 60
    job = await client.call(FOX)
    async for update in job.updates():
        assert not update.finished
        assert board(client) == (job.ticket,)
        break
    await settle()
    assert board(client) == ()
    reads = len(seen(sim, "request-status"))
    await asyncio.sleep(100)
    assert len(seen(sim, "request-status")) == reads
    assert isinstance(await job.result(), Image)


async def test_p42_closing_the_stream_cuts_the_read_that_is_out(sim: Simulator, client: Client) -> None:
    sim.hold("txt2img")
    job = await client.call(FOX)
    sim.script("request-status", Fault.delay(0), Fault.hang(), times=1)
    async with aclosing(job.updates()) as updates:
        await anext(updates)
        await until(lambda: len(seen(sim, "request-status")) >= 2)
    await settle()
    assert board(client) == ()
    await asyncio.sleep(0.01)
    assert not sim.connections.open


async def test_p42_all_who_wait_for_one_job_share_its_reads(sim: Simulator, client: Client) -> None:
    sim.board.duration = 60
    job = await client.call(FOX)

    async def listen() -> list[Update]:
        return [update async for update in job.updates(poll=5)]

    other = client.job(job.ticket)
    *streams, first, second = await asyncio.gather(*(listen() for _ in range(10)), job.result(), other.result())
    for stream in streams:
        check_stream(stream, JobState.DONE)
    assert first == second
    # 60 s at 5 s, and one look at once for the handle that was made of the ticket.
    assert len(seen(sim, "request-status")) <= 14


async def test_p42_the_shortest_interval_that_is_asked_for_counts(sim: Simulator, client: Client) -> None:
    sim.hold("txt2img")
    job = await client.call(FOX)
    with pytest.raises(JobTimeoutError):
        await job.result(timeout=100, poll=10)
    slow = len(seen(sim, "request-status"))
    assert 9 <= slow <= 11
    with pytest.raises(JobTimeoutError):
        await asyncio.gather(job.result(timeout=100, poll=10), job.result(timeout=100, poll=2))
    assert 45 <= len(seen(sim, "request-status")) - slow <= 55


async def test_p42_status_is_one_read(sim: Simulator, client: Client) -> None:
    job = await client.call(FOX)
    update = await job.status()
    assert (update.state, update.word) == (JobState.PENDING, "pending")
    assert len(seen(sim, "request-status")) == 1
    assert board(client) == ()


async def test_p21_cancelling_two_hundred_waits_ends_at_once(sim: Simulator) -> None:
    sim.hold("txt2img")
    async with make_client(sim, pool_size=20) as client:
        jobs = [await client.call(FOX) for _ in range(20)]
        more = [Job(job.id, type(FOX), client._engine) for job in jobs]
        waits = [asyncio.create_task(job.result()) for job in (jobs + more) * 5]
        assert len(waits) == 200
        sim.script("request-status", Fault.hang(), times=math.inf)
        await asyncio.sleep(5)
        assert len(board(client)) == 20
        before = now()
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
        assert now() - before <= 0.1
        assert all(wait.cancelled() for wait in waits)
        assert board(client) == ()
        await asyncio.sleep(0.01)
        assert not sim.connections.open
        assert sim.connections.peak <= 20
        # The jobs and the client are as good as before.
        sim.clear_script()
        sim.release("txt2img")
        images = await asyncio.gather(*(job.result(timeout=30) for job in jobs))
        assert {image.request_id for image in images} == set(sim.jobs)


async def test_p21_cancelling_one_wait_leaves_the_others(sim: Simulator, client: Client) -> None:
    job = await client.call(FOX)
    one, other = asyncio.create_task(job.result()), asyncio.create_task(job.result())
    await asyncio.sleep(0.1)
    one.cancel()
    assert isinstance(await other, Image)
    assert one.cancelled()
