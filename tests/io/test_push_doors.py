"""Where the push channel connects to, what it shows there, and how it ends."""

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from queue import SimpleQueue
from typing import Any

import aiohttp
import pytest
import trustme

from dryapi_async.io import push as push_module
from dryapi_async.protocol import pusher
from dryapi_async.protocol.pusher import push_url
from dryapi_async.simulator import Fault, Simulator

from ..conftest import make_sim, now, seen, settle, until
from .ears import EVENT, Ear, open_ear

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ear(sim: Simulator) -> AsyncIterator[Ear]:
    async with open_ear(sim) as opened:
        yield await opened.listen()


async def test_p18_the_key_goes_to_the_api_alone(sim: Simulator) -> None:
    async with make_sim() as other, open_ear(other, url=push_url(sim.url), base_url=other.url) as ear:
        # One secret signs for both: the second stands for the push server of the first.
        ear.push.start()
        await ear.reach("up")
        assert (seen(sim, "broadcasting/auth"), seen(other, "push")) == ([], [])
        upgrade, auth = seen(sim, "push")[0], seen(other, "broadcasting/auth")[0]
        told = f"{upgrade.path}?{upgrade.query} {list(upgrade.headers.items())}"
        assert other.key not in told
        assert "Authorization" not in upgrade.headers
        assert "dryapi-async" in upgrade.headers["User-Agent"]
        assert auth.headers["Authorization"] == f"Bearer {other.key}"
        assert set(auth.fields) == {"socket_id", "channel_name"}
        assert auth.headers["Content-Type"] == "application/json"
        await ear.close()
        await until(lambda: not sim.push.sockets)


@pytest.mark.parametrize("what", ["broadcasting/auth", "push"])
async def test_p18_redirects_lead_nowhere(sim: Simulator, what: str) -> None:
    async with make_sim() as other, open_ear(sim) as ear:
        target = f"{other.url}/broadcasting/auth" if what == "broadcasting/auth" else push_url(other.url).replace("ws://", "http://")
        sim.script(what, Fault.redirect(target))
        await ear.listen()
        await asyncio.sleep(1)
        assert not other.push.sockets
        assert not seen(other, "broadcasting/auth")
        assert all("Authorization" not in one.headers for one in other.requests)
        assert len(seen(sim, what)) == 2


async def hang_upgrade(ear: Ear) -> None:
    ear.sim.script("push", Fault.hang("before_body"))
    ear.push.start()
    await until(lambda: seen(ear.sim, "push"))


async def freeze_greeting(ear: Ear) -> None:
    ear.sim.push.freeze()
    ear.push.start()
    await until(lambda: ear.sim.push.sockets)


async def hang_authorisation(ear: Ear) -> None:
    ear.sim.script("broadcasting/auth", Fault.hang("before_body"))
    ear.push.start()
    await until(lambda: seen(ear.sim, "broadcasting/auth"))


async def back_off(ear: Ear) -> None:
    ear.sim.push.down = True
    ear.push.start()
    await asyncio.sleep(200)


async def be_dropped(ear: Ear) -> None:
    await ear.listen()
    dropping = asyncio.create_task(ear.sim.push.drop(4100))
    await ear.reach("down")
    await dropping


async def be_half_open(ear: Ear) -> None:
    await ear.listen()
    ear.sim.push.freeze()
    await asyncio.sleep(35)


async def be_stopped(ear: Ear) -> None:
    await ear.listen()
    await ear.sim.push.drop(4001)
    await ear.end()


async def just_start(ear: Ear) -> None:
    ear.push.start()


async def subscribe(ear: Ear) -> None:
    await ear.listen()


async def do_nothing(ear: Ear) -> None:
    assert not ear.push.healthy


STATES = [
    do_nothing,
    just_start,
    hang_upgrade,
    freeze_greeting,
    hang_authorisation,
    subscribe,
    back_off,
    be_dropped,
    be_half_open,
    be_stopped,
]


@pytest.mark.parametrize("state", STATES)
async def test_p22_closing_leaves_nothing_behind(sim: Simulator, state: Callable[[Ear], Any]) -> None:
    tasks = asyncio.all_tasks()
    ear = Ear(sim)
    await state(ear)
    calls, began = list(ear.calls), now()
    await ear.push.close()
    await ear.push.close()
    assert now() - began <= 0.6
    assert ear.calls == calls
    assert not ear.push.healthy
    ear.push.start()
    await asyncio.sleep(60)
    assert not sim.push.sockets
    assert not ear.http.session.closed
    connector = ear.http.session.connector
    assert connector is not None
    assert not connector._acquired
    await ear.http.close()
    sim.push.thaw()
    sim.clear_script()
    await settle()
    assert not {task for task in asyncio.all_tasks() - tasks if "push" in task.get_name()}


@pytest.mark.parametrize("times", range(12))
async def test_p21_a_listener_cancelled_anywhere_leaves_nothing(sim: Simulator, times: int) -> None:
    ear = Ear(sim)
    ear.push.start()
    for _ in range(times * 4):
        await asyncio.sleep(0)
    await ear.push.close()
    await until(lambda: not sim.push.sockets)
    connector = ear.http.session.connector
    assert connector is not None
    assert not connector._acquired
    await ear.http.close()


async def test_p22_one_task_and_one_socket_however_often_it_is_started(sim: Simulator, ear: Ear) -> None:
    for _ in range(5):
        ear.push.start()
    await asyncio.sleep(5)
    assert (sim.push.total, sim.push.peak) == (1, 1)


async def test_p22_a_callback_that_breaks_is_told_and_costs_a_connection(sim: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    async with open_ear(sim) as ear:
        await ear.listen()
        ear.push._hear = lambda *_: 1 / 0
        sim.push.send(EVENT, {"request_id": "a", "status": "done"})
        await ear.come_back()
        assert ear.calls == ["up", "down", "up"]
    assert "ZeroDivisionError" in caplog.text


async def test_p22_a_client_that_was_closed_under_it_ends_it(sim: Simulator) -> None:
    ear = await Ear(sim).listen()
    await ear.http.close()
    await ear.reach("down")
    await asyncio.sleep(60)
    assert (sim.push.total, [task for task in asyncio.all_tasks() if "push" in task.get_name()]) == (1, [])
    await ear.push.close()


async def test_p28_the_socket_goes_through_the_proxy(sim: Simulator) -> None:
    lines: list[bytes] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n")
        lines.append(head)
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", int(sim.url.rpartition(":")[2]))
        inner_writer.write(head.replace(sim.url.encode(), b""))
        await asyncio.gather(pipe(reader, inner_writer), pipe(inner_reader, writer))

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    async with server, open_ear(sim, proxy=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as ear:
        await ear.listen()
        assert [line.split()[0] for line in lines] == [b"GET", b"POST"]
        assert all(line.split()[1].startswith(b"http://127.0.0.1") for line in lines)


async def test_p22_it_lives_long(sim: Simulator, ear: Ear) -> None:
    for _ in range(12):
        await asyncio.sleep(600)
        request_id = await ear.submit()
        await until(lambda: ear.told_of(request_id) and ear.told_of(request_id)[-1].finished)  # noqa: B023  called before the next turn
    assert (sim.push.total, ear.calls) == (1, ["up"])


async def test_p28_a_private_certificate_is_taken_by_the_socket_too() -> None:
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    async with make_sim(ssl=server) as sim:
        assert push_url(sim.url).startswith("wss://")
        async with open_ear(sim, ssl=client) as ear:
            await ear.listen()
        # In debug mode the server's loop reports each handshake that a client breaks off, and anyio takes that for a failed test.
        asyncio.get_running_loop().set_debug(enabled=False)
        async with open_ear(sim) as ear:
            ear.push.start()
            await asyncio.sleep(60)
            assert not ear.calls


@pytest.mark.processes
def test_p22_a_loop_that_was_blocked_is_no_half_open_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    # Real time, and a server in a loop of its own: its pong comes while ours is blocked, and is read after the pong's time is over.
    monkeypatch.setattr(push_module, "PONG_SECONDS", 0.2)
    monkeypatch.setattr(pusher, "PING_SECONDS", 0.5)
    urls: SimpleQueue[Simulator] = SimpleQueue()
    over = threading.Event()

    async def serve() -> None:
        async with make_sim() as sim:
            urls.put(sim)
            await asyncio.to_thread(over.wait)

    async def listen() -> list[str]:
        ear = Ear(urls.get(timeout=10))
        pings: list[str] = []
        connect = ear.http.connect_push

        async def connect_and_block(*args: Any, **options: Any) -> aiohttp.ClientWebSocketResponse:
            socket = await connect(*args, **options)
            send = socket.send_str

            async def send_and_block(data: str) -> None:
                await send(data)
                if "ping" in data:
                    pings.append(data)
                    asyncio.get_running_loop().call_soon(time.sleep, 0.5)

            monkeypatch.setattr(socket, "send_str", send_and_block)
            return socket

        monkeypatch.setattr(ear.http, "connect_push", connect_and_block)
        await ear.listen()
        await asyncio.sleep(2.5)
        await ear.close()
        assert len(pings) >= 2
        return ear.calls

    server = threading.Thread(target=lambda: asyncio.run(serve()), name="simulator")
    server.start()
    try:
        assert asyncio.run(listen()) == ["up"]
    finally:
        over.set()
        server.join(10)
