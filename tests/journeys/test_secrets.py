"""P18: the key goes to the API's origin only."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from dryapi_async import (
    Client,
    DownloadError,
    DryAPIError,
    LinkExpiredError,
    SubmissionUnknownError,
)
from dryapi_async.simulator import Fault, Received, Simulator

from ..conftest import FOX, PNG, edit, files_in, make_client, make_sim, seen

pytestmark = pytest.mark.anyio

KEY = "7|a-secret-that-nobody-may-see"
SIGNED = "X-Amz-Signature="


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with make_sim(key=KEY) as running:
        yield running


def credentials(received: Received) -> list[str]:
    """Find whatever in a request could be a credential of ours."""
    return [
        f"{name}: {value}"
        for name, value in received.headers.items()
        if KEY in value or name in {"Authorization", "Cookie", "Proxy-Authorization"}
    ]


async def see_everything(client: Client, folder: Path) -> None:
    """Go all the ways on which a client talks to both hosts."""
    image = await client.call(FOX).result()
    await image.save(folder / "a.png")
    await image.save(folder / "b.webp")
    assert await image.read("jpg")
    await edit(client, image=PNG).save(folder)
    await client.call(FOX).price()
    await client.balance()
    await client.models()


async def test_p18_the_storage_host_never_sees_the_key(sim: Simulator, client: Client, tmp_path: Path) -> None:
    await see_everything(client, tmp_path)
    assert len(sim.storage_requests) == 4
    assert [credentials(one) for one in sim.storage_requests] == [[]] * 4
    assert all(KEY not in str(one) for one in sim.storage_requests)
    assert [one.headers["Authorization"] for one in sim.requests] == [f"Bearer {KEY}"] * len(sim.requests)


@pytest.mark.parametrize("named_by", ["NETRC", "HOME"])
async def test_p18_a_netrc_for_both_hosts_changes_nothing(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named_by: str
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password netrc-password\ndefault login anybody password netrc-password\n")
    netrc.chmod(0o600)
    monkeypatch.setenv(named_by, str(netrc) if named_by == "NETRC" else str(tmp_path))
    (tmp_path / "out").mkdir()
    async with make_client(sim) as client:
        await see_everything(client, tmp_path / "out")
    assert [credentials(one) for one in sim.storage_requests] == [[]] * 4
    assert {one.headers["Authorization"] for one in sim.requests} == {f"Bearer {KEY}"}
    # The file would be read: a session that trusts the environment sends what it says.
    async with aiohttp.ClientSession(trust_env=True) as trusting, trusting.get(sim.storage_url):
        assert "Authorization" in sim.storage_requests[-1].headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_p18_the_api_redirecting_to_storage_is_not_followed(sim: Simulator, client: Client, status: int) -> None:
    sim.script("*", Fault.redirect(f"{sim.storage_url}/results/x", status), times=math.inf)
    with pytest.raises(SubmissionUnknownError):
        await client.call(FOX)
    with pytest.raises(SubmissionUnknownError):
        await edit(client, image=PNG)
    for reading in (client.balance(), client.call(FOX).price(), client.job("txt2img:1").status()):
        with pytest.raises(DryAPIError, match=r"redirect \(30\d\), which is never followed with a key"):
            await reading
    assert not sim.storage_requests
    assert len(seen(sim, "txt2img")) == len(seen(sim, "img2img")) == 1


async def test_p18_storage_redirecting_to_the_api_brings_no_key(sim: Simulator, client: Client, tmp_path: Path) -> None:
    image = await client.call(FOX).result()
    sim.script("storage", Fault.redirect(f"{sim.url}/api/v1/client/balance"), times=math.inf)
    with pytest.raises(LinkExpiredError):
        await image.save(tmp_path)
    redirected = seen(sim, "balance")
    assert len(redirected) == 2
    assert [credentials(one) for one in redirected] == [[]] * 2
    assert [one.status for one in redirected] == [401] * 2
    assert files_in(tmp_path) == []


@asynccontextmanager
async def listen(answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") -> AsyncIterator[tuple[str, list[bytes]]]:
    """Listen on a third port, and note the heads of what is asked there."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_p18_storage_redirecting_elsewhere_brings_no_key(sim: Simulator, client: Client, tmp_path: Path, status: int) -> None:
    image = await client.call(FOX).result()
    async with listen() as (url, heads):
        sim.script("storage", Fault.redirect(f"{url}/elsewhere", status))
        path = await image.save(tmp_path / "fox.png")
    assert path.read_bytes() == b"ok"
    (head,) = heads
    assert head.startswith(b"GET /elsewhere HTTP/1.1")
    assert b"authorization" not in head.lower()
    assert KEY.encode() not in head


async def test_p18_a_result_link_to_the_apis_own_origin_brings_no_key(sim: Simulator, client: Client) -> None:
    body = {"data": {"status": "done", "result_url": f"{sim.url}/api/v1/client/balance"}}
    sim.script("request-status", Fault.status(200, body), times=math.inf)
    image = await client.call(FOX).result()
    with pytest.raises(LinkExpiredError):
        await image.read()
    assert [credentials(one) for one in seen(sim, "balance")] == [[]] * 2


async def test_p18_storage_that_redirects_in_a_circle_is_given_up(sim: Simulator, client: Client) -> None:
    image = await client.call(FOX).result()
    sim.script("storage", Fault.redirect(f"{sim.storage_url}/round"), times=math.inf)
    with pytest.raises(DownloadError, match="redirects without end"):
        await image.read()
    assert len(sim.storage_requests) < 10


async def test_p18_cookies_of_one_host_go_nowhere(sim: Simulator, client: Client) -> None:
    sim.script("*", Fault.status(401, headers={"Set-Cookie": "session=1; Path=/"}))
    with pytest.raises(DryAPIError):
        await client.balance()
    await (await client.call(FOX).result()).read()
    assert all("Cookie" not in one.headers for one in [*sim.requests, *sim.storage_requests])
