"""The web examples as they run: workers in processes of their own, the simulated service in the test's loop."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import aiohttp
import pytest

from dryapi_async.simulator import Simulator

from ..conftest import REPOSITORY, make_sim
from ..sheet.conftest import FLAGS, Page

JPEG_HEAD = b"\xff\xd8\xff\xe0\x00\x10JFIF"
END_SECONDS = 60.0
"""A test's own patience."""


@pytest.fixture(autouse=True)
def _asked_for() -> None:
    if not os.environ.get("DRYAPI_WEB_EXAMPLES"):
        pytest.skip("the web examples take minutes: set DRYAPI_WEB_EXAMPLES=1")
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def running(*command: str, port: int, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a process of its own, from when it answers; it ends with the block, and all that it started."""
    process = subprocess.Popen(
        (sys.executable, *command), cwd=REPOSITORY, env={**os.environ, **(environment or {})}, start_new_session=True
    )
    try:
        wait_for(port, process)
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(END_SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + END_SECONDS
    while True:
        assert process.poll() is None, "the server ended"
        try:
            with urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                assert answer.status == 200
                return
        except OSError:
            assert time.monotonic() < end, "the server doesn't answer"
            time.sleep(0.05)


def point_to(sim: Simulator, folder: Path, port: int, *, push: bool = True, **more: str) -> dict[str, str]:
    """Make the environment that leads an example to a simulator."""
    found = {
        "DRYAPI_BASE_URL": sim.url,
        "DRYAPI_API_KEY": sim.key,
        "DRYAPI_WEBHOOK_SECRET": "whsec_simulator",
        "PHOTO_FOLDER": str(folder),
        "PHOTO_PUBLIC_URL": f"http://127.0.0.1:{port}",
        **more,
    }
    return {**found, "DRYAPI_CLIENT_ID": sim.client_id} if push else found


def uvicorn_command(port: int, workers: int) -> tuple[str, ...]:
    factory = ("examples.fastapi_app.app:create_app", "--factory")
    return (
        "-m",
        "uvicorn",
        *factory,
        "--port",
        str(port),
        "--workers",
        str(workers),
        "--log-level",
        "warning",
        "--timeout-graceful-shutdown",
        "2",
    )


@asynccontextmanager
async def fastapi_workers(
    folder: Path, *, workers: int = 4, push: bool = True, **options: Any
) -> AsyncIterator[tuple[Simulator, "Visitor", int]]:
    """Serve the FastAPI example; gives the simulator, a visitor, and the master's process id."""
    environment = options.pop("environment", {})
    async with make_sim(**{"result_size": 20_000, **options}) as sim:
        port = free_port()
        with_service = {**point_to(sim, folder, port, push=push), **environment}
        serving = running(*uvicorn_command(port, workers), port=port, environment=with_service)
        process = await asyncio.to_thread(serving.__enter__)
        try:
            async with visiting(port) as visitor:
                yield sim, visitor, process.pid
        finally:
            # In a thread: what the workers still ask of the service at their end must be answered by this loop.
            await asyncio.to_thread(serving.__exit__, None, None, None)


@asynccontextmanager
async def visiting(port: int) -> AsyncIterator["Visitor"]:
    connector = aiohttp.TCPConnector(limit=0, force_close=True)  # each request goes to whichever worker takes it
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector) as session:
        yield Visitor(session)


class Visitor:
    """What a browser does, without one."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def send(self, prompt: str, body: Any, **headers: str) -> tuple[int, Any]:
        async with self.session.post(
            "/photos", params={"prompt": prompt}, data=body, headers={"Content-Type": "image/jpeg", **headers}
        ) as answer:
            return answer.status, await answer.json()

    async def follow(self, photo_id: str) -> list[dict[str, Any]]:
        """Listen to a photo's news to its end; where the worker dies, go on at the next one."""
        news: list[dict[str, Any]] = []
        async with asyncio.timeout(END_SECONDS):
            while True:
                try:
                    async with self.session.get(f"/photos/{photo_id}/events") as answer:
                        assert answer.content_type == "text/event-stream"
                        async for line in answer.content:
                            if line.startswith(b"data: "):
                                news.append(json.loads(line[6:]))  # noqa: PERF401  what came before a cut was seen
                except (aiohttp.ClientError, ConnectionError):
                    await asyncio.sleep(0.2)
                if news and news[-1]["state"] in {"done", "failed", "unknown"}:
                    return news

    async def fetch(self, photo_id: str, what: str = "picture") -> bytes:
        async with self.session.get(f"/photos/{photo_id}/{what}") as answer:
            assert answer.status == 200, await answer.text()
            return await answer.read()


def result_of(sim: Simulator, prompt: str) -> bytes:
    """Give the simulator's own bytes for the request with a prompt; there must be one only."""
    (job,) = [job for job in sim.jobs.values() if job.fields["prompt"] == prompt]
    (blob,) = [blob for name, blob in job.blobs.items() if name.endswith(".png")]
    return bytes(blob.read(0, blob.size))


def children_of(pid: int) -> list[int]:
    """List a master's workers."""
    found = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [one for one in found if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Start a browser as for the contact sheet, but that it may look at this machine's own servers."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="Chromium is driven by selenium, which isn't installed")
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415  after the line that skips

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("Chromium isn't installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(f"--{flag}, EXCLUDE 127.0.0.1" if flag.startswith("host-resolver-rules") else f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = Service(driver, log_output=subprocess.DEVNULL, env={**os.environ, "SE_OFFLINE": "true"})
    running_browser = webdriver.Chrome(options=options, service=service)
    try:
        yield Page(running_browser)
    finally:
        running_browser.quit()
