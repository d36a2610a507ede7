"""P10, P30: one buffer for a whole file, and still each byte is the file's own: on each loop, plain and over TLS, to a reader that is slow.

Real processes and real time. With DRYAPI_FULL_TESTS=1 a thousand uploads in each cell.
"""

import asyncio
import importlib
import importlib.util
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from dryapi_async import Client, Limits, SourceChangedError
from dryapi_async.events import BytesSent, Event
from dryapi_async.io.body import SECURE_TURN_BYTES, TURN_BYTES
from dryapi_async.io.plain import read_cached

from ..conftest import PNG, edit, sha256

pytestmark = pytest.mark.processes

UPLOADS = 1000 if os.environ.get("DRYAPI_FULL_TESTS") else 48
AT_ONCE = 16
MIB = 2**20
SIZES = (MIB, MIB - 1, MIB + 1, 131_072, 131_073, 393_216, 700_001, 262_145, 81_920, 81_921)
NARROW = 8 * 1024
SLOW_READER = Path(__file__).with_name("slow_reader.py")


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    if request.param == "uvloop":
        if importlib.util.find_spec("uvloop") is None:
            pytest.skip("uvloop isn't installed")
        return "asyncio", {"loop_factory": importlib.import_module("uvloop").new_event_loop}
    return "asyncio", {"loop_factory": asyncio.new_event_loop}


loops = pytest.mark.parametrize("anyio_backend", ["asyncio", "uvloop"], indirect=True)


@contextmanager
def slow_reader(folder: Path, *, tls: bool) -> Iterator[tuple[str, ssl.SSLContext | None]]:
    """Run the reader in a process of its own: its URL, and what to trust."""
    arguments, trust = [], None
    if tls:
        authority = trustme.CA()
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "certificate.pem"))
        arguments, trust = [str(folder / "certificate.pem")], ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    with subprocess.Popen(
        [sys.executable, str(SLOW_READER), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port = json.loads(process.stdout.readline())["port"]
            yield f"{'https' if tls else 'http'}://127.0.0.1:{port}", trust
        finally:
            process.stdin.close()


def make_files(folder: Path) -> list[Path]:
    """Make files of all sizes: more than are sent at once, so that a buffer with another's bytes is seen."""
    paths = [folder / f"fox-{number}.png" for number in range(2 * len(SIZES))]
    for number, path in enumerate(paths):
        path.write_bytes(PNG + os.urandom(SIZES[number % len(SIZES)] - len(PNG)))
    return paths


def make_narrow(address: aiohttp.AddrInfoType) -> socket.socket:
    """Make a socket that takes little at once: what it doesn't take stays with the transport, and in the buffer."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NARROW)
    return made


@asynccontextmanager
async def open_client(url: str, trust: ssl.SSLContext | None, **options: Any) -> AsyncIterator[Client]:
    connector = aiohttp.TCPConnector(socket_factory=make_narrow)
    more = {"connector": connector, "ssl": trust, "limits": Limits.none(), "max_in_flight": AT_ONCE, **options}
    async with connector, Client("fox", base_url=url, **more) as client:
        yield client


async def upload(url: str, trust: ssl.SSLContext | None, paths: list[Path]) -> list[str]:
    """Upload files in turn, and give what the reader says that it got."""
    got = [""] * UPLOADS
    numbers = iter(range(UPLOADS))
    async with open_client(url, trust) as client:

        async def work() -> None:
            for number in numbers:
                got[number] = (await edit(client, image=paths[number % len(paths)])).id

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
    return got


def check(got: list[str], paths: list[Path]) -> None:
    digests = [sha256(path) for path in paths]
    wrong = [number for number, digest in enumerate(got) if digest != digests[number % len(paths)]]
    assert not wrong, f"{len(wrong)} of {UPLOADS} uploads arrived as something else"


Way = Callable[[pytest.MonkeyPatch], None]


def through_the_page_cache(_: pytest.MonkeyPatch) -> None:
    """Read as it is done here, where the file system lets it."""


def through_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dryapi_async.io.sources.read_cached", lambda *_: None)


def through_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one read in three miss, and one in three give less than there is."""
    turn = iter(range(10**9))

    def read_some(fd: int, view: memoryview, offset: int) -> int | None:
        kind = next(turn) % 3
        return 0 if kind == 0 else read_cached(fd, view[: 1 + offset % 50_000] if kind == 1 else view, offset)

    monkeypatch.setattr("dryapi_async.io.sources.read_cached", read_some)


WAYS: dict[str, Way] = {"page cache": through_the_page_cache, "threads": through_threads, "misses and short reads": through_both}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
wires = pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])


@pytest.mark.anyio
@loops
@wires
@ways
async def test_p10_a_slow_reader_gets_the_bytes_of_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Way, tls: bool) -> None:
    way(monkeypatch)
    paths = make_files(tmp_path)
    with slow_reader(tmp_path, tls=tls) as (url, trust):
        check(await upload(url, trust, paths), paths)


@pytest.fixture
def refusing() -> Iterator[Path]:
    """Make a folder on a file system that can't say what it has in memory."""
    if not Path("/dev/shm").is_dir():  # noqa: S108  the mount point itself
        pytest.skip("there is no /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        (Path(name) / "fox").write_bytes(bytes(2))
        with (Path(name) / "fox").open("rb") as file:
            if read_cached(file.fileno(), memoryview(bytearray(1)), 0) is not None:
                pytest.skip("this kernel's /dev/shm refuses nothing")
        yield Path(name)


@pytest.mark.anyio
@loops
@wires
async def test_p10_a_file_system_that_refuses_is_read_in_threads_and_asked_once_for_each_file(
    refusing: Path, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    paths, asked = make_files(refusing), 0

    def count(fd: int, view: memoryview, offset: int) -> int | None:
        nonlocal asked
        asked += 1
        return read_cached(fd, view, offset)

    monkeypatch.setattr("dryapi_async.io.sources.read_cached", count)
    with slow_reader(refusing, tls=tls) as (url, trust):
        check(await upload(url, trust, paths), paths)
    # The last read of a file is a thread's in any case: it may be the only one.
    buffer = SECURE_TURN_BYTES if tls else TURN_BYTES
    assert asked == sum(SIZES[number % len(SIZES)] > buffer for number in range(UPLOADS))


CHANGES: dict[str, tuple[Callable[[Path], object], bool]] = {
    "shrinks": (lambda path: os.truncate(path, 2 * MIB), False),
    "grows": (lambda path: os.truncate(path, 4 * MIB + 1), False),
    "is written over": (lambda path: path.write_bytes(os.urandom(4 * MIB)), False),
    "is replaced": (lambda path: path.with_name("new.png").write_bytes(PNG) and path.with_name("new.png").replace(path), True),
    "is deleted": (Path.unlink, True),
}


@pytest.mark.anyio
@loops
@wires
@ways
@pytest.mark.parametrize(("change", "is_sent"), CHANGES.values(), ids=CHANGES)
async def test_p10_a_file_that_changes_while_it_is_sent_goes_up_as_it_was_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Way, tls: bool, change: Callable[[Path], object], is_sent: bool
) -> None:
    way(monkeypatch)
    path = tmp_path / "fox.png"
    path.write_bytes(PNG + os.urandom(4 * MIB - len(PNG)))
    digest, changed = sha256(path), False

    def look(event: Event) -> None:
        nonlocal changed
        if isinstance(event, BytesSent) and event.bytes_sent > MIB and not changed:
            changed = True
            change(path)

    with slow_reader(tmp_path, tls=tls) as (url, trust):
        async with open_client(url, trust, on_event=look) as client:
            if is_sent:
                assert (await edit(client, image=path)).id == digest
            else:
                with pytest.raises(SourceChangedError, match="changed while it was sent"):
                    await edit(client, image=path)
    assert changed
