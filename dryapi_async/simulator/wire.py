"""Put answers on the wire: as they should be, or as a fault wants them."""

from __future__ import annotations

import asyncio
import socket
import struct
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web
from multidict import CIMultiDict

from dryapi_async.simulator.errors import CHUNK, Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.abc import AbstractStreamWriter

    from dryapi_async.simulator.faults import Fault

_LINGER_SECONDS = 5.0
# Long enough for what was written to be read before an RST overtakes it.
_SETTLE_SECONDS = 0.005
_NOT_HTTP = b"\x16\x03\x01 this is not HTTP \xff\xfe\r\n\r\n"
_BROKEN_HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type application/json\r\n\x00\xff: \x00\r\n\r\n"
_BROKEN_JSON = b'{"data": {"request_id": "\xff\xfe\x00'
_EMPTY_STATUSES = frozenset({204, 304})


class Severed(web.StreamResponse):
    """Stands for an answer where the connection was dealt with by hand."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """End the connection's handling."""
        del request
        raise ConnectionResetError("the simulator ended this connection")


class Connections(web.Server):
    """The server side of one port: counts its connections and tells when one is lost."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], *, keepalive_timeout: float) -> None:
        # No access log, no decompression by surprise; lines as long as proxies take them.
        super().__init__(handler, keepalive_timeout=keepalive_timeout, access_log=None, max_line_size=65_536, max_field_size=65_536)
        self.total: int = 0
        self.peak: int = 0
        self.open: dict[web.RequestHandler, asyncio.Transport] = {}
        self.requests: dict[web.RequestHandler, int] = {}
        self._watched: dict[web.RequestHandler, asyncio.Future[None]] = {}

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Count a new connection."""
        super().connection_made(handler, transport)
        self.total += 1
        self.open[handler] = transport
        self.requests[handler] = 0
        self.peak = max(self.peak, len(self.open))

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Forget a connection and wake who waits for its end."""
        super().connection_lost(handler, exc)
        self.open.pop(handler, None)
        self.requests.pop(handler, None)
        if (watcher := self._watched.pop(handler, None)) is not None and not watcher.done():
            watcher.set_result(None)

    def count(self, handler: web.RequestHandler) -> int:
        """Count a request on its connection."""
        number = self.requests.get(handler, 0) + 1
        self.requests[handler] = number
        return number

    async def wait_lost(self, handler: web.RequestHandler) -> None:
        """Wait until the connection is gone."""
        if handler not in self.open:
            return
        if handler not in self._watched:
            self._watched[handler] = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._watched[handler])

    def abort(self) -> None:
        """Cut all connections."""
        for transport in list(self.open.values()):
            transport.abort()


def write_head(answer: Answer, date: str) -> bytes:
    """Write status line and headers by hand."""
    try:
        reason = HTTPStatus(answer.status).phrase
    except ValueError:
        reason = ""
    headers = {
        "Content-Type": answer.content_type,
        "Content-Length": str(answer.size),
        "Date": date,
        "Connection": "close",
        **answer.headers,
    }
    lines = [f"HTTP/1.1 {answer.status} {reason}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode()


async def send(request: web.BaseRequest, answer: Answer, date: str, *, close: bool = False) -> web.StreamResponse:
    """Answer properly; large files go out in chunks."""
    headers = CIMultiDict(answer.headers)
    headers["Date"] = date
    headers["Server"] = "dryapi-simulator"
    headers["Content-Type"] = answer.content_type
    if answer.size <= CHUNK or answer.status in _EMPTY_STATUSES:
        body = answer.body if answer.blob is None else b"".join(answer.pieces())
        response: web.StreamResponse = web.Response(status=answer.status, body=body, headers=headers)
        if close:
            response.force_close()
        return response
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.content_length = answer.size
    if close:
        response.force_close()
    await response.prepare(request)
    if request.method != "HEAD":
        for piece in answer.pieces():
            await response.write(piece)
    await response.write_eof()
    return response


class Saboteur:
    """Says the wrong thing on one connection."""

    def __init__(self, request: web.BaseRequest, connections: Connections, date: str) -> None:
        self._request = request
        self._connections = connections
        self._date = date

    async def strike_early(self, fault: Fault) -> web.StreamResponse:
        """Misbehave before the request is handled: nothing was read, or half of it."""
        if fault.phase == "mid_body":
            await self._read_half()
        made_up = Answer(200, b'{"data":{"request_id":"00000000-0000-4000-8000-000000000000"}}')
        if fault.kind == "truncate":
            self._write(write_head(made_up, self._date) + made_up.body[: made_up.size // 2])
        elif fault.kind == "garbage":
            self._write(_NOT_HTTP)
        return await self._end(fault)

    async def strike(self, fault: Fault, answer: Answer) -> web.StreamResponse:
        """Misbehave with the answer at hand: the request was handled."""
        head = write_head(answer, self._date)
        if fault.kind == "garbage":
            broken = Answer(200, _BROKEN_JSON)
            wrong = {"headers": _BROKEN_HEADERS, "payload": write_head(broken, self._date) + broken.body}
            self._write(wrong.get(fault.phase, _NOT_HTTP))
        elif fault.phase == "headers":
            self._write(head[: len(head) // 2])
        elif fault.phase == "payload" or fault.kind == "truncate":
            self._write(head)
            # At least a byte is missing, however small the payload.
            stop = min(int(answer.size * fault.at), answer.size - 1)
            for piece in answer.pieces(0, max(stop, 0)):
                self._write(piece)
                await self._drain()
        return await self._end(fault)

    async def trickle(self, fault: Fault, answer: Answer, pause: Callable[[float], Awaitable[None]]) -> web.StreamResponse:
        """Send the payload at so many bytes a second, ten pieces a second or one byte at a time."""
        self._write(write_head(answer, self._date))
        piece_size = max(1, int(fault.bytes_per_second / 10))
        for piece in answer.pieces(chunk=piece_size):
            if self._gone():
                break
            await pause(len(piece) / fault.bytes_per_second)
            self._write(piece)
        self._close()
        return Severed()

    async def cut_short(self, answer: Answer) -> web.StreamResponse:
        """Answer without reading the body and close at once."""
        self._write(write_head(answer, self._date) + answer.body)
        self._close()
        return Severed()

    async def _end(self, fault: Fault) -> web.StreamResponse:
        if fault.kind == "reset":
            await asyncio.sleep(_SETTLE_SECONDS)
            self._reset()
        elif fault.kind == "hang":
            await self._hang(fault.seconds)
            self._close()
        else:
            await self._finish()
        return Severed()

    def _gone(self) -> bool:
        transport = self._request.transport
        return transport is None or transport.is_closing()

    def _write(self, data: bytes) -> None:
        transport = self._request.transport
        if transport is not None and not transport.is_closing():
            transport.write(data)

    async def _drain(self) -> None:
        transport = self._request.transport
        # A transport has no event for "the other side reads again" outside its protocol.
        while transport is not None and not transport.is_closing() and transport.get_write_buffer_size() > CHUNK:  # noqa: ASYNC110
            await asyncio.sleep(_SETTLE_SECONDS)

    def _close(self) -> None:
        if (transport := self._request.transport) is not None:
            transport.close()

    def _reset(self) -> None:
        transport = self._request.transport
        if transport is None:
            return
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    async def _hang(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(None if seconds == float("inf") else seconds):
                await self._connections.wait_lost(self._request.protocol)
        except TimeoutError:
            pass

    async def _finish(self) -> None:
        """Close with FIN. Bytes that came and weren't read would make the kernel send RST, so they are read."""
        transport = self._request.transport
        if transport is None:
            return
        content = self._request.content
        if not content.is_eof() and transport.can_write_eof():
            transport.write_eof()
            try:
                async with asyncio.timeout(_LINGER_SECONDS):
                    while await content.readany():
                        pass
                    await self._connections.wait_lost(self._request.protocol)
            except (TimeoutError, ConnectionError, web.RequestPayloadError):
                pass
        self._close()

    async def _read_half(self) -> None:
        content = self._request.content
        half = (self._request.content_length or 0) // 2
        size = 0
        while size < half and (data := await content.readany()):
            size += len(data)
