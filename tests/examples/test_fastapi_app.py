"""The FastAPI example under four uvicorn workers. Real processes, real time; limits are five times what was measured."""

import asyncio
import io
import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dryapi_async.simulator import Fault, Simulator

from ..conftest import sha256
from .conftest import JPEG_HEAD, Visitor, children_of, fastapi_workers, free_port, make_photo, redraw, result_of, running, visiting

pytest.importorskip("fastapi", reason="FastAPI isn't installed")
pytest.importorskip("uvicorn", reason="uvicorn isn't installed")

pytestmark = pytest.mark.processes

CLIENTS = 20
PHOTOS = 100
MIB = 2**20
SOON = {"PHOTO_HELD_SECONDS": "5"}
"""A dead worker's photos are taken up sooner than by default, so that tests wait less."""


async def redraw_all(visitor: Visitor) -> list[tuple[str, str, str]]:
    names = iter([f"photo {number}" for number in range(PHOTOS)])

    async def visit() -> list[tuple[str, str, str]]:
        return [await redraw(visitor, name) for name in names]

    return [one for some in await asyncio.gather(*(visit() for _ in range(CLIENTS))) for one in some]


async def check_pictures(sim: Simulator, visitor: Visitor, served: list[tuple[str, str, str]]) -> None:
    """Each picture is the service's own for that very request, whichever worker is asked for it."""
    seen = set()
    for prompt, photo_id, _ in served:
        picture = await visitor.fetch(photo_id)
        assert picture == result_of(sim, prompt)
        seen.add(sha256(picture))
    assert len(seen) == len(served)


@pytest.mark.parametrize("push", [True, False], ids=["push", "reads"])
def test_a_hundred_photos_of_twenty_visitors_are_served_by_four_workers(tmp_path: Path, push: bool) -> None:
    async def main() -> None:
        async with fastapi_workers(tmp_path, push=push, duration=1.0) as (sim, visitor, _):
            served = await redraw_all(visitor)
            assert Counter(state for *_, state in served) == {"done": PHOTOS}
            await check_pictures(sim, visitor, served)
            assert sim.jobs_billed == PHOTOS
            assert max(sim.billed.values()) == 1
            assert {one.sha256 for job in sim.jobs.values() for files in job.files.values() for one in files} == {
                sha256(make_photo(f"photo {number}")) for number in range(PHOTOS)
            }
            # Whichever worker a webhook came to took it.
            deliveries = sim.webhooks.deliveries
            assert len(deliveries) == 2 * PHOTOS
            assert {one.state for one in deliveries} == {"delivered"}

    asyncio.run(main())


def owned(folder: Path, pid: int) -> tuple[set[str], int]:
    """List the jobs that a worker has submitted and not ended yet, and count its submits whose fate isn't noted, by the journal."""
    locks = [one.readlink() for one in Path(f"/proc/{pid}/fd").iterdir() if one.is_symlink()]
    (owner,) = [one.name.split(".")[-2] for one in locks if one.suffix == ".lock"]  # its lock file tells its name there
    db = sqlite3.connect(f"file:{folder / 'journal.db'}?mode=ro", uri=True)
    try:
        rows = db.execute("SELECT request_id, state FROM calls WHERE owner = ? AND state IN ('intent', 'submitted')", (owner,)).fetchall()
    finally:
        db.close()
    return {request_id for request_id, state in rows if state == "submitted"}, sum(state == "intent" for _, state in rows)


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    while "State:\tT" not in Path(f"/proc/{pid}/status").read_text():
        time.sleep(0.001)


async def kill_in_the_middle(folder: Path, master: int) -> tuple[set[str], int]:
    """Kill -9 the first worker that has three jobs on their way; give them, and how many of its submits it can't tell of any more."""
    while True:
        for pid in children_of(master):
            # Stopped first, so that what is read is what it dies with.
            stop(pid)
            jobs, intents = owned(folder, pid)
            if len(jobs) >= 3:
                os.kill(pid, signal.SIGKILL)
                return jobs, intents
            os.kill(pid, signal.SIGCONT)
        await asyncio.sleep(0.05)


def test_a_killed_workers_jobs_are_finished_by_others_and_none_is_paid_twice(tmp_path: Path) -> None:
    async def main() -> None:
        async with fastapi_workers(tmp_path, duration=1.5, environment=SOON) as (sim, visitor, master):
            before = set(children_of(master))
            assert len(before) == 4
            visits = asyncio.create_task(redraw_all(visitor))
            await asyncio.sleep(2)
            left, intents = await kill_in_the_middle(tmp_path, master)
            served = await visits
            states = Counter(state for *_, state in served)
            print(f"left by the dead worker: {len(left)}, and {intents} on the wire; told: {dict(states)}; billed: {sim.jobs_billed}")  # noqa: T201
            assert set(states) <= {"done", "unknown"}
            done = [one for one in served if one[2] == "done"]
            assert states["unknown"] <= intents, "more was lost than was on the wire"
            await check_pictures(sim, visitor, done)
            # Nothing was paid twice, and what was paid for is served or told as unknown.
            assert max(sim.billed.values()) == 1
            told = {prompt for prompt, *_ in served}
            repeated = {job.fields["prompt"] for job in sim.jobs.values()} - told
            assert all(prompt.endswith(("attempt 1", "attempt 2")) for prompt in repeated), "billed, and nobody was told"
            assert PHOTOS - states["unknown"] <= sim.jobs_billed <= PHOTOS + len(repeated)
            prompts = {job.fields["prompt"]: request_id for request_id, job in sim.jobs.items()}
            assert left <= {prompts[prompt] for prompt, *_ in done} | {prompts[prompt] for prompt in repeated}

    asyncio.run(main())


@pytest.mark.parametrize(("webhooks", "state"), [(False, "unknown"), (True, "done")], ids=["no evidence", "its webhook tells"])
def test_what_a_killed_worker_had_on_its_way_is_never_sent_again(tmp_path: Path, webhooks: bool, state: str) -> None:
    async def main() -> None:
        async with fastapi_workers(tmp_path, workers=2, environment=SOON) as (sim, visitor, master):
            sim.webhooks.enabled = webhooks
            sim.script("img2img", Fault.hang())  # the job is made, and its answer never comes
            _, photo = await visitor.send("a fox", make_photo("fox"))
            async with asyncio.timeout(10):
                while not sim.jobs:  # noqa: ASYNC110  what the simulator has seen has no event
                    await asyncio.sleep(0.05)
            for pid in children_of(master):
                os.kill(pid, signal.SIGKILL)
            news = await visitor.follow(photo["id"])
            # A reload looks for evidence again, and sends nothing.
            again = await visitor.follow(photo["id"])
            assert again[-1]["state"] == state
            if not webhooks:
                assert news[-1]["state"] == "unknown"
                assert "may have been paid for" in news[-1]["error"]
            assert [one.operation for one in sim.requests].count("img2img") == 1
            assert sim.jobs_billed == 1

    asyncio.run(main())


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_eight_uploads_of_20_mib_at_once_leave_a_workers_memory_alone(tmp_path: Path) -> None:
    size, count = 20 * MIB, 8
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(JPEG_HEAD + os.urandom(size - len(JPEG_HEAD)))
    options: dict[str, Any] = {"max_upload": 64 * MIB, "keep_files": False, "environment": {"PHOTO_MOST_BYTES": str(25 * MIB)}}

    async def main() -> None:
        async with fastapi_workers(tmp_path / "data", workers=1, **options) as (sim, visitor, worker):
            await redraw(visitor, "a small one first")
            least = most = rss(worker)

            async def measure() -> None:
                nonlocal most
                while True:
                    most = max(most, rss(worker))
                    await asyncio.sleep(0.02)

            measuring = asyncio.create_task(measure())

            async def send(number: int) -> str:
                with photo.open("rb") as file:
                    status, taken = await visitor.send(f"large {number}", file)
                assert status == 201
                return str((await visitor.follow(taken["id"]))[-1]["state"])

            states = await asyncio.gather(*(send(number) for number in range(count)))
            measuring.cancel()
            assert states == ["done"] * count
            sizes = [one.size for job in sim.jobs.values() for files in job.files.values() for one in files]
            assert sizes.count(size) == count
            print(f"RSS {least / MIB:.1f} MiB, at most {most / MIB:.1f} MiB")  # noqa: T201
            assert most - least < size, "a copy of an upload was in memory"

    asyncio.run(main())


Refusal = Callable[[Visitor], Awaitable[tuple[int, Any]]]
REFUSALS: dict[str, tuple[int, Refusal]] = {
    "another site's page": (403, lambda visitor: visitor.send("a fox", make_photo("fox"), **{"Sec-Fetch-Site": "cross-site"})),
    "a form's type": (415, lambda visitor: visitor.send("a fox", make_photo("fox"), **{"Content-Type": "text/plain"})),
    "no picture": (415, lambda visitor: visitor.send("a fox", b"<script>alert(1)</script>")),
    "empty": (415, lambda visitor: visitor.send("a fox", b"")),
    "too large": (413, lambda visitor: visitor.send("a fox", io.BytesIO(JPEG_HEAD + bytes(2 * MIB)))),
    "no words": (422, lambda visitor: visitor.send("", make_photo("fox"))),
    "too many words": (422, lambda visitor: visitor.send("x" * 1001, make_photo("fox"))),
}


def test_what_is_no_photo_of_our_own_page_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        async with fastapi_workers(tmp_path, workers=1, environment={"PHOTO_MOST_BYTES": str(MIB)}) as (sim, visitor, _):
            for name, (status, refused) in REFUSALS.items():
                assert (await refused(visitor))[0] == status, name
            with suppress(aiohttp.ClientError, ConnectionError):  # far too large: it is cut off, so its answer may be lost
                assert (await visitor.send("a fox", io.BytesIO(JPEG_HEAD + bytes(32 * MIB))))[0] == 413
            async with visitor.session.get("/photos/..%2Fjournal.db/original") as answer:
                assert answer.status == 404
            async with visitor.session.post("/hook/key", data=b"{}") as answer:
                assert answer.status == 401
            assert not list((tmp_path / "photos").iterdir())
            assert not sim.jobs

    asyncio.run(main())


@pytest.mark.parametrize("example", ["fastapi_app", "aiohttp_app"])
def test_one_command_starts_everything_and_ctrl_c_ends_it(example: str, tmp_path: Path) -> None:
    port = free_port()

    async def visit() -> None:
        async with visiting(port) as visitor:
            _, photo_id, state = await redraw(visitor, "a fox")
            assert state == "done"
            assert (await visitor.fetch(photo_id)).startswith(b"\x89PNG")
            assert await visitor.fetch(photo_id, "original") == make_photo("a fox")

    folder = tmp_path / "data"
    with running("-m", f"examples.{example}", "--port", str(port), "--folder", str(folder), "--speed", "20", port=port) as serving:
        process = serving.process
        started = [int(one) for one in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        started += children_of(process.pid)
        assert started
        asyncio.run(visit())
    assert process.returncode == 0
    end = time.monotonic() + 5  # multiprocessing's own tracker ends when it notices
    while left := [pid for pid in started if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < end, f"left: {[Path(f'/proc/{pid}/cmdline').read_bytes() for pid in left]}"
        time.sleep(0.05)
