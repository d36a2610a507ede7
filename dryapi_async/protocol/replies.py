"""Answers of the service become values or typed errors. The reader is tolerant: it takes every variant seen, and never assumes a dict."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from math import isfinite
from typing import Any, Final, Literal

from dryapi_async.errors import (
    AccountSuspendedError,
    AuthenticationError,
    GoneError,
    InsufficientBalanceError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RateLimitError,
    ResponseError,
    ServerError,
    StatusError,
    ValidationError,
    one_line,
)
from dryapi_async.protocol.jsons import decode_fast, decode_plain
from dryapi_async.protocol.links import mask
from dryapi_async.protocol.status import excerpt, read_text, unwrap
from dryapi_async.protocol.untyped import is_list, is_object

_DEEPEST: Final = 100
"""Levels of nesting that are read: the contract has 6, and what is deeper breaks every recursive function after this one."""


def decode_json(content: bytes, *, exact: bool = False, fast: bool = False, status: int | None = None) -> Any:
    """Decode a body. With ``exact``, fractions are Decimal: money must not pass through a binary float. ``fast`` may round long numbers.

    Raises:
        ResponseError: Empty, HTML, not UTF-8, nested too deep, or otherwise no JSON.
    """
    try:
        body = json.loads(content, parse_float=Decimal) if exact else decode_fast(content) if fast else decode_plain(content)
        if content.count(b"[") + content.count(b"{") > _DEEPEST:
            _check_depth(body)
    except (ValueError, ArithmeticError, RecursionError) as error:
        shown = excerpt(content[:400].decode(errors="replace"))
        what = "an empty body" if not content.strip() else "an HTML page" if content.lstrip()[:1] == b"<" else "no JSON"
        raise ResponseError(
            f"The service answered {what} where JSON was expected; check base_url. It begins: {shown!r}", status=status, excerpt=shown
        ) from (None if isinstance(error, RecursionError) else error)
    return body


def _check_depth(body: object) -> None:
    level: list[Any] = [body]
    for _ in range(_DEEPEST):
        level = [inner for one in level if is_object(one) or is_list(one) for inner in (one.values() if is_object(one) else one)]
        if not level:
            return
    raise ValueError("nested too deep")


def read_request_id(body: object) -> str:
    """Read the id of a new job; numbers are taken as text."""
    inner = unwrap(body)
    found = inner.get("request_id") if is_object(inner) else None
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    if not isinstance(found, str) or not found:
        raise ResponseError(f"The answer has no request_id; check base_url. It begins: {excerpt(body)}", excerpt=excerpt(body))
    return found


def read_money(body: object, *names: str) -> Decimal:
    """Read an amount under the first of ``names`` that is there, in ``data`` or on top, a number or a numeric text. US dollars."""
    for name in names:
        for place in (unwrap(body), body):
            amount = _read_decimal(place.get(name)) if is_object(place) else None
            if amount is not None:
                return amount
    raise ResponseError(
        f"The answer has no {names[0]}; check base_url, or try again later. It begins: {excerpt(body)}", excerpt=excerpt(body)
    )


def _read_decimal(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    try:
        amount = Decimal(value)
    except InvalidOperation:
        return None
    return amount if amount.is_finite() else None


_HINTS: Final = {
    400: "Check the request against the operation's documentation",
    401: "Check the API key (DRYAPI_API_KEY) against the dashboard",
    402: "Top up the balance, then send it again: nothing was billed",
    403: "The account or the network in front of the service refuses this; trying again doesn't help",
    404: "No such job, model or route: check the id, and base_url (a host that serves only a part of the API answers this, too)",
    410: "The service has retired this operation",
    413: "The upload is over the service's limit: send a smaller file",
    422: "Mend the named fields, then send it again: nothing was billed",
    429: "Nothing was billed; try again later",
}
_MODEL_HINT: Final = "Look at client.models() for the slugs and limits that this account may use"
_CLASSES: Final[dict[int, type[StatusError]]] = {
    401: AuthenticationError,
    402: InsufficientBalanceError,
    403: PermissionDeniedError,
    404: NotFoundError,
    410: GoneError,
    413: PayloadTooLargeError,
    422: ValidationError,
    429: RateLimitError,
}
_POOR: Final = r"(?is)(not enough|insufficient).{0,20}(balance|credits)"
_HOUR: Final = 3600.0
_NAMELESS: Final = "request"
"""The field of words that the service names none for."""


def read_error(status: int, headers: Mapping[str, str], content: bytes, *, request: str, now: float) -> StatusError:
    """Turn a refusal into its typed error, from any of the bodies seen. ``headers`` have lower-case names, ``now`` is unix time."""
    body = _decode_leniently(content)
    errors = read_field_errors(body)
    message = mask(_read_message(body, errors) or _reason_of(status))
    cls = _classify(status, body, errors, message)
    successor = _read_successor(headers.get("link", "")) if cls is GoneError else None
    said = f"{request} was refused with {status}: {shorten(_name_fields(errors, message) + message)}"
    parts = (said, shorten(_field_text(errors, message)), _hint(cls, status, errors), f"Its successor is {successor}" if successor else "")
    error = cls(
        ". ".join(part.rstrip(".") for part in parts if part) + ".",
        status=status,
        message=message,
        errors=errors,
        # A cookie is a key to a session, and no news.
        headers={name: mask(value) for name, value in headers.items() if name != "set-cookie"},
        request=request,
    )
    if isinstance(error, RateLimitError):
        error.kind = read_limit_kind(headers, body, now=now)
        error.retry_after = read_retry_after(headers, body, now=now)
        error.resets_at = _read_reset(error, now)
    elif isinstance(error, GoneError):
        error.successor = successor
    return error


def _hint(cls: type[StatusError], status: int, errors: Mapping[str, tuple[str, ...]]) -> str:
    """Say what to do next."""
    if cls is AccountSuspendedError:
        return "Only the service's support can lift that"
    if cls is InsufficientBalanceError:
        return _HINTS[402]
    if cls is ServerError:
        return "The service or its gateway is in trouble: try later"
    if {"model", "loras"} & {name.partition(".")[0] for name in errors}:
        return _MODEL_HINT
    return _HINTS.get(status, "Nothing was billed: check the request against the service's words")


_MOST_WORDS: Final = 500
"""Characters of the service's message in an error's text, and of its words about fields; whole they are in ``message`` and ``errors``."""


_UNSHOWABLE: Final = r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]"
"""What steers a terminal, and what no log's encoding can write."""


def shorten(text: str) -> str:
    """Put words of the service on one line of at most 500 characters, without signs that a terminal or a log stumbles over."""
    # Cut before its lines are joined: a page of a megabyte isn't walked through for one line.
    text = re.sub(_UNSHOWABLE, "\ufffd", one_line(text[: 4 * _MOST_WORDS]))
    return text if len(text) <= _MOST_WORDS else text[:_MOST_WORDS] + "…"


def _classify(status: int, body: object, errors: Mapping[str, tuple[str, ...]], message: str) -> type[StatusError]:
    if status == HTTPStatus.UNPROCESSABLE_ENTITY and ("balance" in errors or re.search(_POOR, message)):
        return InsufficientBalanceError
    if status == HTTPStatus.FORBIDDEN and is_object(body) and "suspended" in message.lower():
        return AccountSuspendedError
    return _CLASSES.get(status, ServerError if status >= HTTPStatus.INTERNAL_SERVER_ERROR else StatusError)


def _name_fields(errors: Mapping[str, tuple[str, ...]], message: str) -> str:
    """Name the fields whose words are the message itself."""
    names = ", ".join(name for name, words in errors.items() if " ".join(words) == message and name != _NAMELESS)
    return f"{names}: " if names else ""


def _field_text(errors: Mapping[str, tuple[str, ...]], message: str) -> str:
    """Say each field's words, but for those that the message has already."""
    return "; ".join(f"{name}: {' '.join(words)}" for name, words in errors.items() if " ".join(words) != message)


def _decode_leniently(content: bytes) -> object:
    try:
        return decode_json(content)
    except ResponseError:
        return None


def _reason_of(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "no reason given"


def read_field_errors(body: object) -> dict[str, tuple[str, ...]]:
    """Normalise ``errors`` in any of its shapes to field -> messages."""
    given: object = body.get("errors") if is_object(body) else None
    if is_object(given):
        pairs: list[tuple[Any, Any]] = list(given.items())
    elif is_list(given):
        pairs = [(one.get("field"), one.get("messages", one.get("message"))) if is_object(one) else ("", one) for one in given]
    else:
        pairs = []
    found: dict[str, tuple[str, ...]] = {}
    for name, words in pairs:
        texts = tuple(mask(word) for word in (words if is_list(words) else [words]) if isinstance(word, str) and word)
        if texts:
            key = mask(str(name)) if name else _NAMELESS
            found[key] = found.get(key, ()) + texts
    return found


def _read_message(body: object, errors: Mapping[str, tuple[str, ...]]) -> str | None:
    first = next((words[0] for words in errors.values()), None)
    if not is_object(body):
        return first
    error: object = body.get("error")
    inner = read_text(error.get("message")) if is_object(error) else read_text(error)
    return read_text(body.get("message")) or inner or first


def read_retry_after(headers: Mapping[str, str], body: object = None, *, now: float) -> float | None:
    """Read how many seconds the service asks to wait: a number, a date, or ``retry_after`` in the body; None where it says nothing."""
    given = headers.get("retry-after", "").strip()
    seconds = _read_seconds(given)
    if seconds is None and given:
        try:
            seconds = max(_read_date(given) - now, 0.0)
        except (ValueError, OverflowError):
            seconds = None
    if seconds is None and is_object(body):
        seconds = _read_seconds(body.get("retry_after"))
    return seconds


def _read_date(given: str) -> float:
    """Read an HTTP date as unix time. One without a zone, or of a zone that isn't known, is UTC and not this machine's own."""
    moment = parsedate_to_datetime(given)
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _read_seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if isfinite(seconds) and seconds >= 0 else None


def read_limit_kind(headers: Mapping[str, str], body: object = None, *, now: float) -> Literal["minute", "daily"]:
    """Say which limit a 429 is about. A bare one is the minute's."""
    said = headers.get("x-ratelimit-type", "").lower() or (str(body.get("exceeded", "")).lower() if is_object(body) else "")
    if said in {"daily", "day"}:
        return "daily"
    if said in {"minute", "minutely"}:
        return "minute"
    asked = read_retry_after(headers, body, now=now)
    return "daily" if headers.get("x-ratelimit-daily-remaining", "").strip() == "0" or (asked or 0) > _HOUR else "minute"


def _read_reset(error: RateLimitError, now: float) -> float | None:
    if error.retry_after is not None:
        return now + error.retry_after
    return next_midnight(now) if error.kind == "daily" else None


def next_midnight(now: float) -> float:
    """Find the unix time of the next midnight UTC, when the day's limits start anew."""
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (today + timedelta(days=1)).timestamp()


def _read_successor(link: str) -> str | None:
    """Find the address with rel="successor-version" in a Link header, else the first one."""
    links = re.findall(r"<([^>]*)>([^<]*)", link)
    return next((address for address, said in links if "successor" in said), links[0][0] if links else None)
