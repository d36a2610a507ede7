"""aiohttp's connector, with what a connection costs for each request made smaller: one idle timer, and smaller reads."""

import asyncio
from functools import partial
from math import inf
from typing import Any, Final

from aiohttp import ClientResponse, TCPConnector
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler

SMALL_READ: Final = 64 * 1024
"""Bytes taken from a socket at once, where little comes. asyncio makes room for 256 KiB before each read, which the C library asks of the
kernel anew and gives back at once, its pages with it: a twentieth of what a job costs. So much comes out of memory that is there."""
LARGE_READ: Final = 256 * 1024
"""Bytes, where much comes: a large file costs a third less with it."""

LARGEST_READ: Final = 512 * 1024
"""Bytes: more than any loop makes room for before a read."""


class PatientHandler(ResponseHandler):
    """A connection whose ``sock_read`` time-out is looked at when it would be over, not set anew with each piece that comes.

    aiohttp's own sets a timer where a request has left and at each piece of its answer, and cancels it: a tenth of what a job costs.
    Where the insides of aiohttp and asyncio change their names, nothing here is called and their own timers and sizes serve.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._silent_since = inf
        """Loop time from which something is waited for; infinity is while nothing is."""
        self._look_at = inf
        self._look_later: asyncio.TimerHandle | None = None
        self._reader: Any = None
        """What has the size of a read: asyncio's transport. uvloop's has none, it reads into one buffer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with small reads."""
        super().connection_made(transport)
        reader: Any = getattr(transport, "_ssl_protocol", transport)
        if hasattr(reader, "max_size"):
            self._reader, reader.max_size = reader, SMALL_READ

    def expect_much(self) -> None:
        """Take what comes in large reads from now on."""
        if self._reader is not None:
            self._reader.max_size = LARGE_READ

    def _reschedule_timeout(self) -> None:
        """Begin to wait anew: a request has left, or a piece of an answer has come."""
        seconds = self._read_timeout
        if not seconds:
            self._silent_since = inf
            return
        self._silent_since = since = self._loop.time()
        if since + seconds < self._look_at:
            # None is planned; or another account's requests on the same connection wait shorter.
            self._plan(since + seconds)

    def _plan(self, at: float) -> None:
        if self._look_later is not None:
            self._look_later.cancel()
        self._look_at, self._look_later = at, self._loop.call_at(at, self._look)

    def _drop_timeout(self) -> None:
        """Wait for nothing: an answer has come whole, or its reader has to read first."""
        self._silent_since = inf

    def _look(self) -> None:
        self._look_at, self._look_later = inf, None
        over_at = self._silent_since + (self._read_timeout or inf)
        if over_at <= self._loop.time():
            self._on_read_timeout()
        elif over_at < inf:
            self._plan(over_at)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Leave no timer behind."""
        if self._look_later is not None:
            self._look_later.cancel()
            self._look_at, self._look_later = inf, None
        super().connection_lost(exc)


def expect(response: ClientResponse, size: int | None) -> None:
    """Make room for a file of some size, or of an unknown one, whose first bytes are here: large files come that way, and others will."""
    if size is None or size > SMALL_READ:
        handler = None if response.connection is None else response.connection.protocol
        if isinstance(handler, PatientHandler):
            handler.expect_much()


class Connector(TCPConnector):
    """A pool of such connections."""

    def __init__(self, *, limit: int, keepalive_timeout: float, resolver: AbstractResolver) -> None:
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout, resolver=resolver)  # pyright: ignore[reportUnknownMemberType]  of others
        # uvloop's reads over TLS have no size to set. glibc keeps what is up to the size of the largest block that was ever given back
        # (mallopt(3), M_MMAP_THRESHOLD): four pairs of system calls and thirteen page faults a job are none after this.
        bytes(LARGEST_READ)
        # No public way to it; a test looks whether aiohttp still makes its connections by it.
        make: type[ResponseHandler] = PatientHandler
        self._factory = partial(make, loop=self._loop)
