"""Jobs in flight: what the watcher costs while push is healthy and ten thousand jobs are waited for, and what each job costs in memory."""

import asyncio
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from benchmarks import machine
from benchmarks.figures import Goal
from benchmarks.options import Options
from benchmarks.processes import run_child
from benchmarks.report import Section
from benchmarks.service import start_service
from dryapi_async import Client, Image, Job, Limits, Rate, Txt2Img

FOX: Final = Txt2Img(prompt="a fox in snow", model="Flux1schnell", width=512, height=512, steps=4, guidance=3.5, seed=7)
CPU: Final = Goal("must be", "<=", 5.0)
BARE: Final = (Goal("must be", "<=", 1.5), Goal("aim", "<=", 1.0))
TASKED: Final = (Goal("must be", "<=", 4.0), Goal("aim", "<=", 2.5))
PREMIUM: Final = Limits(default=None, lanes={"status": Rate(300, 60.0), "prices": Rate(300, 60.0)})
"""Premium's limits, but for the submits: ten thousand at 300 a minute would take half an hour before anything is measured."""


@frozen(kw_only=True)
class Load:
    """How much is waited for."""

    pushed: int
    """Jobs with a service and its websocket behind them."""
    seconds: float
    """So long the process is watched."""
    joined: int
    """Waits on the board alone, for the memory."""


FULL: Final = Load(pushed=10_000, seconds=60.0, joined=100_000)
SMOKE: Final = Load(pushed=200, seconds=1.0, joined=2_000)


def run(options: Options) -> Section:
    """Run the benchmark.

    Raises:
        ChildError: A process failed.
    """
    load = SMOKE if options.smoke else FULL
    with start_service(duration=100_000.0) as service:
        standing = run_child(
            "memory:stand", url=service.url, key=service.key, client_id=service.client_id, jobs=load.pushed, seconds=load.seconds
        )
    bare = run_child("memory:join", jobs=load.joined, tasks=False)["bytes"] / load.joined / 1024
    tasked = run_child("memory:join", jobs=load.joined, tasks=True)["bytes"] / load.joined / 1024
    if options.smoke:
        return Section(name="memory", text=f"It works: {load.pushed} jobs, {standing['reads']} reads in {load.seconds:g} s.\n")
    percent = 100 * standing["cpu_seconds"] / load.seconds
    rows = [
        (
            f"{load.pushed:,} jobs waited for, push healthy and silent: CPU of the whole process, % of a core",
            f"{percent:.2f}",
            _judge(percent, (CPU,)),
        ),
        (f"the same: status reads in {load.seconds:g} s", f"{standing['reads']}", "300 a minute"),
        ("the same: memory a job with its task, KiB", f"{standing['bytes'] / load.pushed / 1024:.2f}", _judge_no()),
        (f"{load.joined:,} handles with one waiter each: KiB a job", f"{bare:.2f}", _judge(bare, BARE)),
        ("the same with a task in result() each: KiB a job", f"{tasked:.2f}", _judge(tasked, TASKED)),
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return Section(
        name="memory",
        text=f"""| figure | ours | goals |\n|---|---|---|\n{table}

* The service is the simulator in a process of its own, with its websocket; the client has Premium's limits for reads. CPU is user and
  system time of the client's process over {load.seconds:g} s in which no job changes: the socket's pings, and the status reads. The jobs
  were made before the socket was up, so each is read once, on the budget; after that half of it is for silent ones.
* Memory is the growth of what Python's allocator and the system gave (resident memory), after a collection.
* {machine.today()}, `{options.command}`. {machine.describe()}.
""",
    )


def _judge(value: float, goals: tuple[Goal, ...]) -> str:
    return "<br>".join(f"{goal}: {'met' if goal.holds(value) else '**not met**'}" for goal in goals)


def _judge_no() -> str:
    return ""


def stand(*, url: str, key: str, client_id: str, jobs: int, seconds: float) -> dict[str, Any]:
    """Wait for many jobs at once while nothing happens: CPU seconds, status reads, memory."""
    return asyncio.run(_stand(url, key, client_id, jobs, seconds))


async def _stand(url: str, key: str, client_id: str, jobs: int, seconds: float) -> dict[str, Any]:
    async with Client(key, base_url=url, limits=PREMIUM, client_id=client_id, max_in_flight=32) as client:
        made = await _submit(client, jobs)
        before = _resident()
        waits = [asyncio.create_task(job.result(timeout=None)) for job in made]
        # Two rounds of the reads that come with the socket, and whatever else settles.
        await asyncio.sleep(min(seconds / 4, 15))
        gc.collect()
        grown = _resident() - before
        watcher = client._engine().watcher  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  the counter isn't public
        reads, began = watcher.reads, time.process_time()
        await asyncio.sleep(seconds)
        cpu, reads = time.process_time() - began, watcher.reads - reads
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
    return {"cpu_seconds": cpu, "reads": reads, "bytes": grown}


async def _submit(client: Client, jobs: int) -> list[Job[Image]]:
    numbers, made = iter(range(jobs)), list[Job[Image]]()

    async def work() -> None:
        for _ in numbers:
            made.append(await client.call(FOX))

    async with asyncio.TaskGroup() as group:
        for _ in range(32):
            group.create_task(work())
    return made


def join(*, jobs: int, tasks: bool) -> dict[str, Any]:
    """Wait for many jobs of which nothing is heard, and say what that takes in memory."""
    return asyncio.run(_join(jobs, _wait_in_task if tasks else _wait_on_board))


async def _join(jobs: int, wait: Callable[[Client, Job[Image]], Any]) -> dict[str, Any]:
    # A closed port: with an hour between reads none is due within the seconds that this takes.
    async with Client("1|a-key", base_url="http://127.0.0.1:9", poll=3600.0) as client:
        kept = [wait(client, _handle(client, number)) for number in range(10)]
        await asyncio.sleep(0)
        gc.collect()
        before = _resident()
        kept += [wait(client, _handle(client, number)) for number in range(10, jobs + 10)]
        await asyncio.sleep(0)
        gc.collect()
        grown = _resident() - before
        for one in kept:
            if isinstance(one, asyncio.Task):
                one.cancel()
        await asyncio.sleep(0)
    return {"bytes": grown}


def _handle(client: Client, number: int) -> Job[Image]:
    """Make a handle of a job that this client has just made, as far as the watcher can tell."""
    return Job(
        f"{number:08}-aaaa-bbbb-cccc-0123456789ab",
        Txt2Img,
        client._engine,  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  what a submit does
        submitted_at=asyncio.get_running_loop().time(),
        model="Flux1schnell",
    )


def _wait_in_task(_: Client, job: Job[Image]) -> Any:
    return asyncio.create_task(job.result(timeout=None))


def _wait_on_board(client: Client, job: Job[Image]) -> Any:
    return job, job._join(client._engine(), float("inf"), None)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  without its task


def _resident() -> int:
    """Say how many bytes are resident."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024
