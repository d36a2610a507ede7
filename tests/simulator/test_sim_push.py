"""The push channel, by the Pusher protocol's own words over a bare websocket."""

import asyncio
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from dryapi_async.simulator import Fault, Simulator

from .conftest import TXT2IMG, Talk, open_talk, wait_until

pytestmark = pytest.mark.anyio


class Listener:
    """A websocket that speaks the protocol by hand."""

    def __init__(self, talk: Talk, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.talk = talk
        self.socket = socket
        self.socket_id = ""

    async def hear(self) -> dict[str, Any]:
        message: dict[str, Any] = await self.socket.receive_json(timeout=2)
        return message

    async def greet(self) -> None:
        hello = await self.hear()
        assert hello["event"] == "pusher:connection_established"
        self.socket_id = json.loads(hello["data"])["socket_id"]

    async def say(self, event: str, data: Any) -> None:
        await self.socket.send_json({"event": event, "data": data})

    async def authorize(self, channel: str, *, form: bool = False, key: str | None = None) -> tuple[int, Any]:
        fields = {"socket_id": self.socket_id, "channel_name": channel}
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        options: dict[str, Any] = {"data": fields} if form else {"json": fields}
        async with self.talk.session.post(f"{self.talk.sim.url}/broadcasting/auth", headers=headers, **options) as answer:
            return answer.status, await answer.json()

    async def subscribe(self) -> None:
        await self.greet()
        channel = self.talk.sim.push.channel
        status, body = await self.authorize(channel)
        assert status == 200
        await self.say("pusher:subscribe", {"channel": channel, "auth": body["auth"]})
        assert await self.hear() == {"event": "pusher_internal:subscription_succeeded", "data": "{}", "channel": channel}


def url_of(sim: Simulator, *, key: str = "depin-api-prod-key", query: str = "protocol=7&client=test&version=1") -> str:
    return f"{sim.url.replace('http', 'ws')}/app/{key}?{query}"


@pytest.fixture
async def ear(talk: Talk) -> AsyncIterator[Listener]:
    async with talk.session.ws_connect(url_of(talk.sim)) as socket:
        yield Listener(talk, socket)


async def test_a_job_is_told_from_start_to_end() -> None:
    async with Simulator(seed=1, duration=2.0) as sim, open_talk(sim) as talk, talk.session.ws_connect(url_of(sim)) as socket:
        ear = Listener(talk, socket)
        await ear.subscribe()
        request_id = await talk.submit()
        seen = []
        while not seen or seen[-1]["status"] != "done":
            message = await ear.hear()
            assert (message["event"], message["channel"]) == ("request.status.updated", "private-client.1001")
            seen.append(json.loads(message["data"]))
        assert {each["request_id"] for each in seen} == {request_id}
        assert [each["status"] for each in seen] == ["processing"] * 4 + ["done"]
        progress = [float(each["progress"]) for each in seen]
        assert progress == sorted(progress)
        assert progress[0] < 10
        assert 15 < progress[1] < 40
        assert seen[-1]["progress"] == "100.00"
        assert (await talk.download(seen[-1]["result_url"]))[0] == 200
        assert sim.requests[0].operation == "push"
        assert sim.requests[0].status == 101


async def test_a_job_that_runs_already_is_told_to_who_comes_later() -> None:
    async with Simulator(seed=1, duration=0.3) as sim, open_talk(sim) as talk:
        request_id = await talk.submit()
        await asyncio.sleep(0.1)
        async with talk.session.ws_connect(url_of(sim)) as socket:
            ear = Listener(talk, socket)
            await ear.subscribe()
            while (data := json.loads((await ear.hear())["data"]))["status"] != "done":
                assert data["request_id"] == request_id


async def test_a_job_that_is_ended_by_hand_is_told_once() -> None:
    async with Simulator(seed=1, duration=0.2) as sim, open_talk(sim) as talk, talk.session.ws_connect(url_of(sim)) as socket:
        ear = Listener(talk, socket)
        sim.push.steps = 0
        await ear.subscribe()
        request_id = await talk.submit()
        sim.finish(request_id)
        assert json.loads((await ear.hear())["data"])["status"] == "done"
        await asyncio.sleep(0.25)
        await ear.say("pusher:ping", {})
        assert (await ear.hear())["event"] == "pusher:pong"


async def test_failures_are_not_told(sim: Simulator, talk: Talk, ear: Listener) -> None:
    await ear.subscribe()
    sim.hold()
    failed, done = await talk.submit(), await talk.submit()
    assert [json.loads((await ear.hear())["data"])["status"] for _ in range(2)] == ["processing"] * 2
    sim.fail(failed)
    sim.set_progress(done, 45.5)
    assert json.loads((await ear.hear())["data"]) == {"request_id": done, "status": "processing", "progress": "45.50"}
    sim.finish(done)
    data = json.loads((await ear.hear())["data"])
    assert (data["request_id"], data["status"]) == (done, "done")


async def test_the_channel_is_private(sim: Simulator, talk: Talk, ear: Listener) -> None:
    await ear.greet()
    mine = sim.push.channel
    assert (await ear.authorize("private-client.2"))[0] == 403
    assert (await ear.authorize(mine, key="wrong"))[0] == 403
    status, body = await ear.authorize(mine, form=True)
    signature = hmac.digest(sim.push.secret.encode(), f"{ear.socket_id}:{mine}".encode(), "sha256").hex()
    assert (status, body) == (200, {"auth": f"depin-api-prod-key:{signature}"})
    for auth in (None, "depin-api-prod-key:00", f"depin-api-prod-key:{signature[:-1]}"):
        await ear.say("pusher:subscribe", {"channel": mine, "auth": auth})
        refused = await ear.hear()
        assert (refused["event"], refused["data"]["status"]) == ("pusher:subscription_error", 401)
    await talk.submit()
    await ear.say("pusher:ping", {})
    assert await ear.hear() == {"event": "pusher:pong", "data": "{}"}
    sim.push.refuse_auth = 1
    assert [(await ear.authorize(mine))[0] for _ in range(2)] == [403, 200]


@pytest.mark.parametrize(("options", "code"), [({"key": "nobody"}, 4001), ({"query": "protocol=5"}, 4007)])
async def test_wrong_doors_are_closed_with_their_code(sim: Simulator, talk: Talk, options: dict[str, str], code: int) -> None:
    async with talk.session.ws_connect(url_of(sim, **options)) as socket:
        refused = await socket.receive_json()
        assert (refused["event"], refused["data"]["code"]) == ("pusher:error", code)
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == code
    assert not sim.push.sockets


async def test_nonsense_is_answered_and_survived(sim: Simulator, ear: Listener) -> None:
    await ear.greet()
    for text in ("{", "[]", "5", "[" * 100_000):
        await ear.socket.send_str(text)
        assert (await ear.hear())["event"] == "pusher:error"
    for message in ({}, {"event": "client-x", "data": 5}, {"event": "pusher:subscribe", "data": "x"}, {"event": ["x"]}):
        await ear.socket.send_json(message)
    await ear.socket.send_bytes(b"\0")
    await ear.say("pusher:ping", {})
    assert (await ear.hear())["event"] == "pusher:pong"
    assert len(sim.push.sockets) == 1


async def test_a_silent_client_is_pinged_and_then_closed(sim: Simulator, talk: Talk) -> None:
    sim.push.activity_timeout = 0.05
    async with talk.session.ws_connect(url_of(sim)) as socket:
        ear = Listener(talk, socket)
        await ear.greet()
        for _ in range(3):
            assert await ear.hear() == {"event": "pusher:ping", "data": "{}"}
            await ear.say("pusher:pong", {})
        assert (await ear.hear())["event"] == "pusher:ping"
        assert (await ear.hear())["data"]["code"] == 4201
        await socket.receive()
        assert socket.close_code == 4201


async def test_sockets_can_be_dropped_refused_and_frozen(sim: Simulator, talk: Talk, ear: Listener) -> None:
    await ear.subscribe()
    sim.push.freeze()
    await talk.submit()
    with pytest.raises(TimeoutError):
        await ear.socket.receive(timeout=0.05)
    sim.push.thaw()
    dropping = asyncio.create_task(sim.push.drop(4200))
    while (message := await ear.socket.receive(timeout=2)).type is aiohttp.WSMsgType.TEXT:
        pass
    await dropping
    assert (message.type, ear.socket.close_code) == (aiohttp.WSMsgType.CLOSE, 4200)
    await wait_until(lambda: not sim.push.sockets)
    sim.push.down = True
    with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
        await talk.session.ws_connect(url_of(sim))
    sim.push.down = False
    sim.script("push", Fault.reset("before_body"), times=2)  # aiohttp repeats a GET by itself once
    sim.script("push", Fault.status(403, "<html>"))
    with pytest.raises(aiohttp.ClientOSError):
        await talk.session.ws_connect(url_of(sim))
    with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
        await talk.session.ws_connect(url_of(sim))
    async with talk.session.ws_connect(url_of(sim)) as again:
        assert (await again.receive_json())["event"] == "pusher:connection_established"
    assert (sim.push.total, sim.push.peak) == (2, 1)


async def test_what_is_said_can_be_changed(sim: Simulator, talk: Talk, ear: Listener) -> None:
    await ear.subscribe()
    sim.push.data_as, sim.push.copies, sim.push.preview = "object", 2, "data:image/png;base64,AAAA"
    sim.hold()
    request_id = await talk.submit()
    for _ in range(2):
        assert (await ear.hear())["data"] == {
            "request_id": request_id,
            "status": "processing",
            "progress": "0.00",
            "preview": "data:image/png;base64,AAAA",
        }
    sim.push.muted = True
    sim.finish(request_id)
    sim.push.copies = 1
    sim.push.send("request.status.updated", {"request_id": "foreign", "status": "done"})
    assert (await ear.hear())["data"]["request_id"] == "foreign"


async def test_unsubscribed_is_silent_and_public_channels_are_open(sim: Simulator, talk: Talk, ear: Listener) -> None:
    await ear.subscribe()
    await ear.say("pusher:unsubscribe", {"channel": sim.push.channel})
    await ear.say("pusher:subscribe", {"channel": "news"})
    assert (await ear.hear())["channel"] == "news"
    assert not sim.push.subscribed
    await talk.submit()
    sim.push.send("anything", {"a": 1}, channel="news")
    assert await ear.hear() == {"event": "anything", "data": '{"a":1}', "channel": "news"}


@pytest.mark.parametrize("frozen", [False, True])
async def test_closing_ends_the_sockets(frozen: bool) -> None:
    async with Simulator(speed=float("inf")) as sim, open_talk(sim) as talk, talk.session.ws_connect(url_of(sim)) as socket:
        ear = Listener(talk, socket)
        await ear.subscribe()
        if frozen:
            sim.push.freeze()
            await talk.post("txt2img", TXT2IMG)
            await ear.say("pusher:ping", {})
            await asyncio.sleep(0.02)
        async with asyncio.timeout(1):
            await sim.close()
        while (await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            pass
        assert socket.closed
        assert not sim.push.sockets
