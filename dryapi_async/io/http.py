"""The connections of one client on one loop: a single request at a time, no opinion about what to do with its outcome."""

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import nullcontext, suppress
from copy import copy
from ssl import SSLContext
from typing import Any, Final, Self
from urllib.parse import urlsplit

import aiohttp
from attrs import frozen
from multidict import CIMultiDict
from yarl import URL

from dryapi_async.config import Retry, Settings
from dryapi_async.errors import (
    ClientClosedError,
    ConfigurationError,
    ConnectError,
    PoolTimeoutError,
    RequestTimeoutError,
    ResponseError,
    TransportError,
)
from dryapi_async.io.body import Body, TextBody
from dryapi_async.io.connector import Connector
from dryapi_async.io.direct import Direct, Route
from dryapi_async.io.gate import Gate
from dryapi_async.io.guard import AddressGuard, GuardedResolver, resolver_of
from dryapi_async.io.proxies import Proxies
from dryapi_async.io.reading import MOST_ANSWER_BYTES, Reading, read_bounded
from dryapi_async.io.request import request_class, watch_headers
from dryapi_async.protocol.links import LinkRules, mask
from dryapi_async.protocol.wire import WireCall
from dryapi_async.values import Value
from dryapi_async.version import __version__

SHORTEST_KEY: Final = 12
"""Characters: a shorter text can't be a key of the service, and may well stand in an answer."""
FILE_HEADERS: Final = CIMultiDict({"Accept": "*/*", "Accept-Encoding": "identity"})
"""Of a request for a file, to any host."""
_PASSED: Final = nullcontext()
"""The gate of who is through it already."""
USER_AGENT: Final = f"dryapi-async/{__version__} aiohttp/{aiohttp.__version__}"


@frozen(kw_only=True, eq=False, repr=False)
class Answer(Value):
    """One whole answer; headers are found by their lower-case names."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@frozen(kw_only=True, eq=False, repr=False)
class Broken(Value):
    """No usable answer. ``sent`` is whether a byte of the request may have left, ``phase`` where it broke, ``cause`` why, in words."""

    sent: bool
    phase: str
    cause: str
    error: TransportError
    status: int | None = None
    """The status of an answer that came and can't be read."""


class Http:
    """Opens connections, sends one request, reads one answer. The key goes to the API's origin only."""

    def __init__(
        self,
        settings: Settings,
        *,
        session: aiohttp.ClientSession | None = None,
        connector: aiohttp.BaseConnector | None = None,
        ssl: SSLContext | None = None,
    ) -> None:
        self._proxies = Proxies(settings.proxy)
        # Asked for once, before anything is opened: what can't be used must be told before a submit, not by one that was lost.
        self._proxy = self._proxies.find(URL(settings.base_url, encoded=True))
        self._ssl = ssl if ssl is not None else True
        self._set_account(settings)
        self._rules = LinkRules(local=settings.is_local, hosts=settings.storage_hosts)
        given = connector if session is None else session.connector
        if session is not None and session.closed:
            raise ConfigurationError("The given session is closed: give an open one, or none.")
        limit = settings.pool_size if given is None else given.limit or settings.pool_size
        if limit < settings.max_in_flight:
            raise ConfigurationError(f"The connector's limit of {limit} is below max_in_flight={settings.max_in_flight}: raise it.")
        self._guard = AddressGuard(self._rules, self._known_hosts())
        # A user's own connector has a resolver that nobody guards: it is asked once more beside it.
        asked = None if given is None else resolver_of(given)
        self._beside = None if asked is None else GuardedResolver(asked, self._guard)
        self.session: aiohttp.ClientSession = self._open_session(given, [] if session is None else session.trace_configs)
        self._direct = Direct.over(self.session, self._guard)
        self._reading: set[aiohttp.ClientResponse] = set()
        # In a connector of the user's own the websocket takes one of the places.
        held = given is not None and settings.client_id is not None and limit > 1
        self.gate: Gate = Gate(limit - held, settings.timeouts.pool)

    def for_account(self, settings: Settings) -> Self:
        """Give the same connections with another account's key and time-outs; who made them closes them."""
        other = copy(self)
        other._set_account(settings)  # noqa: SLF001  its own kind
        return other

    def _set_account(self, settings: Settings) -> None:
        self._settings, times = settings, settings.timeouts
        self._key = settings.api_key.encode() if len(settings.api_key) >= SHORTEST_KEY else b""
        timeout = aiohttp.ClientTimeout(total=times.total, connect=times.connect, sock_connect=times.connect, sock_read=times.idle)
        # Read once: the addresses of all calls are made of it.
        self._root = URL(settings.base_url, encoded=True)
        self._prefix = self._root.raw_path.rstrip("/")
        # Of any request; what is aiohttp's default isn't given, for each word that is costs time in each request.
        self._options: Mapping[str, Any] = {
            "timeout": timeout,
            "allow_redirects": False,
            **({} if self._ssl is True else {"ssl": self._ssl}),
        }
        # In the class that aiohttp wants, or it would make such headers of them for each request.
        self._api_headers = CIMultiDict({"Authorization": f"Bearer {settings.api_key}"})
        self._api_options: Mapping[str, Any] = {
            **self._options,
            "headers": self._api_headers,
            **({} if self._proxy is None else {"proxy": self._proxy}),
        }
        self._api_route: Route | None = None

    @property
    def rules(self) -> LinkRules:
        """Where results may come from."""
        return self._rules

    def _open_session(self, given: aiohttp.BaseConnector | None, traces: list[aiohttp.TraceConfig]) -> aiohttp.ClientSession:
        connector = given or Connector(
            # The websocket is held for good, and is none of those that calls share.
            limit=self._settings.pool_size + (self._settings.client_id is not None),
            keepalive_timeout=self._settings.timeouts.keepalive,
            resolver=GuardedResolver(aiohttp.DefaultResolver(), self._guard),
        )
        if self._settings.expect100:
            traces = [*traces, watch_headers()]
        # Cookies, .netrc and proxies of the environment stay out of the session: nothing may add credentials to a request to storage.
        session = aiohttp.ClientSession(
            connector=connector,
            connector_owner=given is None,
            request_class=request_class(self._guard),
            headers={"Accept": "application/json", "User-Agent": USER_AGENT},
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            trace_configs=traces,
        )
        # Else aiohttp repeats every GET on a lost connection by itself: prompts/samples would be billed twice, failed reads count double.
        session._retry_connection = False  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  no public switch; a test proves it
        return session

    def _known_hosts(self) -> frozenset[str]:
        hosts = {urlsplit(url).hostname for url in (self._settings.base_url, self._settings.push_url, *self._proxies.urls) if url}
        return frozenset(host.lower() for host in hosts if host)

    def send(self, call: WireCall, body: Body | None = None, *, seconds_left: float | None = None) -> Awaitable[Answer | Broken]:
        """Send one request to the API and read the whole answer. Cancellation passes through; every other end of it is returned.

        Raises:
            PoolTimeoutError: No connection came free in time; nothing was sent.
        """
        return self._send(call, body, self.gate) if seconds_left is None else self._send_within(seconds_left, call, body)

    async def _send_within(self, seconds_left: float, call: WireCall, body: Body | None) -> Answer | Broken:
        began = False
        try:
            async with asyncio.timeout(seconds_left), self.gate:
                began = True
                return await self._send(call, body, _PASSED)
        except PoolTimeoutError:
            raise
        except TimeoutError as error:
            return self._break(call, body, None, error, began=began)

    def check_open(self) -> None:
        """Refuse to go on once the client is closed.

        Raises:
            ClientClosedError: It is.
        """
        if self.session.closed:
            raise ClientClosedError("The client was closed before this was done. Jobs go on at the service; their tickets stay good.")

    async def _send(self, call: WireCall, body: Body | None, gate: Gate | nullcontext[None]) -> Answer | Broken:
        async with gate:
            self.check_open()
            response: aiohttp.ClientResponse | None = None
            try:
                response = await self._ask(call, body)
                content = response.content.read_nowait() if self._is_here(response) else await self._read_whole(response)
                return Answer(status=response.status, headers=self._read_headers(response), content=self._without_key(content))
            except Exception as error:  # noqa: BLE001  a given session's traces and connector may raise anything, also after a payment
                if response is not None and response.status >= 400:  # noqa: PLR2004  a refusal is decided by its status
                    return Answer(status=response.status, headers=self._read_headers(response), content=b"")
                return self._break(call, body, None if response is None else response.status, error)

    async def _ask(self, call: WireCall, body: Body | None) -> aiohttp.ClientResponse:
        """Send a request on a connection that is open, where that can be, or have aiohttp's session send it, which opens one."""
        url = self._url(call)
        direct = self._direct_for(self._proxy)
        text = body if isinstance(body, TextBody) and not body.is_long else None
        if direct is not None and (text is not None if body is not None else call.method == "GET"):
            if self._api_route is None:
                self._api_route = direct.route(self._root, self._api_headers, ssl=self._ssl)
            response = await direct.ask(self._api_route, call.method, url, text, idle=self._settings.timeouts.idle, unpack=True)
            if response is not None:
                return response
        asks: dict[str, Any] = {"expect100": True, "trace_request_ctx": body} if self._settings.expect100 and body is not None else {}
        return await self.session.request(call.method, url, data=body, **self._api_options, **asks)

    def _direct_for(self, proxy: str | None) -> Direct | None:
        return self._direct if proxy is None and self._settings.timeouts.total is None else None

    def _read_headers(self, response: aiohttp.ClientResponse) -> Mapping[str, str]:
        """Lower the headers' names, and take our key out of what came back, where that is shown: in what refuses, and no success."""
        if response.status < 300:  # noqa: PLR2004  success; aiohttp's find a name in any case
            return response.headers
        return {name.lower(): self._without_key(value.encode(errors="replace")).decode() for name, value in response.headers.items()}

    def _without_key(self, content: bytes) -> bytes:
        """Take our key out of an answer that echoes it: errors show what the other side said."""
        return content.replace(self._key, b"...") if self._key and self._key in content else content

    def _url(self, call: WireCall) -> URL:
        url = self._root.with_path(self._prefix + call.path, encoded=True)
        return url.with_query(call.query) if call.query else url

    def _break(self, call: WireCall, body: Body | None, status: int | None, error: Exception, *, began: bool = True) -> Broken:
        """Read what an exception says: whether anything was sent, where it broke, and the error it is for a reading."""
        unsent = not began or isinstance(
            error,
            aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.ClientHttpProxyError | aiohttp.InvalidURL,
        )
        sent = body.sent if body is not None else not unsent
        phase = "reading" if status is not None else _phase(body) if sent else "connecting"
        cause = _words_of(error)
        if body is not None and body.error is not None:
            cause = str(body.error)
        where = urlsplit(self._settings.base_url).netloc
        if not began:
            text = (
                f"{call.name}: no connection came free within the time given; nothing was sent. Raise pool_size, or give a longer timeout."
            )
            return Broken(sent=False, phase=phase, cause="no free connection", error=RequestTimeoutError(text))
        if not sent:
            text = f"{call.name}: no connection to {where} ({cause}), nothing was sent. Check base_url and the network, then try again."
            return Broken(sent=False, phase=phase, cause=cause, error=ConnectError(text))
        if isinstance(error, TimeoutError):
            wrong: type[TransportError] = RequestTimeoutError
        elif status is not None or isinstance(error, aiohttp.ClientResponseError):
            wrong = ResponseError
        else:
            wrong = TransportError
        return Broken(sent=True, phase=phase, cause=cause, error=wrong(f"{call.name}: no usable answer from {where} ({cause}). Try again."))

    @property
    def retry(self) -> Retry:
        """What may be sent again."""
        return self._settings.retry

    def _is_here(self, response: aiohttp.ClientResponse) -> bool:
        """Say whether an answer came whole with its headers, and has given its connection back: then there is nothing to wait for."""
        return response.connection is None and not self.session.trace_configs

    async def _read_whole(self, response: aiohttp.ClientResponse) -> bytes:
        """Read an answer whole, up to the longest that can be one, and give its connection back, also where that fails."""
        self._reading.add(response)
        try:
            length = response.content_length
            return await (response.read() if length is not None and length <= MOST_ANSWER_BYTES else read_bounded(response))
        except BaseException:
            response.release()
            raise
        finally:
            self._reading.discard(response)
            # What still sends the request ends before its files are closed.
            await response.wait_for_close()

    async def fetch(self, url: URL, part: Mapping[str, str] | None = None) -> aiohttp.ClientResponse:
        """Ask any host for a file: without the key, without following redirects, its body as it comes (even compressed).

        ``part`` are headers that ask for a part of it. The caller holds the gate, and releases the answer.

        Raises:
            PrivateAddressError: The host's name leads into a private network.
            ConfigurationError: The environment's proxy for it can't be used; nothing was sent.
        """
        proxy = self._proxies.find(url)
        if self._beside is not None and url.host and proxy is None:
            with suppress(OSError):  # the connector finds that, too, and says it in its own words
                await self._beside.resolve(url.host, url.port or 0)
        direct = None if part else self._direct_for(proxy)
        self.check_open()
        if direct is not None:
            route = direct.route_to_files(url, FILE_HEADERS, ssl=self._ssl)
            response = await direct.ask(route, "GET", url, None, idle=self._settings.timeouts.idle, unpack=False)
            if response is not None:
                return response
        headers = CIMultiDict(FILE_HEADERS, **part) if part else FILE_HEADERS
        return await self.session.get(url, headers=headers, auto_decompress=False, proxy=proxy, **self._options)

    async def connect_push(self, url: str, *, most_bytes: int, close_seconds: float) -> aiohttp.ClientWebSocketResponse:
        """Open the push channel's websocket, at any host and so without the key. It takes a connection of the pool, no place of the gate.

        ``most_bytes`` bounds one message, ``close_seconds`` the wait for the server's farewell.

        Raises:
            aiohttp.ClientError: No such connection, or the answer was another address.
            ConfigurationError: The environment's proxy for it can't be used; nothing was sent.
        """
        self.check_open()
        address = URL(url, encoded=True)
        # aiohttp takes both names of the scheme; proxies know only this one.
        address = address.with_scheme("https" if address.scheme == "wss" else "http")
        socket = await self.session.ws_connect(
            address,
            timeout=aiohttp.ClientWSTimeout(ws_receive=None, ws_close=close_seconds),  # pyright: ignore[reportCallIssue]  attr.ib's arguments
            max_msg_size=most_bytes,
            ssl=self._ssl,
            proxy=self._proxies.find(address),
        )
        # aiohttp follows redirects here and has no switch for it: who was sent elsewhere says nothing there.
        if socket._response.history:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  no public way to it
            await socket.close()
            raise aiohttp.ClientConnectionError("the push server answered with another address")
        return socket

    async def authorise(self, path: str, socket_id: str, channel: str) -> Answer:
        """Let the API sign a subscription of the push channel.

        Raises:
            aiohttp.ClientError: No answer came.
            PoolTimeoutError: No connection came free in time.
        """
        self.check_open()
        url = URL(self._settings.base_url + path, encoded=True)
        async with (
            self.gate,
            self.session.post(
                url,
                json={"socket_id": socket_id, "channel_name": channel},
                **self._api_options,
            ) as response,
        ):
            content = await self._read_whole(response)
            return Answer(status=response.status, headers=self._read_headers(response), content=content)

    def reading(self, response: aiohttp.ClientResponse) -> Reading:
        """Note an answer that is being read, so that closing the client ends that reading, and give its connection back behind it."""
        return Reading(self._reading, response)

    async def close(self) -> None:
        """Close the connections that are ours; a given session or connector stays open."""
        for response in self._reading:
            # aiohttp closes the connection under a reader without waking it: measured, it waits for ever.
            response.content.set_exception(aiohttp.ClientConnectionError("the client was closed"))
        await self.session.close()


def _words_of(error: Exception) -> str:
    """Say an exception in words, without what the other side may have put into it."""
    if isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str):
        return type(error).__name__  # aiohttp keeps the broken answer's headers there
    if isinstance(error, aiohttp.InvalidURL):
        return type(error).__name__  # it shows the whole address, which may be a proxy's with its password
    return mask(f"{type(error).__name__}: {error}".rstrip(": "))


def _phase(body: Body | None) -> str:
    return "waiting" if body is None or body.whole else "sending"
