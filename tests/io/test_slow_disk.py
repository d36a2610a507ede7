"""P29: a disk on which each read takes a second holds up its own uploads, and nothing else. A real file system, real time."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dryapi_async.io.plain import read_cached

from ..conftest import edit, make_client, make_sim, seen, sha256

pytestmark = [pytest.mark.processes, pytest.mark.anyio]

UPLOADS = 64
SIZE = 2000


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": asyncio.new_event_loop}


@contextmanager
def slow_disk(place: Path) -> Iterator[tuple[Path, "subprocess.Popen[str]"]]:
    """Mount it: its one file, and the process whose input lets its reads go."""
    if not os.access("/dev/fuse", os.W_OK):
        pytest.skip("no file system can be mounted here: there is no /dev/fuse to write to")
    command = [sys.executable, str(Path(__file__).with_name("slow_disk.py")), str(place), str(SIZE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        if not process.stdout.readline():
            pytest.skip(f"no file system can be mounted here: {process.stderr.read()}")
        try:
            yield place / "fox.png", process
        finally:
            process.stdin.close()


async def test_p29_a_slow_disk_holds_no_reading_up(tmp_path: Path) -> None:
    async with make_sim() as sim:
        # Each new connection asks for its host's address, in the program's own threads.
        connector = aiohttp.TCPConnector(limit=100, use_dns_cache=False, force_close=True)
        url = sim.url.replace("127.0.0.1", "localhost")
        with slow_disk(tmp_path) as (path, disk):
            async with connector, make_client(sim, base_url=url, connector=connector, max_in_flight=UPLOADS) as client:
                uploads = [asyncio.create_task(edit(client, image=path)) for _ in range(UPLOADS)]
                took: list[float] = []
                for _ in range(20):
                    await asyncio.sleep(0.15)  # longer than reads take: each of their steps is met
                    began = time.monotonic()
                    await client.balance()
                    took.append(time.monotonic() - began)
                assert not any(upload.done() and upload.exception() for upload in uploads)
                assert sum(upload.done() for upload in uploads) < UPLOADS / 2
                await asyncio.to_thread(let_go, disk)
                await asyncio.gather(*uploads)
        assert max(took) < 0.3 * 5, took
        assert sorted(took)[10] < 0.3, took
    assert {one.files[0].sha256 for one in seen(sim, "img2img")} == {sha256(b"\x89PNG\r\n\x1a\n" + bytes(SIZE - 8))}


def let_go(disk: "subprocess.Popen[str]") -> None:
    assert disk.stdin is not None
    disk.stdin.write("go on\n")
    disk.stdin.flush()


def test_p05_a_slow_disk_is_never_read_on_the_loop(tmp_path: Path) -> None:
    with slow_disk(tmp_path) as (path, disk), path.open("rb", buffering=0) as file:
        began = time.monotonic()
        assert not read_cached(file.fileno(), memoryview(bytearray(SIZE)), 0)
        assert time.monotonic() - began < 0.5
        let_go(disk)
