"""A loop written by hand: one aiohttp session, its own form, nothing checked but the status."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from ssl import SSLContext

import aiohttp
from yarl import URL

from benchmarks.subjects import Finish, Upload


@asynccontextmanager
async def open_uploads(url: str, at_once: int) -> AsyncGenerator[Upload, None]:  # noqa: ARG001  who calls holds to it; a session takes 100
    """Open a session that submits jobs with files."""
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer benchmark"}) as session:

        async def upload(path: Path) -> str:
            with path.open("rb") as file:
                form = aiohttp.FormData({"prompt": "the same, at night", "model": "QwenImageEdit_Plus_NF4", "steps": "20", "seed": "42"})
                form.add_field("image", file, filename=path.name, content_type="image/png")
                async with session.post(f"{url}/api/v1/client/img2img", data=form) as response:
                    response.raise_for_status()
                    return str((await response.json())["data"]["request_id"])

        yield upload


@asynccontextmanager
async def open_jobs(url: str, at_once: int, trust: SSLContext | None) -> AsyncGenerator[Finish, None]:  # noqa: ARG001  as above
    """Open a session that brings jobs to their end; the key stays with the API, and a signed link isn't encoded anew."""
    headers = {"Authorization": "Bearer benchmark", "Accept": "application/json"}
    connector = aiohttp.TCPConnector() if trust is None else aiohttp.TCPConnector(ssl=trust)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def finish(number: int) -> int:
            fields = {
                "prompt": f"fox {number} in snow",
                "model": "Flux1schnell",
                "width": 512,
                "height": 512,
                "steps": 4,
                "guidance": 3.5,
                "seed": number,
            }
            async with session.post(f"{url}/api/v1/client/txt2img", json=fields, headers=headers) as response:
                response.raise_for_status()
                request_id = (await response.json())["data"]["request_id"]
            while True:
                async with session.get(f"{url}/api/v1/client/request-status/{request_id}", headers=headers) as response:
                    response.raise_for_status()
                    status = (await response.json())["data"]
                if status["status"] == "done":
                    break
                await asyncio.sleep(0)
            async with session.get(URL(status["result_url"], encoded=True)) as response:
                response.raise_for_status()
                return len(await response.read())

        yield finish
