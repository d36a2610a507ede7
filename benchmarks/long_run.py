"""A long run: twenty thousand jobs of one client with a journal, submitted, waited for and saved: what stays of them."""

import asyncio
import gc
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

from attrs import asdict, frozen

from benchmarks import machine, plots
from benchmarks.figures import Goal
from benchmarks.options import Options
from benchmarks.plots import Group, Panel
from benchmarks.processes import run_child, start_server
from benchmarks.report import Section
from dryapi_async import Client, Limits, Txt2Img

MB: Final = 1_000_000
GROWTH: Final = Goal("promise", "<=", 5.0)
PICTURE: Final = "long_run.png"
SETTLE_SECONDS: Final = 5.0
"""Threads that have no work any more may take so long to end."""


@frozen(kw_only=True)
class Load:
    """How much is done."""

    cycles: int
    warm_up: int
    """Of these: pools, caches and the allocator's own stock grow in them."""
    sample: int
    """Memory is read after so many."""
    at_once: int


FULL: Final = Load(cycles=20_000, warm_up=4_000, sample=500, at_once=64)
SMOKE: Final = Load(cycles=200, warm_up=100, sample=50, at_once=16)


@frozen(kw_only=True)
class Held:
    """What a process holds."""

    sockets: int
    files: int
    tasks: int
    threads: int


def run(options: Options) -> Section:
    """Run the benchmark.

    Raises:
        ChildError: A process failed.
    """
    load = SMOKE if options.smoke else FULL
    with start_server() as server:
        said = run_child("long_run:work", url=server.url, **asdict(load))
    before, after = Held(**said["before"]), Held(**said["after"])
    left = describe_left(before, after, said["strays"])
    if options.smoke:
        return Section(name="long run", text=f"It works: {load.cycles} jobs submitted, waited for and saved; left behind: {left}.\n")
    growth, end = measure_growth(said["samples"], load)
    picture = draw(said["samples"], load, options.output.with_name(PICTURE))
    return Section(
        name="long run",
        text=f"""{load.cycles:,} times `await client.txt2img(...).save(path)` of 20 KiB, {load.at_once} at once;
one client, with a journal on disk.

| figure | ours | goals |
|---|---|---|
| resident memory after {load.warm_up:,} jobs, MB | {said["samples"][load.warm_up // load.sample][1] / MB:.1f} | |
| most over that until the end, MB | {growth:.1f} | {GROWTH}: {"met" if GROWTH.holds(growth) else "**not met**"} |
| the same at the end, MB | {end:.1f} | |
| sockets, open files, tasks, threads before and after | {_tell(before)} and {_tell(after)} | none left: {left} |

{picture}
* Resident memory is read every {load.sample} jobs, while {load.at_once} are under way, after a garbage collection.
* The journal keeps a row of each job on disk, {said["journal_bytes"] / MB:.1f} MB in all; `journal.prune` removes them.
* {said["seconds"]:.0f} s of wall clock, {1e6 * said["cpu_seconds"] / load.cycles:.0f} us of CPU a job, the journal and the disk included.
* {machine.today()}, `{options.command}`. {machine.describe()}.
""",
    )


def measure_growth(samples: list[list[float]], load: Load) -> tuple[float, float]:
    """Say how far memory went over where it was after the warm-up, at most and at the end; MB."""
    after = [resident for done, resident in samples if done >= load.warm_up]
    return (max(after) - after[0]) / MB, (after[-1] - after[0]) / MB


def describe_left(before: Held, after: Held, strays: list[str]) -> str:
    """Name what is there after the run that wasn't before."""
    more = [f"{asdict(after)[name] - count} {name}" for name, count in asdict(before).items() if asdict(after)[name] > count]
    return ", ".join([*more, *strays]) or "nothing"


def _tell(held: Held) -> str:
    return " / ".join(str(count) for count in asdict(held).values())


def draw(samples: list[list[float]], load: Load, target: Path) -> str:
    """Draw memory over jobs, where that can be done; its line in the report."""
    if not plots.can_draw():
        return "No picture: matplotlib isn't installed.\n"
    points = tuple((done, resident / MB, "") for done, resident in samples)
    base = next(resident for done, resident in samples if done >= load.warm_up) / MB
    panel = Panel(
        title="A long run: resident memory of one client's process",
        x_label="jobs submitted, waited for and saved",
        y_label="resident memory, MB",
        groups=(Group(name="ours", points=points, joined=True, marker=""),),
        box=(load.warm_up, 0.0, float("inf"), base + GROWTH.limit),
    )
    plots.draw([panel], target)
    return f"![Resident memory over jobs]({target.name})\n"


def work(*, url: str, cycles: int, warm_up: int, sample: int, at_once: int) -> dict[str, Any]:  # noqa: ARG001  a load, whole
    """Submit, wait and save again and again in this process: memory on the way, and what the process held before and after."""
    with tempfile.TemporaryDirectory(prefix="dryapi-benchmark-") as name:
        folder, began, cpu_began = Path(name), time.perf_counter(), time.process_time()
        (folder / "pictures").mkdir()
        said = asyncio.run(_work(url, folder, cycles, sample, at_once))
        return said | {
            "strays": sorted(path.name for path in folder.rglob("*") if path.suffix in {".part", ".db-wal", ".db-shm"}),
            "journal_bytes": (folder / "jobs.db").stat().st_size,
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - cpu_began,
        }


async def _work(url: str, folder: Path, cycles: int, sample: int, at_once: int) -> dict[str, Any]:
    before, samples, numbers = hold(), list[tuple[int, int]](), iter(range(cycles))
    async with Client("benchmark", base_url=url, limits=Limits.none(), max_in_flight=at_once, journal=folder / "jobs.db") as client:

        async def go_on() -> None:
            for number in numbers:
                if number % sample == 0:
                    samples.append((number, resident()))
                await _finish(client, number, folder / "pictures" / f"{number % (2 * at_once)}.png")

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(go_on())
    samples.append((cycles, resident()))
    return {"samples": samples, "before": asdict(before), "after": asdict(await settle(before))}


async def _finish(client: Client, number: int, path: Path) -> None:
    call = client.call(Txt2Img(prompt=f"fox {number}", model="Flux1schnell", width=512, height=512, steps=4, seed=number))
    await call.save(path, poll=0)


def resident() -> int:
    """Say how many bytes are resident, after a collection."""
    gc.collect()
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def hold() -> Held:
    """Count what the process holds."""
    places: list[str] = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            places.append(str(path.readlink()))
        except FileNotFoundError:  # the folder's own descriptor
            continue
    sockets = sum(place.startswith("socket:") for place in places)
    return Held(sockets=sockets, files=len(places) - sockets, tasks=len(asyncio.all_tasks()), threads=threading.active_count())


async def settle(before: Held) -> Held:
    """Wait a while until threads and connections that are being closed are gone, and count again."""
    until = time.monotonic() + SETTLE_SECONDS
    while (held := hold()) != before and time.monotonic() < until:
        await asyncio.sleep(0.05)
        gc.collect()
    return held
