"""Webhooks: what a receiver gets, signed; and the documented retries, in the loop's time."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import web

from dryapi_async.simulator import Fault, Simulator
from dryapi_async.simulator.webhooks import is_loopback

from .conftest import IMG2IMG, TXT2IMG, Talk, make_png, open_talk, run, wait_until

pytestmark = pytest.mark.anyio
SECRET = b"whsec_simulator"


class Receiver:
    """A web application that answers as it is told and keeps what came."""

    def __init__(self) -> None:
        self.came: list[tuple[Any, bytes]] = []
        self.answers: list[int] = []
        self.url = ""
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.came.append((request.headers, await request.read()))
        status = self.answers.pop(0) if self.answers else 200
        if status == 0:
            await asyncio.sleep(11)
        return web.Response(status=status or 200, headers={"Location": "/"} if status == 302 else {})

    @property
    def events(self) -> list[str]:
        return [json.loads(body)["event"] for _, body in self.came]

    def data(self, at: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.came[at][1])["data"]
        return found


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as running:
        yield running


def signed(headers: Any, body: bytes, prefix: str = "X-dryAPI") -> bool:
    expected = hmac.new(SECRET, headers[f"{prefix}-Timestamp"].encode() + b"." + body, hashlib.sha256).hexdigest()
    return bool(headers[f"{prefix}-Signature"] == f"sha256={expected}")


async def test_a_job_is_told_signed_from_start_to_end(receiver: Receiver) -> None:
    async with Simulator(seed=1, duration=0.2, epoch=1_700_000_000) as sim, open_talk(sim) as talk:
        request_id = await talk.submit(fields={**TXT2IMG, "webhook_url": receiver.url})
        await wait_until(lambda: len(receiver.came) == 2)
        await wait_until(lambda: all(each.state == "delivered" for each in sim.webhooks.deliveries))
        assert receiver.events == ["job.processing", "job.completed"]
        for headers, body in receiver.came:
            assert signed(headers, body)
            assert b"\\/" in body or b"completed" not in body
            event = json.loads(body)
            assert (headers["X-dryAPI-Event"], headers["X-dryAPI-Delivery-Id"]) == (event["event"], event["delivery_id"])
            assert headers["User-Agent"] == "dryAPI-Webhook/1.0"
            assert abs(int(headers["X-dryAPI-Timestamp"]) - sim.now()) < 3
            assert event["timestamp"].startswith("2023-11-14T22:13:2")
        started, done = receiver.data(0), receiver.data(1)
        assert set(started) == {"job_request_id", "status", "previous_status", "job_type", "started_at"}
        assert (started["status"], started["previous_status"], started["job_type"]) == ("processing", "pending", "txt2img")
        assert (done["job_request_id"], done["status"], done["previous_status"]) == (request_id, "done", "processing")
        assert done["processing_time_ms"] == 170
        assert (await talk.download(done["result_url"]))[0] == 200
        assert receiver.came[0][0]["X-dryAPI-Delivery-Id"] != receiver.came[1][0]["X-dryAPI-Delivery-Id"]


async def test_failures_and_texts(sim: Simulator, talk: Talk, receiver: Receiver) -> None:
    sim.webhooks.url = receiver.url
    sim.script("img2img", Fault.job_error(code="WORKER_TIMEOUT", message="Gone."))
    _, body = await talk.upload("img2img", IMG2IMG, [("image", make_png(), "a.png", "image/png")])
    await wait_until(lambda: len(receiver.came) == 2)
    failed = receiver.data(receiver.events.index("job.failed"))
    assert (failed["job_request_id"], failed["status"], failed["error_code"], failed["error_message"]) == (
        body["data"]["request_id"],
        "error",
        "WORKER_TIMEOUT",
        "Gone.",
    )
    await talk.submit("txt2embedding", {"input": "x", "model": "Bge_M3_FP16"})
    await wait_until(lambda: len(receiver.came) == 4)
    assert "result_url" not in receiver.data(2 + receiver.events[2:].index("job.completed"))
    sim.variants("webhook-live-words")
    await talk.upload("img-upscale", {"model": "RealESRGAN_x4plus"}, [("image", make_png(), "a.png", "image/png")])
    await wait_until(lambda: len(receiver.came) == 6)
    assert receiver.data(5)["job_type"] == "img-upscale"


@pytest.mark.parametrize(
    ("brand", "prefix", "agent"), [("deapi", "X-DeAPI", "DeAPI-Webhook/1.0"), ("probe", "X-DryAPI", "dryAPI-Webhook/1.0")]
)
async def test_brands_and_the_probe(sim: Simulator, receiver: Receiver, brand: Any, prefix: str, agent: str) -> None:
    sim.webhooks.brand = brand
    delivery = await sim.webhooks.probe(receiver.url)
    assert delivery.state == "delivered"
    [(headers, body)] = receiver.came
    assert prefix + "-Signature" in [name for name in headers if name.lower() == f"{prefix}-signature".lower()]
    assert (headers["User-Agent"], headers[f"{prefix}-Event"], signed(headers, body, prefix)) == (agent, "webhook.validation", True)
    assert receiver.data(0)["validation"] is True


async def test_misbehaviour_on_request(sim: Simulator, talk: Talk, receiver: Receiver) -> None:
    hooks = sim.webhooks
    hooks.url = receiver.url

    async def tell(count: int) -> list[str]:
        receiver.came.clear()
        await talk.submit()
        await wait_until(lambda: len(receiver.came) == count)
        return receiver.events

    hooks.reordered = True
    assert await tell(2) == ["job.completed", "job.processing"]
    hooks.reordered, hooks.copies = False, 2
    await tell(4)
    assert len({headers["X-dryAPI-Delivery-Id"] for headers, _ in receiver.came}) == 2
    hooks.copies, hooks.tampered = 1, True
    await tell(2)
    assert not any(signed(headers, body) for headers, body in receiver.came)
    hooks.tampered, hooks.skew = False, -400
    await tell(2)
    assert int(receiver.came[0][0]["X-dryAPI-Timestamp"]) < sim.now() - 390
    assert signed(*receiver.came[0])
    hooks.skew, hooks.secret = 0, None
    await tell(2)
    assert "X-dryAPI-Signature" not in receiver.came[0][0]
    hooks.lost = 1.0
    receiver.came.clear()
    await talk.submit()
    await asyncio.sleep(0.02)
    assert not receiver.came
    assert [each.state for each in hooks.deliveries[-2:]] == ["not sent"] * 2


async def test_only_loopback_is_dialled(sim: Simulator, talk: Talk) -> None:
    # Names only: were the rule broken, the resolver would still lead them to this machine.
    for url in ("https://example.com/hook", "https://127.0.0.1.example.com/", "https://localhost.example.com/"):
        await talk.submit(fields={**TXT2IMG, "webhook_url": url})
    await wait_until(lambda: len(sim.webhooks.deliveries) == 6 and all(each.state == "not sent" for each in sim.webhooks.deliveries))
    assert not any(each.attempts for each in sim.webhooks.deliveries)


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("http://127.0.0.1:8000/hook", True),
        ("https://127.8.9.1/", True),
        ("http://[::1]:80/", True),
        ("http://localhost/", True),
        ("https://10.0.0.1/hook", False),
        ("https://[2001:db8::1]/", False),
        ("https://0.0.0.0/", False),
        ("https://example.com/?127.0.0.1", False),
        ("https://127.0.0.1@example.com/", False),
    ],
)
async def test_what_is_loopback(url: str, taken: bool) -> None:
    assert is_loopback(url) is taken


async def test_the_name_localhost_needs_no_resolver(sim: Simulator, receiver: Receiver) -> None:
    import threading  # noqa: PLC0415 - beside its only user

    before = threading.active_count()
    assert (await sim.webhooks.probe(receiver.url.replace("127.0.0.1", "localhost"))).state == "delivered"
    assert threading.active_count() == before


def test_ten_attempts_at_the_documented_times_then_failed() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        never = aiohttp.ClientTimeout(total=None)
        async with Receiver() as receiver, Simulator(speed=float("inf"), seed=1) as sim, open_talk(sim, timeout=never) as talk:
            receiver.answers = [500, 302, 404, 0, 500, 500, 500, 500, 500, 500]
            sim.hold()
            sim.webhooks.url = receiver.url
            began = loop.time()
            await talk.submit()
            await asyncio.sleep(90_000)
            [delivery] = sim.webhooks.deliveries
            waits = [round(at - began) for at, _ in delivery.attempts]
            assert waits == [0, 60, 180, 480, 1090, 2890, 6490, 17_290, 38_890, 82_090]
            assert [outcome for _, outcome in delivery.attempts] == [500, 302, 404, "TimeoutError", *[500] * 6]
            assert delivery.state == "failed"
            assert len({headers["X-dryAPI-Delivery-Id"] for headers, _ in receiver.came}) == 1
            assert len({headers["X-dryAPI-Timestamp"] for headers, _ in receiver.came}) == 10
            assert all(signed(headers, body) for headers, body in receiver.came)

    run(main())


def test_a_delivery_that_is_taken_later_is_delivered_and_ten_failures_switch_off() -> None:
    async def main() -> None:
        never = aiohttp.ClientTimeout(total=None)
        async with Receiver() as receiver, Simulator(speed=float("inf"), seed=1) as sim, open_talk(sim, timeout=never) as talk:
            hooks = sim.webhooks
            hooks.url, hooks.same_id = receiver.url, False
            sim.hold()
            receiver.answers = [500, 200]
            await talk.submit()
            await asyncio.sleep(100)
            assert (hooks.deliveries[0].state, len(receiver.came)) == ("delivered", 2)
            assert len({headers["X-dryAPI-Delivery-Id"] for headers, _ in receiver.came}) == 2
            hooks.url, hooks.backoff = "http://127.0.0.1:1/hook", (0, 1)
            for _ in range(10):
                assert hooks.enabled
                await talk.submit()
                await asyncio.sleep(5)
            assert not hooks.enabled
            assert hooks.deliveries[-1].attempts[0][1] == "ClientConnectorError"

    run(main())


async def test_closing_ends_what_is_on_its_way(receiver: Receiver) -> None:
    async with Simulator(speed=float("inf")) as sim, open_talk(sim) as talk:
        sim.webhooks.url, receiver.answers = receiver.url, [0, 0]
        await talk.submit()
        await wait_until(lambda: len(receiver.came) == 2)
        async with asyncio.timeout(1):
            await sim.close()
        assert [each.state for each in sim.webhooks.deliveries] == ["open", "open"]
