"""Sources that are shared, that change, or that are none: the same bytes go up, or an error says what to do and nothing is billed."""

import asyncio
import gzip
import io
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dryapi_async import Client, File, Job, SourceChangedError, SourceNotReplayableError
from dryapi_async.events import BytesSent, RateLimited
from dryapi_async.io.sources import Reader
from dryapi_async.io.streams import share
from dryapi_async.simulator import Fault, Simulator

from ..conftest import edit, make_client, seen, sha256
from .streams import PICTURE, Stream, no_threads_left, open_file, spool, stream_at

pytestmark = pytest.mark.anyio


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


# What is shared


def gunzip(folder: Path) -> Any:
    (folder / "fox.png.gz").write_bytes(gzip.compress(b"7 bytes" + PICTURE, 1))
    return gzip.open(folder / "fox.png.gz")


def buffered(folder: Path) -> Any:
    """Read a compressed file through a buffer: its descriptor is the compressed file's."""
    return io.BufferedReader(gunzip(folder))


SEEKABLE: dict[str, Callable[[Path], Any]] = {
    "open file": open_file,
    "BytesIO": lambda _: io.BytesIO(b"7 bytes" + PICTURE),
    "spooled file": spool,
    "compressed file": gunzip,
    "buffered compressed file": buffered,
    "own class": lambda _: Stream(b"7 bytes" + PICTURE),
}


@pytest.mark.parametrize("make", SEEKABLE.values(), ids=SEEKABLE)
async def test_p09_calls_at_once_on_one_stream_send_the_same_bytes_and_leave_it_where_it_was(
    sim: Simulator, client: Client, tmp_path: Path, make: Callable[[Path], Any]
) -> None:
    stream = stream_at(make(tmp_path))
    sim.script("img2img", Fault.rate_limited(retry_after=1), Fault.rate_limited(retry_after=1, early=True))
    for calls in (4, 1, 1):
        await asyncio.gather(*(edit(client, image=stream) for _ in range(calls)))
        assert stream.tell() == 7
    assert sim.jobs_billed == 6
    assert {file.sha256 for one in seen(sim, "img2img") for file in one.files} == {sha256(PICTURE)}
    if hasattr(stream, "close"):
        stream.close()
    await no_threads_left()


@pytest.mark.parametrize("make", SEEKABLE.values(), ids=SEEKABLE)
async def test_p09_one_stream_twice_in_one_form(sim: Simulator, client: Client, tmp_path: Path, make: Callable[[Path], Any]) -> None:
    stream = stream_at(make(tmp_path))
    await edit(client, images=[stream, stream])
    assert [file.sha256 for file in seen(sim, "img2img")[0].files] == [sha256(PICTURE)] * 2
    assert stream.tell() == 7
    if hasattr(stream, "close"):
        stream.close()


async def test_p09_a_stream_is_where_it_was_after_a_call_that_failed(sim: Simulator, client: Client) -> None:
    stream = stream_at(Stream(b"7 bytes" + PICTURE))
    sim.script("img2img", Fault.reset("mid_body"), Fault.too_large(early=True))
    for _ in range(2):
        with pytest.raises(Exception, match="img2img"):
            await edit(client, image=stream)
        await no_threads_left()
        assert stream.tell() == 7
    await edit(client, image=stream)
    assert seen(sim, "img2img")[-1].files[0].sha256 == sha256(PICTURE)


async def test_p09_calls_at_once_on_what_can_be_read_only_once_mix_nothing(sim: Simulator, client: Client, fifo: tuple[Any, int]) -> None:
    reading, writing = fifo
    calls = [asyncio.create_task(edit(client, image=File(reading, name="fox.png", size=len(PICTURE)))) for _ in range(2)]
    # Nothing is in the pipe, so that whoever comes to it first, which the threads decide, is still reading when the other comes.
    refused, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    assert [type(one.exception()) for one in refused] == [SourceNotReplayableError]
    feeder = threading.Thread(target=os.write, args=(writing, PICTURE * 2))
    feeder.start()
    assert [type(await one) for one in waiting] == [Job]
    # One after the other they are two pictures.
    assert isinstance(await edit(client, image=File(reading, name="fox.png", size=len(PICTURE))), Job)
    feeder.join()
    assert [one.files[0].sha256 for one in seen(sim, "img2img") if one.files] == [sha256(PICTURE)] * 2


async def test_p09_calls_at_once_on_one_generator_mix_nothing(sim: Simulator, client: Client) -> None:
    async def twice() -> AsyncIterator[bytes]:
        for start in range(0, 2 * len(PICTURE), 70_000):
            await asyncio.sleep(0.1)
            yield (PICTURE * 2)[start : start + 70_000]

    source = twice()
    calls = [edit(client, image=File(source, name="fox.png", size=len(PICTURE))) for _ in range(2)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert not [one for one in outcomes if isinstance(one, Job)] or sim.jobs_billed == 1
    assert SourceNotReplayableError in {type(one) for one in outcomes}
    assert all(one.files[0].sha256 == sha256(PICTURE) for one in seen(sim, "img2img") if one.files)


def test_what_nobody_reads_is_forgotten() -> None:
    stream = Stream()
    held = sys.getrefcount(stream)
    first, second = share(stream), share(stream)
    assert first is second
    first.leave(1)
    assert share(stream) is first
    for reader in (1, 2):
        first.leave(reader)
    assert share(stream) is not first
    share(stream).leave(3)
    share(stream).leave(4)
    del first, second
    assert sys.getrefcount(stream) >= held


# What changes in memory


class Change:
    """A hook that changes something at the first event of a kind."""

    def __init__(self, kind: type, change: Callable[[], object]) -> None:
        self.kind = kind
        self.change = change
        self.done = False

    def __call__(self, event: object) -> None:
        if isinstance(event, self.kind) and not self.done:
            self.done = True
            self.change()


def flip(memory: Any) -> None:
    memory[-1] ^= 1


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("make", [lambda memory: memory, memoryview, lambda memory: memoryview(memory).toreadonly()])
async def test_p09_memory_that_changed_between_two_attempts_is_refused(
    sim: Simulator, make: Callable[[bytearray], Any], early: bool
) -> None:
    memory = bytearray(PICTURE)
    async with make_client(sim, on_event=Change(RateLimited, lambda: flip(memory))) as client:
        sim.script("img2img", Fault.rate_limited(retry_after=2, early=early))
        with pytest.raises(SourceChangedError, match="changed since the first attempt"):
            await edit(client, image=make(memory))
    assert (len(seen(sim, "img2img")), sim.jobs_billed) == (1, 0)


async def test_p10_memory_that_changes_while_it_is_sent_is_told_and_nothing_is_billed(sim: Simulator) -> None:
    memory = bytearray(PICTURE)
    change = Change(BytesSent, lambda: flip(memory))
    async with make_client(sim, on_event=change) as client:
        with pytest.raises(SourceChangedError, match="changed while it was sent"):
            await edit(client, image=memory)
        await asyncio.sleep(1)
    assert (change.done, sim.jobs_billed) == (True, 0)


def overwrite(stream: Any) -> None:
    position = stream.tell()
    stream.seek(7)
    stream.write(b"another picture")
    stream.seek(position)


def test_p10_a_piece_of_memory_stays_what_was_looked_at() -> None:
    # The loop of Python 3.12 and later keeps what it was given, not a copy of it, until the socket takes it.
    memory = bytearray(PICTURE)
    reader = Reader(memory)
    reader.open()
    piece = reader.read(0, len(memory))
    flip(memory)
    assert piece == PICTURE
    reader.close()


def rewrite(stream: io.BytesIO) -> None:
    overwrite(stream)
    stream.seek(0)
    stream.truncate(3)


@pytest.mark.parametrize("kind", [RateLimited, BytesSent])
async def test_p09_a_bytesio_is_sent_as_it_was_when_the_call_began(sim: Simulator, kind: type) -> None:
    stream = stream_at(io.BytesIO(b"7 bytes" + PICTURE))
    change = Change(kind, lambda: rewrite(stream))
    async with make_client(sim, on_event=change) as client:
        sim.script("img2img", Fault.rate_limited(retry_after=2))
        await edit(client, image=stream)
    first, last = seen(sim, "img2img")
    assert change.done
    assert first.files[0].sha256 == last.files[0].sha256 == sha256(PICTURE)


async def test_p09_a_stream_whose_content_changed_between_two_attempts_is_refused(sim: Simulator, tmp_path: Path) -> None:
    stream = stream_at(spool(tmp_path))
    async with make_client(sim, on_event=Change(RateLimited, lambda: overwrite(stream))) as client:
        sim.script("img2img", Fault.rate_limited(retry_after=2))
        with pytest.raises(SourceChangedError):
            await edit(client, image=stream)
        await asyncio.sleep(1)
    assert sim.jobs_billed == 0
    stream.close()


async def test_p10_a_buffer_that_a_generator_uses_again_is_sent_as_it_was_given(sim: Simulator, client: Client) -> None:
    async def reuse() -> AsyncIterator[bytes]:
        buffer = bytearray(70_000)
        for start in range(0, len(PICTURE), len(buffer)):
            buffer[:] = PICTURE[start : start + len(buffer)]
            yield buffer  # type: ignore[misc]  # bytes in all but name
            buffer[:] = bytes(70_000)

    await edit(client, image=File(reuse(), name="fox.png", size=len(PICTURE)))
    assert seen(sim, "img2img")[0].files[0].sha256 == sha256(PICTURE)


async def test_p10_pieces_of_wide_items_are_counted_in_bytes(sim: Simulator, client: Client) -> None:
    async def wide() -> AsyncIterator[Any]:
        yield memoryview(PICTURE).cast("I")

    await edit(client, image=File(wide(), name="fox.png", size=len(PICTURE)))
    assert seen(sim, "img2img")[0].files[0].sha256 == sha256(PICTURE)
