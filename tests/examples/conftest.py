"""The web examples as they run: workers in processes of their own, the simulated service in the test's loop."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any
from urllib.request import urlopen

import aiohttp
import pytest
from attrs import frozen

from dryapi_async.simulator import Simulator

from ..conftest import REPOSITORY, make_sim
from ..shared.servers import free_port
from ..sheet.conftest import Page, open_browser

JPEG_HEAD = b"\xff\xd8\xff\xe0\x00\x10JFIF"
END_SECONDS = 60.0
"""A test's own patience."""


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the machine's own settings of the examples out of the tests."""
    for name in list(os.environ):
        if name == "REDIS_URL" or name.startswith("PHOTO_"):
            monkeypatch.delenv(name)


@frozen(eq=False)
class Serving:
    """A server in a process of its own, and what it says."""

    process: subprocess.Popen[bytes]
    output: IO[bytes]

    def read(self) -> str:
        """Give all that it said, and its workers too."""
        self.output.seek(0)
        return self.output.read().decode(errors="replace")

    def wait_for(self, port: int) -> None:
        """Wait until it answers."""
        end = time.monotonic() + END_SECONDS
        while True:
            status = self.process.poll()
            assert status is None, f"the server ended with status {status}, and said:\n{self.read()}"
            try:
                with urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                    assert answer.status == 200
                    return
            except OSError:
                assert time.monotonic() < end, f"the server doesn't answer; it said:\n{self.read()}"
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it as Ctrl-C does, and all that it started."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(END_SECONDS)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


@contextmanager
def running(*command: str, port: int, environment: dict[str, str] | None = None) -> Iterator[Serving]:
    """Run a server in a process of its own, from when it answers; it ends with the block. What it said is shown with a test that fails."""
    with TemporaryFile() as output:
        process = subprocess.Popen(
            (sys.executable, *command),
            cwd=REPOSITORY,
            env={**os.environ, **(environment or {})},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        serving = Serving(process, output)
        try:
            serving.wait_for(port)
            yield serving
        finally:
            try:
                serving.stop()
            finally:
                sys.stderr.write(serving.read())


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
        serving_it = running_beside(*uvicorn_command(port, workers), port=port, environment=with_service)
        async with serving_it as serving, visiting(port) as visitor:
            yield sim, visitor, serving.process.pid


@asynccontextmanager
async def running_beside(*command: str, port: int, environment: dict[str, str]) -> AsyncIterator[Serving]:
    """Run a server that asks this loop: it starts and ends while the loop goes on."""
    serving = running(*command, port=port, environment=environment)
    running_server = await asyncio.to_thread(serving.__enter__)
    try:
        yield running_server
    finally:
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
                                news.append({**json.loads(line[6:]), "heard_at": time.monotonic()})  # noqa: PERF401  what came before a cut was seen
                except (aiohttp.ClientError, ConnectionError):
                    await asyncio.sleep(0.2)
                if news and news[-1]["state"] in {"done", "failed", "unknown"}:
                    return news

    async def fetch(self, photo_id: str, what: str = "picture") -> bytes:
        async with self.session.get(f"/photos/{photo_id}/{what}") as answer:
            assert answer.status == 200, await answer.text()
            return await answer.read()


def make_photo(name: str) -> bytes:
    return JPEG_HEAD + name.encode() * 1000


async def redraw(visitor: Visitor, name: str) -> tuple[str, str, str]:
    """Send one photo, again where the worker died over it, and follow it; give its prompt, id and last state."""
    attempt = 0
    while True:
        attempt += 1
        prompt = f"{name}, attempt {attempt}"
        try:
            status, photo = await visitor.send(prompt, make_photo(name))
        except (aiohttp.ClientError, ConnectionError):
            await asyncio.sleep(0.2)
            continue
        assert status == 201, photo
        news = await visitor.follow(photo["id"])
        return prompt, photo["id"], news[-1]["state"]


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
    with open_browser(tmp_path_factory.mktemp("profile"), own_servers=True) as page:
        yield page
