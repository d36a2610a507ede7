"""A loop written by hand: one aiohttp session, its own form, nothing checked but the status."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from benchmarks.subjects import Upload


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
