"""P11: the same client works across tasks, and across event loops one after the other."""

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dryapi_async import Client, ClientLoopError, Job, SubmissionUnknownError
from dryapi_async.simulator import Fault, Simulator
from dryapi_async.testing import ThreadedSimulator

from ..conftest import FOX, finish, give_up, make_client, make_sim, seen, until

pytestmark = pytest.mark.anyio


async def test_p11_opened_in_one_task_used_in_others_closed_in_another(sim: Simulator) -> None:
    client = await asyncio.create_task(make_client(sim).__aenter__())
    jobs = await asyncio.gather(*(asyncio.create_task(client.call(FOX)) for _ in range(5)))
    images = await asyncio.gather(*(asyncio.create_task(job.result()) for job in jobs))
    assert len({image.request_id for image in images}) == 5
    await asyncio.create_task(client.aclose())
    assert not sim.connections.open


async def test_p11_a_second_running_loop_is_refused(sim: Simulator, client: Client) -> None:
    job = await client.call(FOX)
    call = client.call(FOX)
    caught: list[BaseException | None] = []

    async def use(awaitable: Callable[[], Awaitable[Any]]) -> None:
        await awaitable()

    def run() -> None:
        for work in (client.call(FOX).price, job.result, lambda: call, client.__aenter__):
            try:
                asyncio.run(use(work))
            except ClientLoopError as error:
                caught.append(error)

    await asyncio.to_thread(run)
    assert [type(one) for one in caught] == [ClientLoopError] * 4
    assert "one client per loop and thread" in str(caught[0])
    assert isinstance(await call, Job)
    assert sim.jobs_billed == 2


def test_p11_a_loop_that_ended_with_a_call_under_way_leaves_a_client_that_works(tmp_path: Path) -> None:
    """The simulator runs in a thread of its own; all time here is real and short."""
    ready, over = threading.Event(), threading.Event()
    sims: list[Simulator] = []

    async def serve() -> None:
        async with make_sim(speed=float("inf")) as sim:
            sims.append(sim)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait()
    sim = sims[0]
    client = make_client(sim, poll=0.01)
    sim.script("txt2img", Fault.hang())
    call = client.call(FOX)

    async def leave() -> None:
        task = asyncio.create_task(call)
        await until(lambda: seen(sim, "txt2img"))
        del task

    async def go_on() -> None:
        with pytest.raises(SubmissionUnknownError):
            await call
        await client.call(FOX).save(tmp_path / "fox.png")
        await client.aclose()

    try:
        asyncio.run(leave())
        asyncio.run(go_on())
    finally:
        over.set()
        thread.join()
    gc.collect()
    assert (tmp_path / "fox.png").stat().st_size > 0
    assert len(seen(sim, "txt2img")) == sim.jobs_billed == 2


def test_p11_an_accounts_orphan_outlives_a_loop_that_didnt_use_it() -> None:
    async def leave(client: Client, service: ThreadedSimulator) -> None:
        service.script("txt2img", Fault.delay(0.3))
        task = asyncio.create_task(finish(client.call(FOX)))
        while not service.requests:  # noqa: ASYNC110  it is in a thread, and tells nobody
            await asyncio.sleep(0.01)
        await give_up(task)
        while not client.orphans:  # noqa: ASYNC110  the same
            await asyncio.sleep(0.01)

    async def use(client: Client) -> None:
        await client.balance()

    with ThreadedSimulator(pictures=False, duration=0.01) as service:
        service.accept_key("another-key-of-twelve")
        home = Client(service.key, base_url=service.url)
        other = home.with_options(api_key="another-key-of-twelve")
        asyncio.run(leave(other, service))
        for client in (home, home, other):
            asyncio.run(use(client))
            assert len(other.orphans) == 1, "it is paid for"
        asyncio.run(home.aclose())
