"""What a client is told once: key, hosts, time-outs, retry. Plain data, checked when it is made."""

import os
from collections.abc import Collection, Mapping, Sequence
from ipaddress import ip_address
from math import isfinite
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

from attrs import field, frozen

from dryapi_async.errors import ConfigurationError, show_value
from dryapi_async.values import Value

if TYPE_CHECKING:
    from dryapi_async.shared import SharedState

DRYAPI_URL: Final = "https://api.dryapi.dev"
"""The dryAPI host, the default."""
DEAPI_URL: Final = "https://api.deapi.ai"
"""The deAPI host: the same wire API under another brand."""

DEFAULT_TIMEOUT: Final = 900.0
"""Seconds that every wait is given where the user names none."""


def _check_seconds(name: str, seconds: float | None, *, zero: bool = False) -> None:
    """Refuse a number of seconds that can't be waited for."""
    if seconds is not None and not (is_finite_number(seconds) and (seconds > 0 or (zero and seconds == 0))):
        raise ConfigurationError(f"{name} must be a positive number of seconds, not {show_value(seconds)}.")


def is_finite_number(value: object) -> bool:
    """Say whether a value is a number that can be reckoned with; True and False aren't."""
    if type(value) is float:
        return isfinite(value)
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def _check_count(name: str, count: int, *, least: int = 1) -> None:
    if not is_finite_number(count) or int(count) != count or count < least:
        raise ConfigurationError(f"{name} must be a whole number of at least {least}, not {show_value(count)}.")


@frozen(kw_only=True, eq=False, repr=False)
class Timeouts(Value):
    """How long each part of a request may take, in seconds; None is for ever."""

    connect: float | None = 10.0
    """Name look-up, TCP and TLS."""
    pool: float | None = 60.0
    """Waiting for one of ``pool_size`` connections."""
    idle: float | None = 60.0
    """No byte in either direction: a transfer that moves, however slowly, isn't cut."""
    total: float | None = None
    """One whole request. Transfers have none unless asked."""
    keepalive: float = 4.0
    """An unused connection is kept this long: below every server seen, so that a submit doesn't race its closing."""
    orphan: float = 30.0
    """A cancelled submit that is on the wire is listened to this much longer, so that a paid job isn't lost."""

    def __attrs_post_init__(self) -> None:
        """Refuse what can't be waited for."""
        for name in ("connect", "pool", "idle", "total"):
            _check_seconds(f"Timeouts.{name}", getattr(self, name))
        _check_seconds("Timeouts.keepalive", self.keepalive, zero=True)
        _check_seconds("Timeouts.orphan", self.orphan, zero=True)


@frozen(kw_only=True, eq=False, repr=False)
class Retry(Value):
    """What may be sent again, and how often. A submit is repeated only where the service can't have accepted it."""

    attempts: int = 4
    """Every request of one call, 429s included; 1 is exactly one request."""
    max_retry_after: float = 120.0
    """Seconds: a 429 that asks for more raises RateLimitError at once."""
    polls: int = 10
    """Failed status reads in a row that end a wait."""
    unexecuted: Collection[int] = frozenset()
    """Statuses (408, 425, 5xx) that you know to mean "not executed", such as 503, 521, 523, 525, 526: a submit that meets one is sent
    again. What the service bills on a 5xx isn't documented: where the job was made all the same, it is paid for twice."""

    def __attrs_post_init__(self) -> None:
        """Refuse what can't be counted."""
        object.__setattr__(self, "unexecuted", _read_statuses(self.unexecuted))
        _check_count("Retry.attempts", self.attempts)
        _check_count("Retry.polls", self.polls)
        _check_seconds("Retry.max_retry_after", self.max_retry_after, zero=True)


def _read_statuses(given: object) -> frozenset[int]:
    """Take statuses that may mean "not executed"; what is accepted or refused outright can't."""
    if not isinstance(given, Collection) or isinstance(given, str | bytes):
        raise ConfigurationError(f"Retry.unexecuted must be a set of statuses such as {{503}}, not {show_value(given)}.")
    statuses: set[int] = set()
    for status in cast("Collection[object]", given):
        if not isinstance(status, int) or isinstance(status, bool) or not (status in {408, 425} or 500 <= status <= 599):  # noqa: PLR2004  5xx
            raise ConfigurationError(f"Retry.unexecuted takes 408, 425 and statuses from 500 to 599, not {show_value(status)}.")
        statuses.add(status)
    return frozenset(statuses)


@frozen(eq=False, repr=False)
class Rate(Value):
    """So many requests in so many seconds."""

    limit: int
    seconds: float = 60.0

    def __attrs_post_init__(self) -> None:
        """Refuse what can't be kept."""
        _check_count("Rate.limit", self.limit)
        _check_seconds("Rate.seconds", self.seconds)


MOST_DIGITS: Final = 9
"""A limit with more digits is a slip."""
DAY_SECONDS: Final = 86_400.0
"""A day's limit starts anew at midnight UTC, not so long after a request."""


@frozen(kw_only=True, eq=False, repr=False)
class Limits(Value):
    """How many requests a lane may send. A lane is what the service counts together: a slug, ``whisper``, ``prices``, ``status``.

    ``default`` holds for lanes that aren't named, None is no limit; ``lanes`` holds one or several rates for each named lane; ``pot`` is
    shared by all lanes together. ``learns`` says that these are guesses, which the service's own headers replace.
    """

    default: Rate | None = None
    lanes: Mapping[str, Rate | tuple[Rate, ...]] = field(factory=dict[str, Rate | tuple[Rate, ...]])
    pot: Rate | None = None
    learns: bool = False

    def __attrs_post_init__(self) -> None:
        """Refuse what isn't a rate."""
        rates: list[object] = [one for one in (self.default, self.pot) if one is not None]
        if not isinstance(self.lanes, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  untyped callers
            raise ConfigurationError(f"Limits.lanes must be a mapping such as {{'txt2img': Rate(3, 60)}}, not {show_value(self.lanes)}.")
        for given in self.lanes.values():
            rates += given if isinstance(given, tuple) else [given]
        for rate in rates:
            if not isinstance(rate, Rate):
                raise ConfigurationError(f"Limits takes Rate(limit, seconds), not {show_value(rate)}.")

    @classmethod
    def none(cls) -> "Limits":
        """Keep to nothing but the service's own refusals."""
        return cls()

    @classmethod
    def auto(cls) -> "Limits":
        """Begin with guesses, and learn from the headers of each answer: 300 submits a minute a lane, 40 status reads, 150 a day."""
        return cls(default=Rate(300, 60.0), lanes={"status": (Rate(40, 60.0), Rate(150, DAY_SECONDS))}, learns=True)

    @classmethod
    def basic(cls) -> "Limits":
        """Keep to an account that never paid: a minute's and a day's limit for each operation, by the service's limits page."""
        lanes = {lane: (Rate(minute, 60.0), Rate(day, DAY_SECONDS)) for lane, (minute, day) in _BASIC.items()}
        return cls(lanes=lanes)

    @classmethod
    def premium(cls) -> "Limits":
        """Keep to an account that paid: 300 a minute for each lane, no day's limit."""
        return cls(default=Rate(300, 60.0))

    @classmethod
    def shared(cls, per_minute: int) -> "Limits":
        """Keep all requests together under one limit, spread over the minute: a thirtieth of it may go at once.

        Spent in a minute's first seconds, it would leave finished jobs unseen until the next: measured, 50 s late in place of 8.
        """
        _check_count("requests a minute", per_minute)
        at_once = max(per_minute // 30, 1)
        return cls(pot=Rate(at_once, 60.0 * at_once / per_minute))

    @classmethod
    def parse(cls, text: str) -> "Limits":
        """Read what DRYAPI_LIMITS says: none, auto, basic, premium, or requests a minute for everything together.

        Raises:
            ConfigurationError: It says something else.
        """
        word = _read_word(text)
        named = {"none": cls.none, "auto": cls.auto, "basic": cls.basic, "premium": cls.premium}
        if word in named:
            return named[word]()
        if word.isdecimal() and len(word) <= MOST_DIGITS and int(word) > 0:
            return cls.shared(int(word))
        raise ConfigurationError(f"DRYAPI_LIMITS={show_value(text)} must be none, auto, basic, premium, or requests a minute.")


def _read_word(given: object) -> str:
    return given.strip().lower() if isinstance(given, str) else ""


_BASIC: Final = {
    # lane: a minute, a day (contract: tiers and per-endpoint limits)
    "txt2img": (3, 100),
    "txt2video": (1, 15),
    "img2video": (1, 15),
    "aud2video": (1, 15),
    "txt2music": (1, 15),
    "img2img": (1, 15),
    "txt2audio": (5, 300),
    "txt2embedding": (10, 500),
    "img2txt": (5, 50),
    "whisper": (1, 10),
    "img-rmbg": (5, 100),
    "img-upscale": (5, 100),
    "prices": (50, 200),
    "status": (50, 200),
}


def is_loopback(host: str) -> bool:
    """Say whether a host name or address means this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_ipv6(host: str) -> bool:
    """Say whether a host is an IPv6 address, without brackets, as links are looked at."""
    try:
        return ip_address(host).version == 6  # noqa: PLR2004  the protocol's
    except ValueError:
        return False


def _show_url(given: str) -> str:
    """Show what was given as a URL, but for what may be a secret: a user, a query, and a text that is no URL, such as a key."""
    scheme, colon, rest = given.partition("://")
    if not colon:
        return "(which isn't shown, for it may be a key)"
    return repr(f"{scheme}://…" if set("@?#") & set(rest) else given)


def _read_base_url(given: object, *, allow_http: bool) -> str:
    """Cut a base URL down to scheme, host, port and the path before ``/api/v1``."""
    if not isinstance(given, str):
        raise ConfigurationError(f"base_url must be a str, not {type(given).__name__}.")
    try:
        parts = urlsplit(given.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        # Not from that error: its words may be a part of a password.
        raise ConfigurationError(f"base_url {_show_url(given)} is no URL: give one such as {DRYAPI_URL}.") from None
    if parts.scheme not in {"https", "http"} or not host:
        raise ConfigurationError(f"base_url {_show_url(given)} must be a whole URL such as {DRYAPI_URL}.")
    if not given.isascii():
        raise ConfigurationError(f"base_url {_show_url(given)} isn't ASCII: spell its host as DNS does (xn--...), its path with %.")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError("base_url must have no user, query or fragment: the key goes into api_key or DRYAPI_API_KEY.")
    if parts.scheme == "http" and not (allow_http or is_loopback(host)):
        raise ConfigurationError(f"base_url {_show_url(given)} would send the key unencrypted: use https, or say allow_http=True.")
    path = parts.path.rstrip("/")
    for ending in ("/client", "/v1", "/api"):
        path = path.removesuffix(ending).rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def _read_key(given: object) -> str:
    """Check a key, and strip the prefix that belongs to the OpenAI-compatible gateway only."""
    if not isinstance(given, str):
        raise ConfigurationError(f"api_key must be a str, not {type(given).__name__}.")
    key = given.strip().removeprefix("dpn-sk-")
    if not key:
        raise ConfigurationError("No API key: set DRYAPI_API_KEY or give Client(api_key=...). The simulator takes the key that it prints.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("The API key has characters that no header can carry: copy it again from the dashboard.")
    return key


def _check_proxy(proxy: object) -> None:
    """Refuse what is no proxy's address, without showing it: it may hold a password."""
    if proxy is None:
        return
    try:
        parts = urlsplit(proxy) if isinstance(proxy, str) else None
        usable = parts is not None and parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError("proxy must be a whole http(s) address such as http://user:password@host:port.")


def _read_secrets(given: object) -> tuple[str, ...] | None:
    """Take one webhook secret or several (while one is rotated out)."""
    if given is None:
        return None
    secrets = (given,) if isinstance(given, str) else tuple(cast("Sequence[object]", given)) if isinstance(given, Sequence) else ()
    found = tuple(secret for secret in secrets if isinstance(secret, str) and secret)
    if not found or len(found) != len(secrets):
        raise ConfigurationError(
            "webhook_secret must be a secret, or several while one is rotated out; an empty one would verify anything."
        )
    return found


def _read_hosts(given: object) -> tuple[str, ...]:
    """Take names of hosts."""
    if isinstance(given, str):
        raise ConfigurationError(f"storage_hosts must be a tuple of host names: write ({given!r},).")
    hosts = tuple(cast("Collection[object]", given)) if isinstance(given, Collection) else (given,)
    for host in hosts:
        if not isinstance(host, str):
            raise ConfigurationError(f"storage_hosts must be names of hosts, not {show_value(host)}.")
        if "/" in host or (":" in host and not _is_ipv6(host)):
            # As it wouldn't match the host of any link; what stands before or behind the host may be a password.
            raise ConfigurationError("storage_hosts must be bare host names such as 'minio.local', without scheme, port and path.")
    return tuple(host.lower() for host in cast("tuple[str, ...]", hosts))


@frozen(kw_only=True, eq=False, repr=False)
class Settings(Value):
    """Everything a client is told that is plain data; the key is in no repr."""

    api_key: str = field(repr=False)
    base_url: str = DRYAPI_URL
    max_in_flight: int = 16
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    limits: Limits = field(factory=Limits.auto)
    pool_size: int = 100
    poll: float | None = None
    webhook_url: str | None = None
    webhook_secret: str | Sequence[str] | None = field(default=None, repr=False)
    client_id: str | None = None
    push_url: str | None = None
    storage_hosts: tuple[str, ...] = ()
    proxy: str | None = field(default=None, repr=False)
    allow_http: bool = False
    check: bool = False
    expect100: bool = False
    shared: "SharedState | None" = None

    def __attrs_post_init__(self) -> None:
        """Check each option, and normalise key, URL and pool."""
        for name, kind in (("timeouts", Timeouts), ("retry", Retry), ("limits", Limits)):
            if not isinstance(getattr(self, name), kind):
                raise ConfigurationError(f"{name} must be {kind.__name__}(...), not {show_value(getattr(self, name))}.")
        object.__setattr__(self, "api_key", _read_key(self.api_key))
        object.__setattr__(self, "base_url", _read_base_url(self.base_url, allow_http=self.allow_http))
        _check_count("max_in_flight", self.max_in_flight)
        _check_count("pool_size", self.pool_size)
        object.__setattr__(self, "pool_size", max(self.pool_size, self.max_in_flight))
        _check_seconds("poll", self.poll, zero=True)
        _check_proxy(self.proxy)
        object.__setattr__(self, "webhook_secret", _read_secrets(self.webhook_secret))
        for name in ("client_id", "push_url", "webhook_url"):
            if not isinstance(getattr(self, name), str | None):
                raise ConfigurationError(f"{name} must be a str, not {type(getattr(self, name)).__name__}.")
        for name in ("allow_http", "check", "expect100"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name} must be True or False, not {show_value(getattr(self, name))}.")
        object.__setattr__(self, "storage_hosts", _read_hosts(self.storage_hosts))
        if self.shared is not None:
            from dryapi_async.shared import read_shared  # noqa: PLC0415

            object.__setattr__(self, "shared", read_shared(self.shared))

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """The secrets that webhooks may be signed with; none, where none was given."""
        return tuple(self.webhook_secret or ())

    @property
    def is_local(self) -> bool:
        """Whether base_url is this machine: then results over http and from private addresses are taken."""
        return is_loopback(urlsplit(self.base_url).hostname or "")

    @classmethod
    def load(cls, *, environ: Mapping[str, str] | None = None, **given: object) -> "Settings":
        """Make settings from what is given, then the environment, then the defaults. None counts as not given."""
        environ = os.environ if environ is None else environ
        options = {name: value for name, value in given.items() if value is not None}
        options.setdefault("api_key", environ.get("DRYAPI_API_KEY", ""))
        options.setdefault("base_url", environ.get("DRYAPI_BASE_URL") or DRYAPI_URL)
        if "limits" not in options and environ.get("DRYAPI_LIMITS"):
            options["limits"] = Limits.parse(environ["DRYAPI_LIMITS"])
        for name, variable in (
            ("client_id", "DRYAPI_CLIENT_ID"),
            ("push_url", "DRYAPI_PUSH_URL"),
            ("webhook_secret", "DRYAPI_WEBHOOK_SECRET"),
        ):
            if environ.get(variable):
                options.setdefault(name, environ[variable])
        return cls(**options)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  each option is checked above
