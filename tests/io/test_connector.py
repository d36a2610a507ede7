"""A silent connection is given up after exactly the idle time, with one timer for many requests."""

import asyncio
import platform
import ssl
import subprocess
import sys
import textwrap
from typing import Any

import pytest
import trustme

from dryapi_async import Client, DownloadError, Retry, Timeouts
from dryapi_async.errors import RequestTimeoutError, TransportError
from dryapi_async.io import connector
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, jumping_loop, make_client, now

pytestmark = pytest.mark.anyio

IDLE = 5.0
ONCE = Retry(attempts=1, polls=1)


async def seconds_of(work: Any) -> float:
    """Measure how long a reading takes until it is given up."""
    began = now()
    with pytest.raises((RequestTimeoutError, TransportError, DownloadError)):
        await work
    return now() - began


@pytest.fixture
async def patient(sim: Simulator) -> Any:
    async with make_client(sim, timeouts=Timeouts(idle=IDLE), retry=ONCE, pool_size=1, max_in_flight=1) as client:
        yield client


async def test_p05_each_request_of_a_connection_has_the_whole_time(sim: Simulator, patient: Client) -> None:
    """The timer of a connection was set by an earlier request: it must cut a later one neither sooner nor later."""
    for pause in (0.0, 1.0, 3.5):
        await patient.balance()
        await asyncio.sleep(pause)
        sim.script("balance", Fault.delay(IDLE - 0.5), Fault.hang("after_body"))
        await patient.balance()
        assert await seconds_of(patient.balance()) == pytest.approx(IDLE, abs=0.1)


@pytest.mark.parametrize("phase", ["after_body", "headers", "payload"])
async def test_silence_counts_from_the_last_byte(sim: Simulator, patient: Client, phase: Any) -> None:
    await patient.balance()
    await asyncio.sleep(2)
    sim.script("balance", Fault.hang(phase))
    assert await seconds_of(patient.balance()) == pytest.approx(IDLE, abs=0.1)


async def test_a_slow_transfer_is_never_cut(sim: Simulator, patient: Client) -> None:
    image = await patient.call(FOX).result()
    size = len(await image.read())
    sim.script("storage", Fault.trickle(size / (20 * IDLE)))
    began = now()
    assert len(await image.read()) == size
    assert now() - began > 10 * IDLE


async def test_accounts_on_one_connection_have_times_of_their_own(sim: Simulator, patient: Client) -> None:
    hasty = patient.with_options(timeouts=Timeouts(idle=2.0), retry=ONCE)
    endless = patient.with_options(timeouts=Timeouts(idle=None), retry=ONCE)
    for _ in range(2):
        for client, seconds in ((patient, IDLE), (hasty, 2.0), (patient, IDLE)):
            await patient.balance()
            sim.script("balance", Fault.hang("after_body"))
            assert await seconds_of(client.balance()) == pytest.approx(seconds, abs=0.1)
        await patient.balance()
        sim.script("balance", Fault.delay(100))
        await endless.balance()


def test_many_requests_set_one_timer_and_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp's own would be set twice for each; this also finds out should its names for them change."""
    planned: list[float] = []
    plan = connector.PatientHandler._plan

    def count(handler: connector.PatientHandler, at: float) -> None:
        planned.append(at)
        plan(handler, at)

    monkeypatch.setattr(connector.PatientHandler, "_plan", count)

    async def main() -> None:
        async with Simulator(pictures=False) as sim:
            async with make_client(sim, pool_size=1, max_in_flight=1) as client:
                for _ in range(50):
                    await client.balance()
                assert len(planned) == 1
                (handler,) = (made for made in handlers if made._look_later is not None)
            await asyncio.sleep(0)
            assert handler._look_later is None

    handlers = keep_handlers(monkeypatch)
    with asyncio.Runner(loop_factory=jumping_loop) as runner:
        runner.run(main())


def keep_handlers(monkeypatch: pytest.MonkeyPatch) -> list[connector.PatientHandler]:
    """Collect the connections that are made from now on."""
    handlers: list[connector.PatientHandler] = []
    make = connector.PatientHandler.__init__

    def keep(handler: connector.PatientHandler, loop: asyncio.AbstractEventLoop) -> None:
        make(handler, loop)
        handlers.append(handler)

    monkeypatch.setattr(connector.PatientHandler, "__init__", keep)
    return handlers


@pytest.mark.parametrize("tls", [False, True])
def test_p13_reads_are_small_until_a_large_file_comes(monkeypatch: pytest.MonkeyPatch, tls: bool) -> None:
    """A read of asyncio's own size asks the kernel for memory each time; this also finds out should its name for the size change."""
    server, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(trusting)
    contexts = (server, trusting) if tls else (None, None)

    async def sizes_after(result_size: int) -> set[int]:
        handlers = keep_handlers(monkeypatch)
        async with Simulator(pictures=False, result_size=result_size, ssl=contexts[0]) as sim, make_client(sim, ssl=contexts[1]) as client:
            image = await client.call(FOX).result()
            assert len(await image.read()) == result_size
            return {getattr(handler._reader, "max_size", 0) for handler in handlers}

    with asyncio.Runner(loop_factory=jumping_loop) as runner:
        if not isinstance(runner.get_loop(), asyncio.SelectorEventLoop):
            assert runner.run(sizes_after(20_480)) == {0}  # uvloop has one buffer for all
            return
        assert runner.run(sizes_after(20_480)) == {connector.SMALL_READ}
        assert connector.LARGE_READ in runner.run(sizes_after(4_000_000))


FAULTS = """
    import asyncio, os, resource
    import aiohttp
    from dryapi_async.io.connector import Connector

    reading, writing = os.pipe()

    def count():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(1000):
            os.write(writing, b"x")
            os.read(reading, 256 * 1024)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    async def main():
        before = count()
        async with Connector(limit=1, keepalive_timeout=1, resolver=aiohttp.ThreadedResolver()):
            print(before, count())

    asyncio.run(main())
"""


@pytest.mark.processes
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that gives each such block back to the kernel")
def test_room_for_a_large_read_is_asked_of_the_kernel_once() -> None:
    """In a process of its own: whatever freed a larger block before has done the same."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(FAULTS)], capture_output=True, text=True, timeout=60, check=True)
    before, after = map(int, done.stdout.split())
    if before < 10:
        pytest.skip("what was imported has given such a block back already")
    assert after < 10
