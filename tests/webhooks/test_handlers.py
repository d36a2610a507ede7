"""The ready-made handlers, over real sockets: aiohttp.web, Starlette and FastAPI with uvicorn."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from dryapi_async.errors import ClientClosedError, SharedStateError
from dryapi_async.protocol.status import JobState
from dryapi_async.simulator import Fault
from dryapi_async.testing import WebhookSigner, wall_time
from dryapi_async.webhooks import MOST_BODY_BYTES

from ..conftest import FOX, make_client, make_sim, now
from ..conftest import until as wait_until
from .conftest import Desk, Serve

pytestmark = pytest.mark.anyio
SECRET = "whsec_simulator"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver())) as opened:
        yield opened


@pytest.fixture
async def desk() -> Desk:
    return Desk(wall_time, SECRET)


async def until(reached: Callable[[], object]) -> None:
    async with asyncio.timeout(600):
        await wait_until(reached)


async def post(session: aiohttp.ClientSession, url: str, headers: dict[str, str], body: Any) -> tuple[int, str]:
    async with session.post(url, headers=headers, data=body) as answer:
        return answer.status, await answer.text()


def signed(event: str = "job.completed", **data: Any) -> tuple[dict[str, str], bytes]:
    return WebhookSigner(SECRET).sign({"job_request_id": "j-1", "status": "done", **data}, event=event)


@pytest.mark.parametrize("brand", ["dryapi", "deapi", "probe"])
async def test_p17_the_simulators_deliveries_are_taken(serve: Serve, brand: Any) -> None:
    async with make_sim() as sim:
        desk = Desk(sim.now)
        async with serve(desk) as url, make_client(sim) as client:
            sim.webhooks.url, sim.webhooks.brand = url, brand
            job = await client.call(FOX)
            await until(lambda: len(desk.events) == 2)
            sim.script("txt2img", Fault.job_error(code="WORKER_TIMEOUT", message="Gone."))
            failing = await client.txt2img(prompt="a fox", model="Flux1schnell", width=256, height=256, steps=4, seed=1)
            await until(lambda: len(desk.events) == 4)
            probe = await sim.webhooks.probe(url)
            await until(lambda: all(one.state == "delivered" for one in sim.webhooks.deliveries))
        assert [status for one in sim.webhooks.deliveries for _, status in one.attempts] == [204] * 5
        assert [(one.event, one.request_id, one.delivery_id) for one in desk.events] == [
            (one.event, one.request_id, one.delivery_id) for one in sim.webhooks.deliveries
        ]
        started, done, _, failed, probed = desk.events
        assert (started.event, started.update and started.update.state) == ("job.processing", JobState.PROCESSING)
        assert done.update is not None
        assert (done.request_id, done.update.state, done.job_type) == (job.id, JobState.DONE, "txt2img")
        assert str(done.update.url).startswith(sim.storage_url)
        assert failed.update is not None
        assert (failed.request_id, failed.update.code, failed.update.reason) == (failing.id, "WORKER_TIMEOUT", "Gone.")
        assert (probed.event, probed.delivery_id, probed.update) == ("webhook.validation", probe.delivery_id, None)
        assert not any(one.duplicate for one in desk.events)


@pytest.mark.parametrize("same_id", [True, False])
async def test_p17_the_second_delivery_of_one_id_is_a_duplicate(serve: Serve, same_id: bool) -> None:
    async with make_sim() as sim:
        desk = Desk(sim.now)
        async with serve(desk) as url, make_client(sim) as client:
            hooks = sim.webhooks
            hooks.url, hooks.copies, hooks.same_id = url, 1 + same_id, same_id
            await client.call(FOX)
            await until(lambda: len(desk.events) == (4 if same_id else 2))
            if not same_id:  # the answer was lost: it comes again, under another id
                hooks._renew(hooks.deliveries[0])
                await hooks._attempt(hooks.deliveries[0])
            await until(lambda: len(desk.events) == (4 if same_id else 3))
            assert [one.duplicate for one in desk.events] == ([False, True] * 2 if same_id else [False, False, True])
            assert {status for one in hooks.deliveries for _, status in one.attempts} == {204}


async def test_p17_what_the_service_did_not_sign_is_answered_401(
    serve: Serve, desk: Desk, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    headers, body = signed()
    old, _ = WebhookSigner(SECRET).sign(body, at=wall_time() - 301)
    async with serve(desk) as url:
        with caplog.at_level(logging.WARNING, "dryapi_async"):
            for spoilt, sent in [
                ({}, body),
                ({}, b""),
                (headers, b""),
                (headers, body + b" "),
                (WebhookSigner("another").sign(body)[0], body),
                (old, body),
                (WebhookSigner(SECRET).sign(b"not JSON")[0], b"not JSON"),
                ({name: "é" + value for name, value in headers.items()}, body),
            ]:
                assert await post(session, url, dict(spoilt), sent) == (401, "The signature was refused.\n")
        assert not desk.events
        assert len([one for one in caplog.records if one.name == "dryapi_async"]) == 8
        assert "j-1" not in caplog.text
        assert await post(session, url, headers, body) == (204, "")
    assert len(desk.events) == 1


async def test_p17_misbehaviour_of_the_sender_is_refused(serve: Serve) -> None:
    async with make_sim() as sim:
        desk = Desk(sim.now)
        async with serve(desk) as url, make_client(sim) as client:
            hooks = sim.webhooks
            hooks.url, hooks.backoff = url, (0,)
            spoilt = [("tampered", True), ("skew", -400), ("skew", 400), ("secret", None), ("secret", "whsec_old")]
            for number, (name, value) in enumerate(spoilt, 1):
                before = getattr(hooks, name)
                setattr(hooks, name, value)
                await client.call(FOX)
                await until(lambda told=2 * number: sum(bool(one.attempts) for one in hooks.deliveries) == told)
                setattr(hooks, name, before)
            assert [status for one in hooks.deliveries for _, status in one.attempts] == [401] * 10
            assert not desk.events


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 100_000):
        yield body[at : at + 100_000]


@pytest.mark.parametrize("reads_first", [False, True])
async def test_a_body_is_bounded_whatever_it_declares(
    serve: Serve, desk: Desk, session: aiohttp.ClientSession, *, reads_first: bool
) -> None:
    fitting = WebhookSigner(SECRET).sign({"job_request_id": "j", "x": "y" * (MOST_BODY_BYTES - 200)}, event="job.completed")[1]
    fitting += b" " * (MOST_BODY_BYTES - len(fitting))
    headers, _ = WebhookSigner(SECRET).sign(fitting)
    larger, _ = WebhookSigner(SECRET).sign(fitting + b" ")
    async with serve(desk, reads_first=reads_first) as url:
        assert (await post(session, url, headers, fitting))[0] == 204
        assert (await post(session, url, headers, pieces(fitting)))[0] == 204
        assert (await post(session, url, larger, fitting + b" "))[0] == 413
        assert (await post(session, url, larger, pieces(fitting + b" ")))[0] == 413
    assert [one.duplicate for one in desk.events] == [False, True]


async def test_a_declared_body_is_not_waited_for(serve: Serve, desk: Desk) -> None:
    async with serve(desk) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(b"POST /hook HTTP/1.1\r\nHost: me\r\nContent-Length: 1000000000\r\n\r\nbegin")
        began = now()
        async with asyncio.timeout(60):
            assert (await reader.readline()).split()[1] == b"413"
        assert now() - began < 1
        writer.close()
        await writer.wait_closed()


async def test_a_sender_that_goes_away_leaves_no_trace(
    serve: Serve, desk: Desk, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(desk) as url:
        _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(b"POST /hook HTTP/1.1\r\nHost: me\r\nContent-Length: 1000\r\n\r\nbegin")
        await asyncio.sleep(1)
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(1)
        assert (await post(session, url, *signed()))[0] == 204
    assert len(desk.events) == 1
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


@pytest.mark.parametrize("error", [ClientClosedError("closed"), SharedStateError("Redis is away")])
async def test_what_cannot_be_taken_now_is_answered_503(serve: Serve, desk: Desk, session: aiohttp.ClientSession, error: Exception) -> None:
    async with serve(desk) as url:
        desk.error = error
        assert await post(session, url, *signed()) == (503, "Deliver this again later.\n")
        desk.error = None
        assert (await post(session, url, *signed()))[0] == 204


async def test_a_503_is_delivered_again_by_the_service(serve: Serve) -> None:
    async with make_sim() as sim:
        desk = Desk(sim.now)
        async with serve(desk) as url, make_client(sim) as client:
            sim.webhooks.url, desk.error = url, SharedStateError("Redis is away")
            await client.call(FOX)
            await asyncio.sleep(30)
            desk.error = None
            await until(lambda: len(desk.events) == 2)
            assert [[status for _, status in one.attempts] for one in sim.webhooks.deliveries] == [[503, 204]] * 2
            assert not any(one.duplicate for one in desk.events)


async def test_a_mistake_of_the_application_is_a_500(serve: Serve, desk: Desk, session: aiohttp.ClientSession) -> None:
    """Nothing is taken that wasn't handed over: the service delivers it again."""
    async with serve(desk) as url:
        desk.secrets = ""
        assert (await post(session, url, *signed()))[0] == 500


async def test_other_methods_are_the_frameworks_business(serve: Serve, desk: Desk, session: aiohttp.ClientSession) -> None:
    async with serve(desk) as url, session.get(url) as answer:
        assert answer.status == 405


async def test_a_handler_waits_for_nothing(serve: Serve, desk: Desk, session: aiohttp.ClientSession) -> None:
    async with serve(desk) as url:
        began = now()
        for number in range(50):
            headers, body = WebhookSigner(SECRET).sign({"job_request_id": f"j-{number}"}, event="job.completed")
            assert (await post(session, url, headers, body))[0] == 204
        assert now() - began < 1
    assert len(desk.events) == 50


async def test_the_key_in_the_address_is_handed_over(serve: Serve, desk: Desk, session: aiohttp.ClientSession) -> None:
    async with serve(desk) as url:
        assert (await post(session, f"{url}/0123abcd", *signed()))[0] == 204
        assert (await post(session, url, *signed("job.failed")))[0] == 204
    assert desk.keys == ["0123abcd", None]


def test_the_front_door_imports_no_framework_of_yours() -> None:
    code = "import sys, dryapi_async.webhooks; print([one for one in ('starlette', 'fastapi', 'aiohttp.web') if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
