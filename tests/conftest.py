"""What tests over real sockets share: a loop whose clock jumps, the simulator, a client of it, and small requests."""

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dryapi_async import Client, Image, Img2Img, Job, Txt2Img
from dryapi_async.calls import JobCall
from dryapi_async.simulator import Received, Simulator
from dryapi_async.simulator.blobs import tiny_picture, tiny_png
from dryapi_async.testing import JumpingLoop

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell gives that to what runs in its background, and so it would go to the programs that tests stop by Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

ON_UVLOOP = os.environ.get("DRYAPI_TEST_LOOP") == "uvloop"
REPOSITORY = Path(__file__).parents[1]
FOX = Txt2Img(prompt="a fox in snow", model="Flux1schnell", width=256, height=192, steps=4, seed=7)
PNG = tiny_png("a picture to upload")
JPEG = tiny_picture("a picture to upload", "jpg")


def jumping_loop() -> asyncio.AbstractEventLoop:
    """Make a loop whose clock jumps: asyncio's, or uvloop where DRYAPI_TEST_LOOP says so."""
    if not ON_UVLOOP:
        return JumpingLoop()
    from .uvloop_clock import JumpingUvloop  # noqa: PLC0415  where it isn't asked for it needn't be installed

    return JumpingUvloop()


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": jumping_loop}


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep keys, hosts and proxies of the machine out of the tests."""
    for name in list(os.environ):
        if (name.startswith("DRYAPI_") and name != "DRYAPI_OPENAPI") or name.lower() in {
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "no_proxy",
            "netrc",
        }:
            monkeypatch.delenv(name)


def make_sim(**options: Any) -> Simulator:
    """Make a simulator whose jobs take 2 s and whose results are small, unless said otherwise."""
    return Simulator(**{"pictures": False, "seed": 1, "duration": 2.0, **options})


def make_client(sim: Simulator, **options: Any) -> Client:
    """Make a client of a simulator."""
    return Client(**{"api_key": sim.key, "base_url": sim.url, **options})


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with make_sim() as running:
        yield running


@pytest.fixture
async def client(sim: Simulator) -> AsyncIterator[Client]:
    async with make_client(sim) as opened:
        yield opened


def edit(client: Client, **fields: Any) -> JobCall[Image]:
    """Call img2img with whatever is given as ``image`` or ``images``."""
    return client.call(Img2Img(**{"prompt": "the same, at night", "model": "QwenImageEdit_Plus_NF4", "steps": 20, "seed": 42, **fields}))


def now() -> float:
    """Give the loop's time: virtual seconds."""
    return asyncio.get_running_loop().time()


async def until(reached: Callable[[], object]) -> None:
    """Wait until something is so."""
    # What the simulator has seen has no event; the clock jumps, so looking costs nothing.
    while not reached():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def settle() -> None:
    """Let what is ready run."""
    for _ in range(20):
        await asyncio.sleep(0)


def seen(sim: Simulator, operation: str) -> list[Received]:
    """Give the requests of one operation that the simulator received."""
    return [one for one in sim.requests if one.operation == operation]


def sha256(content: bytes | Path) -> str:
    return hashlib.sha256(content if isinstance(content, bytes) else content.read_bytes()).hexdigest()


def files_in(folder: Path) -> list[str]:
    """Name everything in a folder, hidden files too."""
    return sorted(str(one.relative_to(folder)) for one in folder.rglob("*"))


@contextmanager
def without_root() -> Iterator[None]:
    """Have the rights that a file's mode gives, for the while: root, who may read and write anything, is nobody."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Walk from an error to what it came from."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


async def begin(sim: Simulator, call: JobCall[Image], slug: str = "txt2img") -> "asyncio.Task[Job[Image]]":
    """Finish a call in a task, and come back once its POST is on its way."""
    task = asyncio.create_task(finish(call))
    await until(lambda: seen(sim, slug))
    return task


async def finish(call: JobCall[Image]) -> Job[Image]:
    return await call


async def give_up(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
