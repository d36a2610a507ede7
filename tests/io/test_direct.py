"""On an open connection a request goes without aiohttp's session: the same bytes, the same ends, and the session where it is needed."""

import asyncio
import functools
import inspect
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDict
from yarl import URL

from dryapi_async import Client, DryAPIError, Retry, Timeouts, Txt2Embedding
from dryapi_async.io import direct
from dryapi_async.io.body import TextBody
from dryapi_async.io.direct import Direct
from dryapi_async.io.guard import AddressGuard, PrivateAddressError
from dryapi_async.io.http import FILE_HEADERS
from dryapi_async.protocol.links import LinkRules
from dryapi_async.simulator import Fault, Simulator
from dryapi_async.simulator.faults import PHASES

from ..conftest import FOX, make_client, make_sim, now, seen

pytestmark = pytest.mark.anyio

ONCE = Retry(attempts=1, polls=1)
JOB = "0b1a6d9e-0000-4000-8000-000000000000"


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note which requests an aiohttp session sends: it makes a request object of each."""
    sent: list[str] = []
    send = aiohttp.ClientRequest.send

    async def note(request: aiohttp.ClientRequest, connection: Any) -> aiohttp.ClientResponse:
        sent.append(f"{request.method} {request.url.path}")
        return await send(request, connection)

    monkeypatch.setattr(aiohttp.ClientRequest, "send", note)
    return sent


def shut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all requests sent by aiohttp's session."""
    monkeypatch.setattr(direct, "KNOWN_SERIES", "none")


async def work(client: Client) -> bytes:
    """Pay for a job, read its status, and take its result."""
    job = await client.call(FOX)
    await asyncio.sleep(3)
    await job.status()
    return await (await job.result()).read()


def test_the_installed_aiohttp_is_one_that_this_was_held_against() -> None:
    """On another series a session sends everything, safely and at twice the cost: run this file without the check, then name it there."""
    assert aiohttp.__version__.startswith(direct.KNOWN_SERIES)


async def test_a_session_only_opens_connections(client: Client, sessions: list[str]) -> None:
    await work(client)
    opened = len(sessions)
    for _ in range(3):
        await work(client)
    await client.balance()
    assert len(sessions) == opened <= 2  # the API's and storage's


async def test_a_body_is_one_write_with_its_headers_and_costs_no_task(client: Client) -> None:
    """Two would be two packets, and the first one would have left before the second could fail."""
    loop, made, writes = asyncio.get_running_loop(), list[str](), list[bytes]()

    class Noting:
        def __init__(self, transport: asyncio.Transport) -> None:
            self._transport = transport

        def __getattr__(self, name: str) -> Any:
            return getattr(self._transport, name)

        def write(self, data: bytes) -> None:
            writes.append(data)
            self._transport.write(data)

    def note(owner: asyncio.AbstractEventLoop, work: Any, **named: Any) -> asyncio.Task[Any]:
        made.append(getattr(work, "__qualname__", ""))
        return asyncio.Task(work, loop=owner, **named)

    await client.call(FOX)
    connector: Any = client._engine().http.session.connector
    ((protocol, _),) = next(iter(connector._conns.values()))
    protocol.transport = Noting(protocol.transport)
    loop.set_task_factory(note)
    try:
        await client.call(FOX)
    finally:
        loop.set_task_factory(None)
    (request,) = writes
    assert request.startswith(b"POST ")
    assert request.endswith(b"}")
    assert "JobCall._run" in made
    assert [name for name in made if "write_bytes" in name] == []


class Wire:
    """A service that keeps each request as it came, and answers the same each time."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await self._read_head(reader):
            length = int((head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]) or 0)
            self.requests.append(head + await reader.readexactly(length))
            body = b"PNG" if b"/file" in head else self._answer(head)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    async def _read_head(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""

    def _answer(self, head: bytes) -> bytes:
        if b"/models?" in head:
            return b'{"data": [], "links": {}, "meta": {}}'
        if b"/balance" in head:
            return b'{"data": {"balance": 1}}'
        if head.startswith(b"POST"):
            return b'{"data": {"request_id": "%s"}}' % JOB.encode()
        return b'{"data": {"status": "done", "progress": 100, "result_url": "%s/file?sig=%%2Fa+b&x=1"}}' % self.url.encode()


@asynccontextmanager
async def open_wire() -> AsyncIterator[Wire]:
    wire = Wire()
    async with await asyncio.start_server(wire.serve, "127.0.0.1", 0) as server:
        wire.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield wire


async def test_the_bytes_that_leave_are_those_that_aiohttp_would_send(sessions: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def requests() -> list[bytes]:
        async with open_wire() as wire, Client("1|key-of-a-test", base_url=wire.url, retry=ONCE) as client:
            for _ in range(2):
                # Its file comes over the API's connection, for they are of one origin.
                await work(client)
                await client.balance()
                await client.models()
            return [request.replace(wire.url.rpartition(":")[2].encode(), b"PORT") for request in wire.requests]

    by_us = await requests()
    assert len(sessions) == 1, "one connection was opened, by a session"
    shut(monkeypatch)
    by_aiohttp = await requests()
    assert len(sessions) == 1 + len(by_aiohttp)
    assert len(by_us) >= 8
    assert by_us == by_aiohttp
    assert {request.partition(b" ")[0] for request in by_us} == {b"GET", b"POST"}


async def test_an_answer_is_read_as_aiohttp_would_read_it(monkeypatch: pytest.MonkeyPatch, sim: Simulator) -> None:
    """What tells the reader of an answer how to read it is the same either way."""
    told: list[dict[str, Any]] = []
    tell = ResponseHandler.set_response_params

    def note(handler: ResponseHandler, **named: Any) -> None:
        bound = inspect.signature(tell).bind(handler, **named)
        bound.apply_defaults()
        told.append({name: value for name, value in bound.arguments.items() if name not in {"self", "timer"}})
        tell(handler, **named)

    monkeypatch.setattr(ResponseHandler, "set_response_params", note)
    async with make_client(sim) as client:
        await work(client)
        told.clear()
        await work(client)
    by_us = told.copy()
    shut(monkeypatch)
    async with make_client(sim) as client:
        await work(client)
        told.clear()
        await work(client)
    assert by_us == told
    assert {one["auto_decompress"] for one in by_us} == {True, False}


FAULTS = [
    *(Fault.reset(phase) for phase in PHASES),
    *(Fault.close(phase) for phase in PHASES),
    *(Fault.hang(phase) for phase in PHASES),
    Fault.truncate("headers"),
    Fault.truncate(),
    Fault.garbage(),
    Fault.garbage("payload"),
    Fault.trickle(10_000),
    Fault.delay(3),
    Fault.html(502),
    Fault.html(502, early=True),
    Fault.unauthorized(early=True),
    Fault.redirect("http://127.0.0.1:1/elsewhere"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("where", ["txt2img", "request-status", "storage"])
async def test_p01_a_fault_ends_as_it_does_through_a_session(monkeypatch: pytest.MonkeyPatch, where: str, fault: Fault) -> None:
    """The same error in the same words, as much asked and paid, after the same time: on connections that are open."""

    async def outcome() -> tuple[Any, ...]:
        async with make_sim() as sim, make_client(sim, retry=ONCE, timeouts=Timeouts(idle=5)) as client:
            await work(client)
            sim.script(where, fault)
            began, told = now(), ""
            try:
                await work(client)
            except DryAPIError as error:
                told = f"{type(error).__name__}: {error}"
                ids = {one.id for one in client.orphans}
                told = "".join(piece for piece in told if not piece.isdigit()) + str(len(ids))
            await client.balance()
            return told, sim.jobs_billed, len(sim.requests), len(sim.storage_requests), round(now() - began)

    by_us = await outcome()
    shut(monkeypatch)
    assert by_us == await outcome()


async def ask_at(sim: Simulator, client: Client, sessions: list[str]) -> int:
    """Do the same work twice, and count what a session sent of the second."""
    await work(client)
    before = len(sessions)
    await work(client)
    return len(sessions) - before


def wrap(way: Any) -> Any:
    @functools.wraps(way)
    async def wrapped(*given: Any, **named: Any) -> Any:
        return await way(*given, **named)

    return wrapped


class Proxy:
    """An object that passes for the function it stands before, as those of wrapt do."""

    def __init__(self, way: Any) -> None:
        self._way = way

    def __getattr__(self, name: str) -> Any:
        return getattr(self._way, name)

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self._way(*given, **named)

    def __get__(self, session: Any, owner: Any) -> Any:
        return self if session is None else self._way.__get__(session, owner)


async def test_p28_a_session_sends_what_needs_one(sim: Simulator, sessions: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace, a time-out for the whole, a connector with a way of its own, leave to send, and an aiohttp that nobody looked at."""

    class Counting(aiohttp.TCPConnector):
        given = 0

        async def connect(self, *given: Any, **named: Any) -> Any:
            self.given += 1
            return await super().connect(*given, **named)

    async with make_client(sim) as client:
        assert await ask_at(sim, client, sessions) == 0
    async with aiohttp.TCPConnector() as connector, make_client(sim, connector=connector) as client:
        assert await ask_at(sim, client, sessions) == 0
    for stand_before in (wrap, Proxy):
        async with aiohttp.TCPConnector() as connector:
            monkeypatch.setattr(connector, "connect", stand_before(connector.connect))
            async with make_client(sim, connector=connector) as client:
                assert await ask_at(sim, client, sessions) == 3
    async with Counting() as connector, make_client(sim, connector=connector) as client:
        assert await ask_at(sim, client, sessions) == 3
        assert connector.given == 6
    async with aiohttp.ClientSession(trace_configs=[aiohttp.TraceConfig()]) as session, make_client(sim, session=session) as client:
        assert await ask_at(sim, client, sessions) == 3
    async with make_client(sim, timeouts=Timeouts(total=60)) as client:
        assert await ask_at(sim, client, sessions) == 3
    async with make_client(sim, expect100=True) as client:
        assert await ask_at(sim, client, sessions) == 3
    shut(monkeypatch)
    async with make_client(sim) as client:
        assert await ask_at(sim, client, sessions) == 3


@pytest.mark.parametrize("stand_before", [wrap, Proxy])
async def test_p34_who_watches_aiohttps_sessions_sees_every_request(
    sim: Simulator, sessions: list[str], monkeypatch: pytest.MonkeyPatch, stand_before: Any
) -> None:
    """Monitors and recorders wrap the method that a session sends with; before a client is made, or behind its back."""
    async with make_client(sim) as client:
        assert await ask_at(sim, client, sessions) == 0
        if stand_before is wrap:
            with monkeypatch.context() as patch:
                patch.setattr(aiohttp.ClientSession, "_request", wrap(aiohttp.ClientSession._request))
                assert await ask_at(sim, client, sessions) == 3
            assert await ask_at(sim, client, sessions) == 0
    monkeypatch.setattr(aiohttp.ClientSession, "_request", stand_before(aiohttp.ClientSession._request))
    async with make_client(sim) as client:
        assert await ask_at(sim, client, sessions) == 3


def test_p34_that_holds_for_whoever_was_there_before_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """This package is loaded late: a monitor may have replaced more than the one method by then."""
    for name in ("_request", "close"):
        monkeypatch.setattr(aiohttp.ClientSession, name, wrap(getattr(aiohttp.ClientSession, name)))
    loader = SourceFileLoader("loaded_late", direct.__file__)
    loaded_late = module_from_spec(ModuleSpec(loader.name, loader, origin=direct.__file__))
    loader.exec_module(loaded_late)
    assert not loaded_late._is_aiohttps(aiohttp.ClientSession._request)
    assert loaded_late._is_aiohttps(aiohttp.BaseConnector.connect)


async def test_p36_accounts_share_connections_and_no_key(sim: Simulator, client: Client, sessions: list[str]) -> None:
    other = client.with_options(api_key="2|another-key-of-a-test")
    await client.balance()
    opened = len(sessions)
    with pytest.raises(DryAPIError, match="key"):
        await other.balance()
    await client.balance()
    assert len(sessions) == opened
    keys = [one.headers["Authorization"] for one in seen(sim, "balance")]
    assert keys == [f"Bearer {sim.key}", "Bearer 2|another-key-of-a-test", f"Bearer {sim.key}"]


async def test_p02_a_text_that_a_socket_may_not_take_goes_in_turns(sim: Simulator, client: Client, sessions: list[str]) -> None:
    await client.balance()
    for length, through_session in ((1_000, 0), (100_000, 1)):
        before = len(sessions)
        await client.call(Txt2Embedding(input="a fox " * (length // 6), model="Bge_M3_FP16"))
        assert len(sessions) - before == through_session


async def test_p21_a_cancelled_read_takes_its_connection_with_it(sim: Simulator, client: Client, sessions: list[str]) -> None:
    """An answer that comes late must not be taken for the next request's."""
    await client.balance()
    sim.script("balance", Fault.delay(10))
    read = asyncio.create_task(client.balance())
    await asyncio.sleep(1)
    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read
    before = len(sessions)
    await client.balance()
    assert len(sessions) == before + 1
    assert client._engine().http.session.connector._acquired == set()  # type: ignore[union-attr]


async def test_p01_what_was_given_up_isnt_sent(sim: Simulator, client: Client) -> None:
    await client.balance()
    http = client._engine().http
    straight = http._direct
    assert straight is not None
    body = TextBody(b"{}", idle=1)
    body.revoked = True
    route = straight.route(http._root, http._api_headers, ssl=True)
    with pytest.raises(asyncio.CancelledError):
        await straight.ask(route, "POST", http._root.with_path("/api/v1/client/txt2img"), body, idle=1, unpack=True)
    assert not body.sent
    assert len(sim.requests) == 1


@pytest.mark.parametrize("target", ["/a b", "/a\r\nX: y", "/a\x00", "/\u00e4", "/a\x7f"])
async def test_p18_what_could_begin_another_line_is_left_to_aiohttp(client: Client, target: str) -> None:
    await client.balance()
    http = client._engine().http
    straight = http._direct
    assert straight is not None
    url = URL.build(scheme="http", host="127.0.0.1", port=http._root.port or 0, path=target, encoded=True)
    route = straight.route(http._root, http._api_headers, ssl=True)
    assert await straight.ask(route, "GET", url, None, idle=1, unpack=True) is None
    fine = await straight.ask(route, "GET", http._root.with_path("/a%20b", encoded=True), None, idle=1, unpack=True)
    assert fine is not None
    fine.close()


async def test_p18_an_open_connection_of_somebody_elses_is_judged_too(sim: Simulator, client: Client) -> None:
    """A user's connector may hold one into a private network, which their own session opened."""
    async with aiohttp.TCPConnector() as connector, aiohttp.ClientSession(connector=connector) as theirs:
        async with theirs.get(f"{sim.url}/nothing") as answer:
            await answer.read()
        address = URL(sim.url)
        guard = AddressGuard(LinkRules(local=False, hosts=()), frozenset())
        straight = Direct.over(theirs, guard)
        assert straight is not None
        route = straight.route(address, CIMultiDict(), ssl=True)
        before = len(sim.requests)
        with pytest.raises(PrivateAddressError):
            await straight.ask(route, "GET", address, None, idle=1, unpack=True)
        assert await straight.ask(route, "GET", address, None, idle=1, unpack=True) is None, "that connection is closed"
        assert len(sim.requests) == before


class Here(AbstractResolver):
    """Every name is this machine."""

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


async def test_p18_a_host_that_the_user_chose_may_be_private_in_any_alphabet(sim: Simulator) -> None:
    address = URL(sim.url).with_host("b\u00fccher.example")
    async with aiohttp.TCPConnector(resolver=Here()) as connector, aiohttp.ClientSession(connector=connector) as theirs:
        async with theirs.get(address / "nothing") as answer:
            await answer.read()
        straight = Direct.over(theirs, AddressGuard(LinkRules(local=False, hosts=()), frozenset({"b\u00fccher.example"})))
        assert straight is not None
        route = straight.route(address, CIMultiDict(), ssl=True)
        response = await straight.ask(route, "GET", address, None, idle=1, unpack=True)
        assert response is not None
        response.close()


async def test_headers_of_few_origins_are_kept(client: Client) -> None:
    http = client._engine().http
    straight = http._direct
    assert straight is not None
    for number in range(3 * direct.MOST_ROUTES):
        route = straight.route_to_files(URL(f"https://{number}.example/a?b=c"), FILE_HEADERS, ssl=True)
        assert f"Host: {number}.example\r\n" in route.lines
        assert route is straight.route_to_files(URL(f"https://{number}.example/d"), FILE_HEADERS, ssl=True)
        assert "Authorization" not in route.lines
        assert len(straight._routes) <= direct.MOST_ROUTES
        assert straight.route_to_files(URL(f"http://{number}.example/"), FILE_HEADERS, ssl=True).key.is_ssl is False
