"""Deadlines: every wait ends when it is woken or when its time is over, and none leaves anything behind."""

import asyncio
import random
from math import inf

import pytest

from dryapi_async.io.trail import Trail
from dryapi_async.io.waits import Deadlines

pytestmark = pytest.mark.anyio


async def wait(deadlines: Deadlines, future: asyncio.Future[bool], deadline: float) -> bool:
    deadlines.add(future, deadline)
    try:
        return await future
    finally:
        deadlines.remove()


@pytest.mark.parametrize("seed", range(20))
async def test_every_wait_ends_at_its_own_time(seed: int) -> None:
    chance, loop = random.Random(seed), asyncio.get_running_loop()  # noqa: S311  repeatable, no secret
    deadlines, began = Deadlines(), loop.time()

    async def hold(after: float, deadline: float, end: float, way: str) -> tuple[float, str]:
        await asyncio.sleep(after)
        future: asyncio.Future[bool] = loop.create_future()
        work = asyncio.current_task()
        assert work is not None
        timer = loop.call_at(began + end, work.cancel if way == "cancelled" else lambda: future.done() or future.set_result(False))
        try:
            how = "late" if await wait(deadlines, future, began + deadline) else "woken"
        except asyncio.CancelledError:
            how = "cancelled"
        timer.cancel()
        return loop.time() - began, how

    # All moments differ: which of two at the same time is first is nobody's promise.
    moments = chance.sample(range(1_000, 1_000_000), 400)
    plans = [
        (chance.random(), a / 1000, b / 1000, chance.choice(["woken", "cancelled"]))
        for a, b in zip(moments[::2], moments[1::2], strict=True)
    ]
    ends = await asyncio.gather(*(asyncio.create_task(hold(*plan)) for plan in plans))
    for (at, how), (_, deadline, end, way) in zip(ends, plans, strict=True):
        assert (how, at) == (("late", pytest.approx(deadline)) if deadline < end else (way, pytest.approx(end)))
    assert not len(deadlines)


async def test_a_deadline_before_all_others_is_kept_and_one_that_never_comes_holds_nobody_up() -> None:
    deadlines, loop = Deadlines(), asyncio.get_running_loop()
    began, futures = loop.time(), [loop.create_future() for _ in range(4)]
    waits = [asyncio.create_task(wait(deadlines, future, began + at)) for future, at in zip(futures, (inf, 300, 20, 10), strict=True)]
    done, _ = await asyncio.wait(waits, timeout=25)
    assert done == set(waits[2:])
    assert loop.time() - began == pytest.approx(25)
    futures[0].set_result(False)
    assert [await one for one in waits] == [False, True, True, True]
    assert loop.time() - began == pytest.approx(300)


async def test_what_has_ended_is_forgotten_however_many_there_were() -> None:
    deadlines, loop = Deadlines(), asyncio.get_running_loop()
    last = asyncio.create_task(wait(deadlines, loop.create_future(), loop.time() + 100))
    await asyncio.sleep(0)
    for _ in range(1_000):
        future: asyncio.Future[bool] = loop.create_future()
        future.set_result(False)
        await wait(deadlines, future, loop.time() + 300)
    assert len(deadlines) == 1
    assert len(deadlines._heap) < 100
    last.cancel()
    await asyncio.wait([last])
    # The clock isn't taken there by a timer that nobody waits for.
    assert (deadlines._heap, deadlines._timer) == ([], None)


async def test_all_who_wait_for_the_end_of_a_call_are_woken_by_it_but_those_that_have_left() -> None:
    deadlines, loop, trail = Deadlines(), asyncio.get_running_loop(), Trail()
    began = loop.time()
    waits = [asyncio.create_task(trail.wait(began + at, deadlines)) for at in (10, inf, inf, 1000)]
    await asyncio.sleep(1)
    waits[1].cancel()
    done, _ = await asyncio.wait(waits, timeout=50)
    assert done == set(waits[:2])
    assert waits[1].cancelled()
    trail.wake()
    await asyncio.gather(*waits[2:])
    assert loop.time() - began == pytest.approx(51)
    assert (len(deadlines), trail._waits) == (0, ())
