"""P10, P30, P5: how a plain file goes through one buffer, step by step."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientConnectionResetError
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_writer import StreamWriter

from dryapi_async import File, SourceChangedError
from dryapi_async.io import plain, sources
from dryapi_async.io.body import SECURE_TURN_BYTES, TURN_BYTES
from dryapi_async.io.threads import FileThreads
from dryapi_async.io.uploads import FormBody, Upload
from dryapi_async.protocol.wire import FilePart

from ..conftest import PNG, sha256
from .streams import Stream

pytestmark = pytest.mark.anyio


class Stingy(asyncio.Transport):
    """A transport that keeps the last bytes of each write where they are, and takes them with the next one."""

    def __init__(self, kept: int) -> None:
        super().__init__()
        self.kept = kept
        self.left: memoryview = memoryview(b"")
        self.taken = b""
        self.told: list[tuple[int | None, int | None]] = []
        self.closing = False
        self.writes = 0
        self.then: Callable[[], None] = lambda: None
        """What happens at the third write: a piece of the file went out before."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes += 1
        if self.writes == 3:
            self.then()
        view = memoryview(data)
        self.taken += bytes(self.left) + bytes(view[: len(view) - self.kept])
        self.left = view[len(view) - self.kept :]

    def get_write_buffer_size(self) -> int:
        return len(self.left)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return 16_384, 65_536

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.told.append((high, low))

    def is_closing(self) -> bool:
        return self.closing


def make_stream(transport: asyncio.Transport) -> StreamWriter:
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.transport = transport
    return StreamWriter(protocol, loop)


@pytest.fixture
def threads() -> Iterator[FileThreads]:
    made = FileThreads()
    yield made
    made.close()


async def open_body(path: Path, threads: FileThreads, **options: Any) -> tuple[Upload, FormBody]:
    upload = Upload([FilePart(name="image", source=File(path), kind="image")], threads)
    return upload, await upload.open("fox", idle=5, **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "fox.png").write_bytes(PNG + os.urandom(700_000 - len(PNG)))
    return tmp_path / "fox.png"


@pytest.mark.parametrize("kept", [0, 1, 2, 5000])
async def test_p10_a_transport_that_keeps_some_bytes_still_sends_the_files_own(path: Path, threads: FileThreads, kept: int) -> None:
    transport = Stingy(kept)
    upload, body = await open_body(path, threads)
    await body.write_with_length(make_stream(transport), None)
    upload.close()
    sent = transport.taken + bytes(transport.left)
    assert len(sent) == body.size
    assert sha256(sent.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--fox")[0]) == sha256(path)


@pytest.mark.parametrize("ends", ["sent", "the source changes", "cancelled", "closed"])
async def test_p10_a_transport_has_its_limits_again_however_it_ends(path: Path, threads: FileThreads, ends: str) -> None:
    transport = Stingy(0)
    stream = make_stream(transport)
    upload, body = await open_body(path, threads)

    def interfere() -> None:
        if ends == "the source changes":
            os.truncate(path, 300_000)
        elif ends == "cancelled":
            stream.protocol.pause_writing()
            asyncio.get_running_loop().call_soon(sending.cancel)
        elif ends == "closed":
            transport.closing = True

    transport.then = interfere
    sending = asyncio.create_task(body.write_with_length(stream, None))
    await asyncio.wait([sending])
    upload.close()
    if ends == "cancelled":
        assert sending.cancelled()
    else:
        errors = {"the source changes": SourceChangedError, "closed": ClientConnectionResetError}
        assert isinstance(sending.exception(), errors.get(ends, type(None)))
    # A closed transport of uvloop raises when it is told of limits.
    assert transport.told == ([(1, 0)] if ends == "closed" else [(1, 0), (65_536, 16_384)])


@pytest.mark.parametrize(("secure", "turn_bytes"), [(False, TURN_BYTES), (True, SECURE_TURN_BYTES)], ids=["plain", "TLS"])
async def test_p05_a_file_in_memory_on_a_socket_that_takes_all_leaves_others_their_turn(
    tmp_path: Path, threads: FileThreads, secure: bool, turn_bytes: int
) -> None:
    path, turns = tmp_path / "fox.png", 0
    path.write_bytes(PNG + os.urandom(8 * turn_bytes))
    if needs_thread(path):
        pytest.skip("this file system can't say what it has in memory")

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    class Greedy(Stingy):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            super().write(data)
            assert len(data) <= turn_bytes
            seen.append(turns)

        def get_extra_info(self, name: str, default: object = None) -> object:
            return "a context" if secure and name == "sslcontext" else default

    seen: list[int] = []
    upload, body = await open_body(path, threads)
    counting = asyncio.create_task(count())
    await asyncio.sleep(0)
    await body.write_with_length(make_stream(Greedy(0)), None)
    upload.close()
    counting.cancel()
    # The last two writes come after a thread's work.
    assert 7 <= seen[-3] - seen[0] <= 9


async def give_at_once(content: bytes) -> AsyncIterator[bytes]:
    yield content


SOURCES: dict[str, Callable[[bytes], Any]] = {
    "bytes": lambda content: content,
    "a file object": Stream,
    "an async iterable": lambda content: File(give_at_once(content), size=len(content), content_type="image/png"),
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize(("secure", "turn_bytes"), [(False, TURN_BYTES), (True, SECURE_TURN_BYTES)], ids=["plain", "TLS"])
async def test_p05_no_source_takes_more_than_a_turn(
    threads: FileThreads, secure: bool, turn_bytes: int, make: Callable[[bytes], Any]
) -> None:
    content = PNG + os.urandom(8 * turn_bytes)

    class Greedy(Stingy):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            super().write(data)
            sizes.append(len(data))

        def get_extra_info(self, name: str, default: object = None) -> object:
            return "a context" if secure and name == "sslcontext" else default

    sizes: list[int] = []
    transport = Greedy(0)
    upload = Upload([FilePart(name="image", source=make(content), kind="image")], threads)
    body = await upload.open("fox", idle=5)
    await body.write_with_length(make_stream(transport), None)
    upload.close()
    assert max(sizes) <= turn_bytes
    assert len(sizes) > 8
    assert transport.taken.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--fox")[0] == content


def needs_thread(path: Path) -> bool:
    with path.open("rb") as file:
        return plain.read_cached(file.fileno(), memoryview(bytearray(1)), 0) is None


async def test_p05_a_file_is_looked_at_in_a_thread_alone(path: Path, threads: FileThreads, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status is asked of the server where the file is on a network drive."""
    where: list[int] = []

    def stamp(found: os.stat_result) -> plain.Stamp:
        where.append(threading.get_ident())
        return plain.stamp(found)

    monkeypatch.setattr(sources, "stamp", stamp)
    upload, body = await open_body(path, threads)
    await body.write_with_length(make_stream(Stingy(0)), None)
    upload.close()
    assert len(where) == 2
    assert threading.get_ident() not in where


async def test_p30_a_file_in_memory_takes_a_thread_for_its_last_piece_alone(
    path: Path, threads: FileThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    if needs_thread(path):
        pytest.skip("this file system can't say what it has in memory")
    reads: list[int] = []

    def read_into(fd: int, view: memoryview, offset: int) -> int:
        reads.append(offset)
        return plain.read_into(fd, view, offset)

    monkeypatch.setattr(sources, "read_into", read_into)
    upload, body = await open_body(path, threads)
    await body.write_with_length(make_stream(Stingy(0)), None)
    upload.close()
    assert reads == [700_000 // TURN_BYTES * TURN_BYTES]


def test_p30_what_isnt_in_memory_is_missed_and_then_read(path: Path) -> None:
    if not hasattr(os, "posix_fadvise") or needs_thread(path):
        pytest.skip("this system can't say what it has in memory, or can't be made to forget it")
    view = memoryview(bytearray(TURN_BYTES))
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        for _ in range(50):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if plain.read_cached(file.fileno(), view, TURN_BYTES) == 0:
                break
            time.sleep(0.01)
        else:
            pytest.fail("nothing was ever missed")
        assert plain.read_into(file.fileno(), view, TURN_BYTES) == TURN_BYTES
    assert bytes(view) == path.read_bytes()[TURN_BYTES : 2 * TURN_BYTES]


def test_p30_systems_without_preadv_read_into_a_buffer_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "preadv")
    view = memoryview(bytearray(1000))
    with path.open("rb") as file:
        assert plain.read_into(file.fileno(), view, 699_500) == 500
        assert file.tell() == 0
    assert bytes(view[:500]) == path.read_bytes()[-500:]


async def test_p30_memory_that_nobody_changes_takes_no_thread(threads: FileThreads) -> None:
    content = PNG + os.urandom(600_000)
    upload = Upload([FilePart(name="image", source=content, kind="image")], threads)
    body, transport = await upload.open("fox", idle=5), Stingy(0)
    threads.executor.shutdown()
    await body.write_with_length(make_stream(transport), None)
    assert content in transport.taken
