"""P14, P5: big files stream: ten at once take little memory, and a file slow at each call stalls no loop. Real processes, real time.

With DRYAPI_FULL_TESTS=1 the slow files have 200 MB, which takes a minute.
"""

import asyncio
import io
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.meter import Ticker
from benchmarks.processes import run_child, start_server
from benchmarks.service import start_service
from dryapi_async import Client, Limits
from dryapi_async.io import writing
from dryapi_async.io.parts import Part

from ..conftest import FOX, PNG, edit
from .streams import Stream

pytestmark = pytest.mark.processes

MIB = 2**20
AT_ONCE = 10
SLOW_BYTES = 200_000_000 if os.environ.get("DRYAPI_FULL_TESTS") else 20_000_000


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": asyncio.new_event_loop}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_p14_ten_uploads_of_200_mb_at_once_cost_less_than_64_mib(tmp_path: Path, tls: bool) -> None:
    big, small = tmp_path / "big.png", tmp_path / "small.png"
    for path, size in ((big, 200_000_000), (small, 4096)):
        path.write_bytes(PNG)
        with path.open("rb+") as file:
            file.truncate(size)
    with start_server(tls=tls) as server:
        took = run_child(
            "upload",
            subject="ours",
            url=server.url,
            paths=[str(big)],
            warm_up=str(small),
            uploads=AT_ONCE,
            at_once=AT_ONCE,
            authority=server.authority,
        )
    assert len(set(took["ids"])) == AT_ONCE
    assert took["reading"]["rss_growth_bytes"] < 64 * MIB


class Slow(Stream):
    """A file object whose every call takes 50 ms."""

    __slots__ = ()

    def read(self, most: int = -1) -> bytes:
        time.sleep(0.05)
        return super().read(most)

    def seek(self, position: int, whence: int = 0) -> int:
        time.sleep(0.05)
        return super().seek(position, whence)


@pytest.mark.anyio
async def test_p05_file_objects_whose_every_call_takes_50_ms_stall_no_loop() -> None:
    ticker = Ticker()
    with start_server() as server:
        async with Client("fox", base_url=server.url, limits=Limits.none(), max_in_flight=AT_ONCE) as client:
            await edit(client, image=PNG)
            ticking = asyncio.create_task(ticker.run())
            await asyncio.gather(*(edit(client, image=Slow(PNG + bytes(SLOW_BYTES // AT_ONCE))) for _ in range(AT_ONCE)))
            ticking.cancel()
    # On a quiet machine it is a few milliseconds; the promise is 100, and others may be at work here.
    assert ticker.latest_seconds < 0.1 * 5


class SlowWriter(io.BufferedWriter):
    """A file on disk whose every write takes 50 ms, never on the loop's thread."""

    def writelines(self, lines: Iterable[Any], /) -> None:
        assert threading.current_thread() is not threading.main_thread()
        time.sleep(0.05)
        super().writelines(lines)


@pytest.mark.anyio
async def test_p05_a_disk_whose_every_write_takes_50_ms_stalls_no_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_slowly(target: Path) -> tuple[Part, str, io.BufferedWriter]:
        part, name, file = opened(target)
        return part, name, SlowWriter(file.detach())

    ticker, opened = Ticker(), writing._open
    monkeypatch.setattr(writing, "_open", open_slowly)
    with start_service(duration=0.01, result_size=SLOW_BYTES) as service:
        async with Client(service.key, base_url=service.url) as client:
            job = await client.call(FOX)
            await job.result()
            ticking = asyncio.create_task(ticker.run())
            path = await job.save(tmp_path / "fox.png")
            ticking.cancel()
    assert path.stat().st_size == SLOW_BYTES
    assert ticker.latest_seconds < 0.1 * 5
