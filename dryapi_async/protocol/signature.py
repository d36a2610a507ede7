"""Webhooks: whether a delivery is the service's own, and what it says."""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Final, cast

from attrs import evolve, field, frozen

from dryapi_async.errors import ConfigurationError, SignatureError
from dryapi_async.protocol.status import JobState, Update, read_text, read_update
from dryapi_async.protocol.untyped import is_list, is_object, is_sequence
from dryapi_async.values import Value

WINDOW_SECONDS: Final = 300
"""How far a delivery's timestamp may be from now, both ways."""

Headers = Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[str, str]] | Iterable[tuple[bytes, bytes]]
"""Any mapping of headers, multidicts too, or pairs as ASGI gives them."""

_BRANDS: Final = (b"x-dryapi-", b"x-deapi-")
_SIGNATURE: Final = b"signature"
_TIMESTAMP: Final = b"timestamp"
_LOOKED_AT: Final = {brand + word: (brand, word) for brand in _BRANDS for word in (_SIGNATURE, _TIMESTAMP)}
_SECONDS: Final = re.compile(rb"[0-9]{1,15}")
_STATES: Final = {"job.processing": JobState.PROCESSING, "job.completed": JobState.DONE, "job.failed": JobState.ERROR}
# The service nests three levels. Deeper than this, Python's own encoder, comparison and repr would end in a RecursionError later.
_MOST_DEPTH: Final = 64
_MOST_ID_CHARACTERS: Final = 255


@frozen(kw_only=True, eq=False, repr=False)
class WebhookEvent(Value):
    """One delivery of a webhook, verified.

    ``event`` is the service's word: job.processing, job.completed, job.failed, webhook.validation, or one that this package doesn't know.
    ``delivery_id`` names the delivery, ``request_id`` its job; ``update`` is the news about that job, None where it has none. ``sent_at``
    is a unix time. ``data`` is the delivery's data as it came. ``duplicate`` says that it was delivered before.

    All of it is read from the signed body, nothing from the headers: those anybody can change.
    """

    event: str
    delivery_id: str
    request_id: str | None = None
    update: Update | None = None
    job_type: str | None = None
    sent_at: float | None = None
    data: Mapping[str, Any] = field(factory=dict[str, Any], repr=False)
    duplicate: bool = False


def verify(headers: Headers, body: bytes, secrets: str | Sequence[str], now: float) -> WebhookEvent:
    """Check that the service signed a delivery, and read it.

    Args:
        headers: The request's headers in any spelling.
        body: The raw body, byte for byte as it came: JSON that was read and written again has another signature.
        secrets: The webhook secret of the account, or several while it is changed.
        now: The unix time.

    Raises:
        SignatureError: Anything is wrong with the delivery, whatever it is.
        ConfigurationError: There is no secret, or an empty one.
    """
    keys = _read_secrets(secrets)
    content = _read_raw(body)
    _check_signature(_find_signatures(headers), content, keys, now)
    return _read_event(content)


def sign(secret: bytes, timestamp: bytes, body: bytes) -> bytes:
    """Make the signature header's value: ``sha256=`` and the lower-case hex HMAC-SHA256 of the timestamp, a dot and the raw body."""
    return b"sha256=" + hmac.digest(secret, b"%b.%b" % (timestamp, body), "sha256").hex().encode()


def _read_raw(body: object) -> bytes:
    if not isinstance(body, bytes | bytearray):
        raise SignatureError.because(f"the body must be the raw bytes that came, not {type(body).__name__}")
    return bytes(body)


def _read_secrets(secrets: object) -> list[bytes]:
    several: Sequence[object] = secrets if is_sequence(secrets) else [secrets]
    keys: list[bytes] = []
    for secret in several:
        if not isinstance(secret, str) or not secret.strip():
            raise ConfigurationError("A webhook secret is empty or no text: give the one that the dashboard shows, whole.")
        try:
            # Surrogates are how Python's environment holds bytes that aren't UTF-8.
            keys.append(secret.encode(errors="surrogateescape"))
        except UnicodeEncodeError:
            raise ConfigurationError("A webhook secret has characters that can't be encoded.") from None
    if not keys:
        raise ConfigurationError("There is no webhook secret: give webhook_secret or set DRYAPI_WEBHOOK_SECRET.")
    return keys


def _find_signatures(headers: object) -> list[tuple[bytes, bytes]]:
    """Find a timestamp and a signature per brand.

    Raises:
        SignatureError: No brand has both, or one header came twice with different values.
    """
    found: dict[tuple[bytes, bytes], bytes] = {}
    for name, value in _pairs(headers):
        place = _LOOKED_AT.get(name.lower())
        content = value.strip()
        if place is None or not content:
            continue
        if found.setdefault(place, content) != content:
            raise SignatureError.because("its signature headers came twice, with different values")
    pairs = [
        (found[brand, _TIMESTAMP], found[brand, _SIGNATURE])
        for brand in _BRANDS
        if {(brand, _TIMESTAMP), (brand, _SIGNATURE)} <= found.keys()
    ]
    if not pairs:
        raise SignatureError.because("it isn't signed: the headers Signature and Timestamp aren't both there")
    return pairs


def _pairs(headers: object) -> Iterator[tuple[bytes, bytes]]:
    given: object = headers.items() if is_object(headers) else headers
    for item in cast("Iterable[object]", given) if isinstance(given, Iterable) else ():
        if is_sequence(item) and len(item) == 2:  # noqa: PLR2004  a name and a value
            name, value = item
            if isinstance(name, str | bytes) and isinstance(value, str | bytes):
                yield _as_bytes(name), _as_bytes(value)


def _as_bytes(text: str | bytes) -> bytes:
    # A signature and a timestamp are ASCII: what becomes of other characters only has to be wrong, and to raise nothing.
    return text if isinstance(text, bytes) else text.encode(errors="replace")


def _check_signature(signatures: list[tuple[bytes, bytes]], body: bytes, keys: list[bytes], now: float) -> None:
    reason = ""
    for timestamp, signature in signatures:
        if _SECONDS.fullmatch(timestamp) is None:
            reason = "its timestamp is no unix time"
        # Written so that a `now` that is no number refuses, too.
        elif not abs(now - int(timestamp)) <= WINDOW_SECONDS:
            reason = f"its timestamp is over {WINDOW_SECONDS} seconds from now: it is old, or a clock is wrong"
        elif any([hmac.compare_digest(signature, sign(key, timestamp, body)) for key in keys]):  # noqa: C419  each is compared, whichever fits
            return
        else:
            reason = "its signature is wrong: another secret, or the body was changed"
    raise SignatureError.because(reason)


def _read_event(content: bytes) -> WebhookEvent:
    body = _decode(content)
    event = read_text(body.get("event"))
    if event is None:
        raise SignatureError.because("its body names no event")
    inner = body.get("data")
    data: Mapping[str, Any] = inner if is_object(inner) else {}
    request_id = _read_id(data.get("job_request_id")) or _read_id(data.get("request_id"))
    return WebhookEvent(
        event=event,
        # Without one, the body names itself: the header's could be changed, to deliver the same again as new.
        delivery_id=_read_id(body.get("delivery_id")) or hashlib.sha256(content).hexdigest(),
        request_id=request_id,
        update=None if request_id is None else _read_news(event, data),
        job_type=read_text(data.get("job_type")),
        sent_at=_read_time(body.get("timestamp")),
        data=data,
    )


def _decode(content: bytes) -> Mapping[str, Any]:
    try:
        body = json.loads(content.decode(), parse_constant=lambda _: None)
    except (ValueError, RecursionError):  # not UTF-8, not JSON, a number of over 4,300 digits; nested too deep for the reader
        raise SignatureError.because("its body is no JSON that can be read") from None
    if not is_object(body):
        raise SignatureError.because("its body is no JSON object")
    _check_depth(body)
    return body


def _check_depth(body: Mapping[str, Any]) -> None:
    level: list[Any] = [body]
    for _ in range(_MOST_DEPTH):
        level = [
            inner for outer in level for inner in (outer.values() if is_object(outer) else outer) if is_object(inner) or is_list(inner)
        ]
        if not level:
            return
    raise SignatureError.because("its body is nested too deep")


def _read_id(value: object) -> str | None:
    """Take an id: text, or a number as in older samples. Bounded, for ids are kept."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value)
    return text if 0 < len(text) <= _MOST_ID_CHARACTERS and text.isprintable() else None


def _read_news(event: str, data: Mapping[str, Any]) -> Update | None:
    """Read what a delivery says of its job: the event decides the state, its status word only where the event is an unknown one."""
    state = _STATES.get(event)
    status = read_text(data.get("status"))
    if status is None and state is None:
        return None
    update = read_update({"data": {**data, "status": status or event.removeprefix("job.")}}, source="webhook")
    return update if state is None else evolve(update, state=state)


def _read_time(value: object) -> float | None:
    """Read a unix time from ISO 8601 (as UTC where it names no zone), or from a number."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        seconds = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        return None
    return seconds if seconds is not None and isfinite(seconds) else None
