"""One loop, virtual time: the simulator and the client share it."""

from collections.abc import AsyncIterator

import pytest

from dryapi_async import Client
from dryapi_async.simulator import Simulator
from dryapi_async.testing import JumpingLoop


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(seed=1, pictures=False) as running:
        yield running


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[Client]:
    async with Client(simulator.key, base_url=simulator.url) as opened:
        yield opened


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": JumpingLoop}
