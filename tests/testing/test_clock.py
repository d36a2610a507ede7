import asyncio
import functools
import io
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import anyio
import pytest
import trustme
from aiohttp import web

from dryapi_async.testing import JumpingLoop, clock, hold_clock, wall_time

T = TypeVar("T")
MEBIBYTE = 1 << 20


def run(main: Callable[[], Coroutine[Any, Any, T]], **options: float) -> T:
    with asyncio.Runner(loop_factory=functools.partial(JumpingLoop, **options)) as runner:
        return runner.run(main())


def virtual_seconds() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def serve(handler: Callable[[web.Request], Awaitable[web.StreamResponse]], tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def answer(request: web.Request) -> web.Response:
    return web.Response(text="ok")


def test_fifty_minutes_of_polling_over_sockets_take_seconds() -> None:
    async def poll() -> int:
        reads = 0
        async with serve(answer) as url, aiohttp.ClientSession() as session:
            while virtual_seconds() < 3000:
                async with session.get(url) as response:
                    assert await response.text() == "ok"
                reads += 1
                await asyncio.sleep(5)
        return reads

    began = time.monotonic()
    assert run(poll) == 600
    assert time.monotonic() - began < 30


def test_a_client_gives_up_at_exactly_its_time_out() -> None:
    async def answer_late(request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    async def ask() -> tuple[float, float]:
        async with serve(answer_late) as url, aiohttp.ClientSession() as session:
            with pytest.raises(TimeoutError):
                await session.get(url, timeout=aiohttp.ClientTimeout(total=20))
            gave_up = virtual_seconds()
            async with session.get(url, timeout=aiohttp.ClientTimeout(total=40)):
                return gave_up, virtual_seconds()

    assert run(ask) == (20.0, 50.0)


def test_a_servers_keep_alive_ends_in_virtual_time() -> None:
    async def leave_idle() -> float:
        async with serve(answer) as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1].strip("/")))
            writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            assert (await reader.read()).endswith(b"ok")  # the end of the connection, not of the answer
            writer.close()
            await writer.wait_closed()
            return virtual_seconds()

    assert 60 < run(leave_idle) < 4000


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_concurrent_uploads_meet_no_false_time_out(tls: bool) -> None:
    authority = trustme.CA()
    server_side, client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    authority.configure_trust(client_side)
    body = os.urandom(4 * MEBIBYTE)

    async def take(request: web.Request) -> web.Response:
        size = 0
        while True:
            async with asyncio.timeout(1):
                chunk = await request.content.readany()
            if not chunk:
                return web.Response(text=str(size))
            size += len(chunk)

    async def upload() -> tuple[list[str], float]:
        patience = aiohttp.ClientTimeout(total=None, sock_connect=1, sock_read=1)
        async with serve(take, server_side if tls else None) as url, aiohttp.ClientSession(timeout=patience) as session:

            async def send() -> str:
                async with session.post(url, data=io.BytesIO(body), ssl=client_side) as response:
                    return await response.text()

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(send()) for _ in range(8)]
            return [task.result() for task in tasks], virtual_seconds()

    sizes, seconds = run(upload)
    assert sizes == [str(len(body))] * 8
    assert seconds < 1


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": JumpingLoop}


@pytest.mark.anyio
async def test_anyios_time_outs_and_sleeps_jump() -> None:
    began, real = virtual_seconds(), time.monotonic()
    with pytest.raises(TimeoutError), anyio.fail_after(60):
        await anyio.sleep(100)
    assert virtual_seconds() == began + 60
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 600)
        group.start_soon(anyio.sleep, 300)
    assert virtual_seconds() == anyio.current_time() == began + 660
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 5)
    assert virtual_seconds() == began + 665
    assert time.monotonic() - real < 30


def test_timers_keep_their_order_and_meet_their_time_exactly() -> None:
    async def sleep_all() -> list[tuple[int, float]]:
        woken: list[tuple[int, float]] = []
        delays = [0.3, 7.0, 0.1, 7.0, 0.1, 1e-6, 86400.0, 0.1 + 0.2, 3 * 86400.0]

        async def sleep(index: int) -> None:
            await asyncio.sleep(delays[index])
            woken.append((index, virtual_seconds()))

        async with asyncio.TaskGroup() as group:
            for index in range(len(delays)):
                group.create_task(sleep(index))
        assert [index for index, _ in woken] == [5, 2, 4, 0, 7, 1, 3, 6, 8]
        assert all(at == delays[index] for index, at in woken if index != 7)  # 0.1 + 0.2 is due with 0.3: less than the clock's resolution
        return woken

    assert run(sleep_all)[-1] == (8, 259200.0)


def test_the_clock_moves_on_after_a_hundred_days() -> None:
    async def live_long() -> float:
        await asyncio.sleep(2.0**24)
        for _ in range(10):
            await asyncio.sleep(1 / 3)
        return virtual_seconds()

    assert run(live_long, patience=5.0) == pytest.approx(2.0**24 + 10 / 3, abs=1e-6)


def test_bytes_that_arrive_within_the_grace_win_over_a_timer() -> None:
    async def receive() -> float:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        sender = threading.Timer(0.05, theirs.send, [b"late"])
        sender.start()
        async with asyncio.timeout(1):
            assert await reader.read(4) == b"late"
        sender.join()
        writer.close()
        theirs.close()
        return virtual_seconds()

    assert run(receive, grace=0.5) == 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="how a full accept queue treats a connect is Linux's own affair")
def test_a_connect_dropped_by_a_full_queue_is_not_overtaken() -> None:
    async def connect() -> float:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0), backlog=0) as server, socket.socket() as first, socket.socket() as second:
            first.connect(server.getsockname())
            second.settimeout(0)
            waiter = asyncio.ensure_future(loop.sock_connect(second, server.getsockname()))
            await asyncio.sleep(0)
            server.accept()[0].close()
            async with asyncio.timeout(10):
                await waiter
        return virtual_seconds()

    assert run(connect) == 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="how a full accept queue treats a connect is Linux's own affair")
def test_a_connect_that_hangs_meets_its_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "CONNECT_SECONDS", 0.1)

    async def connect() -> float:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as server, socket.create_connection(server.getsockname()):
            waiter = asyncio.open_connection(*server.getsockname())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(waiter, 10)
        return virtual_seconds()

    began = time.monotonic()
    assert run(connect) == 10.0
    assert time.monotonic() - began < 9, "the clock jumped"


def test_a_wait_that_nothing_can_end_says_so() -> None:
    async def wait_for_nobody() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match=r"(?s)0\.05 real seconds: no timer is set.*hold.*wait_for_nobody"):
        run(wait_for_nobody, patience=0.05)


def test_an_endless_life_ends_at_its_limit() -> None:
    async def live() -> None:
        while True:  # noqa: ASYNC110 - an endless life is what is tested
            await asyncio.sleep(1)

    async def live_and_tidy() -> None:
        try:
            await live()
        finally:
            await asyncio.sleep(50)
            tidied.append(virtual_seconds())

    tidied: list[float] = []
    with pytest.raises(RuntimeError, match="limit of 100 virtual seconds"):
        run(live_and_tidy, limit=100)
    assert tidied == [150.0]


def test_a_held_clock_walks_in_real_time() -> None:
    async def hold() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, JumpingLoop)
        real = time.monotonic()
        with loop.hold(), hold_clock():
            await asyncio.sleep(0.05)
        walked, real = virtual_seconds(), time.monotonic() - real
        assert 0.05 <= walked <= real
        await asyncio.sleep(1000)
        assert virtual_seconds() == walked + 1000
        return walked, real

    walked, real = run(hold, patience=0.01)
    assert real >= 0.05
    assert walked < 10


def test_the_wall_clock_moves_with_the_virtual_time() -> None:
    async def cross_midnight() -> float:
        assert wall_time() == 86390.0
        await asyncio.sleep(20)
        return wall_time()

    assert run(cross_midnight, wall_start=86390.0) == 86410.0

    async def take_a_day() -> float:
        await asyncio.sleep(86400)
        return wall_time()

    before = time.time()
    assert before + 86400 <= run(take_a_day) <= time.time() + 86400


def test_under_a_plain_loop_the_real_clock_counts() -> None:
    async def look() -> float:
        with hold_clock():
            return wall_time()

    before = time.time()
    assert before <= asyncio.run(look()) <= wall_time() <= time.time()
