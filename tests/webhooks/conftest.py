"""Web applications that receive deliveries: each a real server on a free port, in the test's own loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import uvicorn
from aiohttp import web
from attrs import evolve
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from dryapi_async.tracking.deliveries import Deliveries
from dryapi_async.webhooks import Receiver, WebhookEvent, verify
from dryapi_async.webhooks import aiohttp as for_aiohttp
from dryapi_async.webhooks import starlette as for_starlette

Serve = Callable[..., AbstractAsyncContextManager[str]]


class Desk:
    """Takes deliveries as a client does: verifies, hands over, remembers."""

    def __init__(self, now: Callable[[], float], secrets: str | list[str] = "whsec_simulator") -> None:
        self.now = now
        self.secrets = secrets
        self.events: list[WebhookEvent] = []
        self.keys: list[str | None] = []
        self.error: Exception | None = None
        self._known = Deliveries()

    async def deliver(self, headers: Mapping[str, str], body: bytes, *, key: str | None = None) -> WebhookEvent:
        if self.error is not None:
            raise self.error
        now = self.now()
        event = verify(headers, body, self.secrets, now)
        event = evolve(event, duplicate=self._known.seen(event, now))
        self.events.append(event)
        self.keys.append(key)
        self._known.remember(event, now)
        return event


@asynccontextmanager
async def serve_aiohttp(receiver: Receiver, *, reads_first: bool = False) -> AsyncIterator[str]:
    @web.middleware
    async def read(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        await request.read()
        return await handler(request)

    # Whatever the application allows itself: the handler has its own bound.
    app = web.Application(client_max_size=0, middlewares=[read] if reads_first else [])
    for path in ("/hook", "/hook/{key}"):
        app.router.add_post(path, for_aiohttp.handler(receiver))
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serve_starlette(receiver: Receiver, *, reads_first: bool = False) -> AsyncIterator[str]:
    receive = for_starlette.endpoint(receiver)

    async def read(request: Request) -> Any:
        await request.body()
        return await receive(request)

    routes = [Route(path, read if reads_first else receive, methods=["POST"]) for path in ("/hook", "/hook/{key}")]
    async with _uvicorn(Starlette(routes=routes)) as url:
        yield url


@asynccontextmanager
async def serve_fastapi(receiver: Receiver, *, reads_first: bool = False) -> AsyncIterator[str]:
    app = FastAPI()
    for path in ("/hook", "/hook/{key}"):
        app.add_api_route(path, for_starlette.endpoint(receiver), methods=["POST"])
    if reads_first:

        @app.middleware("http")
        async def read(request: Request, go_on: Callable[[Request], Awaitable[Any]]) -> Any:
            await request.body()
            return await go_on(request)

    async with _uvicorn(app) as url:
        yield url


@asynccontextmanager
async def _uvicorn(app: Any) -> AsyncIterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, lifespan="off", ws="none", http="h11", log_config=None))
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:  # noqa: ASYNC110  it has no event for that
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/hook"
    finally:
        server.should_exit = True
        await task


@pytest.fixture(params=[serve_aiohttp, serve_starlette, serve_fastapi], ids=["aiohttp", "starlette", "fastapi"])
def serve(request: pytest.FixtureRequest) -> Serve:
    found: Serve = request.param
    return found
