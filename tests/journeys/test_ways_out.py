"""P28: API, downloads and socket go through a proxy, trust a private CA, and take a session as it is; .netrc is never read."""

import asyncio
import math
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import trustme

from dryapi_async import Client, ConfigurationError, ConnectError, DownloadError, Retry
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, ON_UVLOOP, PNG, edit, files_in, make_client, make_sim, seen, until
from .forward_proxy import ForwardProxy, open_proxy

pytestmark = pytest.mark.anyio

AUTHORITY = trustme.CA()
CREDENTIALS = {"Authorization", "Proxy-Authorization", "Cookie"}


def trusting() -> ssl.SSLContext:
    """Make what a client needs to trust the private CA."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def certified() -> ssl.SSLContext:
    """Make what a server needs to show a certificate of the private CA."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@asynccontextmanager
async def open_service(tls: str) -> AsyncIterator[tuple[Simulator, ssl.SSLContext | None]]:
    """Run the simulator over http or https, and give what its clients need to trust it."""
    if tls == "http":
        async with make_sim() as sim:
            yield sim, None
        return
    async with make_sim(ssl=certified()) as sim:
        assert sim.url.startswith("https://")
        assert sim.storage_url.startswith("https://")
        yield sim, trusting()


def come_from(sim: Simulator) -> set[int]:
    """Give the ports that requests came from, of both origins and the socket."""
    return {one.peer_port for one in (*sim.requests, *sim.storage_requests)}


async def go_all_ways(client: Client, sim: Simulator, folder: Path) -> None:
    """Go all the ways on which a client talks to the service: requests, an upload, a wait on the socket, downloads."""
    await client.balance()
    await client.call(FOX).save(folder / "fox.png")
    async with asyncio.timeout(20):
        await until(lambda: sim.push.subscribed)
    reads = len(seen(sim, "request-status"))
    image = await edit(client, image=PNG).result()
    assert len(seen(sim, "request-status")) == reads, "the socket told that it is done"
    assert await image.read()
    await client.call(FOX).price()
    assert files_in(folder) == ["fox.png"]
    assert len(sim.storage_requests) == 2
    assert {one.operation for one in sim.requests} >= {"balance", "txt2img", "img2img", "push", "broadcasting/auth"}


def assert_no_way_around(sim: Simulator, proxy: ForwardProxy, tls: str) -> None:
    assert come_from(sim) <= proxy.ports
    assert proxy.ports_asked_for() == {urlsplit(sim.url).port, urlsplit(sim.storage_url).port}
    kinds = {line.split()[0] for line in proxy.lines}
    assert kinds == ({"CONNECT"} if tls == "https" else {"GET", "POST"})
    if tls == "https":
        assert not any(b"Bearer" in head or b"/api/" in head for head in proxy.heads), "what is in a tunnel is nobody's"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("named_by", ["option", "environment"])
@pytest.mark.parametrize("tls", ["http", "https"])
async def test_p28_all_goes_through_the_proxy(tls: str, named_by: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_service(tls) as (sim, trust), open_proxy() as proxy:
        if named_by == "environment":
            monkeypatch.setenv(f"{tls.upper()}_PROXY", proxy.url)
        given = proxy.url if named_by == "option" else None
        async with make_client(sim, client_id=sim.client_id, proxy=given, ssl=trust) as client:
            await go_all_ways(client, sim, out)
            upgrades = [line for line, head in zip(proxy.lines, proxy.heads, strict=True) if b"pgrade: websocket" in head]
            assert len(upgrades) == (tls == "http"), "of what is in a tunnel a proxy sees nothing"
            assert len(sim.push.sockets) == 1
            assert_no_way_around(sim, proxy, tls)


@pytest.mark.parametrize("tls", ["http", "https"])
async def test_p28_what_the_environment_excepts_goes_straight(tls: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_service(tls) as (sim, trust), open_proxy() as proxy:
        monkeypatch.setenv("all_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with make_client(sim, base_url=sim.url.replace("127.0.0.1", "localhost"), ssl=trust) as client:
            assert await (await client.call(FOX).result()).read()
        assert {one.peer_port for one in sim.requests} <= proxy.ports
        assert sim.storage_requests[0].peer_port not in proxy.ports
        assert proxy.ports_asked_for() == {urlsplit(sim.url).port}


@asynccontextmanager
async def open_port(heard: list[bytes]) -> AsyncIterator[int]:
    """Listen as a SOCKS server would, and note what comes: it understands none of it, and hangs up."""

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(65_536))
        writer.close()

    server = await asyncio.start_server(hear, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def ask_for_money(client: Client) -> None:
    """Ask for what is billed, in a submit and in a GET."""
    for trying in (client.prompt_samples(type="text2image"), client.call(FOX, label="fox", once=True)):
        with pytest.raises(ConfigurationError, match="environment's ALL_PROXY is no address"):
            await trying


@pytest.mark.parametrize("given", ["nothing", "session", "connector"])
async def test_p28_a_socks_proxy_of_the_environment_is_told_when_the_client_opens(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP spoken to a SOCKS port would show it the key, and lose the answers of what is paid for."""
    heard: list[bytes] = []
    async with make_sim() as sim, open_port(heard) as port, aiohttp.ClientSession() as session:
        monkeypatch.setenv("ALL_PROXY", f"socks5://fox:snow@127.0.0.1:{port}")
        part = session if given == "session" else session.connector
        options: dict[str, Any] = {} if given == "nothing" else {given: part}
        client = make_client(sim, journal=tmp_path / "journal.db", **options)
        with pytest.raises(ConfigurationError, match="environment's ALL_PROXY is no address") as caught:
            await client.__aenter__()
        assert "snow" not in str(caught.value)
        await ask_for_money(client)
        await client.aclose()
        assert (heard, list(sim.requests), sim.jobs_billed) == ([], [], 0)
        # What no address goes through harms nothing, and the same client opens then.
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with make_client(sim, journal=tmp_path / "journal.db", **options) as client:
            assert await (await client.call(FOX, label="fox", once=True).result()).read()
        assert (heard, sim.jobs_billed) == ([], 1)


async def test_p28_a_result_isnt_asked_for_through_a_socks_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bytes] = []
    async with make_sim() as sim, open_port(heard) as port:
        monkeypatch.setenv("ALL_PROXY", f"socks5://fox:snow@127.0.0.1:{port}")
        monkeypatch.setenv("no_proxy", "localhost")
        async with make_client(sim, base_url=sim.url.replace("127.0.0.1", "localhost")) as client:
            image = await client.call(FOX).result()
            with pytest.raises(ConfigurationError, match=r"ALL_PROXY .+ 127\.0\.0\.1 would be asked"):
                await image.read()
        assert (heard, list(sim.storage_requests), sim.jobs_billed) == ([], [], 1)


async def test_p28_a_proxy_of_the_environment_may_be_a_host_and_a_port_alone(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with make_sim() as sim, open_proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removeprefix("http://"))
        async with make_client(sim, client_id=sim.client_id) as client:
            await go_all_ways(client, sim, out)
            assert_no_way_around(sim, proxy, "http")


@pytest.mark.parametrize("tls", ["http", "https"])
async def test_p28_a_proxys_user_and_password_are_for_the_proxy_alone(tls: str, out: Path) -> None:
    async with open_service(tls) as (sim, trust), open_proxy() as proxy:
        given = proxy.url.replace("://", "://fox:snow@")
        async with make_client(sim, client_id=sim.client_id, proxy=given, ssl=trust) as client:
            await go_all_ways(client, sim, out)
            assert all(b"Proxy-Authorization: Basic Zm94OnNub3c=\r\n" in head for head in proxy.heads)
            assert not any("Proxy-Authorization" in one.headers for one in (*sim.requests, *sim.storage_requests))
            assert_no_way_around(sim, proxy, tls)


@pytest.mark.skipif(ON_UVLOOP, reason="uvloop knows no TLS within TLS")
async def test_p28_the_proxy_may_have_a_private_certificate_too(out: Path) -> None:
    async with open_service("https") as (sim, trust), open_proxy(ssl=certified()) as proxy:
        assert proxy.url.startswith("https://")
        async with make_client(sim, client_id=sim.client_id, proxy=proxy.url, ssl=trust) as client:
            await go_all_ways(client, sim, out)
            assert_no_way_around(sim, proxy, "https")


@pytest.mark.parametrize("through", ["straight", "a proxy"])
async def test_p28_a_private_certificate_is_trusted_by_who_says_so_alone(through: str, out: Path) -> None:
    async with open_service("https") as (sim, trust), open_proxy() as proxy:
        options = {"client_id": sim.client_id, "proxy": proxy.url if through == "a proxy" else None}
        async with make_client(sim, ssl=trust, **options) as client:
            await go_all_ways(client, sim, out)
        asked, billed = len(sim.requests), sim.jobs_billed
        # In debug mode the server's loop reports each handshake that a client breaks off, and anyio takes that for a failed test.
        asyncio.get_running_loop().set_debug(enabled=False)
        async with make_client(sim, retry=Retry(attempts=2), **options) as client:
            for trying in (client.balance(), client.call(FOX)):
                with pytest.raises(ConnectError, match="nothing was sent"):
                    await trying
        assert (len(sim.requests), sim.jobs_billed) == (asked, billed)


async def test_p28_a_download_from_a_host_without_a_trusted_certificate_is_refused() -> None:
    """Each origin shows its own certificate, and is judged by it."""
    strange = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(strange)
    async with open_service("https") as (sim, trust), make_sim(ssl=strange) as stranger, make_client(sim, ssl=trust) as client:
        image = await client.call(FOX).result()
        assert await image.read()
        sim.script("storage", Fault.redirect(f"{stranger.storage_url}/results/fox"), times=math.inf)
        asyncio.get_running_loop().set_debug(enabled=False)
        with pytest.raises(DownloadError, match="certificate"):
            await image.read()
        assert not stranger.storage_requests


NETRC = "machine 127.0.0.1 login somebody password netrc-password\ndefault login anybody password netrc-password\n"


@pytest.mark.parametrize("owner", ["client", "session"])
@pytest.mark.parametrize("tls", ["http", "https"])
async def test_p28_a_netrc_for_all_hosts_changes_nothing(tls: str, owner: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both hosts, the socket's and the proxy's, and also where a given session reads it for its own requests."""
    netrc = out.parent / "the-netrc"
    netrc.write_text(NETRC)
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with open_service(tls) as (sim, trust), open_proxy() as proxy, aiohttp.ClientSession(trust_env=True) as session:
        monkeypatch.setenv(f"{tls}_proxy", proxy.url)
        given: Any = {"session": session} if owner == "session" else {}
        async with make_client(sim, client_id=sim.client_id, ssl=trust, **given) as client:
            await go_all_ways(client, sim, out)
            assert_no_way_around(sim, proxy, tls)
        assert len(seen(sim, "push")) == 1
        for one in sim.requests:
            assert CREDENTIALS & one.headers.keys() <= {"Authorization"}
            assert one.headers.get("Authorization", "") in ({f"Bearer {sim.key}"} if one.operation != "push" else {""})
        assert [CREDENTIALS & one.headers.keys() for one in sim.storage_requests] == [set(), set()]
        assert not any(b"proxy-authorization" in head.lower() for head in proxy.heads)
        # The file would be read: the session itself sends what it says.
        options: Any = {} if trust is None else {"ssl": trust}
        async with aiohttp.ClientSession(trust_env=True) as reader, reader.get(sim.storage_url, **options):
            assert "Authorization" in sim.storage_requests[-1].headers


def snapshot(session: aiohttp.ClientSession) -> dict[str, Any]:
    """Note all that a session is set to, but for what its pool holds at the moment."""
    connector = session.connector
    assert connector is not None
    inside = {name: value for name, value in vars(session).items() if name != "_source_traceback"}
    pool = ("limit", "limit_per_host", "force_close", "closed", "_keepalive_timeout", "_resolver", "_use_dns_cache", "_ssl")
    return {
        **inside,
        "headers": dict(session.headers),
        "cookies": [(cookie.key, cookie.value) for cookie in session.cookie_jar],
        "traces": [(trace, len(trace.on_request_headers_sent)) for trace in session.trace_configs],
        "pool": {name: getattr(connector, name) for name in pool},
    }


@pytest.mark.parametrize("through", ["straight", "a proxy"])
@pytest.mark.parametrize("tls", ["http", "https"])
async def test_p28_a_given_session_is_left_as_it_was(tls: str, through: str, out: Path) -> None:
    """What it traces is told; its headers, cookies, authorisation, raise_for_status and proxy are for its own requests."""
    told: list[str] = []
    answered: list[str] = []

    async def note(_: aiohttp.ClientSession, __: object, started: aiohttp.TraceRequestStartParams) -> None:
        told.append(started.url.path)

    async def note_answer(_: aiohttp.ClientSession, __: object, answer: aiohttp.TraceResponseChunkReceivedParams) -> None:
        answered.append(answer.url.path)

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(note)
    trace.on_response_chunk_received.append(note_answer)
    trace.freeze()
    own: Any = {
        "headers": {"X-Of-The-Session": "1", "Authorization": "Basic of-the-session"},
        "cookies": {"of": "the session"},
        "raise_for_status": True,
        "trace_configs": [trace],
        "proxy": "http://127.0.0.1:9",
    }
    async with open_service(tls) as (sim, trust), open_proxy() as proxy, aiohttp.ClientSession(**own) as session:
        before = snapshot(session)
        options: Any = {"proxy": proxy.url if through == "a proxy" else None, "ssl": trust, "client_id": sim.client_id, "expect100": True}
        async with make_client(sim, session=session, **options) as client:
            await go_all_ways(client, sim, out)
        assert snapshot(session) == before
        assert not session.closed
        assert {"/api/v1/client/img2img", sim.storage_requests[0].path, "/broadcasting/auth"} <= set(told)
        assert {"/api/v1/client/img2img", "/broadcasting/auth"} <= set(answered)
        for one in (*sim.requests, *sim.storage_requests):
            assert not {"X-Of-The-Session", "Cookie"} & one.headers.keys()
            assert "Basic" not in one.headers.get("Authorization", "")
        assert (come_from(sim) <= proxy.ports, bool(proxy.lines)) == (through == "a proxy",) * 2
        await until(lambda: not sim.push.sockets)


@pytest.mark.parametrize("through", ["straight", "a proxy"])
@pytest.mark.parametrize("tls", ["http", "https"])
async def test_p28_a_given_connector_serves_one_client_after_another(tls: str, through: str, tmp_path: Path) -> None:
    """Its own ``ssl`` is what it was made with, and holds where the client isn't told another."""
    async with open_service(tls) as (sim, trust), open_proxy() as proxy:
        resolver = aiohttp.ThreadedResolver()
        async with aiohttp.TCPConnector(limit=30, ssl=trust or True, resolver=resolver) as connector:
            for number in range(2):
                folder = tmp_path / str(number)
                folder.mkdir()
                sim.storage_requests.clear()
                options: Any = {"proxy": proxy.url if through == "a proxy" else None, "ssl": trust}
                async with make_client(sim, connector=connector, client_id=sim.client_id, **options) as client:
                    await go_all_ways(client, sim, folder)
                assert not connector.closed
                assert not connector._acquired
                assert (connector.limit, connector._resolver) == (30, resolver)
            assert bool(proxy.lines) == (through == "a proxy")
