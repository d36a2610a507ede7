"""Bodies of requests, as they watch themselves: whether a byte of the request may have left, and whether all did."""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from aiohttp import Payload
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_writer import StreamWriter

from dryapi_async.errors import DryAPIError

LONG_TEXT: Final = 64 * 1024
"""Bytes: a socket may not take more at once, and then what it takes is waited for."""

TURN_BYTES: Final = 128 * 1024
"""Sent by one upload before others have their turn, for a socket that takes all never makes it wait; and the buffer that a plain file goes
through, which stays in the processor's cache."""

SECURE_TURN_BYTES: Final = 80 * 1024
"""The same over TLS, five records: encrypting takes the loop's time, and what is encrypted is kept until it is sent. With 128 KiB sixteen
uploads at once stall it a fifth longer and keep a quarter more."""

Progress = Callable[[int, int], None]
"""Told the bytes sent so far, and all there are."""


class Body(Payload):
    """A body that watches itself: ``sent`` is whether a byte of the request may have left, ``whole`` whether all did."""

    _autoclose = True

    def __init__(self, content_type: str, size: int, *, idle: float | None, progress: Progress | None = None) -> None:
        super().__init__(None, content_type=content_type)
        self._size = self._length = size
        self._idle = idle
        self._progress = progress
        self._turn_bytes = TURN_BYTES
        self.bytes_sent: int = 0
        """How much of it was handed to the socket."""
        self.sent: bool = False
        self.revoked: bool = False
        self.whole: bool = False
        self.error: DryAPIError | None = None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002  the base class's signature
        """Refuse: a body is streamed, never shown."""
        raise TypeError("A streamed body isn't text.")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send the body; aiohttp calls this where it has no length to give."""
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:  # noqa: ARG002  it is our own size
        """Send the body, noting when the first byte of the request leaves."""
        stream = cast("StreamWriter", writer)
        self.sent = stream.output_size > 0
        if self.revoked and not self.sent:
            # aiohttp's writer may run before the cancellation of the submit that it belongs to reaches it.
            raise asyncio.CancelledError
        if stream.transport is not None and stream.transport.get_extra_info("sslcontext") is not None:
            self._turn_bytes = SECURE_TURN_BYTES
        try:
            await self._send(stream)
        except DryAPIError as error:
            self.error = error
            raise
        self._end()

    def _begin(self) -> None:
        """Note that its first byte may leave now."""
        self.sent = True

    def _end(self) -> None:
        """Note that all of it was handed to the socket."""
        self.whole, self.bytes_sent = True, self._length

    async def _send(self, stream: StreamWriter) -> None:
        raise TypeError(f"A body sends something to {stream!r}.")

    async def _put(self, stream: StreamWriter, piece: bytes | memoryview) -> None:
        """Hand a piece to the socket, whatever its size and wherever it is from, in turns: others of the loop's get theirs in between."""
        view = memoryview(piece)
        for start in range(0, len(view), self._turn_bytes):
            await self._put_turn(stream, view[start : start + self._turn_bytes])

    async def _put_turn(self, stream: StreamWriter, piece: memoryview) -> None:
        """Hand over what the socket takes at once, and wait until it takes more; a peer that takes nothing for the idle time ends it."""
        # The write itself fails only where the transport is closed already, with nothing sent; waiting can fail after bytes have left.
        await stream.write(piece, drain=False)
        self._begin()
        stream.buffer_size = 0
        if stream.protocol.writing_paused:
            async with asyncio.timeout(self._idle):
                await stream.drain()
        turn, self.bytes_sent = self.bytes_sent // self._turn_bytes, self.bytes_sent + len(piece)
        if self._progress is not None:
            self._progress(self.bytes_sent, self._length)
        if self.bytes_sent // self._turn_bytes > turn:
            await asyncio.sleep(0)


class TextBody(Body):
    """A body that is in memory: JSON."""

    def __init__(self, content: bytes, *, idle: float | None) -> None:
        super().__init__("application/json", len(content), idle=idle)
        self._content = content

    @property
    def is_long(self) -> bool:
        """Whether a socket may not take it at once."""
        return len(self._content) > LONG_TEXT

    async def _send(self, stream: StreamWriter) -> None:
        await self._put(stream, self._content)

    def leave(self, transport: asyncio.WriteTransport, head: str) -> None:
        """Send it whole behind its request's head, by one write in which nothing can be cut off; the socket isn't waited for."""
        if self.revoked:
            raise asyncio.CancelledError
        self._begin()
        transport.write(f"{head}Content-Length: {self._length}\r\nContent-Type: {self.content_type}\r\n\r\n".encode() + self._content)
        self._end()
