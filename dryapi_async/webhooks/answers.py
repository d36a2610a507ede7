"""What a web application answers to a delivery, in no framework's words."""

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final, Protocol

from attrs import frozen

from dryapi_async.errors import ClientClosedError, SharedStateError, SignatureError
from dryapi_async.protocol.signature import WebhookEvent

MOST_BODY_BYTES: Final = 1_000_000
"""How much of a body is read: a delivery has about a kilobyte."""

_log = logging.getLogger("dryapi_async")


class Receiver(Protocol):
    """Whoever takes deliveries: a `Client`, or a stand-in of your tests."""

    async def deliver(self, headers: Mapping[str, str], body: bytes, *, key: str | None = None) -> WebhookEvent:
        """Verify a delivery and hand it over. It raises SignatureError for what the service didn't sign.

        ``key`` is what stands in the address where the ``webhook_url`` has ``{key}``.
        """
        ...


@frozen
class Answer:
    """An HTTP answer: its status, and a short plain text."""

    status: int
    text: str = ""


_TAKEN: Final = Answer(204)
_REFUSED: Final = Answer(401, "The signature was refused.\n")
_TOO_LARGE: Final = Answer(413, "The body is too large.\n")
_NOT_NOW: Final = Answer(503, "Deliver this again later.\n")


async def answer(receiver: Receiver, headers: Mapping[str, str], chunks: AsyncGenerator[bytes, None], *, key: str | None = None) -> Answer:
    """Read a delivery's body as it comes, hand it over, and say what to answer. ``key`` is that of the address, where it has one.

    204 for a delivery that was taken, a repeated one too; 401 for one that the service didn't sign; 413 for a body over
    `MOST_BODY_BYTES`; 503 where the client is closed or its shared store is away: the service delivers again after a minute.
    """
    body = bytearray()
    async with aclosing(chunks):
        if _declares_too_much(headers):
            return _TOO_LARGE
        async for chunk in chunks:
            body += chunk
            if len(body) > MOST_BODY_BYTES:
                return _TOO_LARGE
    try:
        await receiver.deliver(headers, bytes(body), key=key)
    except SignatureError as error:
        _log.warning("A webhook was refused: %s", error)
        return _REFUSED
    except (ClientClosedError, SharedStateError) as error:
        _log.warning("A webhook wasn't taken, the service will deliver it again: %s", error)
        return _NOT_NOW
    return _TAKEN


def _declares_too_much(headers: Mapping[str, str]) -> bool:
    declared = headers.get("content-length", "")
    return declared.isdecimal() and int(declared[:18]) > MOST_BODY_BYTES
