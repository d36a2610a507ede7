"""Sign webhooks as the service does, for tests of what receives them."""

import hmac
import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, cast

from dryapi_async.testing.clock import wall_time

Brand = Literal["dryapi", "deapi"]
_PREFIXES: Final[dict[Brand, tuple[str, str]]] = {
    "dryapi": ("X-dryAPI", "dryAPI-Webhook/1.0"),
    "deapi": ("X-DeAPI", "DeAPI-Webhook/1.0"),
}


class WebhookSigner:
    """Make signed deliveries.

    It shares no code with what verifies them, so that a mistake in one shows in the other.

    Args:
        secret: The account's webhook secret; the receiver must know the same.
        brand: The spelling of the headers: dryapi (X-dryAPI-*) or deapi (X-DeAPI-*).
    """

    def __init__(self, secret: str, *, brand: Brand = "dryapi") -> None:
        self._secret = secret.encode()
        self._prefix, self._agent = _PREFIXES[brand]

    def sign(
        self, payload: Mapping[str, Any] | bytes, *, event: str | None = None, at: float | None = None
    ) -> tuple[dict[str, str], bytes]:
        """Give the headers and the body of one delivery; to deliver it twice, send both again.

        Args:
            payload: With ``event``, the ``data`` of that event (job_request_id, status, result_url, ...), which is put into the service's
                envelope with a new delivery id. Without, the whole body. Bytes are sent as they are.
            event: The event's word, such as job.completed.
            at: When it is signed, a unix time; None is now, by a running `JumpingLoop`'s clock where there is one.
        """
        moment = wall_time() if at is None else at
        body = payload if isinstance(payload, bytes) else _write(_wrap(payload, event, moment))
        said = _read(body)
        timestamp = str(int(moment))
        signature = hmac.new(self._secret, timestamp.encode() + b"." + body, "sha256").hexdigest()
        headers = {
            "User-Agent": self._agent,
            "Content-Type": "application/json",
            f"{self._prefix}-Signature": f"sha256={signature}",
            f"{self._prefix}-Timestamp": timestamp,
            f"{self._prefix}-Event": event or str(said.get("event", "")),
            f"{self._prefix}-Delivery-Id": str(said.get("delivery_id", "")),
        }
        return headers, body


def _wrap(payload: Mapping[str, Any], event: str | None, moment: float) -> Mapping[str, Any]:
    if event is None:
        return payload
    sent = datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return {"event": event, "delivery_id": str(uuid.uuid4()), "timestamp": sent, "data": payload}


def _write(body: Mapping[str, Any]) -> bytes:
    # PHP escapes slashes: whoever reads the JSON and writes it again gets another signature.
    return json.dumps(body, separators=(",", ":")).replace("/", "\\/").encode()


def _read(body: bytes) -> Mapping[str, Any]:
    try:
        said: Any = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", said) if isinstance(said, dict) else {}
