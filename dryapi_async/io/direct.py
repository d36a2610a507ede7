"""Requests on connections that are open already, without aiohttp's session: its way to a connection is half of what a request costs."""

import asyncio
import re
from ssl import SSLContext
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, Self, cast

import aiohttp
from aiohttp import client as sessions
from aiohttp import connector as connectors
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_writer import StreamWriter
from attrs import frozen
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from dryapi_async.io.body import TextBody
from dryapi_async.io.guard import AddressGuard
from dryapi_async.values import Value

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ConnectionKey

KNOWN_SERIES: Final = "3.14."
"""The series of aiohttp whose insides this was held against (``tests/io/test_direct.py``). On any other aiohttp's session serves."""
MOST_ROUTES: Final = 64
"""Origins whose headers are kept; storage has a few."""
_AIOHTTPS_FILES: Final = frozenset({sessions.__file__, connectors.__file__})
_TARGET: Final = re.compile("[!-~]+")


@frozen(eq=False, repr=False)
class Route(Value):
    """Where requests go: the pool's name for it, and the lines of the headers that each of them has."""

    key: "ConnectionKey"
    host: str
    lines: str


class Direct:
    """A session's connections, for requests that have nothing a session is needed for.

    That is no proxy, no trace, no time-out for the whole, no body or a short one, and a connection that is free. The bytes that leave
    are those that aiohttp would send, and its own classes keep the pool, read the answer and give the connection back. Who has put
    something in the place of its session's way of sending, as some monitors and recorders do, gets all requests there.
    """

    def __init__(self, session: aiohttp.ClientSession, connector: aiohttp.BaseConnector, guard: AddressGuard) -> None:
        self._session, self._connector, self._guard = session, connector, guard
        self._loop = loop = asyncio.get_running_loop()
        self._routes: dict[tuple[str, str], Route] = {}
        # An answer is told of its request: of these there is nothing that could still be sent, cancelled or shown.
        self._sent = StreamWriter(ResponseHandler(loop), loop)
        self._sessions_way = aiohttp.ClientSession._request  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  what monitors replace
        self._headers = CIMultiDictProxy(CIMultiDict[str]())

    @classmethod
    def over(cls, session: aiohttp.ClientSession, guard: AddressGuard) -> Self | None:
        """Take a session's connections; None where only the session itself may use them: it has traces, or gives them in its own way."""
        connector = session.connector
        usable = (
            aiohttp.__version__.startswith(KNOWN_SERIES)
            and not session.trace_configs
            and _is_aiohttps(aiohttp.ClientSession._request)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            and connector is not None
            and _is_aiohttps(connector.connect)
        )
        return cls(session, connector, guard) if usable and connector is not None else None

    def route(self, url: URL, headers: CIMultiDict[str], *, ssl: SSLContext | bool) -> Route:
        """Prepare what all requests to one origin with the same headers have in common."""
        merged = CIMultiDict(self._session.headers)
        merged.update(headers)
        like = aiohttp.ClientRequest("GET", url, headers=merged, ssl=ssl, loop=self._loop)
        return Route(like.connection_key, url.host or "", "".join(f"{name}: {value}\r\n" for name, value in like.headers.items()))

    def route_to_files(self, url: URL, headers: CIMultiDict[str], *, ssl: SSLContext | bool) -> Route:
        """Give the route to an origin of files, prepared at its first file."""
        origin = (url.scheme, url.raw_authority)
        found = self._routes.get(origin)
        if found is None:
            if len(self._routes) >= MOST_ROUTES:
                self._routes.clear()
            found = self._routes[origin] = self.route(url, headers, ssl=ssl)
        return found

    async def ask(
        self, route: Route, method: str, url: URL, body: TextBody | None, *, idle: float | None, unpack: bool
    ) -> aiohttp.ClientResponse | None:
        """Send a request and read its answer's headers; None where no connection is free or aiohttp must judge it, with nothing sent.

        ``idle`` is the most seconds between two pieces of the answer, ``unpack`` whether its body is decompressed.

        Raises:
            PrivateAddressError: The host's name leads into a private network; nothing was sent.
            aiohttp.ClientError: The connection was lost, or its answer isn't one.
        """
        target = url.raw_path_qs
        if _TARGET.fullmatch(target) is None or aiohttp.ClientSession._request is not self._sessions_way:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            return None
        # No public way asks for a connection that is open, and opens none.
        connection = await self._connector._get(route.key, [])  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        if connection is None or connection.protocol is None or connection.transport is None:
            return None
        protocol, transport = connection.protocol, connection.transport
        response = self._response_to(method, url)
        try:
            self._guard.judge_peer(route.host, transport)
            protocol.set_response_params(read_until_eof=True, auto_decompress=unpack, read_timeout=idle)
            head = f"{method} {target} HTTP/1.1\r\n{route.lines}"
            if body is None:
                transport.write(f"{head}\r\n".encode())
            else:
                body.leave(transport, head)
            protocol.start_timeout()
            return await response.start(connection)
        except BaseException:
            response.close()
            connection.close()
            raise

    def _response_to(self, method: str, url: URL) -> aiohttp.ClientResponse:
        return aiohttp.ClientResponse(
            method,
            url,
            writer=None,
            continue100=None,
            timer=cast("Any", None),  # aiohttp takes it for one that does nothing
            request_info=aiohttp.RequestInfo(url, method, self._headers, url),
            traces=[],
            loop=self._loop,
            session=self._session,
            stream_writer=self._sent,
        )


def _is_aiohttps(way: object) -> bool:
    """Say whether a way to send or to connect is aiohttp's own: a wrapper is another kind of thing, or of another file."""
    made = way.__func__ if type(way) is MethodType else way
    return type(made) is FunctionType and made.__code__.co_filename in _AIOHTTPS_FILES
