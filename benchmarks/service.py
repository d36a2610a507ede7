"""The simulated service in a process of its own, on another core than the client's."""

import asyncio
import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from attrs import asdict, frozen

from benchmarks.machine import SERVER_CORE, pin
from benchmarks.processes import serve
from dryapi_async.simulator import Simulator


@frozen(kw_only=True)
class Service:
    """A simulated service that runs."""

    url: str
    key: str
    client_id: str


@contextmanager
def start_service(**options: Any) -> Generator[Service, None, None]:
    """Run the simulator with some options, and end it.

    Raises:
        ChildError: It doesn't start.
    """
    with serve("benchmarks.service", json.dumps(options)) as said:
        yield Service(**said)


async def _serve(options: dict[str, Any]) -> None:
    """Serve until standard input ends."""
    given: dict[str, Any] = {"pictures": False, "record": False, "seed": 1, **options}
    async with Simulator(**given) as sim:
        print(json.dumps(asdict(Service(url=sim.url, key=sim.key, client_id=sim.client_id))), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    pin(SERVER_CORE)
    asyncio.run(_serve(json.loads(sys.argv[1])))
