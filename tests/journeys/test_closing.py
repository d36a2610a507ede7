"""A client that is closed while calls are under way: nothing leaves any more, and what has left is listened to."""

import asyncio

import pytest

from dryapi_async import Client, SubmissionUnknownError
from dryapi_async.simulator import Fault, Simulator
from dryapi_async.testing import ThreadedSimulator

from ..conftest import FOX, finish, make_client, seen, until

pytestmark = pytest.mark.anyio


async def close_after(client: Client, steps: int) -> None:
    for _ in range(steps):
        await asyncio.sleep(0)
    await client.aclose()


@pytest.mark.parametrize("first", ["the call", "the closing"])
@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("steps", range(1, 20))
async def test_p12_closed_at_any_step_a_submit_isnt_sent_or_its_job_is_had(
    sim: Simulator, steps: int, first: str, *, connected: bool
) -> None:
    client = make_client(sim)
    if connected:
        await client.balance()
    closing = asyncio.create_task(close_after(client, steps)) if first == "the closing" else None
    task = asyncio.create_task(finish(client.call(FOX)))
    await asyncio.wait([closing or asyncio.create_task(close_after(client, steps)), task])
    had = {job.id for job in client.orphans} | ({task.result().id} if task.exception() is None else set())
    assert not isinstance(task.exception(), SubmissionUnknownError)
    assert had == set(sim.jobs)


async def test_p12_while_one_account_is_listened_to_no_other_sends(sim: Simulator) -> None:
    client = make_client(sim)
    tenant = client.with_options(api_key="2|another")
    sim.accept_key("2|another")
    sim.script(lambda one: one.operation == "txt2img" and "another" in one.headers["Authorization"], Fault.delay(10))
    out = asyncio.create_task(finish(tenant.call(FOX)))
    await until(lambda: sim.jobs)
    sim.script("txt2img", Fault.rate_limited(retry_after=2))
    waiting = asyncio.create_task(finish(client.call(FOX)))
    await until(lambda: len(seen(sim, "txt2img")) == 2)
    await client.aclose()
    await asyncio.wait([out, waiting])
    assert out.exception() is None
    assert waiting.exception() is not None
    assert len(seen(sim, "txt2img")) == 2


@pytest.mark.processes
def test_p01_a_call_that_a_closed_loop_left_on_its_way_is_told_at_once() -> None:
    """Loops that are closed by hand cancel nothing."""
    with ThreadedSimulator(pictures=False) as service:
        service.script("txt2img", Fault.hang())
        client = Client(service.key, base_url=service.url)
        call = client.call(FOX)

        async def try_it() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(finish(call), 0.5)

        first = asyncio.new_event_loop()
        first.run_until_complete(try_it())
        first.close()

        async def try_again() -> None:
            async with asyncio.timeout(5):
                with pytest.raises(SubmissionUnknownError, match="event loop was closed"):
                    await call
            await client.aclose()

        asyncio.run(try_again())
        assert len(seen(service, "txt2img")) == 1
