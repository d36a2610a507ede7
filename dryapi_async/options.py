"""Options of a client that aren't plain data, and those that are checked against the operations."""

from collections.abc import Sequence
from hashlib import sha256
from importlib import import_module
from inspect import iscoroutinefunction
from os import PathLike
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, TypedDict

import aiohttp
from attrs import evolve

from dryapi_async import operations as ops
from dryapi_async.config import Limits, Retry, Settings, Timeouts
from dryapi_async.errors import ConfigurationError, show_value
from dryapi_async.protocol.endpoint import FREE_LANE, PRICES_LANE

if TYPE_CHECKING:
    from dryapi_async.events import OnEvent
    from dryapi_async.io.journal import Journal
    from dryapi_async.teller import Teller


def check_lanes(limits: Limits) -> None:
    """Refuse limits for lanes that don't exist: a slip would leave the account unguarded.

    Raises:
        ConfigurationError: Names the lanes that there are.
    """
    known = {PRICES_LANE, FREE_LANE} | {operation.endpoint.lane for operation in ops.ALL}
    if wrong := sorted(set(limits.lanes) - known):
        raise ConfigurationError(f"Limits: there is no lane {wrong[0]!r}. The lanes are {', '.join(sorted(known))}.")


def check_parts(*, ssl: object, session: object, connector: object, on_event: object) -> None:
    """Refuse what can't be what it is given for: said when the client is made, not in the middle of a request.

    Raises:
        ConfigurationError: Names the option.
    """
    parts = (("ssl", ssl, SSLContext), ("session", session, aiohttp.ClientSession), ("connector", connector, aiohttp.BaseConnector))
    for name, part, kind in parts:
        if part is not None and not isinstance(part, kind):
            raise ConfigurationError(f"{name} must be of {kind.__module__.partition('.')[0]}.{kind.__name__}, not {show_value(part)}.")
    if session is not None and connector is not None:
        raise ConfigurationError("Give a session or a connector, not both: of a session only the connector is used.")
    if on_event is not None and (not callable(on_event) or iscoroutinefunction(on_event)):
        raise ConfigurationError("on_event must be a plain function: it is called in the middle of a request, and isn't waited for.")


def check_push(settings: Settings) -> None:
    """Refuse a channel or an address of the websocket that can't be one: said when the client is made, not by its silence.

    Raises:
        ConfigurationError: Names the option.
    """
    if settings.client_id is None and settings.push_url is None:
        return
    from dryapi_async.protocol.pusher import channel_name, push_url  # noqa: PLC0415

    if settings.client_id is not None:
        channel_name(settings.client_id)
    if settings.push_url is not None:
        push_url(settings.base_url, settings.push_url, allow_http=settings.allow_http)


def load_parts(settings: Settings) -> None:
    """Import what a client needs and its class doesn't, while one is made: its first call, on a loop that others share, imports nothing.

    But for redis-py, which is imported only where a store is opened: that is the first call of a client with ``shared``.
    """
    import_module("aiofiles.threadpool")
    import_module("cattrs.gen")
    if settings.client_id is not None:
        import_module("dryapi_async.io.push")
    if settings.shared is not None:
        import_module("dryapi_async.io.shared_lanes")
        import_module("dryapi_async.io.shared_news")


class TenantOptions(TypedDict, total=False):
    """What ``client.with_options`` takes: an option that isn't given stays."""

    api_key: str
    limits: Limits
    timeouts: Timeouts
    retry: Retry
    poll: float | None
    webhook_url: str | None
    webhook_secret: str | Sequence[str] | None
    client_id: str | None
    check: bool
    on_event: "OnEvent | None"


def tenant_settings(settings: Settings, options: TenantOptions) -> Settings:
    """Give the settings of another account, or of the same with other options.

    What belongs to an account (``client_id``, ``webhook_secret``, ``webhook_url``) doesn't pass to another.

    Raises:
        ConfigurationError: An option that can't be changed here, or is out of range.
    """
    if wrong := sorted(set(options) - set(TenantOptions.__annotations__)):
        raise ConfigurationError(
            f"with_options() can't change {wrong[0]}, which belongs to the connections: make a new Client. "
            f"It takes {', '.join(TenantOptions.__annotations__)}."
        )
    changes: dict[str, Any] = {name: value for name, value in options.items() if name != "on_event"}
    if changes.get("api_key", settings.api_key) != settings.api_key:
        changes = {"client_id": None, "webhook_secret": None, "webhook_url": None, **changes}
    found = evolve(settings, **changes)
    check_lanes(found.limits)
    check_push(found)
    load_parts(found)
    return found


def make_teller(on_event: "OnEvent | None") -> "Teller | None":
    """Make what tells a hook; the events are imported only here."""
    if on_event is None:
        return None
    from dryapi_async.teller import Teller  # noqa: PLC0415

    return Teller(on_event)


def account_of(settings: Settings) -> str:
    """Name an account without its key: a part of its SHA-256."""
    return sha256(settings.api_key.encode()).hexdigest()[:16]


def make_journal(path: str | PathLike[str], settings: Settings) -> "Journal":
    """Make a journal of one account; sqlite3 is imported only here."""
    from dryapi_async.io.journal import Journal  # noqa: PLC0415

    if not isinstance(path, str | PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]  untyped callers
        raise ConfigurationError(f"journal must be a path, not {type(path).__name__}.")
    return Journal(path, base_url=settings.base_url, account=account_of(settings))
