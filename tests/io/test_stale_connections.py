"""P33: connections that a server may have closed by now aren't used again; a submit that meets a close all the same is never repeated."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from dryapi_async import Client, Limits, SubmissionUnknownError, Timeouts
from dryapi_async.config import Retry
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, make_client, make_sim, seen

LANES, SUBMITS = 40, 5
SCALE = 0.3
"""Seconds here for a second in the promise: 1.2 for the 4 that our connections are kept, 1.8 for a server's 6, idle for 0.03-2.4. With a
tenth, a machine that had no time for 0.1 s broke it."""
FLIGHT_SECONDS = 0.05
"""From here to the server: as long as a close is on its way, a request can meet it."""


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand on what comes, and its end, some time later."""
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while content := await reader.read(65_536):
            loop.call_later(FLIGHT_SECONDS, writer.write, content)
    await asyncio.sleep(FLIGHT_SECONDS)
    writer.close()


@asynccontextmanager
async def far_away(sim: Simulator) -> AsyncIterator[str]:
    """Give the URL of the simulator at the other end of a long line."""
    carriers: set[asyncio.Task[Any]] = set()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", int(sim.url.rpartition(":")[2]))
        carriers.update(asyncio.create_task(carry(*ends)) for ends in ((reader, back), (there, writer)))

    async with await asyncio.start_server(connect, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        # Both ends close within the time that the server keeps connections.
        await asyncio.wait(carriers, timeout=5)
        await asyncio.sleep(FLIGHT_SECONDS)


@pytest.mark.processes
def test_p33_submits_after_any_idle_time_meet_no_closed_connection() -> None:
    """In real time: aiohttp dates idle connections by the real clock."""
    seed = random.randrange(1 << 32)  # noqa: S311  not a secret
    chance = random.Random(seed)  # noqa: S311  not a secret

    async def walk(client: Client) -> None:
        for _ in range(SUBMITS):
            await client.txt2img(**_FOX)
            await asyncio.sleep(chance.uniform(0.1, 8) * SCALE)

    async def main() -> tuple[int, int, int]:
        async with make_sim(keepalive=6 * SCALE) as sim, far_away(sim) as url:
            times = Timeouts(keepalive=Timeouts().keepalive * SCALE)
            clients = [make_client(sim, base_url=url, timeouts=times, limits=Limits.none()) for _ in range(LANES)]
            try:
                await asyncio.gather(*map(walk, clients))
            finally:
                await asyncio.gather(*(client.aclose() for client in clients))
            posts = seen(sim, "txt2img")
            return len(posts), sim.jobs_billed, sum(one.reused for one in posts)

    posts, billed, reused = asyncio.run(main())
    assert (posts, billed) == (LANES * SUBMITS,) * 2, f"seed {seed}"
    # Some idle times are short enough to use a connection again, some aren't.
    assert LANES / 2 < reused < LANES * (SUBMITS - 1) - LANES / 2, f"seed {seed}"


_FOX: dict[str, Any] = {"prompt": FOX.prompt, "model": FOX.model, "width": 256, "height": 192, "steps": 4, "seed": 7}


@pytest.mark.anyio
async def test_p33_a_submit_that_meets_a_close_is_unknown_and_never_repeated() -> None:
    async with make_sim(drop_reused=True) as sim, make_client(sim, retry=Retry(attempts=4), limits=Limits.none()) as client:
        await client.call(FOX)
        with pytest.raises(SubmissionUnknownError) as caught:
            await client.call(FOX)
        await asyncio.sleep(120)
        assert (len(seen(sim, "txt2img")), sim.jobs_billed) == (2, 1)
        assert caught.value.attempt == 1
        # What costs nothing is read again.
        sim.drop_reused = False
        await client.call(FOX)
        sim.drop_reused = True
        await client.balance()
    assert [one.status for one in seen(sim, "balance")][-1] == 200
    assert len(seen(sim, "balance")) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("billed", [False, True], ids=["closed before it was read", "closed after it was taken"])
async def test_p33_a_close_on_a_used_connection_may_have_been_paid(sim: Simulator, client: Client, billed: bool) -> None:
    await client.call(FOX)
    phase = "headers" if billed else "before_body"
    sim.script("txt2img", Fault.close(phase).on_reused())
    with pytest.raises(SubmissionUnknownError):
        await client.call(FOX)
    await asyncio.sleep(120)
    assert [one.reused for one in seen(sim, "txt2img")] == [False, True]
    assert sim.jobs_billed == 1 + billed
