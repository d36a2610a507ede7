"""What a client tells its ``on_event`` hook: typed, frozen, plain. A hook that raises is logged and breaks no call."""

from collections.abc import Callable

from attrs import frozen


@frozen(kw_only=True)
class Attempt:
    """One HTTP request ended. ``status`` is None where no answer came; ``error`` then says why."""

    request: str
    """Method and slug, such as ``POST img2img``."""
    number: int
    """1 for the first."""
    seconds: float
    status: int | None = None
    error: str | None = None


@frozen(kw_only=True)
class RateLimited:
    """A request waits for its lane."""

    lane: str
    seconds: float


@frozen(kw_only=True)
class Polled:
    """One status read ended. ``state`` is None where it failed."""

    request_id: str
    state: str | None


@frozen(kw_only=True)
class StateChanged:
    """A job that is waited for moved on, by whatever source said so first."""

    request_id: str
    state: str
    progress: float | None


@frozen(kw_only=True)
class BytesSent:
    """A piece of an upload was handed to the socket."""

    request: str
    bytes_sent: int
    bytes_total: int


@frozen(kw_only=True)
class BytesReceived:
    """A piece of a result came. ``bytes_total`` is None where the storage host doesn't say."""

    request_id: str
    bytes_received: int
    bytes_total: int | None


Event = Attempt | RateLimited | Polled | StateChanged | BytesSent | BytesReceived
OnEvent = Callable[[Event], object]
