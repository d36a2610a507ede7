"""P19, P26, P27: whatever a storage host does wrong, each way to fetch ends with the right bytes, or with an error and nothing on disk."""

import asyncio
import hashlib
import math
import os
import resource
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from dryapi_async import Client, DownloadError, DryAPIError, Image, Timeouts
from dryapi_async.io import parts
from dryapi_async.simulator import Fault, Simulator
from dryapi_async.simulator.faults import Phase

from ..conftest import FOX, causes, files_in, make_client, make_sim, now, sha256

pytestmark = pytest.mark.anyio

SIZE = 600_011
IDLE = 20.0
ATTEMPTS = 4


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with make_sim(result_size=SIZE) as running:
        yield running


@pytest.fixture
async def client(sim: Simulator) -> AsyncIterator[Client]:
    async with make_client(sim, timeouts=Timeouts(idle=IDLE)) as opened:
        yield opened


@pytest.fixture
async def image(client: Client) -> Image:
    return await client.call(FOX).result()


@pytest.fixture
async def digest(sim: Simulator, image: Image) -> str:
    found = hashlib.sha256(await image.read()).hexdigest()
    sim.storage_requests.clear()
    return found


async def save(image: Image, folder: Path) -> str:
    return sha256(await image.save(folder / "fox.png"))


async def read(image: Image, _: Path) -> str:
    return hashlib.sha256(await image.read()).hexdigest()


async def stream(image: Image, _: Path) -> str:
    digest = hashlib.sha256()
    async for piece in image.stream():
        digest.update(piece)
    return digest.hexdigest()


WAYS: dict[str, Callable[[Image, Path], Awaitable[str]]] = {"save": save, "read": read, "stream": stream}
CUT_PHASES: tuple[Phase, ...] = ("before_body", "mid_body", "after_body", "headers", "payload")
STATUSES = (204, 300, 304, 400, 403, 404, 408, 410, 416, 418, 429, 500, 501, 503, 520, 599)
FAULTS: dict[str, Fault] = {
    **{f"status {status}": Fault.status(status) for status in STATUSES},
    **{f"html {status}": Fault.html(status) for status in (200, 404, 413, 502)},
    **{f"reset {phase}": Fault.reset(phase) for phase in CUT_PHASES},
    **{f"close {phase}": Fault.close(phase) for phase in CUT_PHASES},
    **{f"hang {phase}": Fault.hang(phase) for phase in CUT_PHASES},
    **{f"truncate {phase}": Fault.truncate(phase) for phase in ("before_body", "after_body", "payload")},
    **{f"garbage {phase}": Fault.garbage(phase) for phase in ("before_body", "after_body", "headers", "payload")},
    **{f"redirect {status} nowhere": Fault.redirect("", status) for status in (302, 307)},
    "redirect to a file": Fault.redirect("file:///etc/passwd"),
    "redirect to a malformed address": Fault.redirect("http://[::1"),
    "redirect to an impossible host": Fault.redirect("https://a..b/"),
    "redirect to a closed port": Fault.redirect("http://127.0.0.1:9/a.png"),
    "redirect to nonsense": Fault.redirect("\t\x7f:// ?"),
    "too many requests": Fault.rate_limited(),
    "too many requests today": Fault.rate_limited("daily"),
    "packed wrong": Fault.status(200, b"no gzip", headers={"Content-Encoding": "gzip"}, content_type="image/png"),
    "packed unknown": Fault.status(200, b"no brotli", headers={"Content-Encoding": "br"}, content_type="image/png"),
    "an unasked part": Fault.status(206, b"part", headers={"Content-Range": "bytes 0-3/4"}, content_type="image/png"),
    "trickle": Fault.trickle(SIZE / 30),
    "delay": Fault.delay(IDLE * 0.9),
    "delay beyond idle": Fault.delay(IDLE * 1.2),
}
LONGEST = ATTEMPTS * (IDLE * 1.2 + 8) + 200
"""Seconds: each attempt in its idle time and what it moved before, the pauses, and a 429's minutes."""


@pytest.mark.parametrize("times", [1, math.inf], ids=["once", "always"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("fetch", WAYS.values(), ids=WAYS)
async def test_p26_a_faulty_storage_gives_the_right_bytes_or_a_download_error(  # noqa: PLR0917  a table
    sim: Simulator,
    client: Client,
    image: Image,
    digest: str,
    tmp_path: Path,
    fetch: Callable[[Image, Path], Awaitable[str]],
    fault: Fault,
    times: float,
) -> None:
    sim.script("storage", fault, times=times)
    started = now()
    found, error = None, None
    try:
        found = await fetch(image, tmp_path)
    except DryAPIError as caught:
        error = caught
    if error is None:
        assert found == digest
        assert files_in(tmp_path) == (["fox.png"] if fetch is save else [])
    else:
        assert isinstance(error, DownloadError), error
        assert files_in(tmp_path) == []
        assert not any("X-Amz" in f"{one} {one!r} {vars(one)}" for one in causes(error))
    assert now() - started <= LONGEST
    assert len(sim.storage_requests) <= ATTEMPTS * 6
    assert client._life.current is not None
    assert not client._life.current.exchange.slots.locked()
    sim.clear_script()
    assert await fetch(image, tmp_path) == digest, "the client is as good as before"


STALLS = {
    "headers never come": Fault.hang(),
    "headers stop in the middle": Fault.hang("headers"),
    "the payload never comes": Fault.hang("payload", at=0),
    "the payload stops in the middle": Fault.hang("payload"),
}


@pytest.mark.parametrize("fault", STALLS.values(), ids=STALLS)
@pytest.mark.parametrize("fetch", WAYS.values(), ids=WAYS)
async def test_p27_a_stalled_attempt_ends_in_idle_time(
    sim: Simulator, image: Image, digest: str, tmp_path: Path, fetch: Callable[[Image, Path], Awaitable[str]], fault: Fault
) -> None:
    assert digest
    sim.script("storage", fault, times=math.inf)
    with pytest.raises(DownloadError, match="Timeout"):
        await fetch(image, tmp_path)
    times = [*(one.started for one in sim.storage_requests), now()]
    assert len(times) == ATTEMPTS + 1
    # The pauses between attempts, at most 0.25, 0.5 and 1 s, are within the 10 %.
    assert all(IDLE * 0.99 <= later - earlier <= IDLE * 1.1 for earlier, later in pairwise(times))
    assert files_in(tmp_path) == []


async def test_p27_a_stream_of_eight_minutes_is_no_fault(sim: Simulator, image: Image, digest: str, tmp_path: Path) -> None:
    sim.script("storage", Fault.trickle(SIZE / 480))
    started = now()
    assert await stream(image, tmp_path) == digest
    assert now() - started == pytest.approx(480, rel=0.01)
    assert len(sim.storage_requests) == 1


async def test_p26_many_downloads_in_trouble_stop_asking_again(sim: Simulator, client: Client, image: Image) -> None:
    """The retry quota is one for the client: 500 tokens, 5 a retry, so that a host in trouble isn't buried."""
    sim.script("storage", Fault.html(503), times=math.inf)
    outcomes = await asyncio.gather(*(image.read() for _ in range(100)), return_exceptions=True)
    assert all(isinstance(one, DownloadError) for one in outcomes)
    assert 200 <= len(sim.storage_requests) <= 210, "100 attempts, and 100 retries for 500 tokens"
    sim.clear_script()
    assert len(await image.read()) == SIZE


class SlowRename:
    """Renames slowly, as a busy file system does: before or after it is done there is time."""

    def __init__(self) -> None:
        self.begun, self.go_on, self.done = threading.Event(), threading.Event(), threading.Event()
        self._replace = os.replace

    def before(self, source: Path, target: Path) -> None:
        self.begun.set()
        self.go_on.wait(5)
        self._replace(source, target)
        self.done.set()

    def after(self, source: Path, target: Path) -> None:
        self._replace(source, target)
        self.done.set()
        self.begun.set()
        self.go_on.wait(5)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
async def test_p19_cancelled_in_the_rename_it_is_whole_when_the_save_has_ended(  # noqa: PLR0917  two fixtures
    sim: Simulator, image: Image, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, again: bool
) -> None:
    slow = SlowRename()
    monkeypatch.setattr(parts.os, "replace", getattr(slow, when))
    saving = asyncio.create_task(image.save(tmp_path / "fox.png"))
    while not slow.begun.is_set():  # noqa: ASYNC110  the clock stands while a thread works, so no timer would end
        await asyncio.sleep(0)
    for _ in range(2 if again else 1):
        saving.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
    slow.go_on.set()
    await asyncio.wait([saving])
    assert saving.cancelled()
    if again:
        # Who cancels twice doesn't wait for the end; it comes all the same.
        await asyncio.to_thread(slow.done.wait, 5)
    assert slow.done.is_set()
    assert files_in(tmp_path) == ["fox.png"]
    assert sha256(tmp_path / "fox.png") == digest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 256 KiB, where that is allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", folder], check=False, capture_output=True).returncode:  # noqa: S607  where it lies differs
        pytest.skip("mounting isn't allowed here; the limit of a file's size stands for it")
    yield folder
    subprocess.run(["umount", folder], check=True)  # noqa: S607  the same


async def test_p19_a_full_disk_leaves_nothing_behind(sim: Simulator, image: Image, small_disk: Path) -> None:
    old = small_disk / "old.png"
    old.write_bytes(b"an older result")
    for target in (small_disk / "fox.png", small_disk, old):
        with pytest.raises(OSError, match="No space left on device") as caught:
            await image.save(target)
        assert type(caught.value) is OSError
        assert files_in(small_disk) == ["old.png"]
    assert old.read_bytes() == b"an older result"
    assert len(sim.storage_requests) == 3, "the host isn't asked again for a full disk"


@pytest.mark.parametrize("limit", [1, 100_000, SIZE - 1])
def test_p19_a_file_that_may_not_grow_leaves_nothing_behind(tmp_path: Path, limit: int) -> None:
    """The limit of one process's files fails writes as a full disk does: in the middle, or in the last close."""
    code = f"""
        import asyncio, resource
        from dryapi_async import Client, Txt2Img
        from dryapi_async.simulator import Simulator

        async def main():
            async with Simulator(pictures=False, duration=0.0, result_size={SIZE}, keep_files=False) as sim:
                async with Client(api_key=sim.key, base_url=sim.url) as client:
                    image = await client.txt2img(prompt="a fox", model="Flux1schnell", width=256, height=192, steps=4, seed=7).result()
                    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
                    try:
                        await image.save({str(tmp_path / "fox.png")!r})
                    except OSError as error:
                        print(type(error).__name__, error.errno)

        asyncio.run(main())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "OSError 27\n", "EFBIG"
    assert files_in(tmp_path) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY, "only the other process was limited"
