"""Places: never more holders than there are, none lost, first come, first served."""

import asyncio
import random

import pytest

from dryapi_async.io.places import Places

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("seed", range(20))
async def test_no_place_is_lost_or_made_whoever_is_cancelled(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  repeatable, no secret
    places, held, most = Places(3), 0, 0

    async def hold() -> None:
        nonlocal held, most
        async with places:
            held += 1
            most = max(most, held)
            try:
                await asyncio.sleep(chance.choice([0, 0, 0.01]))
            finally:
                held -= 1

    tasks: list[asyncio.Task[None]] = []
    for _ in range(300):
        tasks.append(asyncio.create_task(hold()))
        if chance.random() < 0.5:
            chance.choice(tasks).cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 3
    assert not places.locked()
    # All three can be had at once, and a fourth can't.
    for _ in range(3):
        await asyncio.wait_for(places.acquire(), 1)
    assert places.locked()


async def test_who_came_first_is_served_first_and_a_place_given_to_a_cancelled_one_goes_on() -> None:
    places, order = Places(1), list[int]()
    await places.acquire()

    async def take(number: int) -> None:
        await places.acquire()
        order.append(number)

    tasks = [asyncio.create_task(take(number)) for number in range(4)]
    await asyncio.sleep(0)
    places.release()
    tasks[0].cancel()  # in the very moment in which the place is its own
    await asyncio.wait(tasks, timeout=1)
    assert order == [1]
    places.release()
    await asyncio.wait(tasks, timeout=1)
    assert order == [1, 2]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
