"""P11, P12: a client opens by itself, closes without a trace, and lives through one event loop after another."""

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dryapi_async import Client, ClientClosedError, ConfigurationError, Image
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, PNG, REPOSITORY, edit, files_in, make_client, seen, until

pytestmark = pytest.mark.anyio

HEADER = """
import asyncio, gc, logging, os, sys, threading, warnings
from dryapi_async import *
from dryapi_async.simulator import Fault, Simulator
from dryapi_async.simulator.blobs import tiny_png
from dryapi_async.testing import JumpingLoop

# What is logged on purpose isn't what this is about; what asyncio has to say is.
logging.getLogger("dryapi_async").addHandler(logging.NullHandler())
FOX = Txt2Img(prompt="a fox", model="Flux1schnell", width=64, height=64, steps=4, seed=7)
PICTURE = Img2Img(prompt="a fox", model="QwenImageEdit_Plus_NF4", steps=4, seed=7, image=tiny_png("a fox"))

def patient():
    # asyncio's debug mode, which -X dev turns on, else reports each step that a busy machine makes slow.
    asyncio.get_running_loop().slow_callback_duration = 60

def sockets():
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            pass
    return sorted(one for one in found if one.startswith("socket"))

class SimThread(threading.Thread):
    # A simulator with a loop of its own, so that the client's loops may come and go.
    def run(self):
        asyncio.run(self.serve())

    async def serve(self):
        patient()
        self.loop, self.over = asyncio.get_running_loop(), asyncio.Event()
        async with Simulator(pictures=False, speed=float("inf")) as self.sim:
            ready.set()
            await self.over.wait()

ready = threading.Event()
"""
FIFTY_CALLS = """
async def main():
    patient()
    before = sockets()
    folder = os.path.abspath("results")
    os.mkdir(folder)
    async with Simulator(pictures=False, speed=float("inf")) as sim:
        client = Client(sim.key, base_url=sim.url, poll=0.01, timeouts=Timeouts(orphan=0.5))
        for fault in (Fault.reset(), Fault.html(502), Fault.truncate(), Fault.status(422), Fault.reset("mid_body")):
            sim.script("txt2img", fault)
            sim.script("img2img", fault)
        sim.script("storage", Fault.reset("payload"), Fault.hang("payload"), Fault.status(404))
        calls = [client.call(FOX if number % 2 else PICTURE) for number in range(50)]
        works = [asyncio.create_task(call.save(folder if number % 7 else folder + "/nowhere/x.png") if number % 3 else call.result())
                 for number, call in enumerate(calls)]
        for number, work in enumerate(works):
            if number % 5 == 0:
                asyncio.get_running_loop().call_later(number / 100, work.cancel)
        await asyncio.wait(works, timeout=1.5)
        await client.aclose()
        outcomes = await asyncio.gather(*works, return_exceptions=True)
        kinds = {type(one).__name__ for one in outcomes}
        assert kinds >= {"CancelledError", "SubmissionUnknownError", "ValidationError", "Image", "FileNotFoundError"}, kinds
        await asyncio.sleep(0.05)
        assert not sim.connections.open and not sim.storage_connections.open
        await client.aclose()
    del outcomes, works, calls, client
    gc.collect()
    assert sockets() == before, sockets()

# Virtual time: how far each gets before it is cancelled isn't the machine's to say.
with asyncio.Runner(loop_factory=JumpingLoop) as runner:
    runner.run(main())
"""
FIVE_LOOPS = """
thread = SimThread()
thread.start()
ready.wait()
client = Client(thread.sim.key, base_url=thread.sim.url, poll=0.01)

async def main(number):
    patient()
    image = await client.call(PICTURE if number % 2 else FOX).result(timeout=30)
    assert (await image.read()).startswith(b"\\x89PNG")
    if number == 3:
        # Something is under way when this loop ends.
        asyncio.create_task(client.job("txt2img:of-nobody").result())
        await asyncio.sleep(0)

for number in range(5):
    asyncio.run(main(number))
assert thread.sim.jobs_billed == 5
thread.loop.call_soon_threadsafe(thread.over.set)
thread.join()
"""
NEVER_CLOSED = """
async def main():
    patient()
    async with Simulator(pictures=False, speed=float("inf")) as sim:
        await Client(sim.key, base_url=sim.url, poll=0.01).call(FOX).result()

asyncio.run(main())
client = Client("key", base_url="http://127.0.0.1:9")
"""
OPENED_AND_DROPPED = """
async def main():
    patient()
    async with Simulator(pictures=False, speed=float("inf")) as sim:
        client = Client(sim.key, base_url=sim.url, poll=0.01)
        await client.call(FOX).result()
        await asyncio.sleep(0)  # the read that told is noted as over in the loop's next turn
        del client
        gc.collect()
        await asyncio.sleep(0.1)
        assert not sim.connections.open, "its connections are closed with it"

asyncio.run(main())
"""
CUT_OFF = """
async def main():
    patient()
    async with Simulator(pictures=False) as sim:
        sim.script("txt2img", Fault.hang())
        task = asyncio.create_task(Client(sim.key, base_url=sim.url).call(FOX))
        while not sim.requests:
            await asyncio.sleep(0.01)
        asyncio.current_task().cancel()
        await task

try:
    asyncio.run(main())
except asyncio.CancelledError:
    pass
"""
WHAT_A_LOOP_LEAVES = """
thread = SimThread()
thread.start()
ready.wait()
client = Client(thread.sim.key, base_url=thread.sim.url, poll=0.01, journal=os.path.abspath("jobs.db"))

async def submit():
    patient()
    return await client.call(FOX).result(timeout=30)

async def give_up():
    patient()
    thread.sim.script("txt2img", Fault.delay(0.3))
    try:
        async with asyncio.timeout(0.1):
            await client.call(FOX)
    except TimeoutError:
        await asyncio.sleep(0.5)

async def look(image):
    patient()
    assert (await image.read()).startswith(b"\\x89PNG")
    (orphan,) = client.orphans
    await image.save(os.path.abspath("fox.png"))
    await orphan.save(os.path.abspath("orphan.png"))
    assert [row.state for row in await client.journal.list()] == ["saved", "saved"]
    await client.aclose()

image = asyncio.run(submit())
asyncio.run(give_up())
asyncio.run(look(image))
assert thread.sim.jobs_billed == 2
thread.loop.call_soon_threadsafe(thread.over.set)
thread.join()
"""


@pytest.mark.parametrize(
    "program",
    [FIFTY_CALLS, FIVE_LOOPS, WHAT_A_LOOP_LEAVES, NEVER_CLOSED, OPENED_AND_DROPPED, CUT_OFF],
    ids=[
        "p12 fifty calls, then close",
        "p11 five loops, no close",
        "p11 results, orphans and journal of an earlier loop",
        "p12 never closed",
        "p12 dropped",
        "p12 cut off in the middle of a submit",
    ],
)
def test_p11_p12_nothing_is_left_and_nothing_is_said(program: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(HEADER + program))
    command = [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", str(script)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.stderr, done.stdout, done.returncode) == ("", "", 0)


async def test_p12_closing_again_is_harmless_also_at_once(sim: Simulator, client: Client) -> None:
    await client.call(FOX)
    await asyncio.gather(client.aclose(), client.aclose())
    await client.aclose()
    assert not sim.connections.open


async def test_p12_a_client_that_was_never_used_closes(sim: Simulator) -> None:
    client = make_client(sim)
    await client.aclose()
    await client.aclose()
    async with make_client(sim):
        pass
    assert sim.connections.total == 0


USES: dict[str, Callable[[Client], Awaitable[Any]]] = {
    "call": lambda client: client.call(FOX),
    "upload": lambda client: edit(client, image=PNG),
    "price": lambda client: client.call(FOX).price(),
    "balance": lambda client: client.balance(),
    "models": lambda client: client.models(),
    "status": lambda client: client.job("txt2img:1").status(),
    "result": lambda client: client.job("txt2img:1").result(),
    "updates": lambda client: anext(aiter(client.job("txt2img:1").updates())),
    "enter": lambda client: client.__aenter__(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_p12_use_after_close_says_so(sim: Simulator, client: Client, use: Callable[[Client], Awaitable[Any]]) -> None:
    await client.aclose()
    with pytest.raises(ClientClosedError, match="closed: make a new one"):
        await use(client)
    assert not sim.requests


async def test_p12_a_call_and_a_job_of_a_closed_client_say_so(sim: Simulator, client: Client) -> None:
    call = client.call(FOX)
    job = await call
    await client.aclose()
    for finish in (call.result, call.save, job.result, job.status):
        with pytest.raises(ClientClosedError):
            await (finish("x.png") if finish == call.save else finish())  # type: ignore[operator]
    assert len(sim.requests) == 1


async def test_p12_waits_end_with_the_tickets_of_all_that_was_waited_for(sim: Simulator, client: Client) -> None:
    sim.hold("*")
    jobs = [await client.call(FOX) for _ in range(3)]
    waits = [asyncio.create_task(job.result()) for job in jobs]
    waits.append(asyncio.create_task(client.call(FOX).result()))

    async def listen() -> None:
        async for _ in jobs[0].updates():
            pass

    waits.append(asyncio.create_task(listen()))
    await asyncio.sleep(20)
    before = asyncio.get_running_loop().time()
    await client.aclose()
    assert asyncio.get_running_loop().time() == before
    errors = await asyncio.gather(*waits, return_exceptions=True)
    tickets = {f"txt2img:{request_id}" for request_id in sim.jobs}
    assert len(tickets) == 4
    for error in errors:
        assert isinstance(error, ClientClosedError)
        assert set(error.tickets) == tickets
        assert "client.job(ticket)" in str(error)
    sim.release("*")
    async with make_client(sim) as other:
        for ticket in tickets:
            assert isinstance(await other.job(ticket).result(timeout=60), Image)


async def test_p12_closing_cuts_a_read_that_is_out(sim: Simulator, client: Client) -> None:
    sim.script("request-status", Fault.hang())
    wait = asyncio.create_task(client.call(FOX).result())
    await until(lambda: seen(sim, "request-status"))
    await client.aclose()
    with pytest.raises(ClientClosedError):
        await wait
    await asyncio.sleep(0.01)
    assert not sim.connections.open


@pytest.mark.parametrize("fault", [Fault.trickle(10), Fault.hang("payload"), Fault.hang("headers"), Fault.delay(1000)], ids=str)
async def test_p12_closing_in_the_middle_of_a_download_ends_it(sim: Simulator, client: Client, tmp_path: Path, fault: Fault) -> None:
    sim.script("storage", fault)
    image = await client.call(FOX).result()
    saving = asyncio.create_task(image.save(tmp_path))
    await until(lambda: sim.storage_requests)
    await asyncio.sleep(0.5)
    await client.aclose()
    with pytest.raises(ClientClosedError):
        await asyncio.wait_for(saving, 5)
    await asyncio.sleep(0.2)
    assert not sim.storage_connections.open
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("phase", ["headers", "payload"])
async def test_p12_closing_ends_readings_that_are_out(sim: Simulator, client: Client, phase: Any) -> None:
    job = await client.call(FOX)
    sim.script("*", Fault.hang(phase), times=3)
    readings = [asyncio.ensure_future(work) for work in (job.status(), client.call(FOX).price(), client.balance())]
    await until(lambda: len(sim.requests) >= 4)
    await asyncio.sleep(0.5)
    await client.aclose()
    for reading in readings:
        with pytest.raises(ClientClosedError):
            await asyncio.wait_for(reading, 5)
    await asyncio.sleep(0.2)
    assert not sim.connections.open


async def test_p12_a_given_session_stays_open_and_only_its_connector_is_used(sim: Simulator) -> None:
    headers = {"Authorization": "Bearer of the session", "X-Of-The-Session": "1"}
    async with aiohttp.ClientSession(headers=headers, cookies={"of": "the session"}, raise_for_status=True) as session:
        async with make_client(sim, session=session) as client:
            image = await client.call(FOX).result()
            assert await image.read()
        assert not session.closed
        async with session.get(f"{sim.url}/api/v1/client/balance", raise_for_status=False) as answer:
            assert answer.status == 401
    ours = list(sim.requests)[:-1]
    assert {one.headers["Authorization"] for one in ours} == {f"Bearer {sim.key}"}
    for one in [*ours, *sim.storage_requests]:
        assert not {"X-Of-The-Session", "Cookie"} & one.headers.keys()
    assert "Authorization" not in sim.storage_requests[0].headers
    # The session's own request came over a connection that the client had left in its pool.
    assert sim.connections.total == 1


async def test_p12_a_given_connector_stays_open(sim: Simulator) -> None:
    async with aiohttp.TCPConnector(limit=20) as connector:
        for _ in range(2):
            async with make_client(sim, connector=connector) as client:
                await client.call(FOX).result()
            assert not connector.closed
    assert sim.connections.total == 1


async def test_p12_a_connector_that_is_too_narrow_is_refused(sim: Simulator) -> None:
    async with aiohttp.TCPConnector(limit=15) as connector, aiohttp.ClientSession() as session:
        with pytest.raises(ConfigurationError, match="max_in_flight=16"):
            await make_client(sim, connector=connector).balance()
        assert (await make_client(sim, connector=connector, max_in_flight=15).balance()).amount
        with pytest.raises(ConfigurationError, match="not both"):
            make_client(sim, connector=connector, session=session)
    with pytest.raises(ConfigurationError, match="closed"):
        await make_client(sim, session=session).balance()
