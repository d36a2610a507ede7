"""Fixtures for tests that talk to the simulator through a plain aiohttp session."""

import asyncio
import io
import os
import struct
import wave
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from dryapi_async.simulator import Simulator
from dryapi_async.testing import JumpingLoop

OPENAPI = Path(os.environ.get("DRYAPI_OPENAPI") or Path(__file__).parents[3] / "shared" / "api" / "openapi.json")

TXT2IMG = {"prompt": "a fox in snow", "model": "Flux1schnell", "width": 256, "height": 192, "steps": 4, "seed": 7}
IMG2IMG = {"prompt": "the same, at night", "model": "QwenImageEdit_Plus_NF4", "steps": "20", "seed": "42"}


class Talk:
    """A session with the key, and short words for what tests do."""

    def __init__(self, sim: Simulator, session: aiohttp.ClientSession) -> None:
        self.sim = sim
        self.session = session

    async def get(self, path: str, **options: Any) -> tuple[int, Any]:
        return await self.send("GET", path, **options)

    async def post(self, path: str, fields: Any = None, **options: Any) -> tuple[int, Any]:
        return await self.send("POST", path, **({"json": fields} if fields is not None else {}), **options)

    async def send(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        url = URL(f"{self.sim.url}/api/v1/client/{path}", encoded=True)
        async with self.session.request(method, url, allow_redirects=False, **options) as answer:
            kind = answer.content_type
            return answer.status, await answer.json() if kind == "application/json" and method != "HEAD" else await answer.read()

    async def submit(self, path: str = "txt2img", fields: Any = None) -> str:
        status, body = await self.post(path, TXT2IMG if fields is None else fields)
        assert status == 200, body
        return str(body["data"]["request_id"])

    async def upload(self, path: str, fields: dict[str, Any], files: list[tuple[str, bytes, str, str]]) -> tuple[int, Any]:
        form = aiohttp.FormData()
        for name, value in fields.items():
            form.add_field(name, str(value))
        for name, data, filename, kind in files:
            form.add_field(name, data, filename=filename, content_type=kind)
        return await self.send("POST", path, data=form)

    async def status(self, request_id: str) -> dict[str, Any]:
        status, body = await self.get(f"request-status/{request_id}")
        assert status == 200, body
        found: dict[str, Any] = body["data"]
        return found

    async def download(self, link: str, **headers: str) -> tuple[int, bytes, Any]:
        async with aiohttp.ClientSession() as bare, bare.get(URL(link, encoded=True), headers=headers) as answer:
            return answer.status, await answer.read(), answer.headers


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(seed=1, speed=float("inf")) as running:
        yield running


@pytest.fixture
async def talk(sim: Simulator) -> AsyncIterator[Talk]:
    async with open_talk(sim) as opened:
        yield opened


class open_talk:  # noqa: N801 - used like a function
    def __init__(self, sim: Simulator, **options: Any) -> None:
        headers = {"Authorization": f"Bearer {sim.key}", "Accept": "application/json"}
        self._talk = Talk(sim, aiohttp.ClientSession(headers=headers, **options))

    async def __aenter__(self) -> Talk:
        return self._talk

    async def __aexit__(self, *_: object) -> None:
        await self._talk.session.close()


def run(main: Any) -> Any:
    with asyncio.Runner(loop_factory=JumpingLoop, debug=True) as runner:
        return runner.run(main)


async def wait_until(condition: Callable[[], object]) -> None:
    """Poll until something holds; five seconds at most, of the loop's."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.005)


def make_bmp(side: int = 64) -> bytes:
    pixels = b"\x40\x80\xc0" * side * side
    return (
        b"BM"
        + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, len(pixels), 0, 0, 0, 0)
        + pixels
    )


def make_png(width: int = 64, height: int = 48) -> bytes:
    from PIL import Image  # noqa: PLC0415 - like the package, only where a picture is made

    out = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(out, "PNG")
    return out.getvalue()


def make_wav(seconds: float = 1.0) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\x00\x00" * int(8000 * seconds))
    return out.getvalue()


def make_mp4() -> bytes:
    return b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + b"\x00\x00\x00\x08free"


FILES = {
    "image": ("picture.bmp", make_bmp(), "image/bmp"),
    "images": ("picture.bmp", make_bmp(), "image/bmp"),
    "audio": ("sound.wav", make_wav(), "audio/wav"),
    "video": ("film.mp4", make_mp4(), "video/mp4"),
}
