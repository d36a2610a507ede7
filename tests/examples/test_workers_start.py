"""The examples' workers start while others work: what is in each other's way then."""

import asyncio
import fcntl
import os
from pathlib import Path

import pytest

from dryapi_async.simulator import Simulator
from examples.fastapi_app.studio import Studio
from examples.fastapi_app.table import Photo, Table


def test_an_upload_that_ends_while_a_worker_starts_doesnt_stop_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTO_FOLDER", str(tmp_path))
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.part").symlink_to(tmp_path / "nowhere")  # found in the folder, and gone when it is looked at
    (photos / "b.part").touch()
    (photos / "c.part").touch()
    os.utime(photos / "b.part", (0, 0))

    async def main() -> None:
        async with Simulator(pictures=False) as sim:
            monkeypatch.setenv("DRYAPI_API_KEY", sim.key)
            monkeypatch.setenv("DRYAPI_BASE_URL", sim.url)
            async with Studio.from_environment():
                assert sorted(one.name for one in photos.iterdir()) == ["a.part", "c.part"]

    asyncio.run(main())


def test_a_new_table_is_made_by_one_worker_after_the_other(tmp_path: Path) -> None:
    async def main() -> None:
        table = Table(tmp_path / "photos.db")
        with (tmp_path / "photos.lock").open("w") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            opening = asyncio.create_task(table.open())
            await asyncio.sleep(0.2)
            assert not opening.done()
        await opening
        try:
            await table.insert(Photo(id="a", prompt="a fox", kind="image/png"))
            assert (await table.find("a")) is not None
        finally:
            await table.close()

    asyncio.run(main())
