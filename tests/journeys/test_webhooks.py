"""P16 (in one process): a webhook wakes who waits, once, and tells what a lost answer didn't."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from dryapi_async import Client, ConfigurationError, Image, JobFailedError, SignatureError, SubmissionUnknownError
from dryapi_async.simulator import Fault, Simulator
from dryapi_async.webhooks import WebhookEvent, aiohttp

from ..conftest import FOX, PNG, edit, give_up, make_client, now, seen, settle

pytestmark = pytest.mark.anyio
SECRET = "whsec_simulator"


@asynccontextmanager
async def receive(client: Client, path: str = "/hook") -> AsyncIterator[str]:
    """Serve a client's webhooks, and give the address."""
    app = web.Application()
    app.router.add_post(path, aiohttp.handler(client))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}{path}"
    finally:
        await runner.cleanup()


def hooked(sim: Simulator, **options: Any) -> Client:
    return make_client(sim, webhook_secret=SECRET, **options)


async def test_p15_p16_a_signed_webhook_ends_a_wait_without_a_read(sim: Simulator) -> None:
    async with hooked(sim) as client, receive(client) as url:
        job = await edit(client, image=PNG, webhook_url=url)
        image = await job.result(poll=False)
        assert await image.read()
        assert now() == pytest.approx(2, abs=0.2)
        assert seen(sim, "request-status") == []


async def test_p15_a_failure_comes_by_webhook_with_its_reason(sim: Simulator) -> None:
    async with hooked(sim) as client, receive(client) as url:
        sim.script("img2img", Fault.job_error("WORKER_ERROR", "It broke."))
        with pytest.raises(JobFailedError, match=r"WORKER_ERROR: It broke\."):
            await edit(client, image=PNG, webhook_url=url).result(poll=False)
        assert seen(sim, "request-status") == []


async def test_p16_one_that_comes_before_anybody_waits_is_kept(sim: Simulator) -> None:
    async with hooked(sim) as client, receive(client) as url:
        job = await edit(client, image=PNG, webhook_url=url)
        await asyncio.sleep(30)
        before = now()
        assert isinstance(await job.result(poll=False), Image)
        assert now() == before
        assert seen(sim, "request-status") == []


async def test_p16_one_that_comes_before_the_submits_own_answer_is_kept(sim: Simulator) -> None:
    sim.board.duration = 0.5
    async with hooked(sim) as client, receive(client) as url:
        sim.script("img2img", Fault.delay(5))
        assert isinstance(await edit(client, image=PNG, webhook_url=url).result(poll=False, timeout=60), Image)
        assert seen(sim, "request-status") == []


async def test_p16_repeats_and_wrong_order_change_nothing(sim: Simulator) -> None:
    sim.webhooks.copies, sim.webhooks.reordered = 3, True
    async with hooked(sim) as client, receive(client) as url:
        job = await edit(client, image=PNG, webhook_url=url)
        updates = [update async for update in job.updates()]
        assert [update.finished for update in updates].count(True) == 1
        await asyncio.sleep(60)
        assert {one.state for one in sim.webhooks.deliveries} == {"delivered"}


async def test_p17_a_repeat_is_reported_as_one(sim: Simulator, client: Client) -> None:
    from dryapi_async.testing import WebhookSigner  # noqa: PLC0415  beside the client of this test

    body = {
        "event": "job.completed",
        "delivery_id": "d-1",
        "data": {"job_request_id": "r-1", "status": "done", "result_url": "https://x.y/z"},
    }
    async with hooked(sim) as other:
        headers, raw = WebhookSigner(SECRET).sign(body, at=other._engine().exchange.wall())
        first: WebhookEvent = await other.deliver(headers, raw)
        second = await other.deliver(headers, raw)
        assert (first.duplicate, second.duplicate) == (False, True)
        assert second.request_id == "r-1"
        with pytest.raises(SignatureError):
            await other.deliver(headers, raw + b" ")
    with pytest.raises(ConfigurationError, match="webhook secret"):
        await client.deliver(headers, raw)


async def test_what_isnt_signed_is_answered_401(sim: Simulator) -> None:
    async with (
        hooked(sim) as client,
        receive(client) as url,
        ClientSession() as session,
        session.post(url, json={"event": "job.completed"}) as response,
    ):
        assert response.status == 401


async def test_p16_a_key_in_the_address_tells_the_job_of_a_lost_answer(sim: Simulator, tmp_path: Path) -> None:
    """The submit's answer is lost; the webhook that comes to the address with its key has the id."""
    async with hooked(sim, journal=tmp_path / "jobs.db") as client, receive(client, "/hook/{key}") as url:
        sim.script("img2img", Fault.reset())
        with pytest.raises(SubmissionUnknownError) as caught:
            await edit(client, image=PNG, webhook_url=url)
        assert caught.value.journal_key is not None
        assert caught.value.journal_key in sim.webhooks.deliveries[0].url if sim.webhooks.deliveries else True
        await asyncio.sleep(5)
        job = await client.settle(caught.value)
        assert job is not None
        assert list(sim.jobs) == [job.id]
        assert isinstance(await job.result(), Image)
        (row,) = await client.journal.list()
        assert (row.state, row.request_id) == ("done", job.id)
        assert sim.jobs_billed == 1


async def test_a_cancelled_wait_leaves_the_news_to_the_next(sim: Simulator) -> None:
    async with hooked(sim) as client, receive(client) as url:
        job = await edit(client, image=PNG, webhook_url=url)
        wait = asyncio.create_task(job.wait(poll=False))
        await settle()
        await give_up(wait)
        await asyncio.sleep(30)
        assert (await job.wait(poll=False)).finished
        assert seen(sim, "request-status") == []


async def test_without_a_secret_a_wait_without_reads_is_refused(sim: Simulator, client: Client) -> None:
    with pytest.raises(ConfigurationError, match="webhook secret"):
        await client.call(FOX).result(poll=False)
    assert not sim.requests
