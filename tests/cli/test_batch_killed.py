"""P4: `dryapi batch`, killed with -9 five times, alone and by two processes at once: nothing paid twice, nothing lost, each file whole.

Real processes and real time, in a run of its own.
"""

import asyncio
import json
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from dryapi_async.io.journal import JournalRow
from dryapi_async.simulator import Fault, Simulator
from tests.cli.batches import Ended, end_batch, read_outcomes, run_batch, start_batch, write_foxes
from tests.conftest import make_client, make_sim, sha256, until

pytestmark = pytest.mark.processes

LINES = 300
KILLS = 5


def make_chance() -> tuple[int, random.Random]:
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")  # noqa: T201  a failing run can be made again
    return seed, random.Random(seed)  # noqa: S311  kills, no secrets


async def read_rows(sim: Simulator, folder: Path) -> tuple[JournalRow, ...]:
    async with make_client(sim, journal=folder / "journal.db") as client:
        return await client.journal.list()


def check_files(sim: Simulator, rows: tuple[JournalRow, ...], folder: Path) -> int:
    """Hold the files against what the service made, and give how many there are."""
    saved = {row.label: row.request_id or "" for row in rows if row.state == "saved"}
    assert sorted(one.name for one in folder.glob("*.png")) == sorted(f"{label}.png" for label in saved)
    for label, request_id in saved.items():
        (blob,) = [blob for name, blob in sim.jobs[request_id].blobs.items() if name.endswith(".png")]
        assert sha256(folder / f"{label}.png") == sha256(blob.read(0, blob.size)), label
    assert not list(folder.glob(".dryapi-*.part"))
    return len(saved)


def check_last_run(sim: Simulator, rows: tuple[JournalRow, ...], folder: Path, ended: list[Ended]) -> None:
    """Hold what is on disk, in the journal and on the service's bill against each other before anybody says to pay again."""
    states = Counter(row.state for row in rows)
    print(dict(states))  # noqa: T201  a failing run tells more
    saved, unknown = check_files(sim, rows, folder), states["unknown"]
    assert saved + unknown == LINES
    assert saved <= sim.jobs_billed <= LINES
    assert max(sim.billed.values()) == 1, "paid twice"
    for one in ended:
        assert one.status == (3 if unknown else 0), one.err
    outcomes = read_outcomes(folder)
    assert Counter(said["state"] for said in outcomes.values()) == Counter({"saved": saved, "unknown": unknown})
    assert "Traceback" not in "".join(one.err for one in ended)


async def resubmit(sim: Simulator, rows: tuple[JournalRow, ...], folder: Path) -> None:
    """Have the unknown ones sent again at the user's word: then all are there."""
    billed, unknown = sim.jobs_billed, sum(row.state == "unknown" for row in rows)
    last = await run_batch(sim, folder.parent, "--out", "out", "--resubmit-unknown")
    assert last.status == 0, last.err
    assert sim.jobs_billed == billed + unknown
    assert check_files(sim, await read_rows(sim, folder), folder) == LINES
    page = (folder / "index.html").read_text()
    shown = {said["key"]: said["state"] for said in (json.loads(line.partition("\t")[2]) for line in page.splitlines() if "\t{" in line)}
    assert shown == {f"{number:05}": "saved" for number in range(1, LINES + 1)}


def test_p04_killed_five_times_all_lines_are_done_and_none_is_paid_twice(tmp_path: Path) -> None:
    seed, chance = make_chance()
    write_foxes(tmp_path / "jobs.jsonl", LINES)
    words = ("--out", "out", "--at-once", "8")

    async def main() -> None:
        told: list[int] = []
        async with make_sim(seed=seed, duration=0.2, result_size=20_000, most_records=1_000_000, limit_headers=False) as sim:
            sim.script("txt2img", Fault.delay(0.1), probability=0.5)
            for _ in range(KILLS):
                billed, process = sim.jobs_billed, await start_batch(sim, tmp_path, *words)
                await until(lambda billed=billed: sim.jobs_billed > billed)
                killed = await end_batch(process, chance.uniform(0, 1.4))
                assert killed.status == -signal.SIGKILL, f"it was over before it was killed {KILLS} times: {killed.err}"
                told.append(sim.jobs_billed)
            print(f"billed when it was killed: {told}")  # noqa: T201  a failing run tells more
            done = await run_batch(sim, tmp_path, *words)
            rows = await read_rows(sim, tmp_path / "out")
            check_last_run(sim, rows, tmp_path / "out", [done])
            await resubmit(sim, rows, tmp_path / "out")

    asyncio.run(main())


def test_p04_two_processes_share_a_manifest_while_they_are_killed(tmp_path: Path) -> None:
    seed, chance = make_chance()
    write_foxes(tmp_path / "jobs.jsonl", LINES)
    words = ("--out", "out", "--at-once", "4")

    async def main() -> None:
        async with make_sim(seed=seed, duration=0.2, result_size=20_000, most_records=1_000_000, limit_headers=False) as sim:
            sim.script("txt2img", Fault.delay(0.1), probability=0.5)
            running = [await start_batch(sim, tmp_path, *words) for _ in range(2)]
            for _ in range(KILLS):
                await asyncio.sleep(0.9 + chance.uniform(0, 0.9))
                victim = running.pop(chance.randrange(2))
                ended = await end_batch(victim, 0)
                assert ended.status == -signal.SIGKILL, f"it was over before it was killed: {ended.err}"
                running.append(await start_batch(sim, tmp_path, *words))
            last = [await end_batch(process) for process in running]
            rows = await read_rows(sim, tmp_path / "out")
            check_last_run(sim, rows, tmp_path / "out", last)
            made = Counter(row.owner for row in rows)
            print(sorted(made.values()))  # noqa: T201  who did how much
            await resubmit(sim, rows, tmp_path / "out")

    asyncio.run(main())
