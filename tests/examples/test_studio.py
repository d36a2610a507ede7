"""What becomes of a photo that the service refuses, before and after it is paid for. The studio itself, in the test's loop."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dryapi_async.simulator import Fault, Simulator
from examples.fastapi_app import studio as studios
from examples.fastapi_app.studio import Studio
from examples.fastapi_app.table import Photo

from ..conftest import make_client, make_sim, seen, until
from .conftest import END_SECONDS, make_photo

BEAT_SECONDS = 0.05
HELD_SECONDS = 0.2


@asynccontextmanager
async def open_studio(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[tuple[Simulator, Studio]]:
    """Open one that takes up at once what nobody has in hand."""
    monkeypatch.setattr(studios, "BEAT_SECONDS", BEAT_SECONDS)
    for part in ("photos", "pictures"):
        (folder / part).mkdir()
    async with make_sim(duration=0.1) as sim, asyncio.timeout(END_SECONDS):
        client = make_client(sim, journal=folder / "journal.db", poll=0.02)
        async with Studio(client, folder, model="QwenImageEdit_Plus_NF4", most_bytes=10**6, held_seconds=HELD_SECONDS) as studio:
            yield sim, studio


async def give(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def follow(studio: Studio, photo: Photo) -> list[Photo]:
    return [one async for one in studio.watch(photo)]


@pytest.mark.parametrize("status", [401, 403, 404, 422])
def test_a_paid_photo_isnt_given_up_where_reading_its_job_is_refused(status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with open_studio(tmp_path, monkeypatch) as (sim, studio):
            refusal = sim.script("request-status", Fault.status(status), times=math.inf)
            photo = await studio.receive("a fox", give(make_photo("fox")))
            watching = asyncio.create_task(follow(studio, photo))
            await until(lambda: refusal.used >= 2 or watching.done())
            refusal.remove()
            assert (await watching)[-1].state == "done"
            assert (sim.jobs_billed, len(seen(sim, "img2img"))) == (1, 1)
            found = await studio.find(photo.id)
            assert found is not None
            picture = await studio.picture(found)
            assert picture is not None
            assert picture.stat().st_size > 0

    asyncio.run(main())


@pytest.mark.parametrize("status", [401, 422])
def test_a_photo_whose_submit_is_refused_has_failed(status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with open_studio(tmp_path, monkeypatch) as (sim, studio):
            sim.script("img2img", Fault.status(status, {"message": "not like this"}))
            photo = await studio.receive("a fox", give(make_photo("fox")))
            last = (await follow(studio, photo))[-1]
            assert (last.state, last.ticket, "not like this" in last.error) == ("failed", None, True)
            await asyncio.sleep(2 * HELD_SECONDS)
            assert (sim.jobs_billed, len(seen(sim, "img2img"))) == (0, 1)

    asyncio.run(main())
