"""This client, used as its documentation says."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.subjects import Upload
from dryapi_async import Client


@asynccontextmanager
async def open_uploads(url: str, at_once: int) -> AsyncGenerator[Upload, None]:
    """Open a client that submits jobs with files."""
    async with Client("benchmark", base_url=url, max_in_flight=at_once) as client:

        async def upload(path: Path) -> str:
            job = await client.img2img(prompt="the same, at night", model="QwenImageEdit_Plus_NF4", steps=20, seed=42, image=path)
            return job.id

        yield upload
