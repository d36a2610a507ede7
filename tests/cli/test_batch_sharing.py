"""One process's part in a batch while others have theirs: what it leaves to them, takes over, and doesn't wait for for ever."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from pathlib import Path, PurePath
from typing import Any

import pytest
from attrs import evolve

from dryapi_async import Client, Job
from dryapi_async.cli.board import Board
from dryapi_async.cli.manifest import Line, read_manifest
from dryapi_async.cli.results import take_name
from dryapi_async.cli.work import Options, Work
from dryapi_async.simulator import Fault, Simulator
from tests.cli.batches import FOX, read_outcomes
from tests.conftest import make_client, now, seen, sha256, until

pytestmark = pytest.mark.anyio


def read_lines(*lines: dict[str, Any]) -> list[Line]:
    found = read_manifest("\n".join(map(json.dumps, lines)).encode(), "lines", PurePath())
    assert not found.problems
    return found.lines


def foxes(number: int) -> list[Line]:
    return read_lines(*(FOX | {"seed": seed} for seed in range(number)))


def hash_pictures(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in folder.glob("*.png")}


async def submit(client: Client, line: Line) -> Job[Any]:
    operation: Any = line.operation
    return await client.call(operation, label=line.key)


@asynccontextmanager
async def opened(sim: Simulator, folder: Path, lines: list[Line], **options: Any) -> AsyncGenerator[tuple[Work, Client]]:
    """Open a part of a batch as a process has it: an owner of its own in the journal."""
    given = Options(folder=folder, at_once=4, timeout=100.0, budget=None, prices=False, sheet=False, again=())
    async with make_client(sim, journal=folder / "journal.db") as client:
        work = Work(client, Board(len(lines), quiet=True), lines, evolve(given, **options))
        assert not await work.find_changed()
        yield work, client


async def test_of_what_a_living_process_has_the_end_is_waited_for(sim: Simulator, tmp_path: Path) -> None:
    lines = foxes(20)
    async with opened(sim, tmp_path, lines) as (one, _), opened(sim, tmp_path, lines) as (other, _):
        await asyncio.gather(one.run(), other.run())
    assert set(one.states.values()) == set(other.states.values()) == {"saved"}
    assert len(one.states) == len(other.states) == sim.jobs_billed == 20
    assert sorted(hash_pictures(tmp_path)) == [f"{number:05}.png" for number in range(1, 21)]
    assert len((tmp_path / "outcomes.jsonl").read_text().splitlines()) >= 20


async def test_what_a_living_process_never_ends_isnt_waited_for_for_ever(sim: Simulator, tmp_path: Path) -> None:
    lines = foxes(2)
    async with make_client(sim, journal=tmp_path / "journal.db") as stuck, opened(sim, tmp_path, lines) as (work, _):
        await submit(stuck, lines[0])
        began = now()
        await work.run()
        assert work.states == {"00001": "stopped", "00002": "saved"}
        assert 160 <= now() - began < 170
        assert "another process has it (submitted)" in read_outcomes(tmp_path)["00001"]["message"]
    async with opened(sim, tmp_path, lines) as (work, _):
        await work.run()
        assert work.states == {"00001": "saved", "00002": "saved"}
    assert sim.jobs_billed == 2


async def test_p01_a_resubmit_of_several_processes_pays_once(sim: Simulator, tmp_path: Path) -> None:
    lines = foxes(6)
    async with opened(sim, tmp_path, lines) as (work, _):
        sim.script("txt2img", *[Fault.reset("before_body")] * 6)
        await work.run()
        lost = [key for key, state in work.states.items() if state == "unknown"]
    assert len(lost) == 6
    billed = sim.jobs_billed
    parts = [opened(sim, tmp_path, lines, again=("unknown",)) for _ in range(2)]
    async with parts[0] as (one, _), parts[1] as (other, _):
        await asyncio.gather(one.run(), other.run())
    assert set(one.states.values()) == set(other.states.values()) == {"saved"}
    assert sim.jobs_billed == billed + 6


@pytest.mark.parametrize("way", ["at once", "one after the other"])
async def test_p01_what_gets_lost_again_isnt_sent_again_by_the_next_process(sim: Simulator, tmp_path: Path, way: str) -> None:
    lines = foxes(1)
    sim.script("txt2img", Fault.reset(), Fault.hang(seconds=1))
    async with opened(sim, tmp_path, lines) as (work, _):
        await work.run()
        assert work.states == {"00001": "unknown"}
    parts = [opened(sim, tmp_path, lines, again=("unknown",)) for _ in range(2)]
    async with parts[0] as (one, _), parts[1] as (other, _):
        if way == "at once":
            await asyncio.gather(one.run(), other.run())
        else:
            await one.run()
            await asyncio.sleep(2)
            await other.run()
    assert one.states == other.states == {"00001": "unknown"}
    assert len(seen(sim, "txt2img")) == 2, "the user said it once"


async def test_what_a_dead_process_has_saved_isnt_fetched_again(sim: Simulator, tmp_path: Path) -> None:
    lines = foxes(3)
    async with make_client(sim, journal=tmp_path / "journal.db") as dead:
        for line in lines:
            await (await submit(dead, line)).wait()
    (tmp_path / "00001.png").write_bytes(b"its process died before it noted this one")
    (tmp_path / "00002.png").write_bytes(b"something older of the same name")
    os.utime(tmp_path / "00002.png", (1, 1))
    async with opened(sim, tmp_path, lines) as (work, client):
        await work.run()
        assert [row.state for row in await client.journal.list()] == ["saved"] * 3
    assert set(work.states.values()) == {"saved"}
    assert (tmp_path / "00001.png").read_bytes().startswith(b"its process")
    assert (tmp_path / "00002.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(hash_pictures(tmp_path)) == ["00001.png", "00002.png", "00003.png"]
    assert sim.jobs_billed == 3


async def test_two_processes_that_fetch_the_same_leave_one_file(sim: Simulator, tmp_path: Path) -> None:
    lines = foxes(4)
    async with opened(sim, tmp_path, lines) as (work, _):
        await work.run()
    kept = hash_pictures(tmp_path)
    assert len(kept) == 4
    for name in kept:
        (tmp_path / name).unlink()
    async with opened(sim, tmp_path, lines) as (one, _), opened(sim, tmp_path, lines) as (other, _):
        await asyncio.gather(one.run(), other.run())
    assert hash_pictures(tmp_path) == kept
    assert sim.jobs_billed == 4
    numbered = (tmp_path / "00001.png").rename(tmp_path / "00001~0.png")
    assert take_name(numbered, "00001") == tmp_path / "00001.png"
    assert hash_pictures(tmp_path) == kept


async def test_a_result_that_gets_its_last_name_while_the_folder_is_read_stops_nobody(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, look = foxes(2), os.scandir
    async with opened(sim, tmp_path, lines) as (work, _):
        await work.run()
    kept = hash_pictures(tmp_path)
    numbered = (tmp_path / "00001.png").rename(tmp_path / "00001~0.png")

    def look_too_early(folder: Path) -> AbstractContextManager[list[os.DirEntry[str]]]:
        with look(folder) as entries:
            found = list(entries)
        with suppress(FileNotFoundError):
            take_name(numbered, "00001")
        return nullcontext(found)

    async with opened(sim, tmp_path, lines) as (work, _):
        with monkeypatch.context() as patched:
            patched.setattr(os, "scandir", look_too_early)
            await work.run()
    assert set(work.states.values()) == {"saved"}
    assert hash_pictures(tmp_path) == kept
    assert sim.jobs_billed == 2


async def test_an_answer_that_is_gone_is_told_as_such(sim: Simulator, tmp_path: Path) -> None:
    lines = read_lines({"op": "prompt/image", "prompt": "a fox"})
    async with opened(sim, tmp_path, lines) as (work, _):
        await work.run()
    (tmp_path / "00001.json").unlink()
    async with opened(sim, tmp_path, lines) as (work, _):
        await work.run()
    assert work.states == {"00001": "failed"}
    assert "give it another key" in read_outcomes(tmp_path)["00001"]["message"]
    assert len(seen(sim, "prompt/image")) == 1


async def test_a_stop_ends_the_wait_for_others(sim: Simulator, tmp_path: Path) -> None:
    lines = foxes(1)
    async with make_client(sim, journal=tmp_path / "journal.db") as stuck, opened(sim, tmp_path, lines) as (work, _):
        await submit(stuck, lines[0])
        running = asyncio.create_task(work.run())
        await until(lambda: work._waiting is not None)
        began = now()
        work.stop()
        await running
        assert work.states == {}
        assert now() - began < 0.5
