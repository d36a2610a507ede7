"""P18: which addresses may be asked for a result, over sockets: names, redirects, other people's resolvers."""

import asyncio
import socket
import ssl
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp.abc import AbstractResolver, ResolveResult

from dryapi_async import DownloadError, Settings
from dryapi_async.engine import Engine
from dryapi_async.protocol.links import Link
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, files_in, make_client

pytestmark = pytest.mark.anyio


class Far:
    """An engine of a client whose service isn't on this machine; nothing of that service is ever dialled."""

    def __init__(self, **options: Any) -> None:
        connector, context = options.pop("connector", None), options.pop("ssl", None)
        settings = Settings(api_key="1|key", base_url="https://api.dryapi.dev", **options)
        self.engine = Engine(settings, session=None, connector=connector, ssl=context, teller=None)

    async def fetch(self, url: str, folder: Path) -> Path:
        link = Link(request_id="job", format=None, url=url)
        return await self.engine.downloads.save(link, folder)


@pytest.fixture
async def link(sim: Simulator) -> AsyncIterator[str]:
    """Give a good link to a result of the simulator."""
    async with make_client(sim) as client:
        yield (await client.call(FOX).result()).url or ""


async def test_p18_http_links_are_refused_before_anything_is_dialled(sim: Simulator, link: str, tmp_path: Path) -> None:
    far = Far()
    for url in (link, link.replace("127.0.0.1", "localhost")):
        with pytest.raises(DownloadError, match="unencrypted"):
            await far.fetch(url, tmp_path)
    await far.engine.close()
    assert sim.storage_connections.total == 0
    assert files_in(tmp_path) == []


async def test_p18_private_addresses_are_refused_before_anything_is_dialled(sim: Simulator, link: str, tmp_path: Path) -> None:
    far = Far()
    with pytest.raises(DownloadError, match=r"private address 127\.0\.0\.1"):
        await far.fetch(link.replace("http:", "https:"), tmp_path)
    await far.engine.close()
    assert sim.storage_connections.total == 0


NAMES = ["localhost", "LOCALHOST", "0x7f000001", "127.1", "2130706433", "0177.0.0.1"]
"""Ways to write this machine. aiohttp refuses the last three by itself."""


@pytest.mark.parametrize("name", NAMES)
async def test_p18_a_name_that_leads_into_a_private_network_is_refused(sim: Simulator, link: str, tmp_path: Path, name: str) -> None:
    far = Far()
    with pytest.raises(DownloadError, match=r"private|canonical"):
        await far.fetch(link.replace("http://127.0.0.1", f"https://{name}"), tmp_path)
    await far.engine.close()
    assert sim.storage_connections.total == 0


@pytest.mark.parametrize("name", NAMES)
async def test_p18_that_holds_for_a_given_connector_too(sim: Simulator, link: str, tmp_path: Path, name: str) -> None:
    async with aiohttp.TCPConnector() as connector:
        far = Far(connector=connector)
        with pytest.raises(DownloadError, match=r"private|canonical"):
            await far.fetch(link.replace("http://127.0.0.1", f"https://{name}"), tmp_path)
        await far.engine.close()
    assert sim.storage_connections.total == 0


async def test_p18_a_host_that_the_user_named_is_fetched_from(link: str, tmp_path: Path) -> None:
    far = Far(storage_hosts=("localhost", "127.0.0.1"))
    for url in (link, link.replace("127.0.0.1", "localhost")):
        path = await far.fetch(url, tmp_path)
        assert path.read_bytes().startswith(b"\x89PNG")
    await far.engine.close()


async def test_p18_each_redirect_is_judged_anew(sim: Simulator, link: str, tmp_path: Path) -> None:
    """The named host may be fetched from; where it leads to may not."""
    far = Far(storage_hosts=("localhost",))
    start = link.replace("127.0.0.1", "localhost")
    for target in (
        link,
        link.replace("http:", "https:"),
        "file:///etc/passwd",
        link.replace("http://127.0.0.1", "https://[::ffff:127.0.0.1]"),
    ):
        sim.script("storage", Fault.redirect(target))
        before = len(sim.storage_requests)
        with pytest.raises(DownloadError):
            await far.fetch(start, tmp_path)
        assert len(sim.storage_requests) == before + 1
    await far.engine.close()
    assert files_in(tmp_path) == []


async def test_p18_https_is_verified(tmp_path: Path) -> None:
    """A storage host whose certificate nobody vouches for gives nothing, and isn't asked twice in clear text."""
    far = Far(storage_hosts=("localhost",))
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.read(5))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        with pytest.raises(DownloadError):
            await far.fetch(f"https://localhost:{server.sockets[0].getsockname()[1]}/a.png", tmp_path)
    await far.engine.close()
    assert heads
    assert all(head[:1] == b"\x16" for head in heads), "only TLS handshakes are sent"


IMPOSSIBLE = [
    "http://\udcff.example/a?sig=s3cr3t",
    "https://a..b/?sig=s3cr3t",
    "https://.example/?sig=s3cr3t",
    f"https://{'a' * 64}.example/?sig=s3cr3t",
    f"https://{'a.' * 130}example/?sig=s3cr3t",
    "https://a b.example/?sig=s3cr3t",
    "https://a%2eb.example/?sig=s3cr3t",
    "https://f\u00fcchse.example/?sig=s3cr3t",
    "https://\u212aelvin.example/?sig=s3cr3t",
    "https://a.example\x00/?sig=s3cr3t",
    "https://a.example/x\r\nHost: b?sig=s3cr3t",
    "https://a.example/\t?sig=s3cr3t",
    "https://a.example/\ud800?sig=s3cr3t",
    "https://[::1/?sig=s3cr3t",
    "https://[v1.a]/?sig=s3cr3t",
    "https://a.example:x/?sig=s3cr3t",
    "//user:s3cr3t@a.example/?sig=s3cr3t",
    "user:s3cr3t@a.example/?sig=s3cr3t",
    "ftp://user:s3cr3t@h/x?sig=s3cr3t",
    "javascript:fetch('s3cr3t')",
    "data:text/plain,s3cr3t",
    "/x?sig=s3cr3t#s3cr3t",
    "x#s3cr3t",
    "https://user:s3cr3t@a.example/x?sig=s3cr3t#s3cr3t",
    "https://user:se/s3cr3t@a.example/x?sig=s3cr3t",
    "mailto:s3cr3t@a.example?sig=s3cr3t",
]


@pytest.mark.parametrize("url", IMPOSSIBLE)
async def test_p18_p35_an_impossible_link_is_a_download_error_that_shows_no_secret(sim: Simulator, url: str, tmp_path: Path) -> None:
    """At first hand and as a redirect: nothing is dialled, and neither query nor user is told."""
    far = Far(storage_hosts=("127.0.0.1",))
    async with make_client(sim) as client:
        link = (await client.call(FOX).result()).url or ""
    with pytest.raises(DownloadError, match="no plain http") as caught:
        await far.fetch(url, tmp_path)
    assert "s3cr3t" not in str(caught.value)
    if url.isprintable() and url.isascii() and not url.startswith(("/x", "x")):  # those lead somewhere, as redirects
        sim.script("storage", Fault.redirect(url))
        with pytest.raises(DownloadError) as caught:
            await far.fetch(link, tmp_path)
        assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))
    await far.engine.close()
    assert len(sim.storage_requests) <= 1
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("location", ["http://[::1/x?sig=s3cr3t", "https://[not an address]/?sig=s3cr3t", "http://a.example:x/?sig=s3cr3t"])
async def test_p18_a_redirect_to_a_malformed_address_is_a_download_error(sim: Simulator, link: str, tmp_path: Path, location: str) -> None:
    far = Far(storage_hosts=("127.0.0.1",))
    sim.script("storage", Fault.redirect(location))
    with pytest.raises(DownloadError, match=r"no address|no plain") as caught:
        await far.fetch(link, tmp_path)
    await far.engine.close()
    assert "s3cr3t" not in str(caught.value)
    assert len(sim.storage_requests) == 1


class Rebinding(AbstractResolver):
    """Answers a public address first, and this machine from then on."""

    def __init__(self, *addresses: str) -> None:
        self.asked = 0
        self._addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        address = self._addresses[min(self.asked, len(self._addresses) - 1)]
        self.asked += 1
        return [ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST)]

    async def close(self) -> None:
        pass


NAME = "results.example"


@asynccontextmanager
async def serve_tls(content: bytes) -> AsyncIterator[tuple[int, ssl.SSLContext, list[bytes]]]:
    """Serve a file over TLS as the public-looking name, and note what is asked."""
    authority, heads = trustme.CA(), list[bytes]()
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert(NAME).configure_cert(serving)
    authority.configure_trust(trusting)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=serving)
    async with server:
        yield server.sockets[0].getsockname()[1], trusting, heads


@pytest.mark.parametrize("size", [1, 3_000_000])
async def test_p18_a_name_that_changes_its_mind_reaches_nothing(tmp_path: Path, size: int) -> None:
    """DNS rebinding: a user's own connector asks once more, and is told another address than was judged."""
    resolver = Rebinding("8.8.8.8", "127.0.0.1")
    async with serve_tls(bytes(size)) as (port, context, heads), aiohttp.TCPConnector(resolver=resolver) as connector:
        far = Far(connector=connector, ssl=context)
        with pytest.raises(DownloadError, match=r"host results\.example is at the private address 127\.0\.0\.1"):
            await far.fetch(f"https://{NAME}:{port}/a.png?s=1", tmp_path)
        assert resolver.asked == 2
        await far.engine.close()
        assert heads == [], "not a byte of the request left, so neither did the signature"
    assert files_in(tmp_path) == []


async def test_p18_a_name_that_is_private_at_once_isnt_dialled(tmp_path: Path) -> None:
    resolver = Rebinding("127.0.0.1")
    async with serve_tls(b"file") as (port, context, _), aiohttp.TCPConnector(resolver=resolver) as connector:
        far = Far(connector=connector, ssl=context)
        with pytest.raises(DownloadError, match="private address"):
            await far.fetch(f"https://{NAME}:{port}/a.png", tmp_path)
        assert resolver.asked == 1
        await far.engine.close()


async def test_p18_a_named_host_may_be_private_on_a_given_connector(tmp_path: Path) -> None:
    resolver = Rebinding("127.0.0.1")
    async with serve_tls(b"file") as (port, context, heads), aiohttp.TCPConnector(resolver=resolver) as connector:
        far = Far(connector=connector, ssl=context, storage_hosts=(NAME,))
        assert (await far.fetch(f"https://{NAME}:{port}/a.png", tmp_path)).read_bytes() == b"file"
        await far.engine.close()
        assert len(heads) == 1
        assert b"uthorization" not in heads[0]


async def test_p18_a_users_resolver_is_asked_for_each_file_also_where_a_connection_is_open(link: str, tmp_path: Path) -> None:
    """Who it was that opened the connection, and through what, isn't known here."""
    resolver = Rebinding("127.0.0.1")
    async with aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False) as connector:
        far = Far(connector=connector, storage_hosts=(NAME,))
        asked: list[int] = []
        for _ in range(3):
            await far.fetch(link.replace("127.0.0.1", NAME), tmp_path)
            asked.append(resolver.asked)
        await far.engine.close()
    assert asked == [2, 3, 4], "twice where a connection is made"
