"""aiohttp's request, with what a payment needs: where it leads is looked at before a byte leaves, and JSON leaves with its headers."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, Final, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from dryapi_async.io.body import TextBody
from dryapi_async.io.guard import AddressGuard

GO_AHEAD_SECONDS: Final = 1.0
"""An upload that asked first and got no answer is sent after so long: many servers and proxies don't know the question."""


def request_class(guard: AddressGuard) -> type[aiohttp.ClientRequest]:
    """Make aiohttp's request class that looks at the address connected to, before a byte of the request leaves.

    That holds whoever looked the name up, so also for a user's own connector. Through a proxy the address is the proxy's,
    which the user chose; a connection without an address (a Unix socket) is the user's choice, too.
    """

    class Request(aiohttp.ClientRequest):
        def send(self, conn: Connection) -> Coroutine[Any, Any, aiohttp.ClientResponse]:  # pyright: ignore[reportIncompatibleMethodOverride]  what async def gives
            host, protocol, transport = self.url.host or "", conn.protocol, conn.transport
            if host not in guard.known and self.proxy is None and transport is not None:
                peer: object = transport.get_extra_info("peername")
                if isinstance(peer, tuple):
                    guard.judge(host, str(cast("tuple[object, ...]", peer)[0]))
            body: object = getattr(self, "_body", None)
            asked: asyncio.Future[bool] | None = getattr(self, "_continue", None)
            if asked is not None:
                return _ask_first(super().send(conn), asked)
            if (
                not isinstance(body, TextBody)
                or body.is_long
                or getattr(self, "_traces", True)
                or protocol is None
                or transport is None
                or protocol.writing_paused
            ):
                return super().send(conn)
            # aiohttp is told of its headers alone.
            self._body = None
            return _send_with_headers(super().send(conn), body, protocol, transport)

    return Request


async def _send_with_headers(
    sending: Awaitable[aiohttp.ClientResponse], body: TextBody, protocol: ResponseHandler, transport: asyncio.Transport
) -> aiohttp.ClientResponse:
    """Send a request and its body by one write, in a step in which nothing waits and so nothing can be cut off.

    aiohttp writes a body in a task, which before Python 3.12 begins a turn of the loop later.
    """
    cork = _Cork(transport)
    protocol.transport = standing_in = cast("asyncio.Transport", cork)
    try:
        response = await sending
    finally:
        if protocol.transport is standing_in:
            protocol.transport = transport
    body.leave(transport, cork.held)
    return response


class _Cork:
    """A transport that keeps what is written, until there is more."""

    __slots__ = ("_transport", "held")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self.held += data


async def _ask_first(sending: Awaitable[aiohttp.ClientResponse], asked: asyncio.Future[bool]) -> aiohttp.ClientResponse:
    """Send, but don't wait for ever for leave to (RFC 9110, 10.1.1). aiohttp would; its read time-out begins after the body."""
    response = await sending
    asyncio.get_running_loop().call_later(GO_AHEAD_SECONDS, _go_ahead, asked)
    return response


def _go_ahead(asked: asyncio.Future[bool]) -> None:
    if not asked.done():
        asked.set_result(True)
