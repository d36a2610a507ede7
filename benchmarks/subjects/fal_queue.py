"""fal-client: submit to the queue, get the result (a status read and a read of the answer), fetch its file with httpx."""

import importlib
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

from benchmarks.subjects import Finish


@asynccontextmanager
async def open_jobs(url: str, at_once: int, trust: SSLContext | None) -> AsyncGenerator[Finish, None]:  # noqa: ARG001  its pool can't be set; plain http only
    """Open a client that brings jobs to their end."""
    scheme, _, host = url.partition("://")
    os.environ["FAL_QUEUE_RUN_HOST"] = host  # read when it is imported
    fal: Any = importlib.import_module("fal_client.client")
    httpx: Any = importlib.import_module("httpx")
    fal.QUEUE_URL_FORMAT = fal.QUEUE_URL_FORMAT.replace("https", scheme)  # it knows no other scheme
    client = fal.AsyncClient(key="benchmark")
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    async with httpx.AsyncClient(limits=limits) as storage:

        async def finish(number: int) -> int:
            handle = await client.submit("fal-ai/flux/schnell", {"prompt": f"fox {number} in snow", "seed": number})
            result = await handle.get(interval=0)
            response = await storage.get(result["images"][0]["url"])
            response.raise_for_status()
            return len(response.content)

        try:
            yield finish
        finally:
            await (await client._client).aclose()  # noqa: SLF001  it has no other way to be closed
