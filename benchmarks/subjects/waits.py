"""Ways to wait for many jobs: this client, and plain loops on raw aiohttp with the published schedules of comparable SDKs."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from math import inf
from typing import Any, Final

import aiohttp
from attrs import frozen

from benchmarks.crowd import OPERATION, Finish, Load
from dryapi_async import Client, Limits, Rate, Txt2Img
from dryapi_async.simulator import Simulator

FIELDS: Final[dict[str, Any]] = {
    "prompt": "a fox in snow",
    "model": "Flux1schnell",
    "width": 256,
    "height": 192,
    "steps": 4,
    "seed": 7,
}


@frozen
class Ours:
    """This client, told the limits of its account, used as its documentation says."""

    name: str = "ours"

    @asynccontextmanager
    async def open(self, sim: Simulator, load: Load) -> AsyncGenerator[Finish, None]:
        """Open a client."""
        lanes = {} if load.reads is None else {"status": Rate(*load.reads)}
        limits = Limits(lanes=lanes) if load.shared is None else Limits.shared(load.shared[0])
        request = Txt2Img(**FIELDS)
        async with Client(sim.key, base_url=sim.url, limits=limits, client_id=sim.client_id if load.push else None) as client:

            async def finish() -> str:
                job = await client.call(request, timeout=None)
                await job.result(timeout=None)
                return job.id

            yield finish


@frozen(kw_only=True)
class Schedule:
    """A loop of its own for each job: pause, read, pause longer. A 429 is obeyed: after its Retry-After the same request goes again.

    It never gives up, which is more than the SDKs do.
    """

    name: str
    first: float
    """Seconds before the first read."""
    factor: float = 1.0
    """How much longer each pause is than the one before."""
    longest: float = inf
    """Seconds: no pause is longer."""

    @asynccontextmanager
    async def open(self, sim: Simulator, load: Load) -> AsyncGenerator[Finish, None]:
        """Open a session with a connection for each job."""
        headers = {"Authorization": f"Bearer {sim.key}"}
        async with aiohttp.ClientSession(
            f"{sim.url}/api/v1/client/", headers=headers, connector=aiohttp.TCPConnector(limit=load.at_once)
        ) as session:

            async def finish() -> str:
                request_id = str((await _ask(session, "POST", OPERATION, FIELDS))["request_id"])
                pause = self.first
                while True:
                    await asyncio.sleep(pause)
                    if (await _ask(session, "GET", f"request-status/{request_id}"))["status"] in {"done", "error"}:
                        return request_id
                    pause = min(pause * self.factor, self.longest)

            yield finish


async def _ask(session: aiohttp.ClientSession, method: str, path: str, fields: dict[str, Any] | None = None) -> dict[str, Any]:
    """Send a request until it is no 429, and give what its answer holds."""
    while True:
        async with session.request(method, path, json=fields) as response:
            if response.status != 429:  # noqa: PLR2004  Too Many Requests
                response.raise_for_status()
                content: dict[str, Any] = (await response.json())["data"]
                return content
            seconds = float(response.headers["Retry-After"])
        await asyncio.sleep(seconds)


BACKOFF: Final = Schedule(name="1 s x 1.5 up to 10 s", first=1.0, factor=1.5, longest=10.0)
"""A pause that grows by half: 1, 1.5, 2.25 ... 10 s, as deapi-python-sdk has it."""
HALF_SECOND: Final = Schedule(name="every 0.5 s", first=0.5)
"""The same half second for ever, as replicate has it."""
TENTH_SECOND: Final = Schedule(name="every 0.1 s", first=0.1)
"""The same tenth of a second for ever, as fal-client has it."""
SCHEDULES: Final = (BACKOFF, HALF_SECOND, TENTH_SECOND)
