"""aiohttp's request, with what a payment needs: where it leads is looked at before a byte leaves, and leave to send isn't waited for."""

import asyncio
from types import SimpleNamespace
from typing import Final

import aiohttp
from aiohttp.connector import Connection

from dryapi_async.io.body import Body
from dryapi_async.io.guard import AddressGuard

GO_AHEAD_SECONDS: Final = 1.0
"""An upload that asked first and got no answer is sent after so long: many servers and proxies don't know the question."""


def request_class(guard: AddressGuard) -> type[aiohttp.ClientRequest]:
    """Make aiohttp's request class that looks at the address connected to, before a byte of the request leaves.

    That holds whoever looked the name up, so also for a user's own connector. Through a proxy the address is the proxy's,
    which the user chose.
    """

    class Request(aiohttp.ClientRequest):
        async def send(self, conn: Connection) -> aiohttp.ClientResponse:
            if self.proxy is None and conn.transport is not None:
                guard.judge_peer(self.url.host or "", conn.transport)
            response = await super().send(conn)
            asked: asyncio.Future[bool] | None = getattr(self, "_continue", None)
            if asked is not None:
                # aiohttp would wait for ever (RFC 9110, 10.1.1, says not to); its read time-out begins after the body.
                asyncio.get_running_loop().call_later(GO_AHEAD_SECONDS, _go_ahead, asked)
            return response

    return Request


def _go_ahead(asked: asyncio.Future[bool]) -> None:
    if not asked.done():
        asked.set_result(True)


def watch_headers() -> aiohttp.TraceConfig:
    """Let a body know that its headers left: asked with Expect, they do long before it is written."""
    watch = aiohttp.TraceConfig()

    async def note(_: aiohttp.ClientSession, request: SimpleNamespace, __: aiohttp.TraceRequestHeadersSentParams) -> None:
        if isinstance(request.trace_request_ctx, Body):
            request.trace_request_ctx.sent = True

    watch.on_request_headers_sent.append(note)
    return watch
