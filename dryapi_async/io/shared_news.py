"""News of jobs that other processes heard: published to all, and heard from all."""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable
from secrets import token_hex
from typing import Any, Final, cast

from attrs import asdict, evolve, fields

from dryapi_async.errors import SharedStateError
from dryapi_async.protocol.signature import WebhookEvent
from dryapi_async.protocol.status import JobState, Update
from dryapi_async.protocol.untyped import is_object
from dryapi_async.shared import EventBus, WhenAway

logger: logging.Logger = logging.getLogger("dryapi_async")

AGAIN_SECONDS: Final = 0.5
"""How long to wait before the store is tried again."""
MOST_UNSENT: Final = 1000
_FIELDS: Final = tuple(one.name for one in fields(Update))


class SharedNews:
    """One process's ear and voice. Correctness never depends on it: waits read the status by themselves."""

    def __init__(self, bus: EventBus, *, when_away: WhenAway, hear: Callable[[str, Update], None]) -> None:
        self._bus = bus
        self._when_away = when_away
        self._hear = hear
        self._origin = token_hex(8)
        self._unsent: deque[WebhookEvent] = deque(maxlen=MOST_UNSENT)
        self._listening: asyncio.Task[None] | None = None
        self._sending: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen, from now until it is closed."""
        if self._listening is None:
            self._listening = asyncio.get_running_loop().create_task(self._listen())

    @property
    def listens(self) -> bool:
        """Whether it has begun to listen."""
        return self._listening is not None

    async def publish(self, event: WebhookEvent) -> bool:
        """Tell all processes; False says that one of them was told before.

        Raises:
            SharedStateError: The store is away, and the client was told to stop then.
        """
        try:
            return await self._send(event)
        except SharedStateError as error:
            if self._when_away == "raise":
                raise
            logger.warning("a webhook's news reaches other processes when the shared store is back: %s", error)
            self._unsent.append(event)
            if self._sending is None or self._sending.done():
                self._sending = asyncio.get_running_loop().create_task(self._send_late())
            return True

    async def _send(self, event: WebhookEvent) -> bool:
        names = [f"delivery {event.delivery_id}"]
        if event.request_id is not None:
            names.append(f"job {event.request_id} {event.event}")
        return await self._bus.publish(write_news(event, self._origin), names=names)

    async def _send_late(self) -> None:
        while self._unsent:
            await asyncio.sleep(AGAIN_SECONDS)
            try:
                while self._unsent:
                    await self._send(self._unsent[0])
                    self._unsent.popleft()
            except SharedStateError:
                continue

    async def _listen(self) -> None:
        warned = False
        while True:
            try:
                async for event in self._bus.listen():
                    warned = False
                    self._take(event)
            except SharedStateError as error:
                if not warned:
                    warned = True
                    logger.warning("news of other processes comes when the shared store is back, until then by status reads: %s", error)
                await asyncio.sleep(AGAIN_SECONDS)

    def _take(self, content: bytes) -> None:
        news = read_news(content)
        if news is None:
            logger.debug("an event in the shared store couldn't be read")
        elif news[0] != self._origin:
            self._hear(news[1], news[2])

    async def close(self) -> None:
        """Stop listening; what couldn't be published is learned by status reads."""
        tasks = [task for task in (self._listening, self._sending) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def write_news(event: WebhookEvent, origin: str) -> bytes:
    """Write what a delivery says of its job, without previews."""
    update = None if event.update is None else asdict(evolve(event.update, preview=None))
    return json.dumps({"origin": origin, "request_id": event.request_id, "update": update}, separators=(",", ":")).encode()


def read_news(content: bytes) -> tuple[str, str, Update] | None:
    """Read who published, of which job, and what; None where it says nothing, or another version wrote it."""
    try:
        said: Any = json.loads(content)
        if not is_object(said) or not is_object(said["update"]):
            return None
        given: dict[str, Any] = {name: value for name, value in cast("dict[str, Any]", said["update"]).items() if name in _FIELDS}
        given["state"] = JobState(given["state"])
        return str(said["origin"]), str(said["request_id"]), Update(**given)
    except (ValueError, KeyError, TypeError):
        return None
