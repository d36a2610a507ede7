"""P18, P35: the key goes to the API's origin only, and is in no log, repr, error or traceback; nor are signed links."""

import asyncio
import logging
import math
import pickle
import socket
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dryapi_async import (
    Client,
    ConfigurationError,
    ConnectError,
    DownloadError,
    DryAPIError,
    File,
    Img2Img,
    LinkExpiredError,
    Retry,
    Settings,
    SubmissionUnknownError,
    Timeouts,
)
from dryapi_async.simulator import Fault, Received, Simulator

from ..conftest import FOX, PNG, causes, edit, files_in, make_client, make_sim, seen

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


TROUBLES: dict[str, tuple[str, Fault]] = {
    "submit reset": ("txt2img", Fault.reset()),
    "submit refused": ("txt2img", Fault.status(422, {"message": "No.", "errors": {"prompt": ["No."]}})),
    "submit garbage": ("txt2img", Fault.garbage()),
    "submit silence": ("txt2img", Fault.hang()),
    "key refused": ("txt2img", Fault.unauthorized()),
    "submit redirected": ("txt2img", Fault.redirect("http://127.0.0.1:9/?X-Amz-Signature=stolen")),
    "reads reset": ("request-status", Fault.reset()),
    "reads garbage": ("request-status", Fault.garbage()),
    "reads forbidden": ("request-status", Fault.status(403)),
    "reads truncated": ("request-status", Fault.truncate()),
    "reads silent": ("request-status", Fault.hang()),
    "storage garbage": ("storage", Fault.garbage()),
    "storage headers": ("storage", Fault.garbage("headers")),
    "storage reset": ("storage", Fault.reset()),
    "storage truncated": ("storage", Fault.truncate()),
    "storage silent": ("storage", Fault.hang()),
    "storage refused": ("storage", Fault.status(403)),
    "storage in trouble": ("storage", Fault.html(502)),
}


def tell(error: BaseException) -> Iterator[str]:
    """Say an error in every way that ends up in a log, or in another process."""
    for one in causes(error):
        yield from (str(one), repr(one), repr(vars(one)))
        if isinstance(one, DryAPIError):
            yield from (pickle.dumps(one, protocol).decode("latin-1") for protocol in (0, pickle.HIGHEST_PROTOCOL))
    yield "".join(traceback.format_exception(error))


def tell_log(caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    """Say all that was logged, and what a formatter of somebody else's could make of it."""
    yield caplog.text
    for record in caplog.records:
        yield from (record.getMessage(), str(record.args), repr(vars(record)))


def tell_locals(error: BaseException) -> str:
    """Say what error trackers say: a traceback with the values of local variables, but for those of the test itself."""
    text = ""
    for one in causes(error):
        told = traceback.TracebackException.from_exception(one, capture_locals=True)
        told.stack = traceback.StackSummary.from_list([frame for frame in told.stack if "/tests/" not in frame.filename])
        text += "".join(told.format(chain=False))
    return text


@pytest.mark.parametrize(("where", "fault"), TROUBLES.values(), ids=TROUBLES)
async def test_p35_no_error_no_log_no_traceback_has_the_key_or_a_signed_link(
    sim: Simulator, tmp_path: Path, caplog: pytest.LogCaptureFixture, where: str, fault: Fault
) -> None:
    caplog.set_level(logging.DEBUG)
    async with make_client(sim, timeouts=Timeouts(idle=5), retry=Retry(polls=3)) as client:
        sim.script(where, fault, times=math.inf)
        with pytest.raises(DryAPIError) as caught:
            await client.call(FOX).save(tmp_path)
        logging.getLogger("dryapi_async").error("as a user logs it", exc_info=caught.value)
    assert any(record.name == "dryapi_async" for record in caplog.records)
    for text in [*tell(caught.value), *tell_log(caplog)]:
        assert KEY not in text
        assert "a-secret" not in text
        assert SIGNED not in text
    assert "dryapi_async" in tell_locals(caught.value)
    assert KEY not in tell_locals(caught.value)
    assert files_in(tmp_path) == []


async def test_p35_a_run_of_failures_under_debug_logging_tells_nothing(
    sim: Simulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every trouble in one run, with all that aiohttp and asyncio's debug mode have to say about it."""
    caplog.set_level(logging.DEBUG)
    for name in ("aiohttp.client", "aiohttp.internal", "aiohttp.access", "asyncio", "dryapi_async"):
        caplog.set_level(logging.DEBUG, logger=name)
    asyncio.get_running_loop().set_debug(True)
    said: list[str] = []
    async with make_client(sim, timeouts=Timeouts(idle=5), retry=Retry(polls=2), on_event=lambda event: said.append(repr(event))) as client:
        for where, fault in TROUBLES.values():
            sim.clear_script()
            sim.script(where, fault, times=math.inf)
            results = await asyncio.gather(
                client.call(FOX).save(tmp_path), edit(client, image=PNG).save(tmp_path), client.models(), return_exceptions=True
            )
            for result in results:
                said += [repr(result)] if not isinstance(result, BaseException) else tell(result)
        assert sum("Traceback" in text for text in said) > len(TROUBLES)
        said += [repr(client), repr(client.orphans), repr(asyncio.all_tasks())]
    asyncio.get_running_loop().set_debug(False)
    for text in [*said, *tell_log(caplog)]:
        assert "a-secret" not in text
        assert SIGNED not in text


@asynccontextmanager
async def dead_port() -> AsyncIterator[int]:
    """Hold a port on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


PROXY_USER = "user:proxy-secret@"


@pytest.mark.parametrize("given", ["option", "environment"])
@pytest.mark.parametrize("proxy", ["down", "refuses", "closes", "babbles"])
async def test_p35_a_proxys_password_is_told_to_nobody(
    sim: Simulator, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, given: str, proxy: str
) -> None:
    caplog.set_level(logging.DEBUG)
    answers = {
        "refuses": b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        "closes": b"",
        "babbles": b"what?\r\n\r\n",
    }
    async with dead_port() as port, listen(answers.get(proxy, b"")) as (url, heads):
        address = f"http://127.0.0.1:{port}" if proxy == "down" else url
        address = address.replace("http://", f"http://{PROXY_USER}")
        if given == "environment":
            monkeypatch.setenv("HTTP_PROXY", address)
        async with make_client(sim, proxy=address if given == "option" else None, retry=Retry(attempts=2)) as client:
            for trying in (client.balance(), client.call(FOX), edit(client, image=PNG).save(tmp_path), client.job("txt2img:1").status()):
                with pytest.raises(DryAPIError) as caught:
                    await trying
                for text in tell(caught.value):
                    assert "proxy-secret" not in text
            for text in (repr(client), repr(client.settings), repr(vars(client)), *tell_log(caplog)):
                assert "proxy-secret" not in text
    assert not sim.requests
    assert bool(heads) == (proxy != "down"), "the proxy was asked"


@pytest.mark.parametrize(
    "base_url",
    [
        "https://user:url-secret@127.0.0.1",
        "https://user:url-secret@127.0.0.1:99999999/",
        "https://user:url-secret@127.0.0.1:port",
        "https://user:url-secret@[::1",
        "https://user:url-secret@",
        "http://user:url-secret@api.example.org",
        "ftp://user:url-secret@127.0.0.1",
        "//user:url-secret@127.0.0.1",
        "user:url-secret@127.0.0.1",
        "https://127.0.0.1/?token=url-secret",
        "https://127.0.0.1/#url-secret",
        "ftp://127.0.0.1/?token=url-secret",
        "7|url-secret",
    ],
)
def test_p35_a_base_url_that_is_refused_isnt_told(base_url: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url") as caught:
        Client(KEY, base_url=base_url)
    for text in tell(caught.value):
        assert "url-secret" not in text


def test_p35_a_base_url_without_secrets_is_shown() -> None:
    with pytest.raises(ConfigurationError, match=r"ftp://127\.0\.0\.1/api"):
        Client(KEY, base_url="ftp://127.0.0.1/api")


async def test_p35_a_dead_server_tells_no_key(sim: Simulator, client: Client) -> None:
    await sim.go_down()
    with pytest.raises(DryAPIError) as caught:
        await client.call(FOX)
    assert not any(KEY in text for text in tell(caught.value))


SHOWN: dict[str, Callable[[Client], Awaitable[Any]]] = {
    "call": lambda client: _give(client.call(FOX)),
    "job": lambda client: client.call(FOX),
    "image": lambda client: client.call(FOX).result(),
    "update": lambda client: _status_of_done(client),  # noqa: PLW0108  it is defined below
    "orphans": lambda client: _give(client.orphans),
}


async def _give(value: Any) -> Any:
    if hasattr(value, "close"):
        value.close()
    return value


async def _status_of_done(client: Client) -> Any:
    job = await client.call(FOX)
    await job.result()
    return await job.status()


@pytest.mark.parametrize("make", SHOWN.values(), ids=SHOWN)
async def test_p35_no_repr_has_the_key_or_a_signed_link(client: Client, make: Callable[[Client], Awaitable[Any]]) -> None:
    value = await make(client)
    for text in (repr(value), str(value), f"{value}"):
        assert KEY not in text
        assert SIGNED not in text


async def test_p35_the_clients_own_reprs_have_no_key(sim: Simulator, client: Client) -> None:
    await client.balance()
    proxied = Settings(api_key=KEY, proxy="http://user:proxy-secret@127.0.0.1:3128")
    for value in (client, client.settings, proxied, client._life.current, vars(client)):
        assert KEY not in repr(value)
        assert "proxy-secret" not in repr(value)


def test_p35_bytes_of_a_file_are_in_no_repr() -> None:
    secret = b"\x89PNG\r\n\x1a\nthe content of a private picture"
    operation = repr(edit_request(secret)) + repr(edit_request(File(secret)))
    assert "private picture" not in operation


def edit_request(image: Any) -> Any:

    return Img2Img(prompt="p", model="m", steps=1, seed=1, image=image)


ECHOES: dict[str, Fault] = {
    "in words": Fault.status(422, {"message": f"bad Bearer {KEY}", "errors": {"model": [KEY]}}),
    "in a page": Fault.status(401, f"<html>Authorization: Bearer {KEY}</html>"),
    "in a success": Fault.status(200, f"<html>{KEY}"),
    "in a header": Fault.status(500, {"message": "x"}, headers={"X-Echo": KEY}),
    "in a redirect": Fault.redirect(f"http://127.0.0.1:9/{KEY}"),
}


@pytest.mark.parametrize("fault", ECHOES.values(), ids=ECHOES)
async def test_p35_a_service_that_echoes_the_key_puts_it_into_no_error(
    sim: Simulator, client: Client, caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    caplog.set_level(logging.DEBUG)
    sim.script("*", fault, times=math.inf)
    for trying in (client.balance(), client.call(FOX), client.call(FOX).price()):
        with pytest.raises(DryAPIError) as caught:
            await trying
        for text in [*tell(caught.value), *tell_log(caplog)]:
            assert "a-secret" not in text


@pytest.mark.parametrize(
    "proxy", ["user:proxy-secret@127.0.0.1:9", "http://user:proxy-secret@127.0.0.1:port", "ftp://user:proxy-secret@127.0.0.1:9"]
)
async def test_p35_a_proxy_that_is_no_address_is_told_without_its_password(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    with pytest.raises(ConfigurationError, match="proxy") as refused:
        make_client(sim, proxy=proxy)
    assert not any("proxy-secret" in text for text in tell(refused.value))
    monkeypatch.setenv("HTTP_PROXY", proxy)
    async with make_client(sim, retry=Retry(attempts=1)) as client:
        for trying in (client.balance(), client.call(FOX)):
            with pytest.raises(ConnectError) as caught:
                await trying
            assert not any("proxy-secret" in text for text in tell(caught.value))
