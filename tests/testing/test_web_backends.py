"""The page's application as its reader starts it: a uvicorn process, a simulated service, photos over real sockets."""

import asyncio
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dryapi_async.simulator import Fault
from dryapi_async.testing import ThreadedSimulator

from ..conftest import JPEG
from ..docs.pages import DOCS, ROOT

pytestmark = pytest.mark.processes
PAGE = (DOCS / "web_backends.md").read_text()
PHOTO = JPEG + bytes(2**21)
"""Larger than what Starlette keeps in memory."""


class Visitor:
    """A browser, and the service behind the application."""

    def __init__(self, session: aiohttp.ClientSession, service: ThreadedSimulator) -> None:
        self.session = session
        self.service = service

    async def send(self, photo: bytes = PHOTO, name: str = "photo.jpg") -> tuple[int, Any]:
        # By hand: aiohttp's own forms refuse the names that a hostile visitor sends.
        said = f'--x\r\nContent-Disposition: form-data; name="photo"; filename="{name}"\r\nContent-Type: text/html\r\n\r\n'
        rest = b'\r\n--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na fox\r\n--x--\r\n'
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        async with self.session.post("/photos", data=BytesIO(said.encode() + photo + rest), headers=headers) as answer:
            return answer.status, await answer.json()

    async def look(self, ticket: str) -> tuple[int, Any]:
        async with self.session.get(f"/photos/{ticket}") as answer:
            return answer.status, await answer.json()


@contextmanager
def serve(folder: Path, service: ThreadedSimulator) -> Iterator[str]:
    """Start the page's application as the page says, with every warning an error."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    (folder / "app.py").write_text(code)
    (command,) = re.findall(r"^uvicorn (.*)$", PAGE, re.MULTILINE)
    environment = {
        "PYTHONPATH": str(ROOT),
        "PATH": os.environ.get("PATH", ""),
        "DRYAPI_BASE_URL": service.url,
        "DRYAPI_API_KEY": service.key,
    }
    line = [sys.executable, "-X", "dev", "-W", "error", "-m", "uvicorn", *command.split(), "--port", "0", "--ws", "none"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment) as process:
        assert process.stderr is not None
        said: list[str] = []
        try:
            for text in process.stderr:
                said.append(text)
                if found := re.search(r"running on (http://\S+)", text):
                    yield found[1]
                    break
            else:
                pytest.fail("".join(said))
        finally:
            process.terminate()
            said += process.stderr
        assert not re.search("Warning|Traceback|Exception", "".join(said)), "".join(said)


Part = Callable[[Visitor], Awaitable[None]]


@pytest.fixture
def visit(tmp_path: Path) -> Iterator[Callable[[Part], None]]:
    with ThreadedSimulator(pictures=False, duration=0.01) as service, serve(tmp_path, service) as url:

        @asynccontextmanager
        async def browse() -> AsyncGenerator[Visitor]:
            connector = aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver())
            async with aiohttp.ClientSession(url, connector=connector) as session:
                yield Visitor(session, service)

        async def play(part: Part) -> None:
            async with asyncio.timeout(30), browse() as visitor:
                await part(visitor)

        yield lambda part: asyncio.run(play(part))


def test_the_photo_arrives_whole_and_the_ticket_leads_to_its_job(visit: Callable[[Part], None]) -> None:
    async def part(visitor: Visitor) -> None:
        visitor.service.script("img2img", Fault.rate_limited(retry_after=0))  # read a second time, from its start
        status, ticket = await visitor.send()
        assert status == 202
        (job,) = visitor.service.jobs.values()
        assert ticket == f"img2img:{job.request_id}"
        (image,) = job.files["image"]
        assert (image.size, image.sha256, image.content_type) == (len(PHOTO), hashlib.sha256(PHOTO).hexdigest(), "image/jpeg")
        assert image.name == "photo.jpg"
        while (now := await visitor.look(ticket))[1]["state"] != "done":
            assert now[0] == 200
        async with aiohttp.ClientSession() as bare, bare.get(now[1]["url"]) as answer:
            assert answer.status == 200
        assert visitor.service.jobs_billed == 1

    visit(part)


def test_each_error_has_its_status(visit: Callable[[Part], None]) -> None:
    async def part(visitor: Visitor) -> None:
        service = visitor.service
        for ticket in ("nonsense", "txt2img:1f0c", "img2img:1f0c"):
            assert (await visitor.look(ticket))[0] == 404
        assert (await visitor.send(b""))[0] == 422
        assert (await visitor.send(name="fox\u200b.jpg"))[0] == 422
        for fault, status, words in (
            (Fault.status(422, {"message": "No faces."}), 422, "No faces."),
            (Fault.too_large(), 422, "413"),
            (Fault.unauthorized(), 502, "doesn't answer"),
            (Fault.not_found(), 502, "doesn't answer"),
        ):
            service.script("img2img", fault)
            found, said = await visitor.send()
            assert (found, words in said["detail"]) == (status, True), said
        service.run(setattr, service, "balance", 0)
        found, said = await visitor.send()
        assert (found, "later" in said["detail"]) == (503, True), said
        service.run(setattr, service, "balance", 100)
        assert service.jobs_billed == 0
        service.script("img2img", Fault.reset("after_body"))
        found, said = await visitor.send()
        assert (found, "don't send it again" in said["detail"], service.jobs_billed) == (502, True, 1)
        service.script("img2img", Fault.rate_limited("daily"))
        found, said = await visitor.send()
        assert (found, "later" in said["detail"]) == (503, True), said
        assert service.scripted == []

    visit(part)
