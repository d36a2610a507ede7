"""What is told of a file's request: by events where it is refused, by the log where its name says another type."""

import logging
from pathlib import Path

import pytest

from dryapi_async import Client, DownloadError
from dryapi_async.events import Attempt, Event
from dryapi_async.protocol.links import Link
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, make_client, make_sim

pytestmark = pytest.mark.anyio


async def refuse(client: Client, link: str, heard: list[Event]) -> list[str | None]:
    heard.clear()
    with pytest.raises(DownloadError):
        async for _ in client._engine().downloads.open(Link(url=link, request_id="1", format=None)):
            pass
    return [event.error for event in heard if isinstance(event, Attempt)]


async def test_a_link_that_is_refused_is_a_download_error_with_a_hook_too_and_no_request() -> None:
    heard: list[Event] = []
    async with make_sim() as sim, make_client(sim, on_event=heard.append) as client:
        assert await refuse(client, "http://[bad", heard) == []
        assert await refuse(client, "ftp://127.0.0.1/fox.png", heard) == []
        assert client.stats().downloads == 0


async def test_a_file_that_is_refused_is_told_as_what_it_was() -> None:
    heard: list[Event] = []
    async with make_sim() as sim, make_client(sim, on_event=heard.append) as client:
        image = await client.call(FOX).result()
        sim.script("storage", Fault.status(200, b"<html>log in", content_type="text/html"))
        heard.clear()
        with pytest.raises(DownloadError):
            await image.read()
        (told,) = (event for event in heard if isinstance(event, Attempt))
        assert told.error is not None
        assert told.error.startswith("DownloadError")
        assert client.stats().downloads == 1


@pytest.mark.parametrize(
    ("name", "warned"), [("fox.gif", True), ("fox.mp4", True), ("fox.png", False), ("fox.webp", False), ("fox.v2", False)]
)
async def test_a_name_that_says_another_type_is_told(
    sim: Simulator, client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, *, warned: bool
) -> None:
    caplog.set_level(logging.WARNING)
    path = await client.call(FOX).save(tmp_path / name)
    assert path.exists()
    assert [record.getMessage() for record in caplog.records] == ([f"{path} holds image/png, which its name doesn't say"] if warned else [])
