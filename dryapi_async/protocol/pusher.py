"""The push channel's words: Pusher protocol 7, from frames to news of jobs, and from how a connection ended to what comes next."""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from math import isfinite
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

from attrs import define, field, frozen

from dryapi_async.config import is_loopback
from dryapi_async.errors import ConfigurationError, ResponseError, show_value
from dryapi_async.protocol.links import mask
from dryapi_async.protocol.replies import decode_json, read_retry_after
from dryapi_async.protocol.retry import MINUTE_WINDOW, TRANSIENT, spread
from dryapi_async.protocol.status import Update, read_text, read_update, unwrap
from dryapi_async.protocol.untyped import is_object
from dryapi_async.version import __version__

JOB_EVENT: Final = "request.status.updated"
APP_PATH: Final = "/app/depin-api-prod-key"
"""The app's public key is a part of its address; it is no secret."""
AUTH_PATH: Final = "/broadcasting/auth"
"""At the API host's root, not under ``/api/v1``."""
PING_SECONDS: Final = 30.0
"""The longest silence before a ping of our own: the service expects one each 30 s."""
BACKOFF_BASE: Final = 1.0
BACKOFF_CAP: Final = 30.0
STEADY_SECONDS: Final = 10.0
"""A subscription that lived this long was none of a row of failures."""
MOST_REFUSALS: Final = 6
"""Refused authorisations in a row that end it: a wrong client_id is told within half a minute, a passing 403 of a CDN is outlived."""

_SOCKET_HOSTS: Final = {"api.dryapi.dev": "soketi.dryapi.dev", "api.deapi.ai": "soketi.deapi.ai"}
_PROTOCOL: Final = "7"
_REFUSED: Final = frozenset({401, 403})


@frozen(kw_only=True)
class Established:
    """The connection's first words. ``ping_seconds`` is the silence after which the client should ping."""

    socket_id: str
    ping_seconds: float


@frozen
class Subscribed:
    """The channel is ours."""


@frozen(kw_only=True)
class SubscriptionFailed:
    """The channel isn't ours. ``refused`` is whether the authorisation was at fault."""

    refused: bool
    reason: str


@frozen(kw_only=True)
class Trouble:
    """The server says why it is about to close; ``code`` is the close code that follows."""

    code: int
    message: str


@frozen
class Ping:
    """The server wants to hear a pong."""


@frozen
class Pong:
    """The server heard our ping."""


@frozen
class JobNews:
    """News of one of the account's jobs, whoever submitted it."""

    request_id: str
    update: Update


Frame = Established | Subscribed | SubscriptionFailed | Trouble | Ping | Pong | JobNews


def read_frame(text: str, channel: str) -> Frame | None:
    """Read one message; None for what says nothing here: garbage, unknown events, other channels, unfinished words.

    ``data`` may be an object or JSON in a text. A preview of 150 KB costs about a millisecond: such frames are read in a thread.
    """
    message = _decode(text)
    if not is_object(message) or not isinstance(event := message.get("event"), str):
        return None
    if (told := message.get("channel")) is not None and told != channel:
        return None
    data = message.get("data")
    if isinstance(data, str):
        data = _decode(data)
    read = _READERS.get(event.removeprefix("."))
    return None if read is None else read(data)


def _decode(text: str) -> Any:
    try:
        # A JSON escape can stand for half a character, which plain UTF-8 can't hold.
        return decode_json(text.encode(errors="surrogatepass"))
    except ResponseError:
        return None


def _read_established(data: object) -> Established | None:
    if not is_object(data) or (socket_id := read_text(data.get("socket_id"))) is None:
        return None
    given = _read_number(data.get("activity_timeout"))
    return Established(socket_id=socket_id, ping_seconds=PING_SECONDS if given is None or given < 1 else min(given, PING_SECONDS))


def _read_trouble(data: object) -> Trouble | None:
    """Take the codes that end a connection; others (a client event refused, no code at all) end nothing."""
    code = _read_number(data.get("code")) if is_object(data) else None
    if not is_object(data) or code is None or not 4000 <= code < 4300:  # noqa: PLR2004  the protocol's three ranges
        return None
    return Trouble(code=code, message=_say(data.get("message")))


def _read_subscription_error(data: object) -> SubscriptionFailed:
    given: Mapping[str, Any] = data if is_object(data) else {"status": data}
    status = _read_number(given.get("status"))
    refused = status is None or status in _REFUSED or given.get("type") == "AuthError"
    return SubscriptionFailed(refused=refused, reason=_say(given.get("error")) or f"status {status}")


def _read_job(data: object) -> JobNews | None:
    job = unwrap(data)
    found = job.get("request_id") if is_object(job) else None
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        return None
    try:
        return JobNews(str(found), read_update(job, source="push"))
    except ResponseError:
        return None


_READERS: Final[Mapping[str, Callable[[object], Frame | None]]] = {
    "pusher:ping": lambda _: Ping(),
    "pusher:pong": lambda _: Pong(),
    "pusher:connection_established": _read_established,
    "pusher:error": _read_trouble,
    "pusher_internal:subscription_succeeded": lambda _: Subscribed(),
    "pusher:subscription_error": _read_subscription_error,
    JOB_EVENT: _read_job,
}
"""Echo writes a leading dot before an event's name; it is cut off before one is looked up here."""


def _read_number(value: object) -> int | None:
    if isinstance(value, str) and value.isdecimal() and len(value) < 9:  # noqa: PLR2004  a code has four digits
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return int(value)


def _say(value: object) -> str:
    """Show a server's words: a line, and no signed address in it."""
    return mask(" ".join(value.split()))[:200] if isinstance(value, str) else ""


def make_ping() -> str:
    """Write the message that asks whether the server is there."""
    return _write("pusher:ping", {})


def make_pong() -> str:
    """Write the answer to a server's ping."""
    return _write("pusher:pong", {})


@frozen(kw_only=True)
class Grant:
    """The API's signature under a subscription; it holds for one socket_id and one channel."""

    auth: str = field(repr=False)
    channel_data: str | None = field(default=None, repr=False)


def make_subscribe(channel: str, grant: Grant) -> str:
    """Write the message that asks for a private channel."""
    data = {"channel": channel, "auth": grant.auth}
    return _write("pusher:subscribe", data if grant.channel_data is None else {**data, "channel_data": grant.channel_data})


def _write(event: str, data: Mapping[str, str]) -> str:
    return json.dumps({"event": event, "data": data}, separators=(",", ":"))


_CHANNEL_PART: Final = re.compile(r"[A-Za-z0-9_\-=@,.;]{1,150}")


def channel_name(client_id: str) -> str:
    """Name the account's channel.

    Raises:
        ConfigurationError: The protocol has no channel of that name.
    """
    if _CHANNEL_PART.fullmatch(client_id) is None:
        raise ConfigurationError(f"client_id {show_value(client_id)} can't name a push channel: copy it from the dashboard.")
    return f"private-client.{client_id}"


def push_url(base_url: str, given: str | None = None, *, allow_http: bool = False) -> str:
    """Find the push channel's address: the service's own for its two hosts, else the same host and port as the API's.

    ``given`` is a user's whole address with its app key, and overrides.

    Raises:
        ConfigurationError: ``given`` is none, or unencrypted to another machine without ``allow_http``.
    """
    query = {"protocol": _PROTOCOL, "client": "dryapi-async", "version": __version__}
    if given is None:
        parts = urlsplit(base_url)
        if (host := _SOCKET_HOSTS.get(parts.hostname or "")) is not None:
            return f"wss://{host}:443{APP_PATH}?{urlencode(query)}"
        return f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}{APP_PATH}?{urlencode(query)}"
    given = given.strip()
    try:
        parts = urlsplit(given)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError("push_url is no URL: give one such as wss://soketi.dryapi.dev/app/<app key>.") from None
    if parts.scheme not in {"ws", "wss"} or not host or "/app/" not in parts.path or parts.username is not None or parts.fragment:
        raise ConfigurationError("push_url must be a whole address such as wss://soketi.dryapi.dev/app/<app key>.")
    if parts.scheme == "ws" and not (allow_http or is_loopback(host)):
        raise ConfigurationError("push_url would carry result links unencrypted: use wss, or say allow_http=True.")
    asked = {name: value for name, value in query.items() if name not in parse_qs(parts.query)}
    joint = "&" if parts.query else ""
    return f"{given.partition('?')[0]}?{parts.query}{joint}{urlencode(asked)}".rstrip("&")


@frozen(kw_only=True)
class Ended:
    """How a connection ended, or why there was none.

    ``code`` is the close code, if one came; ``refused`` whether the subscription wasn't authorised; ``asked`` the seconds a Retry-After
    asks for; ``lived`` how many seconds it was subscribed.
    """

    why: str
    code: int | None = None
    refused: bool = False
    asked: float | None = None
    lived: float = 0.0


def read_authorisation(status: int, headers: Mapping[str, str], content: bytes, *, now: float) -> Grant | Ended:
    """Read the API's answer: a signature, or what its lack means. ``headers`` have lower-case names, ``now`` is unix time.

    A 4xx is a refusal, but for those that pass (408, 425, 429).
    """
    body: Any = None
    with suppress(ResponseError):
        body = decode_json(content)
    inner = unwrap(body)
    if status == HTTPStatus.OK and is_object(inner) and (auth := read_text(inner.get("auth"))) is not None:
        return Grant(auth=auth, channel_data=read_text(inner.get("channel_data")))
    limited = status == HTTPStatus.TOO_MANY_REQUESTS
    asked = read_retry_after(headers, body, now=now)
    return Ended(
        why=f"the authorisation was answered {status}",
        refused=400 <= status < 500 and not limited and status not in TRANSIENT,  # noqa: PLR2004  4xx
        asked=MINUTE_WINDOW if limited and asked is None else asked,
    )


@frozen
class Stop:
    """Never come back."""

    reason: str


@frozen
class Reconnect:
    """Connect again after ``seconds``."""

    seconds: float


@define
class Reconnection:
    """What is remembered from one connection to the next: how many ended badly in a row, and how many of them were refused."""

    failures: int = 0
    refusals: int = 0

    def after(self, ended: Ended, *, chance: float) -> Stop | Reconnect:
        """Decide what comes after a connection; ``chance`` is a random number in [0, 1).

        Close codes 4000-4099 are for good, 4100-4199 back off by a second or more, 4200-4299 come back at once (a server that keeps
        saying so is given time), all else backs off.
        """
        code = ended.code or 0
        if ended.lived >= STEADY_SECONDS:
            self.failures = 0
        if ended.lived:
            self.refusals = 0
        self.failures += 1
        self.refusals += ended.refused
        if 4000 <= code < 4100:  # noqa: PLR2004  the protocol's range
            return Stop(f"the push server closed for good with {code}{ended.why and f' ({ended.why})'}.")
        if self.refusals >= MOST_REFUSALS:
            return Stop(f"the push channel was refused {self.refusals} times, the last with {ended.why}: check client_id and the key.")
        if 4200 <= code < 4300 and self.failures == 1:  # noqa: PLR2004  the protocol's range
            return Reconnect(0.0)
        least = 1.0 if 4100 <= code < 4200 else 0.0  # noqa: PLR2004  the protocol's range
        asked = 0.0 if ended.asked is None else ended.asked + spread(ended.asked, chance)
        return Reconnect(max(least + backoff(self.failures, chance), asked))


def backoff(failures: int, chance: float) -> float:
    """Draw a pause in seconds with full jitter: between 0 and base * 2^(failures-1), capped."""
    return chance * min(BACKOFF_BASE * 2.0 ** min(failures - 1, 16), BACKOFF_CAP)
