"""P35: the key and signed links are in no log, repr, error or traceback."""

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

import pytest

from dryapi_async import (
    Client,
    ConfigurationError,
    ConnectError,
    DryAPIError,
    File,
    Img2Img,
    Retry,
    Settings,
    Timeouts,
)
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, PNG, causes, edit, files_in, make_client, make_sim
from .test_secrets import KEY, SIGNED, listen

pytestmark = pytest.mark.anyio


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with make_sim(key=KEY) as running:
        yield running


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
    # In the environment the scheme may be left out: that is an address, on which nobody answers here.
    wrong = ConfigurationError if "//" in proxy else ConnectError
    client = make_client(sim, retry=Retry(attempts=1))
    for make in (client.balance, lambda: client.call(FOX)):
        with pytest.raises(wrong) as caught:
            await make()
        assert not any("proxy-secret" in text for text in tell(caught.value))
    await client.aclose()
    assert not sim.requests
