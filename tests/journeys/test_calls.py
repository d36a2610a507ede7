"""A call is a sentence: nothing is sent before it is finished, and however often it is finished it submits once."""

import asyncio
import gc
import logging
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dryapi_async import (
    Client,
    Image,
    Job,
    JobTimeoutError,
    SourceError,
    SubmissionUnknownError,
    ValidationError,
)
from dryapi_async.calls import JobCall
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, PNG, begin, edit, files_in, finish, give_up, now, seen, settle, until

pytestmark = pytest.mark.anyio

FINISHES: dict[str, Callable[[JobCall[Image], Path], Awaitable[object]]] = {
    "await": lambda call, _: call,
    "result": lambda call, _: call.result(),
    "save": lambda call, folder: call.save(folder),
}


async def test_nothing_is_sent_opened_or_checked_before_a_call_is_finished(sim: Simulator, client: Client, tmp_path: Path) -> None:
    call = edit(client, image=tmp_path / "comes later.png")
    await asyncio.sleep(60)
    assert (len(sim.requests), sim.connections.total) == (0, 0)
    (tmp_path / "comes later.png").write_bytes(PNG)
    assert isinstance(await call, Job)
    assert len(sim.requests) == 1


async def test_awaited_twice_it_is_the_same_job(sim: Simulator, client: Client) -> None:
    call = client.call(FOX)
    job = await call
    assert await call is job
    assert len(seen(sim, "txt2img")) == sim.jobs_billed == 1


async def test_save_after_await_goes_on_with_the_job(sim: Simulator, client: Client, tmp_path: Path) -> None:
    call = client.call(FOX)
    job = await call
    path = await call.save(tmp_path / "fox.png")
    assert (await (await call.result()).read()) == path.read_bytes()
    assert list(sim.jobs) == [job.id]
    assert len(seen(sim, "txt2img")) == 1


@pytest.mark.parametrize("again", FINISHES.values(), ids=FINISHES)
@pytest.mark.parametrize("first", FINISHES.values(), ids=FINISHES)
async def test_any_two_finishes_make_one_post(
    sim: Simulator,
    client: Client,
    tmp_path: Path,
    first: Callable[[JobCall[Image], Path], Awaitable[object]],
    again: Callable[[JobCall[Image], Path], Awaitable[object]],
) -> None:
    call = client.call(FOX)
    await first(call, tmp_path)
    await again(call, tmp_path)
    assert len(seen(sim, "txt2img")) == sim.jobs_billed == 1


async def test_an_error_is_raised_again_and_nothing_is_sent_again(sim: Simulator, client: Client, tmp_path: Path) -> None:
    sim.script("txt2img", Fault.status(422, {"message": "No.", "errors": {"prompt": ["The prompt field is required."]}}))
    call = client.call(FOX)
    for finished in FINISHES.values():
        with pytest.raises(ValidationError, match="prompt"):
            await finished(call, tmp_path)
    assert len(seen(sim, "txt2img")) == 1
    assert files_in(tmp_path) == []


async def test_three_tasks_at_once_make_one_post(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.delay(3))
    call = client.call(FOX)
    jobs = await asyncio.gather(*(finish(call) for _ in range(3)))
    assert jobs[0] is jobs[1] is jobs[2]
    assert len(seen(sim, "txt2img")) == sim.jobs_billed == 1


async def test_one_of_three_tasks_is_cancelled_and_the_others_have_the_job(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.delay(3))
    call = client.call(FOX)
    first = await begin(sim, call)
    others = [asyncio.create_task(finish(call)) for _ in range(2)]
    await settle()
    await give_up(first)
    jobs = await asyncio.gather(*others)
    assert jobs[0] is jobs[1]
    assert len(seen(sim, "txt2img")) == 1
    assert client.orphans == ()


async def test_create_task_takes_it(sim: Simulator, client: Client) -> None:
    task = asyncio.create_task(client.call(FOX))
    assert isinstance(await task, Job)
    assert sim.jobs_billed == 1


async def test_a_task_group_takes_it(sim: Simulator, client: Client) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client.call(FOX)) for _ in range(3)]
    assert len({task.result().id for task in tasks}) == sim.jobs_billed == 3


async def test_gather_and_wait_for_take_it(sim: Simulator, client: Client) -> None:
    jobs = await asyncio.gather(client.call(FOX), edit(client, image=PNG), asyncio.wait_for(client.call(FOX), 30))
    assert len({job.id for job in jobs}) == sim.jobs_billed == 3


async def test_create_task_takes_the_same_call_again_and_at_once(sim: Simulator, client: Client) -> None:
    call = client.call(FOX)
    one, two = asyncio.create_task(call), asyncio.create_task(call)
    job = await one
    assert await two is job
    assert await asyncio.create_task(call) is job
    assert await call is job
    assert len(seen(sim, "txt2img")) == sim.jobs_billed == 1


async def test_one_of_two_tasks_made_of_a_call_is_cancelled_and_the_other_has_the_job(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.delay(5))
    call = client.call(FOX)
    one, two = asyncio.create_task(call), asyncio.create_task(call)
    await until(lambda: seen(sim, "txt2img"))
    await give_up(one)
    assert isinstance(await two, Job)
    assert client.orphans == ()
    assert len(seen(sim, "txt2img")) == 1


async def test_a_task_cancelled_before_its_first_step_can_be_made_again(sim: Simulator, client: Client) -> None:
    call = client.call(FOX)
    task = asyncio.create_task(call)
    await give_up(task)
    assert not sim.requests
    assert isinstance(await asyncio.create_task(call), Job)
    assert len(seen(sim, "txt2img")) == 1


async def test_dropped_untouched_it_warns(client: Client) -> None:
    with pytest.warns(RuntimeWarning, match="never awaited"):
        client.txt2img(prompt="a fox", model="Flux1schnell", width=64, height=64, seed=1)


async def test_finished_or_priced_or_closed_it_doesnt_warn(client: Client) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await client.call(FOX)
        await client.call(FOX).price()
        client.call(FOX).close()
        gc.collect()
    assert caught == []


async def test_the_price_is_asked_as_often_as_one_likes_and_submits_nothing(sim: Simulator, client: Client) -> None:
    call = client.call(FOX)
    assert await call.price() == await call.price() > 0
    assert (len(seen(sim, "txt2img")), sim.jobs_billed) == (0, 0)
    assert isinstance(await call, Job)


async def test_a_file_that_cant_be_sent_may_be_mended_by_a_new_call_only(sim: Simulator, client: Client, tmp_path: Path) -> None:
    call = edit(client, image=tmp_path / "later.png")
    with pytest.raises(SourceError):
        await call
    (tmp_path / "later.png").write_bytes(PNG)
    with pytest.raises(SourceError):
        await call
    assert isinstance(await edit(client, image=tmp_path / "later.png"), Job)
    assert len(sim.requests) == 1


async def test_a_submit_that_is_too_slow_is_unknown_on_time(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.delay(50))
    call = client.call(FOX, timeout=5)
    with pytest.raises(SubmissionUnknownError):
        await call
    assert now() == pytest.approx(5, abs=0.2)
    assert len(seen(sim, "txt2img")) == sim.jobs_billed == 1


async def test_a_wait_that_gives_up_earlier_than_the_submit_doesnt_send_again(sim: Simulator, client: Client) -> None:
    sim.script("txt2img", Fault.delay(50))
    call = client.call(FOX)
    task = await begin(sim, call)
    with pytest.raises(SubmissionUnknownError) as caught:
        await call.result(timeout=5)
    assert now() == pytest.approx(5, abs=0.2)
    job = await task
    assert list(sim.jobs) == [job.id]
    assert await client.settle(caught.value) is job
    with pytest.raises(JobTimeoutError):
        await call.result(timeout=0)
    assert len(seen(sim, "txt2img")) == 1


async def test_nothing_is_logged_where_nothing_is_wrong(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dryapi_async"):
        await client.call(FOX).result()
    assert caplog.records == []
