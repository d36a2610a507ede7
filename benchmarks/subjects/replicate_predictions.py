"""replicate: create a prediction, wait for it, read its file. Its pool keeps all connections (httpx's own would keep 20)."""

import importlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any, Final

from benchmarks.subjects import Finish

VERSION: Final = "5599ed30703defd1d160a25a63321b4dec97101d98b4674bcc56e41f62f35637"


@asynccontextmanager
async def open_jobs(url: str, at_once: int, trust: SSLContext | None) -> AsyncGenerator[Finish, None]:  # noqa: ARG001  plain http only
    """Open a client that brings jobs to their end."""
    modules: Any = (importlib.import_module(name) for name in ("replicate", "replicate.helpers", "httpx"))
    replicate, helpers, httpx = modules
    transport = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once))
    client: Any = replicate.Client("benchmark", base_url=url, transport=transport)
    client.poll_interval = 0

    async def finish(number: int) -> int:
        prediction = await client.predictions.async_create(version=VERSION, input={"prompt": f"fox {number} in snow", "seed": number})
        await prediction.async_wait()
        assert prediction.status == "succeeded"
        # What async_run() makes of an output itself, but of https links only.
        return len(await helpers.FileOutput(prediction.output, client).aread())

    try:
        yield finish
    finally:
        await transport.aclose()
