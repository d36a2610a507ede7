"""openai, by its API of jobs: create a video, poll it, download its content. Its pool takes 1,000 connections and keeps 100."""

import importlib
import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

from benchmarks.subjects import Finish


@asynccontextmanager
async def open_jobs(url: str, at_once: int, trust: SSLContext | None) -> AsyncGenerator[Finish, None]:  # noqa: ARG001  its pool is wide enough; plain http only
    """Open a client that brings jobs to their end."""
    warnings.simplefilter("ignore", DeprecationWarning)  # the hosted model goes, the API of jobs is what is measured
    openai: Any = importlib.import_module("openai")
    async with openai.AsyncOpenAI(api_key="benchmark", base_url=f"{url}/v1") as client:

        async def finish(number: int) -> int:
            video = await client.videos.create(model="sora-2", prompt=f"fox {number} in snow", seconds="4", size="720x1280")
            video = await client.videos.poll(video.id, poll_interval_ms=0)
            assert video.status == "completed"
            return len((await client.videos.download_content(video.id)).content)

        yield finish
