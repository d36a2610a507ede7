"""A call that is cancelled: what wasn't sent may be finished again, what was is waited for, kept, or told as unknown."""

import asyncio
from math import inf
from pathlib import Path

import pytest

from dryapi_async import Client, ClientClosedError, Image, Job, RequestTimeoutError, SubmissionUnknownError, Timeouts
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, PNG, begin, edit, files_in, finish, give_up, make_client, now, seen, settle, until

pytestmark = pytest.mark.anyio


async def test_cancelled_while_it_waits_for_a_slot_it_may_be_finished_again(sim: Simulator) -> None:
    async with make_client(sim, max_in_flight=1) as client:
        sim.script("txt2img", Fault.delay(10))
        other = await begin(sim, client.call(FOX))
        call = client.call(FOX)
        task = asyncio.create_task(finish(call))
        await asyncio.sleep(1)
        await give_up(task)
        await other
        assert len(seen(sim, "txt2img")) == 1
        await asyncio.sleep(60)
        assert len(seen(sim, "txt2img")) == 1
        assert isinstance(await call, Job)
        assert len(seen(sim, "txt2img")) == 2
        assert client.orphans == ()


async def test_cancelled_between_two_attempts_it_may_be_finished_again(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.rate_limited(retry_after=30))
    call = client.call(FOX)
    task = asyncio.create_task(finish(call))
    await asyncio.sleep(10)
    await give_up(task)
    await asyncio.sleep(60)
    assert len(seen(sim, "txt2img")) == 1
    assert isinstance(await call, Job)
    assert len(seen(sim, "txt2img")) == 2
    assert sim.jobs_billed == 1


async def test_cancelled_on_its_way_the_next_finish_waits_for_the_same_post(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.delay(20))
    call = client.call(FOX)
    task = await begin(sim, call)
    before = now()
    await give_up(task)
    assert now() == before
    await asyncio.sleep(5)
    job = await call
    assert now() == pytest.approx(20, abs=0.1)
    assert list(sim.jobs) == [job.id]
    assert len(seen(sim, "txt2img")) == sim.jobs_billed == 1


async def test_a_job_that_was_taken_up_again_is_no_orphan(sim: Simulator, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    sim.script("txt2img", Fault.delay(20))
    call = client.call(FOX)
    task = await begin(sim, call)
    await give_up(task)
    await call
    await settle()
    assert client.orphans == ()
    assert caplog.records == []


async def test_given_up_twice_it_is_one_orphan(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.delay(20))
    call = client.call(FOX)
    await give_up(await begin(sim, call))
    again = asyncio.create_task(finish(call))
    await asyncio.sleep(1)
    await give_up(again)
    await asyncio.sleep(30)
    assert [job.id for job in client.orphans] == list(sim.jobs)
    assert sim.jobs_billed == 1


async def test_never_finished_again_it_is_an_orphan_that_can_be_waited_for(
    sim: Simulator, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    sim.script("txt2img", Fault.delay(20))
    call = client.call(FOX)
    await give_up(await begin(sim, call))
    assert client.orphans == ()
    await asyncio.sleep(25)
    (orphan,) = client.orphans
    assert orphan.ticket in caplog.text
    assert isinstance(await orphan.result(timeout=60), Image)
    assert await call is orphan


async def test_cancelled_at_any_step_whatever_is_paid_for_is_told(sim: Simulator, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    told: set[str] = set()
    for steps in (*range(1, 80), *range(1, 60)):
        if steps == 1 and told:
            # Answers came within two steps or three: now whatever was sent is on its way when it is cancelled.
            sim.script("txt2img", Fault.delay(1), times=inf)
        task = asyncio.create_task(finish(client.call(FOX)))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            told.add(task.result().id)
    await asyncio.sleep(5)
    kept = {job.id for job in client.orphans}
    unknown = [record for record in caplog.records if "SubmissionUnknownError" in record.getMessage()]
    assert told
    assert kept
    assert told | kept <= set(sim.jobs)
    # One that is sent in the very step of its cancellation is cut: it is told as unknown.
    assert len(told) + len(kept) + len(unknown) >= sim.jobs_billed
    assert len(unknown) <= 2


async def test_a_prompt_tool_that_is_given_up_is_no_orphaned_job(sim: Simulator, client: Client) -> None:
    sim.script("prompt/image", Fault.delay(10))
    task = asyncio.create_task(client.prompt_image(prompt="a fox"))
    await until(lambda: seen(sim, "prompt/image"))
    await give_up(task)
    await asyncio.sleep(20)
    assert client.orphans == ()
    assert sim.jobs_billed == 1


async def test_an_upload_that_is_given_up_goes_on(sim: Simulator, client: Client) -> None:
    sim.script("img2img", Fault.delay(10))
    await give_up(await begin(sim, edit(client, image=PNG + bytes(3_000_000)), "img2img"))
    await asyncio.sleep(15)
    assert [job.id for job in client.orphans] == list(sim.jobs)
    assert seen(sim, "img2img")[0].files[0].size == len(PNG) + 3_000_000


async def test_an_orphan_is_listened_to_for_so_long_and_is_then_unknown(sim: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    async with make_client(sim, timeouts=Timeouts(orphan=7)) as client:
        sim.script("txt2img", Fault.hang())
        call = client.call(FOX)
        await give_up(await begin(sim, call))
        await asyncio.sleep(8)
        assert client.orphans == ()
        assert "SubmissionUnknownError" in caplog.text
        with pytest.raises(SubmissionUnknownError):
            await call
        assert len(seen(sim, "txt2img")) == sim.jobs_billed == 1


async def test_closing_waits_for_an_orphan(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.delay(20))
    await give_up(await begin(sim, client.call(FOX)))
    await client.aclose()
    assert now() == pytest.approx(20, abs=0.1)
    assert [job.id for job in client.orphans] == list(sim.jobs)


async def test_closing_cuts_an_orphan_that_never_answers(sim: Simulator) -> None:
    async with make_client(sim, timeouts=Timeouts(orphan=7)) as client:
        sim.script("txt2img", Fault.hang())
        await give_up(await begin(sim, client.call(FOX)))
        before = now()
        await client.aclose()
        assert now() - before == pytest.approx(7, abs=0.1)
    await settle()
    assert not sim.connections.open


async def test_a_call_that_is_waited_for_ends_with_the_closed_client(sim: Simulator) -> None:
    async with make_client(sim, timeouts=Timeouts(orphan=7), max_in_flight=1) as client:
        sim.script("txt2img", Fault.hang())
        sent, queued = await begin(sim, client.call(FOX)), asyncio.create_task(finish(client.call(FOX)))
        await settle()
        await client.aclose()
        with pytest.raises(SubmissionUnknownError):
            await sent
        with pytest.raises(ClientClosedError, match="nothing was billed"):
            await queued
    assert len(seen(sim, "txt2img")) == 1


async def test_cancelling_while_the_client_closes_is_still_a_cancellation(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.delay(20))
    task = await begin(sim, client.call(FOX))
    closing = asyncio.create_task(client.aclose())
    await asyncio.sleep(5)
    await give_up(task)
    await closing
    assert [job.id for job in client.orphans] == list(sim.jobs)


@pytest.mark.parametrize("way", ["result", "save"])
async def test_a_sentence_that_is_cancelled_behind_its_submit_leaves_its_job(
    sim: Simulator, client: Client, caplog: pytest.LogCaptureFixture, tmp_path: Path, way: str
) -> None:
    """Nobody has it but the call, and whoever wrote one sentence has no call."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await (client.call(FOX).result() if way == "result" else client.call(FOX).save(tmp_path / "fox.png"))
    (job,) = client.orphans
    assert list(sim.jobs) == [job.id]
    assert f"{job.ticket} " in caplog.text
    assert isinstance(await job.result(), Image)


async def test_one_that_is_cancelled_while_it_saves_leaves_its_job(sim: Simulator, client: Client, tmp_path: Path) -> None:
    sim.script("storage", Fault.delay(10))
    task = asyncio.create_task(client.call(FOX).save(tmp_path / "fox.png"))
    await until(lambda: sim.storage_requests)
    task.cancel()
    await asyncio.wait([task])
    assert [job.id for job in client.orphans] == list(sim.jobs)
    assert files_in(tmp_path) == []


async def test_who_runs_out_of_time_while_it_connects_hears_that_nothing_was_sent() -> None:
    async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(stay_silent, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Client("1|a-key", base_url=url, timeouts=Timeouts(connect=60)) as client:
            call = client.call(FOX)
            with pytest.raises(RequestTimeoutError, match=r"waited for a free connection\. Nothing was sent: finish the same call again"):
                await call.result(timeout=5)
