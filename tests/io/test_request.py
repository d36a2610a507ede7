"""JSON bodies, short and long, over connections that misbehave: sent once and whole, or not at all."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp.connector import Connection

from dryapi_async import Client, Limits, SubmissionUnknownError, Timeouts, Txt2Embedding
from dryapi_async.simulator import Simulator

from ..conftest import FOX, make_client, make_sim, now, seen

pytestmark = pytest.mark.anyio


def embedding(length: int) -> Txt2Embedding:
    """Make a request whose body has a few bytes more than so many."""
    return Txt2Embedding(input="a fox " * (length // 6), model="Bge_M3_FP16")


class Meddling(aiohttp.TCPConnector):
    """A connector of the user's own that does something to each connection it gives."""

    def __init__(self, meddle: Callable[[Connection], None]) -> None:
        super().__init__(resolver=aiohttp.ThreadedResolver())
        self._meddle = meddle

    async def connect(self, *given: Any, **named: Any) -> Connection:
        connection = await super().connect(*given, **named)
        self._meddle(connection)
        return connection


@pytest.mark.parametrize("length", [100, 65_000, 66_000, 1_000_000])
async def test_whatever_its_length_the_same_bytes_arrive_once(length: int) -> None:
    # Limits as they are would have each of these wait for the one before.
    async with make_sim() as sim, make_client(sim, limits=Limits.none()) as client:
        jobs = await asyncio.gather(*(client.call(embedding(length)) for _ in range(4)))
        got = seen(sim, "txt2embedding")
        assert len({job.id for job in jobs}) == sim.jobs_billed == len(got) == 4
        assert {one.fields["input"] for one in got} == {embedding(length).input}
        assert {int(one.headers["Content-Length"]) for one in got} == {one.body_size for one in got}
        assert {one.headers["Content-Type"] for one in got} == {"application/json"}


@pytest.mark.parametrize("length", [100, 66_000])
async def test_a_users_traces_see_the_body(sim: Simulator, length: int) -> None:
    chunks: list[int] = []

    async def note(*told: Any) -> None:
        chunks.append(len(told[-1].chunk))

    trace = aiohttp.TraceConfig()
    trace.on_request_chunk_sent.append(note)
    async with aiohttp.ClientSession(trace_configs=[trace]) as session, make_client(sim, session=session) as client:
        await client.call(embedding(length))
    assert sum(chunks) == seen(sim, "txt2embedding")[0].body_size


async def test_p01_a_connection_that_is_closing_takes_nothing_and_so_is_left_for_another(sim: Simulator) -> None:
    closed: list[Connection] = []

    def close_first(connection: Connection) -> None:
        if not closed and connection.transport is not None:
            closed.append(connection)
            connection.transport.close()

    async with Meddling(close_first) as connector, make_client(sim, connector=connector) as client:
        await client.call(FOX)
    assert closed
    assert sim.jobs_billed == len(seen(sim, "txt2img")) == 1


async def test_a_connection_that_takes_nothing_yet_is_waited_for(sim: Simulator) -> None:
    def pause(connection: Connection) -> None:
        protocol = connection.protocol
        if protocol is not None and not protocol.writing_paused:
            protocol.pause_writing()
            asyncio.get_running_loop().call_later(3.0, protocol.resume_writing)

    async with Meddling(pause) as connector, make_client(sim, connector=connector) as client:
        await client.call(FOX)
        await client.call(embedding(100))
    assert sim.jobs_billed == 2


@pytest.mark.parametrize("length", [100, 66_000])
async def test_p01_what_was_given_up_isnt_sent_by_a_connector_that_goes_on(length: int) -> None:
    class Stubborn(aiohttp.TCPConnector):
        async def connect(self, *given: Any, **named: Any) -> Connection:
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                await asyncio.sleep(1)
            return await super().connect(*given, **named)

    async with (
        make_sim() as sim,
        Stubborn(resolver=aiohttp.ThreadedResolver()) as connector,
        make_client(sim, connector=connector) as client,
    ):
        call = asyncio.create_task(client.call(embedding(length)).result())
        await asyncio.sleep(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.sleep(60)
        assert not sim.requests
        assert not client.orphans


async def test_p02_a_long_body_that_nobody_takes_ends_in_the_idle_time() -> None:
    held: list[asyncio.StreamWriter] = []

    async def take_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        await reader.readexactly(1)

    async with await asyncio.start_server(take_nothing, "127.0.0.1", 0, limit=1024) as server:
        port = server.sockets[0].getsockname()[1]
        async with Client("1|key-of-a-test", base_url=f"http://127.0.0.1:{port}", timeouts=Timeouts(idle=20)) as client:
            began = now()
            with pytest.raises(SubmissionUnknownError, match="txt2embedding was sent"):
                await client.call(embedding(20_000_000))
            assert now() - began == pytest.approx(20, abs=0.5)
        for writer in held:
            writer.close()


async def test_p02_a_long_body_that_is_taken_slowly_is_never_cut() -> None:
    """The idle time is for a peer that takes nothing; some megabytes are in the kernel's hands when the last byte has left."""
    ended = asyncio.Event()
    answer = b'{"data": {"request_id": "0b1a6d9e-0000-4000-8000-000000000000"}}'

    async def take_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        left = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while left:
            await asyncio.sleep(5)
            left -= len(await reader.readexactly(min(1_000_000, left)))
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)
        writer.write(head + answer)
        writer.close()
        await writer.wait_closed()
        ended.set()

    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    # Left to itself the kernel may make room for all of the body, by the moment and the host's settings: then nothing moves any more.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 500_000)
    async with await asyncio.start_server(take_slowly, sock=listening, limit=2_000_000):
        async with Client("1|key-of-a-test", base_url=f"http://127.0.0.1:{port}") as client:
            began = now()
            assert (await client.call(embedding(30_000_000), timeout=None)).id == "0b1a6d9e-0000-4000-8000-000000000000"
            assert now() - began > 100
        await ended.wait()
