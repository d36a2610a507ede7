"""A batch of a hundred thousand: whether its memory stays flat and its counts are exact, and what it costs of its own."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from attrs import asdict, define, evolve, frozen

from benchmarks import machine, meter
from benchmarks.figures import Goal, spread
from benchmarks.options import Options
from benchmarks.processes import ChildError, run_child
from benchmarks.report import Section
from benchmarks.service import start_service
from dryapi_async import Client, DryAPIError, Image, Job, Limits, Txt2Img

MIB: Final = 2**20
PATIENCE: Final = 1800.0
"""Seconds: the simulator, which checks and draws everything, is the slower side."""
GROWTH: Final = (Goal("must be", "<=", 8.0), Goal("aim", "<=", 2.0))
OWN: Final = Goal("aim", "<=", 40.0)
FAILING: Final = 100
"""One operation in so many asks for a model that there isn't."""
TICK_SECONDS: Final = 0.05
FOX: Final = Txt2Img(prompt="a fox in snow", model="Flux1schnell", width=512, height=512, steps=4, guidance=3.5, seed=7)


@frozen(kw_only=True)
class Load:
    """How much is done."""

    operations: int
    at_once: int
    beside: int
    """Waits for a job that is done, beside workers written by hand."""


FULL: Final = Load(operations=100_000, at_once=64, beside=50_000)
SMOKE: Final = Load(operations=1_000, at_once=16, beside=1_000)


class CountError(ChildError):
    """An outcome too many or too few."""


def run(options: Options) -> Section:
    """Run the benchmark.

    Raises:
        CountError: An outcome is missing, comes twice, or is another than it must be.
        ChildError: A process failed.
    """
    load = SMOKE if options.smoke else FULL
    with start_service(speed=float("inf")) as service:
        at: dict[str, Any] = {"url": service.url, "key": service.key, "at_once": load.at_once}
        taken = run_child("batch:take_all", patience=PATIENCE, operations=load.operations, **at)
        costs = [run_child("batch:cost", waits=load.beside, **at) for _ in range(options.repetitions)]
    check_counts(load, taken)
    if options.smoke:
        return Section(
            name="batch", text=f"It works: {taken['results']} results, {taken['errors']} errors, {taken['tasks']} tasks at most.\n"
        )
    return Section(name="batch", text=_write(load, options, taken, costs))


def check_counts(load: Load, taken: dict[str, Any]) -> None:
    """Compare what was counted with what must be.

    Raises:
        CountError: It differs.
    """
    expected = {"results": load.operations - load.operations // FAILING, "errors": load.operations // FAILING, "left": 0}
    if {name: taken[name] for name in expected} != expected:
        raise CountError(f"Expected {expected}, counted {taken}.")


def _write(load: Load, options: Options, taken: dict[str, Any], costs: list[dict[str, float]]) -> str:
    growth = taken["reading"]["rss_growth_bytes"] / MIB
    judged = "<br>".join(f"{goal}: {'met' if goal.holds(growth) else '**not met**'}" for goal in GROWTH)
    batch, by_hand = ([1e6 * one[way] / load.beside for one in costs] for way in ("batch", "by_hand"))
    own = [one - other for one, other in zip(batch, by_hand, strict=True)]
    return f"""{load.operations:,} `txt2img` from an async generator through `client.batch(..., at_once={load.at_once})`, one in
{FAILING} of a model that there isn't, against the simulator at full speed in a process of its own.

| figure | ours | goals |
|---|---|---|
| results / errors | {taken["results"]:,} / {taken["errors"]:,} | exact: met |
| RSS growth over the whole run, MiB | {growth:.1f} | {judged} |
| tasks alive at most: the batch's / all | {taken["workers"]} / {taken["tasks"]} | {load.at_once} / |
| read ahead of the outcomes at most | {taken["ahead"]} | {load.at_once} |
| tasks left after a `break` in the middle of another | {taken["left"]} | 0: met |
| operations a second, with the simulator on the other core | {load.operations / taken["reading"]["seconds"]:,.0f} | |
| CPU an item, us: batch / workers written by hand | {spread(batch, 1)} / {spread(by_hand, 1)} | |
| the batch's own, us | {spread(own, 1)} | {OWN}: {OWN.judge(own)} |

* Growth: peak resident memory over what was resident after {_warm_up(load.operations):,} operations; {meter.describe_memory()}.
* CPU: {load.beside:,} times a job that is done already, so that nothing is sent and what remains is the taking, counting and handing over;
  by hand are {load.at_once} workers that take it from one iterator and drop its result. {options.repetitions} repetitions.
* {machine.describe_pinning()[0].upper()}{machine.describe_pinning()[1:]}.
* {machine.today()}, `{options.command}`. {machine.describe()}.
"""


def _warm_up(operations: int) -> int:
    return operations // 20


@define
class Count:
    """What is counted of a run."""

    taken: int = 0
    handed: int = 0
    results: int = 0
    errors: int = 0
    ahead: int = 0
    tasks: int = 0
    workers: int = 0


def take_all(*, url: str, key: str, operations: int, at_once: int) -> dict[str, Any]:
    """Run a batch: what it cost, what came out of it, and what is left after another one that is left in the middle."""
    return asyncio.run(_take_all(url, key, operations, at_once))


async def _take_all(url: str, key: str, operations: int, at_once: int) -> dict[str, Any]:
    async with Client(key, base_url=url, limits=Limits.none(), max_in_flight=at_once) as client:
        await _take(client, _warm_up(operations), at_once, Count())
        count = Count()
        watching = asyncio.create_task(_watch(count))
        reading = await meter.measure(_take(client, operations, at_once, count))
        watching.cancel()
        left = await _count_left(client, at_once)
    return {"reading": asdict(reading), "left": left, **asdict(count)}


async def _take(client: Client, number: int, at_once: int, count: Count) -> None:
    async with client.batch(_requests(number, count), at_once=at_once, poll=0) as batch:
        async for outcome in batch:
            count.handed += 1
            count.ahead = max(count.ahead, count.taken - count.handed)
            count.results += outcome.error is None and outcome.result is not None
            count.errors += isinstance(outcome.error, DryAPIError)


async def _requests(number: int, count: Count) -> AsyncIterator[Txt2Img]:
    for seed in range(number):
        count.taken += 1
        yield evolve(FOX, prompt=f"fox {seed}", model="NoSuchModel" if seed % FAILING == FAILING - 1 else FOX.model, seed=seed)


async def _watch(count: Count) -> None:
    while True:
        tasks = asyncio.all_tasks()
        count.tasks = max(count.tasks, len(tasks))
        count.workers = max(count.workers, sum("Batch._work" in repr(task.get_coro()) for task in tasks))
        await asyncio.sleep(TICK_SECONDS)


async def _count_left(client: Client, at_once: int) -> int:
    """Leave a batch in the middle, and count the tasks that are there and weren't before, once what was on the wire has ended."""
    await asyncio.sleep(1)
    before = len(asyncio.all_tasks())
    async with client.batch(_requests(1_000, Count()), at_once=at_once, poll=0) as batch:
        async for _ in batch:
            if batch.progress.finished > at_once:
                break
    await asyncio.sleep(1)
    return len(asyncio.all_tasks()) - before


def cost(*, url: str, key: str, waits: int, at_once: int) -> dict[str, float]:
    """Wait for a job that is done, again and again, in two ways: CPU seconds of each."""
    return asyncio.run(_cost(url, key, waits, at_once))


async def _cost(url: str, key: str, waits: int, at_once: int) -> dict[str, float]:
    seconds: dict[str, float] = {}
    async with Client(key, base_url=url, limits=Limits.none()) as client:
        job = await client.call(FOX)
        await job.result(poll=0)
        for number in (waits // 20, waits):  # the first to warm up
            for way, work in (("by_hand", _wait_by_hand(job, number, at_once)), ("batch", _wait_in_batch(client, job, number, at_once))):
                began = time.process_time()
                await work
                seconds[way] = time.process_time() - began
    return seconds


async def _wait_in_batch(client: Client, job: Job[Image], number: int, at_once: int) -> None:
    async with client.batch((job for _ in range(number)), at_once=at_once, poll=0) as batch:
        async for outcome in batch:
            assert outcome.error is None


async def _wait_by_hand(job: Job[Image], number: int, at_once: int) -> None:
    numbers = iter(range(number))

    async def work() -> None:
        for _ in numbers:
            await job.result(poll=0)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
