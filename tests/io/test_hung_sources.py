"""Sources that hang or raise: each ends on time, in a SourceError that says what to do, and nothing is billed."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dryapi_async import Client, File, Job, SourceError, Timeouts
from dryapi_async.io.sources import Reader
from dryapi_async.io.threads import MOST_THREADS, FileThreads
from dryapi_async.io.uploads import call_reader
from dryapi_async.simulator import Simulator
from dryapi_async.testing.clock import hold_clock

from ..conftest import PNG, edit, make_client, make_sim, now, seen, sha256, until
from .streams import PICTURE, Stream, no_threads_left, own_threads

pytestmark = pytest.mark.anyio


class Blocked(Stream):
    """A file object whose reads of the body hang until they are let go."""

    __slots__ = ("reads",)
    gate = threading.Event()

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def read(self, most: int = -1) -> bytes:
        self.reads += 1
        if self.reads > 1:
            self.gate.wait(60)
        return super().read(most)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Let all go that hangs, in the end."""
    Blocked.gate = threading.Event()
    yield Blocked.gate
    Blocked.gate.set()


# What gives nothing


async def hanging(after: bytes = PICTURE[:100_000]) -> AsyncIterator[bytes]:
    yield after
    await asyncio.sleep(1e6)
    yield b"never"


async def empty_for_ever() -> AsyncIterator[bytes]:
    yield PICTURE[:1000]
    while True:
        await asyncio.sleep(1)
        yield b""


@pytest.mark.parametrize("make", [hanging, empty_for_ever])
async def test_p02_an_iterable_that_gives_nothing_ends_in_the_idle_time(sim: Simulator, make: Callable[[], AsyncIterator[bytes]]) -> None:
    async with make_client(sim, timeouts=Timeouts(idle=7)) as client:
        with pytest.raises(
            SourceError, match=r"fox\.png gave nothing for 7 s\. The upload was cut off, and the service can't have taken it"
        ):
            await edit(client, image=File(make(), name="fox.png", size=len(PICTURE)))
        assert 7 <= now() <= 7.7
    await asyncio.sleep(1)
    assert sim.jobs_billed == 0


async def test_p02_each_piece_gives_an_iterable_its_idle_time_anew(sim: Simulator) -> None:
    async def slow() -> AsyncIterator[bytes]:
        for start in range(0, len(PICTURE), 100_000):
            await asyncio.sleep(6)
            yield PICTURE[start : start + 100_000]

    async with make_client(sim, timeouts=Timeouts(idle=7)) as client:
        await edit(client, image=File(slow(), name="fox.png", size=len(PICTURE)))
    assert seen(sim, "img2img")[0].files[0].sha256 == sha256(PICTURE)


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[tuple[Any, int]]:
    """Make a FIFO: the end to read from, as a binary file, and the end to write to."""
    os.mkfifo(tmp_path / "fox.fifo")
    reading = os.fdopen(os.open(tmp_path / "fox.fifo", os.O_RDONLY | os.O_NONBLOCK), "rb")
    os.set_blocking(reading.fileno(), True)
    writing = os.open(tmp_path / "fox.fifo", os.O_WRONLY)
    yield reading, writing
    with suppress(OSError):
        os.close(writing)
    reading.close()


async def test_p02_a_fifo_that_gives_nothing_ends_in_the_idle_time(sim: Simulator, fifo: tuple[Any, int]) -> None:
    reading, writing = fifo
    async with make_client(sim, timeouts=Timeouts(idle=0.2)) as client:
        os.write(writing, PICTURE[:5000])
        began = time.monotonic()
        with hold_clock(), pytest.raises(SourceError, match=r"gave nothing for 0\.2 s\. The upload was cut off"):
            await edit(client, image=File(reading, name="fox.png", size=len(PICTURE)))
        assert 0.2 <= time.monotonic() - began <= 1
        os.close(writing)
        await no_threads_left()
    assert (sim.jobs_billed, reading.closed) == (0, False)


async def test_p02_a_fifo_that_gives_little_at_a_time_isnt_taken_for_hung(sim: Simulator, fifo: tuple[Any, int]) -> None:
    reading, writing = fifo
    content = PNG + bytes(500)

    def feed() -> None:
        for start in range(0, len(content), 50):
            os.write(writing, content[start : start + 50])
            time.sleep(0.05)

    feeder = threading.Thread(target=feed)
    feeder.start()
    async with make_client(sim, timeouts=Timeouts(idle=0.4)) as client:
        with hold_clock():
            await edit(client, image=File(reading, name="fox.png", size=len(content)))
    feeder.join()
    assert seen(sim, "img2img")[0].files[0].sha256 == sha256(content)


async def test_p02_file_objects_that_hang_keep_no_other_upload_waiting(sim: Simulator, tmp_path: Path, gate: threading.Event) -> None:
    (tmp_path / "fox.png").write_bytes(PICTURE)
    async with make_client(sim, timeouts=Timeouts(idle=0.3)) as client:
        with hold_clock():
            hung = await asyncio.gather(*(edit(client, image=Blocked()) for _ in range(8)), return_exceptions=True)
            assert {type(error) for error in hung} == {SourceError}
            with (tmp_path / "fox.png").open("rb") as file:
                for source in (tmp_path / "fox.png", file, Stream(), PICTURE):
                    assert isinstance(await edit(client, image=source), Job)
        assert len(own_threads()) == 8
        gate.set()
        await no_threads_left()
    assert sim.jobs_billed == 4


async def test_p02_a_file_object_that_hangs_when_it_is_opened_sends_nothing(sim: Simulator, gate: threading.Event) -> None:
    source = Blocked()
    source.reads = 1
    async with make_client(sim, timeouts=Timeouts(idle=0.2)) as client:
        with hold_clock(), pytest.raises(SourceError, match=r"gave nothing for 0\.2 s\. .*nothing was sent"):
            await edit(client, image=source)
        gate.set()
        await no_threads_left()
    assert not sim.requests


class HungPath:
    """A path that hangs, as one on a lost network drive does."""

    def __fspath__(self) -> str:
        Blocked.gate.wait(60)
        return "nowhere.png"


async def test_p02_a_path_that_hangs_is_given_up_and_one_that_waits_for_a_thread_isnt(tmp_path: Path, gate: threading.Event) -> None:
    (tmp_path / "fox.png").write_bytes(PICTURE)
    threads, reader, paths = FileThreads(), Reader(tmp_path / "fox.png"), [Reader(HungPath()) for _ in range(MOST_THREADS)]
    with hold_clock():
        hung = [asyncio.create_task(call_reader(threads, one, 0.2, one.open)) for one in paths]
        waiting = asyncio.create_task(call_reader(threads, reader, 0.1, reader.open))
        outcomes = await asyncio.gather(*hung, return_exceptions=True)
        assert {str(one).partition(" gave")[2][:19] for one in outcomes} == {" nothing for 0.2 s."}
        assert not waiting.done()
        gate.set()
        assert (await waiting).size == len(PICTURE)
    for one in (reader, *paths):
        one.close()
    threads.close()


async def test_p29_file_objects_that_block_hold_no_reading_up(gate: threading.Event) -> None:
    async with make_sim() as sim:
        # Each new connection asks for its host's address, in the program's own threads.
        connector = aiohttp.TCPConnector(limit=100, use_dns_cache=False)
        url = sim.url.replace("127.0.0.1", "localhost")
        async with connector, make_client(sim, base_url=url, connector=connector, max_in_flight=64) as client:
            sources = [Blocked() for _ in range(64)]
            uploads = [asyncio.create_task(edit(client, image=one)) for one in sources]
            with hold_clock():
                await until(lambda: all(one.reads == 2 for one in sources))
            took = []
            for _ in range(20):
                began = time.monotonic()
                await client.balance()
                took.append(time.monotonic() - began)
            gate.set()
            await asyncio.gather(*uploads)
        assert max(took) < 0.3 * 5, took
        assert sorted(took)[10] < 0.3, took
    assert {one.files[0].sha256 for one in seen(sim, "img2img")} == {sha256(PICTURE)}
    assert sim.jobs_billed == 64


# What raises


class Failing(Stream):
    """A file object that raises at one of its calls."""

    __slots__ = ("error", "left")

    def __init__(self, error: BaseException, after: int) -> None:
        super().__init__()
        self.error = error
        self.left = after

    def read(self, most: int = -1) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().read(most)


ERRORS = [LookupError("a bug of the user's"), OSError(5, "the disk is broken"), StopIteration("odd"), TimeoutError("too slow")]


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_p26_what_a_file_object_raises_is_a_source_error_with_its_words(
    sim: Simulator, client: Client, error: Exception, after: int
) -> None:
    with pytest.raises(SourceError, match=str(error.args[-1])) as caught:
        await edit(client, image=Failing(error, after))
    assert caught.value.__cause__ is error
    await asyncio.sleep(1)
    assert sim.jobs_billed == 0
    assert bool(sim.requests) == (after > 0)
    await no_threads_left()


async def failing(error: BaseException, after: int) -> AsyncIterator[bytes]:
    for _ in range(after):
        yield PICTURE[:100_000]
    raise error


@pytest.mark.parametrize("after", [0, 1, 7])
@pytest.mark.parametrize("error", [*ERRORS[:2], ERRORS[3], asyncio.CancelledError("from inside")], ids=lambda error: type(error).__name__)
async def test_p26_what_an_iterable_raises_is_a_source_error_with_its_words(
    sim: Simulator, client: Client, error: BaseException, after: int
) -> None:
    with pytest.raises(SourceError, match=f"{error.args[-1]}.*The upload was cut off") as caught:
        await edit(client, image=File(failing(error, after), name="fox.png", size=len(PICTURE)))
    assert caught.value.__cause__ is error
    await asyncio.sleep(1)
    assert sim.jobs_billed == 0


class Unstartable:
    """An async iterable that can't be begun."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        raise TimeoutError("a bug of the user's")


async def test_p26_an_iterable_that_cant_be_begun_is_a_source_error(sim: Simulator, client: Client) -> None:
    with pytest.raises(SourceError, match="a bug of the user's"):
        await edit(client, image=File(Unstartable(), name="fox.png", size=len(PICTURE)))
    await asyncio.sleep(1)
    assert sim.jobs_billed == 0
