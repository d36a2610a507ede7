"""What is told of a file's request: how long it took, without its wait for a place; and ranges that are none."""

import asyncio

import pytest

from dryapi_async import Client, DownloadError
from dryapi_async.events import Attempt, Event
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, make_client

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("options", [{"pool_size": 1}, {"max_in_flight": 1}], ids=["connection", "slot"])
async def test_a_files_request_is_timed_from_when_it_has_its_place(sim: Simulator, options: dict[str, int]) -> None:
    heard: list[Event] = []
    async with make_client(sim, on_event=heard.append, **options) as client:
        image = await client.call(FOX).result()
        heard.clear()
        sim.script("storage", Fault.delay(5), times=3)
        await asyncio.gather(*(image.read() for _ in range(3)))
    assert [event.seconds for event in heard if isinstance(event, Attempt)] == pytest.approx([5, 5, 5], abs=0.5)


@pytest.mark.parametrize("length", ["9" * 19, "9" * 5000], ids=["nineteen digits", "five thousand"])
async def test_a_range_of_thousands_of_digits_is_none(sim: Simulator, client: Client, length: str) -> None:
    image = await client.call(FOX).result()
    sim.script("storage", Fault.truncate(), Fault.status(206, b"rest", headers={"Content-Range": f"bytes 0-1/{length}"}))
    with pytest.raises(DownloadError, match="gave another part"):
        await image.read()
