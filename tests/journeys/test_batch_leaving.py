"""P24: a batch that is left in whatever phase leaves nothing behind, and tells what was paid for."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from dryapi_async import Batch, Client, Image, Limits, Rate, Timeouts, Txt2Img
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, make_client, now, seen, settle, until
from .batches import Source, collect, errors, fox, foxes, workers

pytestmark = pytest.mark.anyio


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_source_that_raises_is_told_after_what_is_under_way(sim: Simulator, client: Client, kind: str, ordered: bool) -> None:
    def plain() -> Iterator[Txt2Img]:
        yield from foxes(5)
        raise BrokenError

    async def streamed() -> AsyncIterator[Txt2Img]:
        for one in plain():
            yield one

    async with client.batch(plain() if kind == "sync" else streamed(), ordered=ordered) as batch:
        handed = [(await anext(batch)).index for _ in range(5)]
        with pytest.raises(BrokenError):
            await anext(batch)
        with pytest.raises(StopAsyncIteration):
            await anext(batch)
    assert (sorted(handed), sim.jobs_billed, workers()) == (list(range(5)), 5, 0)


async def test_a_source_that_is_cancelled_by_itself_is_told(sim: Simulator, client: Client) -> None:
    async def source() -> AsyncIterator[Txt2Img]:
        yield fox(1)
        raise asyncio.CancelledError

    async with client.batch(source()) as batch:
        assert (await anext(batch)).error is None
        with pytest.raises(asyncio.CancelledError):
            await anext(batch)


async def test_an_iterable_that_cannot_begin_is_told(sim: Simulator, client: Client) -> None:
    class Wrong:
        def __iter__(self) -> Iterator[Txt2Img]:
            raise BrokenError

    with pytest.raises(BrokenError):
        await collect(client.batch(Wrong()))


async def test_an_error_in_the_body_comes_out_as_it_is(sim: Simulator, client: Client) -> None:
    source = Source(100)

    async def body() -> None:
        async with client.batch(source, at_once=5) as batch:
            async for _ in batch:
                raise BrokenError

    with pytest.raises(BrokenError):
        await body()
    assert (workers(), source.closed) == (0, True)


def prepare(sim: Simulator, phase: str) -> None:
    """Make every operation hang in one phase."""
    if phase == "submit":
        sim.script("txt2img", Fault.delay(20), times=math.inf)
    elif phase == "wait":
        sim.hold("txt2img")
    elif phase == "price":
        sim.script("txt2img/price-calculation", Fault.hang(), times=math.inf)
    elif phase == "save":
        sim.script("storage", Fault.hang("payload"), times=math.inf)


def reached(sim: Simulator, phase: str, source: Source) -> bool:
    return {
        "source": source.taken == 0,
        "price": len(seen(sim, "txt2img/price-calculation")) == 1,
        "lane": source.taken == 4,
        "submit": len(seen(sim, "txt2img")) == 4,
        "wait": len(seen(sim, "request-status")) >= 4,
        "save": len(sim.storage_requests) == 4,
    }[phase]


@pytest.mark.parametrize("way", ["cancel", "break", "raise"])
@pytest.mark.parametrize("phase", ["source", "price", "lane", "submit", "wait", "save"])
async def test_p24_left_in_any_phase_nothing_stays(sim: Simulator, tmp_path: Any, phase: str, way: str) -> None:
    prepare(sim, phase)
    source = Source(1_000, pause=1_000.0 if phase == "source" else 0.0)
    limits = Limits(lanes={"txt2img": Rate(1, 10_000)}) if phase == "lane" else Limits.none()
    async with make_client(sim, limits=limits, timeouts=Timeouts(orphan=60)) as client:
        if phase == "lane":
            await client.call(FOX)
        billed, before = sim.jobs_billed, asyncio.all_tasks()
        batch = client.batch(
            source,
            at_once=4,
            poll=1,
            budget=5 if phase == "price" else None,
            save=tmp_path / "{index}{suffix}" if phase == "save" else None,
        )
        body = asyncio.create_task(leave(batch, way, lambda: reached(sim, phase, source)))
        if way == "cancel":
            await until(lambda: reached(sim, phase, source))
            await settle()
            body.cancel()
        at = now()
        await asyncio.wait([body])
        assert now() - at < 3
        assert body.cancelled() == (way == "cancel")
        assert (workers(), source.closed, list(tmp_path.iterdir())) == (0, True, [])
        assert client._engine().watcher.tickets == ()
        await asyncio.sleep(60)
        made = {job.id for job in (*client.orphans, *batch.unfinished)}
        expected = {"source": 0, "price": 0, "lane": 0, "submit": 4, "wait": 4, "save": 4}[phase]
        assert len(made) == sim.jobs_billed - billed == expected
        assert [len(client.orphans), len(batch.unfinished)] == ([4, 0] if phase == "submit" else [0, expected])
        assert not [task for task in asyncio.all_tasks() - before if task is not asyncio.current_task() and "Batch" in repr(task)]
        sim.clear_script()
        sim.release("txt2img")
        jobs: Any = (*client.orphans, *batch.unfinished)
        assert errors(await collect(client.batch(jobs))) == []
    await settle()
    assert not sim.connections.open
    assert not sim.storage_connections.open


async def leave(batch: Batch[Image], way: str, is_there: Any) -> None:
    """Iterate until the phase is reached, and leave in one of the ways."""
    try:
        async with batch:
            first = asyncio.ensure_future(anext(batch))
            try:
                if way == "cancel":
                    await first
                await until(is_there)
                await settle()
                if way == "raise":
                    raise BrokenError
            finally:
                first.cancel()
    except BrokenError:
        assert way == "raise"


async def test_a_consumer_that_gives_up_waiting_loses_nothing(sim: Simulator, client: Client) -> None:
    handed: list[int] = []
    async with client.batch(foxes(10), at_once=3, poll=1) as batch:
        while True:
            try:
                async with asyncio.timeout(0.3):
                    handed.append((await anext(batch)).index)
            except TimeoutError:
                continue
            except StopAsyncIteration:
                break
    assert sorted(handed) == list(range(10))


async def note(batch: Batch[Image], told: set[str]) -> None:
    async with batch:
        async for outcome in batch:
            assert outcome.job is not None
            told.add(outcome.job.id)


async def test_p24_left_at_any_step_nothing_is_lost(sim: Simulator, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """What was paid for is handed over, unfinished, an orphan, or told as unknown: at whatever step it is cut."""
    sim.board.duration = 0
    told: set[str] = set()
    for steps in range(1, 160, 3):
        batch = client.batch(foxes(50), at_once=3, poll=0)
        task = asyncio.create_task(note(batch, told))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert workers() == 0
        told |= {job.id for job in batch.unfinished}
    await asyncio.sleep(40)
    told |= {job.id for job in client.orphans}
    unknown = [record for record in caplog.records if "SubmissionUnknownError" in record.getMessage()]
    assert told <= set(sim.jobs)
    assert len(told) + len(unknown) >= sim.jobs_billed
    assert len(unknown) <= 8
    assert told


async def test_a_generator_that_ignores_its_cancellation_adds_nothing(sim: Simulator, client: Client) -> None:
    async def stubborn() -> AsyncIterator[Txt2Img]:
        yield fox(1)
        try:
            await asyncio.sleep(1_000)
        except asyncio.CancelledError:
            yield fox(2)

    async with client.batch(stubborn(), poll=1) as batch:
        await anext(batch)
        await settle()
    assert (len(sim.jobs), workers()) == (1, 0)
