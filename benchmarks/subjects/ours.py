"""This client, used as its documentation says."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from ssl import SSLContext

from benchmarks.subjects import Finish, Upload
from dryapi_async import Client, Limits, Txt2Img


@asynccontextmanager
async def open_uploads(url: str, at_once: int) -> AsyncGenerator[Upload, None]:
    """Open a client that submits jobs with files."""
    async with Client("benchmark", base_url=url, max_in_flight=at_once) as client:

        async def upload(path: Path) -> str:
            job = await client.img2img(prompt="the same, at night", model="QwenImageEdit_Plus_NF4", steps=20, seed=42, image=path)
            return job.id

        yield upload


@asynccontextmanager
async def open_jobs(url: str, at_once: int, trust: SSLContext | None) -> AsyncGenerator[Finish, None]:
    """Open a client that brings jobs to their end."""
    async with Client("benchmark", base_url=url, limits=Limits.none(), max_in_flight=at_once, ssl=trust) as client:

        async def finish(number: int) -> int:
            job = await client.call(
                Txt2Img(prompt=f"fox {number} in snow", model="Flux1schnell", width=512, height=512, steps=4, guidance=3.5, seed=number)
            )
            image = await job.result(poll=0)
            return len(await image.read())

        yield finish
