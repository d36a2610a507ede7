"""What tests of batches share: sources, a count of what is alive, and a simulator that fails every so often."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from attrs import define, evolve

from dryapi_async import Batch, Image, Outcome, Txt2Img
from dryapi_async.simulator import Received

from ..conftest import FOX


def fox(seed: int) -> Txt2Img:
    return evolve(FOX, seed=seed)


def foxes(number: int) -> Iterator[Txt2Img]:
    return (fox(seed) for seed in range(number))


@define
class Source:
    """An async generator that counts what was taken from it, and whether it was closed."""

    number: int
    pause: float = 0.0
    taken: int = 0
    closed: bool = False

    async def __aiter__(self) -> AsyncIterator[Txt2Img]:
        try:
            for seed in range(self.number):
                if self.pause:
                    await asyncio.sleep(self.pause)
                self.taken += 1
                yield fox(seed)
        finally:
            # Closing it may take its time, too.
            await asyncio.sleep(0)
            self.closed = True


@define
class Every:
    """Match each so-many-th submit, from one of them on."""

    number: int
    first: int = 0
    seen: int = 0

    def __call__(self, received: Received) -> bool:
        if received.operation != "txt2img":
            return False
        self.seen += 1
        return self.seen % self.number == self.first


async def collect(batch: Batch[Image]) -> list[Outcome[Image]]:
    async with batch:
        return [outcome async for outcome in batch]


def workers() -> int:
    """Count the tasks of batches that are alive."""
    return sum("Batch._work" in repr(task.get_coro()) for task in asyncio.all_tasks())


def errors(outcomes: list[Outcome[Any]]) -> list[str]:
    return [type(outcome.error).__name__ for outcome in outcomes if outcome.error is not None]
