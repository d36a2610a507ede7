"""The push channel: one websocket that comes back by itself, and tells every job event of the account."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Final, NoReturn, TypeVar

import aiohttp
from attrs import evolve

from dryapi_async.config import Settings
from dryapi_async.errors import ClientClosedError, DryAPIError
from dryapi_async.io.http import Http
from dryapi_async.io.threads import FileThreads
from dryapi_async.protocol.pusher import (
    AUTH_PATH,
    PING_SECONDS,
    Ended,
    Established,
    Frame,
    JobNews,
    Ping,
    Reconnection,
    Stop,
    Subscribed,
    SubscriptionFailed,
    Trouble,
    channel_name,
    make_ping,
    make_pong,
    make_subscribe,
    read_authorisation,
    read_frame,
)
from dryapi_async.protocol.replies import read_retry_after
from dryapi_async.protocol.status import Update

logger: logging.Logger = logging.getLogger("dryapi_async")
T = TypeVar("T", bound=Frame)

STEP_SECONDS: Final = 10.0
"""How long the server may take for each step: the upgrade, its first words, the authorisation, the subscription."""
PONG_SECONDS: Final = 10.0
"""How long a pong may take: then the connection is half-open, and given up."""
CLOSE_SECONDS: Final = 0.5
"""How long the server's farewell is waited for."""
MOST_FRAME_BYTES: Final = 4 * 1024 * 1024
"""A preview is about 150 KB; what is longer than this is none of the service's events."""
BIG_FRAME: Final = 64 * 1024
"""Characters: longer frames are decoded in a thread."""
FRAMES_AT_ONCE: Final = 64
"""Frames that lie ready are handled without a pause up to this many, then the loop's other work has its turn."""


class _Lost(Exception):  # noqa: N818  a connection's end is no error of anybody's
    """The connection is over."""

    def __init__(self, ended: Ended) -> None:
        super().__init__(ended.why)
        self.ended: Final = ended


class _Line:
    """One live websocket. Nothing but pings is answered here."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, channel: str, threads: FileThreads) -> None:
        self.heard: float = 0.0
        self.ping_seconds: float = PING_SECONDS
        self._socket = socket
        self._channel = channel
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._heard_now()

    def _heard_now(self) -> None:
        self.heard = self._loop.time()

    async def receive(self, until: float) -> Frame | None:
        """Wait for one message, up to a loop time; None is one that says nothing.

        Raises:
            TimeoutError: None came.
            _Lost: The connection ended.
        """
        async with asyncio.timeout_at(until):
            message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            self._heard_now()
            return None
        if message.type is not aiohttp.WSMsgType.TEXT:
            error = self._socket.exception()
            why = " ".join(str(message.extra or "").split()) if error is None else type(error).__name__
            raise _Lost(Ended(why=why, code=self._socket.close_code))
        self._heard_now()
        text: str = message.data
        if len(text) > BIG_FRAME:
            frame = await self._threads.start(read_frame, text, self._channel)
        else:
            frame = read_frame(text, self._channel)
        if isinstance(frame, Ping):
            await self.say(make_pong())
        elif isinstance(frame, Trouble):
            raise _Lost(Ended(why=frame.message, code=frame.code))
        return frame

    async def say(self, text: str) -> None:
        """Send one message; a server that takes nothing more is gone."""
        async with asyncio.timeout(STEP_SECONDS):
            await self._socket.send_str(text)

    async def close(self) -> None:
        """Say farewell and close, whatever the server does."""
        await self._socket.close()


class Push:
    """Listens to the account's channel in a task of its own, until closed or told never to come back.

    ``hear`` is given every job event, those of other programs' jobs too; ``up`` is called after each subscription (nothing is replayed,
    so pending jobs are to be read once), ``down`` when it is lost, ``stopped`` with the reason when there won't be another.
    All four are called from the task and mustn't block.
    """

    def __init__(  # noqa: PLR0913  four callbacks and where to listen
        self,
        settings: Settings,
        http: Http,
        *,
        client_id: str,
        url: str,
        hear: Callable[[str, Update], None],
        up: Callable[[], None],
        down: Callable[[], None],
        stopped: Callable[[str], None],
    ) -> None:
        self._http = http
        self._channel = channel_name(client_id)
        self._url = url
        self._hear = hear
        self._up = up
        self._down = down
        self._stopped = stopped
        connect = settings.timeouts.connect
        self._open_seconds = STEP_SECONDS if connect is None else connect + STEP_SECONDS
        # Not the files' threads: a disk that hangs mustn't hold back the news.
        self._threads = FileThreads()
        self._task: asyncio.Task[None] | None = None
        self._line: _Line | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to listen; a second call does nothing."""
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="dryapi push")

    @property
    def healthy(self) -> bool:
        """Whether the channel is ours, and the server was heard within the silence it allows, or may yet answer our ping."""
        line = self._line
        return line is not None and asyncio.get_running_loop().time() < line.heard + line.ping_seconds + PONG_SECONDS

    async def close(self) -> None:
        """End the task and close its socket; a second call does nothing."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._threads.close()

    async def _run(self) -> None:
        """Keep one connection after the other."""
        reconnection = Reconnection()
        while not self._closed:
            try:
                ended = await self._live()
            except ClientClosedError:
                return
            step = reconnection.after(ended, chance=random.random())  # noqa: S311  jitter, no secret
            if isinstance(step, Stop):
                logger.warning("push is off: %s Status reads go on", step.reason)
                self._stopped(step.reason)
                return
            logger.debug("push: %s (code %s); connecting again in %.1f s", ended.why or "closed", ended.code, step.seconds)
            await asyncio.sleep(step.seconds)

    async def _live(self) -> Ended:
        """Live through one connection and say how it ended."""
        loop = asyncio.get_running_loop()
        began: float | None = None
        try:
            line = await self._open()
            try:
                await self._subscribe(line)
                began = loop.time()
                self._line = line
                self._up()
                await self._listen(line)
            except Exception:
                self._fall()
                raise
            finally:
                self._line = None
                await line.close()
        except ClientClosedError:
            raise
        except Exception as error:  # noqa: BLE001  a given session's connector and traces may raise anything; push comes back all the same
            ended = _read_end(error)
            return ended if began is None else evolve(ended, lived=max(loop.time() - began, 0.001))

    def _fall(self) -> None:
        """Tell that a subscription is lost."""
        if self._line is not None:
            self._line = None
            self._down()

    async def _open(self) -> _Line:
        """Connect the websocket."""
        async with asyncio.timeout(self._open_seconds):
            socket = await self._http.connect_push(self._url, most_bytes=MOST_FRAME_BYTES, close_seconds=CLOSE_SECONDS)
        return _Line(socket, self._channel, self._threads)

    async def _subscribe(self, line: _Line) -> None:
        """Wait for the socket's id, let the API sign for it, and take the channel."""
        established = await _expect(line, Established)
        line.ping_seconds = established.ping_seconds
        async with asyncio.timeout(STEP_SECONDS):
            answer = await self._http.authorise(AUTH_PATH, established.socket_id, self._channel)
        grant = read_authorisation(answer.status, answer.headers, answer.content, now=time.time())
        if isinstance(grant, Ended):
            raise _Lost(grant)
        await line.say(make_subscribe(self._channel, grant))
        await _expect(line, Subscribed)

    async def _listen(self, line: _Line) -> NoReturn:
        """Tell what comes, and ping a server that is silent."""
        loop = asyncio.get_running_loop()
        silent = ready = 0
        until = line.heard + line.ping_seconds
        while True:
            try:
                frame = await line.receive(until)
            except TimeoutError:
                silent += 1
                if silent == 1:
                    await line.say(make_ping())
                    until = loop.time() + PONG_SECONDS
                elif silent == 2:  # noqa: PLR2004  one last look: a loop that was blocked finds the time over and the answer there at once
                    until = loop.time()
                else:
                    raise _Lost(Ended(why="no pong came: the connection is half-open")) from None
                continue
            silent = 0
            until = line.heard + line.ping_seconds
            if isinstance(frame, JobNews):
                self._hear(frame.request_id, frame.update)
            ready += 1
            if ready % FRAMES_AT_ONCE == 0:
                await asyncio.sleep(0)


async def _expect(line: _Line, kind: type[T]) -> T:
    """Wait for one kind of message."""
    until = asyncio.get_running_loop().time() + STEP_SECONDS
    while True:
        frame = await line.receive(until)
        if isinstance(frame, kind):
            return frame
        if isinstance(frame, SubscriptionFailed):
            raise _Lost(Ended(why=f"the subscription was refused ({frame.reason})", refused=frame.refused))


def _read_end(error: Exception) -> Ended:
    """Say what an exception means for the next connection."""
    if isinstance(error, _Lost):
        return error.ended
    if isinstance(error, aiohttp.WSServerHandshakeError):
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        return Ended(why=f"the upgrade was answered {error.status}", asked=read_retry_after(headers, now=time.time()))
    if not isinstance(error, aiohttp.ClientError | OSError | DryAPIError):  # a TimeoutError is an OSError
        logger.error("push broke in an unforeseen way, and connects again", exc_info=error)
    return Ended(why=type(error).__name__)
