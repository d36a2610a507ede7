"""aiohttp's connector, with one idle timer for each connection in place of two for each request."""

import asyncio
from functools import partial
from math import inf

from aiohttp import TCPConnector
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler


class PatientHandler(ResponseHandler):
    """A connection whose ``sock_read`` time-out is looked at when it would be over, not set anew with each piece that comes.

    aiohttp's own sets a timer where a request has left and at each piece of its answer, and cancels it: a tenth of what a job costs.
    Where aiohttp's insides change their names, nothing here is called and its own timers serve.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._silent_since = inf
        """Loop time from which something is waited for; infinity is while nothing is."""
        self._look_at = inf
        self._look_later: asyncio.TimerHandle | None = None

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


class Connector(TCPConnector):
    """A pool of such connections."""

    def __init__(self, *, limit: int, keepalive_timeout: float, resolver: AbstractResolver) -> None:
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout, resolver=resolver)  # pyright: ignore[reportUnknownMemberType]  of others
        # No public way to it; a test looks whether aiohttp still makes its connections by it.
        make: type[ResponseHandler] = PatientHandler
        self._factory = partial(make, loop=self._loop)
