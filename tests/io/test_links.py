"""P18: which addresses may be asked for a result. The rules as a table, then over sockets."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dryapi_async import DownloadError, Settings
from dryapi_async.engine import Engine
from dryapi_async.protocol.links import Link, LinkRules, check_link, follow, is_private, mask
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, files_in, make_client

pytestmark = pytest.mark.anyio

PUBLIC = LinkRules(local=False, hosts=())
NAMED = LinkRules(local=False, hosts=("storage.lan", "10.0.0.7", "::1"))
LOCAL = LinkRules(local=True, hosts=())

PRIVATE = [
    "127.0.0.1",
    "127.8.9.10",
    "10.0.0.1",
    "10.255.255.255",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",  # noqa: S104  it is refused
    "0.1.2.3",
    "192.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd12:3456:789a::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:a00:1",
    # Addresses that carry another one, which a gateway on the way would take out.
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::a00:1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:a00:1::",
]
GLOBAL = ["8.8.8.8", "1.1.1.1", "172.15.0.1", "172.32.0.1", "192.167.1.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"]


def url_of(address: str, scheme: str = "https") -> str:
    return f"{scheme}://[{address}]/a.png?s=1" if ":" in address else f"{scheme}://{address}/a.png?s=1"


@pytest.mark.parametrize("address", PRIVATE)
def test_p18_private_addresses_are_refused(address: str) -> None:
    assert is_private(address)
    for scheme in ("https", "http"):
        with pytest.raises(DownloadError, match="refused, unless Client"):
            check_link(url_of(address, scheme), PUBLIC)
    assert check_link(url_of(address, "http"), LOCAL) == url_of(address, "http")


@pytest.mark.parametrize("address", GLOBAL)
def test_p18_public_addresses_are_taken_over_https_only(address: str) -> None:
    assert not is_private(address)
    assert check_link(url_of(address), PUBLIC) == url_of(address)
    with pytest.raises(DownloadError, match="unencrypted"):
        check_link(url_of(address, "http"), PUBLIC)


@pytest.mark.parametrize(
    "url",
    [
        "https://results.deapi.ai/a/b.png?X-Amz-Signature=abc%2Fdef&x=1",
        "https://results.deapi.ai:8443/a",
        "HTTPS://RESULTS.DEAPI.AI/a",
        "https://xn--fchse-kva.example/a",
    ],
)
def test_p18_names_over_https_are_taken_as_they_are(url: str) -> None:
    assert check_link(url, PUBLIC) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.png",
        "/results/a.png",
        "//results.deapi.ai/a.png",
        "https://",
        "https:///a.png",
        "https:a.png",
        "ftp://results.deapi.ai/a.png",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "https://user@results.deapi.ai/a.png",
        "https://user:word@results.deapi.ai/a.png",
        "https://@results.deapi.ai/a.png",
        "https://results.deapi.ai@127.0.0.1/a.png",
        "https://results.deapi.ai\\@127.0.0.1/a.png",
        "https://[::1/a.png",
        "https://[not an address]/a.png",
        "https://results.deapi.ai:port/a.png",
        "https://results.deapi.ai:99999/a.png",
    ],
)
@pytest.mark.parametrize("rules", [PUBLIC, NAMED, LOCAL], ids=["public", "named", "local"])
def test_p18_what_is_no_plain_address_is_refused_everywhere(url: str, rules: LinkRules) -> None:
    with pytest.raises(DownloadError, match="no plain http"):
        check_link(url, rules)


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("http://storage.lan/a", True),
        ("http://STORAGE.lan:9000/a", True),
        ("https://10.0.0.7/a", True),
        ("http://10.0.0.7/a", True),
        ("http://[::1]/a", True),
        ("https://10.0.0.8/a", False),
        ("http://other.lan/a", False),
        ("http://storage.lan.example/a", False),
        ("http://sub.storage.lan/a", False),
        ("http://storage.lan.@127.0.0.1/a", False),
    ],
)
def test_p18_a_host_that_the_user_named_is_taken_and_no_other(url: str, taken: bool) -> None:
    if taken:
        assert check_link(url, NAMED) == url
    else:
        with pytest.raises(DownloadError):
            check_link(url, NAMED)


def test_p18_hosts_are_named_in_any_case() -> None:
    assert Settings(api_key="k", storage_hosts=("Storage.LAN",)).storage_hosts == ("storage.lan",)


@pytest.mark.parametrize(
    ("base", "local"),
    [
        ("http://127.0.0.1:80", True),
        ("http://localhost:80", True),
        ("https://[::1]", True),
        ("http://sim.localhost", True),
        ("https://api.dryapi.dev", False),
        ("https://localhost.example.org", False),
        ("https://127.0.0.1.example.org", False),
        ("https://10.0.0.1", False),
    ],
)
def test_p18_only_a_base_url_on_this_machine_makes_all_hosts_good(base: str, local: bool) -> None:
    assert Settings(api_key="k", base_url=base).is_local is local


@pytest.mark.parametrize(
    ("url", "location", "leads"),
    [
        ("https://a.example/x/y?s=1", "z", "https://a.example/x/z"),
        ("https://a.example/x?s=1", "/z?t=2", "https://a.example/z?t=2"),
        ("https://a.example/x", "//b.example/z", "https://b.example/z"),
        ("https://a.example/x", "http://127.0.0.1/z", "http://127.0.0.1/z"),
        ("https://a.example/x", "file:///etc/passwd", "file:///etc/passwd"),
    ],
)
def test_p18_a_redirect_leads_where_it_says(url: str, location: str, leads: str) -> None:
    assert follow(url, location) == leads


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at https://a.example/x?X-Amz-Signature=abc&y=2 it broke", "at https://a.example/x?… it broke"),
        ("url='https://a.example/x?s=1'", "url='https://a.example/x?…'"),
        ("two: http://a/x?s=1 and http://b/y?s=2.", "two: http://a/x?… and http://b/y?…"),
        ("https://a.example/x", "https://a.example/x"),
        ("(https://a.example/x?s=1)", "(https://a.example/x?…)"),
        ("HTTPS://A.EXAMPLE/x?s=1", "HTTPS://A.EXAMPLE/x?…"),
    ],
)
def test_p35_the_query_of_every_url_is_hidden(text: str, shown: str) -> None:
    assert mask(text) == shown


class Far:
    """An engine of a client whose service isn't on this machine; nothing of that service is ever dialled."""

    def __init__(self, **options: Any) -> None:
        connector = options.pop("connector", None)
        settings = Settings(api_key="1|key", base_url="https://api.dryapi.dev", **options)
        self.engine = Engine(settings, session=None, connector=connector, ssl=None, on_event=None)

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
