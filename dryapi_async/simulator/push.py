"""The push channel: Pusher protocol 7 over a websocket, private channels, and its misbehaviour on request."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from aiohttp import WSMsgType, web

from dryapi_async.simulator.errors import Answer, answer_json
from dryapi_async.simulator.shapes import is_object

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from dryapi_async.simulator.receive import Form
    from dryapi_async.simulator.received import Received

APP_KEY = "depin-api-prod-key"
EVENT = "request.status.updated"
# Clients in use speak 6, too (pysher): what differs is nothing that is said here.
_PROTOCOLS = frozenset({"6", "7"})
_UNKNOWN_APP, _WRONG_PROTOCOL, _NO_PONG, _OVER = 4001, 4007, 4201, 4200
_QUEUE_MOST = 100_000


class PushSocket:
    """One client's websocket."""

    def __init__(self, request: web.BaseRequest, response: web.WebSocketResponse, socket_id: str) -> None:
        self.socket_id = socket_id
        self._request = request
        self.channels: set[str] = set()
        self.heard: float = 0.0
        self._response = response
        self._queue: deque[str] = deque(maxlen=_QUEUE_MOST)
        self._wake = asyncio.Event()

    @property
    def gone(self) -> bool:
        """Whether its connection is lost, which a frozen server doesn't notice."""
        return self._request.transport is None

    def send(self, event: str, data: Any, channel: str | None = None) -> None:
        """Queue a message."""
        message: dict[str, Any] = {"event": event, "data": data}
        if channel is not None:
            message["channel"] = channel
        self._queue.append(json.dumps(message, separators=(",", ":")))
        self._wake.set()

    async def write(self, thawed: asyncio.Event) -> None:
        """Send what is queued, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await thawed.wait()
                await self._response.send_str(self._queue.popleft())

    async def close(self, code: int, message: str) -> None:
        """Say why and close with a code."""
        if not self._response.closed:
            await self._response.send_str(json.dumps({"event": "pusher:error", "data": {"code": code, "message": message}}))
            await self._response.close(code=code, message=message.encode())


class Push:
    """The websocket server of the account.

    Attributes that may be changed: ``activity_timeout`` (seconds after which a silent client is pinged, and closed with
    4201 after as many again), ``data_as`` (``"string"`` or ``"object"``), ``steps`` (progress messages a job), ``preview``
    (a data-URI sent while processing), ``muted`` (no job events), ``copies`` (how often each event is sent), ``down``
    (upgrades are answered 503), ``refuse_auth`` (how many authorisations are answered 403).
    """

    def __init__(self, client_id: str, rng: random.Random, clock: Callable[[], float]) -> None:
        self.channel: str = f"private-client.{client_id}"
        self.app_key = APP_KEY
        self.activity_timeout: float = 30.0
        self.data_as = "string"
        self.steps = 3
        self.preview: str | None = None
        self.muted = False
        self.copies = 1
        self.down = False
        self.refuse_auth: int = 0
        self.total: int = 0
        self.peak: int = 0
        self._sockets: list[PushSocket] = []
        self.on_subscribe: Callable[[], None] = lambda: None
        self._secret = b"push simulator"
        self._rng = rng
        self._clock = clock
        self._thawed = asyncio.Event()
        self._thawed.set()

    @property
    def sockets(self) -> list[PushSocket]:
        """The sockets whose connection stands."""
        return [socket for socket in self._sockets if not socket.gone]

    @property
    def subscribed(self) -> bool:
        """Whether anybody listens to the account's channel."""
        return any(self.channel in socket.channels for socket in self.sockets)

    async def drop(self, code: int = _OVER, message: str = "Please reconnect immediately") -> None:
        """Close every socket with a code."""
        await asyncio.gather(*(socket.close(code, message) for socket in self.sockets))

    def freeze(self) -> None:
        """Keep the sockets open and say nothing, as a half-open connection does."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Go on after ``freeze()``; what was held back is sent."""
        self._thawed.set()

    def send(self, event: str, data: Any, *, channel: str | None = None) -> None:
        """Send any event to whoever listens to a channel (the account's by default)."""
        name = channel or self.channel
        text = json.dumps(data, separators=(",", ":")) if self.data_as == "string" and not isinstance(data, str) else data
        for socket in self.sockets:
            if name in socket.channels:
                for _ in range(self.copies):
                    socket.send(event, text, name)

    def sign(self, socket_id: str, channel: str) -> str:
        """Sign a subscription, as the auth endpoint does."""
        signature = hmac.digest(self._secret, f"{socket_id}:{channel}".encode(), "sha256").hex()
        return f"{self.app_key}:{signature}"

    @property
    def secret(self) -> str:
        """The app's secret, for other implementations of the signing."""
        return self._secret.decode()

    def authorize(self, form: Form, *, known: bool) -> Answer:
        """Answer ``POST /broadcasting/auth``."""
        socket_id, channel = form.fields.get("socket_id"), form.fields.get("channel_name")
        if self.refuse_auth > 0:
            self.refuse_auth -= 1
            known = False
        if not known or not isinstance(channel, str) or channel != self.channel or not isinstance(socket_id, str):
            return answer_json(403, {"message": "Access denied."})
        return answer_json(200, {"auth": self.sign(socket_id, channel)})

    async def serve(self, request: web.BaseRequest, received: Received) -> web.StreamResponse:
        """Serve one websocket until it ends."""
        if self.down:
            received.status = 503
            return web.Response(status=503)
        response = web.WebSocketResponse()
        await response.prepare(request)
        received.status = 101
        socket = PushSocket(request, response, f"{self._rng.randrange(10**9)}.{self._rng.randrange(10**9)}")
        if (refusal := self._refusal(received)) is not None:
            await socket.close(*refusal)
            return response
        self._sockets.append(socket)
        self.total += 1
        self.peak = max(self.peak, len(self.sockets))
        socket.heard = self._clock()
        socket.send(
            "pusher:connection_established", json.dumps({"socket_id": socket.socket_id, "activity_timeout": int(self.activity_timeout)})
        )
        writer = asyncio.create_task(socket.write(self._thawed))
        watch = asyncio.create_task(self._watch(socket))
        try:
            await self._listen(response, socket)
        finally:
            self._sockets.remove(socket)
            for task in (writer, watch):
                task.cancel()
            await asyncio.gather(writer, watch, return_exceptions=True)
        return response

    def _refusal(self, received: Received) -> tuple[int, str] | None:
        key = received.path.rpartition("/")[2]
        if key != self.app_key:
            return _UNKNOWN_APP, f"App key {key} does not exist."
        if dict(parse_qsl(received.query)).get("protocol", "7") not in _PROTOCOLS:
            return _WRONG_PROTOCOL, "Unsupported protocol version"
        return None

    async def _listen(self, response: web.WebSocketResponse, socket: PushSocket) -> None:
        async for message in response:
            await self._thawed.wait()
            socket.heard = self._clock()
            if message.type is WSMsgType.TEXT:
                self._hear(socket, str(message.data))

    def _hear(self, socket: PushSocket, text: str) -> None:
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if not is_object(message):
            socket.send("pusher:error", {"code": None, "message": "Invalid message"})
            return
        data = message.get("data")
        match message.get("event"):
            case "pusher:ping":
                socket.send("pusher:pong", "{}")
            case "pusher:subscribe" if is_object(data):
                self._subscribe(socket, str(data.get("channel")), data.get("auth"))
            case "pusher:unsubscribe" if is_object(data):
                socket.channels.discard(str(data.get("channel")))
            case _:
                pass  # pongs, client events

    def _subscribe(self, socket: PushSocket, channel: str, auth: Any) -> None:
        private = channel.startswith(("private-", "presence-"))
        if private and not (isinstance(auth, str) and hmac.compare_digest(auth.encode(), self.sign(socket.socket_id, channel).encode())):
            refused = {"type": "AuthError", "error": "The connection is unauthorized.", "status": 401}
            socket.send("pusher:subscription_error", refused, channel)
            return
        socket.channels.add(channel)
        socket.send("pusher_internal:subscription_succeeded", "{}", channel)
        if channel == self.channel:
            self.on_subscribe()

    async def _watch(self, socket: PushSocket) -> None:
        pinged: float | None = None  # when it had last been heard as it was pinged
        while True:
            if pinged != socket.heard:
                pinged = None
            until = socket.heard + self.activity_timeout * (1 if pinged is None else 2)
            if (wait := until - self._clock()) > 0:
                await asyncio.sleep(wait)
            elif pinged is None:
                socket.send("pusher:ping", "{}")
                pinged = socket.heard
            else:
                await self._thawed.wait()
                await socket.close(_NO_PONG, "Pong reply not received in time")
                return
