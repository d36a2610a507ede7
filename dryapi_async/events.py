"""What a client tells its ``on_event`` hook: typed, frozen, plain. A hook that raises is logged and breaks no call.

Nothing here has a key, a prompt or a signed query. Where nobody listens no event is made.
"""

from asyncio import CancelledError
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Literal

from attrs import frozen

from dryapi_async.errors import ConfigurationError
from dryapi_async.values import Value

Step = Literal["call", "submit", "wait", "download"]
"""A part of the work whose beginning and end are told.

``call`` is one that somebody finishes (``await``, ``.result()``, ``.save()``) and has the others inside; ``submit`` sends what is paid for,
all its attempts; ``wait`` is one waiting for one job; ``download`` fetches one file.
"""


@frozen(kw_only=True, eq=False, repr=False)
class StepStarted(Value):
    """A step begins. It is told in the context (``contextvars``) of whoever asked for it."""

    step: Step
    number: int
    """The same in its `StepEnded`, and in this process in no other."""
    operation: str
    """The slug, such as ``img2img``; empty for a download, which doesn't know it."""
    request_id: str | None = None
    """The job's id, where there is one yet."""


@frozen(kw_only=True, eq=False, repr=False)
class StepEnded(Value):
    """A step ended. That of a ``call`` or a ``submit`` is told in the same context as its beginning."""

    step: Step
    number: int
    operation: str
    seconds: float
    request_id: str | None = None
    error: str | None = None
    """The class of what it raised; ``CancelledError`` or ``GeneratorExit`` where its caller went away. A wait that learns of a job's
    failure ends well: the failure is its news."""


@frozen(kw_only=True, eq=False, repr=False)
class Attempt(Value):
    """One HTTP request ended. ``status`` is None where no whole answer came; ``error`` then says why.

    What an answer says is told by its call's end.
    """

    request: str
    """Method and slug, such as ``POST img2img``; ``GET result`` is a file's, from the storage host."""
    number: int
    """1 for the first."""
    seconds: float
    """Until its answer was read, or it broke; a wait for a free connection of the pool is in it."""
    status: int | None = None
    error: str | None = None
    host: str = ""
    """Whom it was sent to, with the port where that isn't the usual one."""
    bytes_sent: int = 0
    """Of the body, as far as it was handed to the socket."""
    bytes_received: int = 0
    """Of the answer's body."""
    request_id: str | None = None
    """The job's id, of a file's request."""


@frozen(kw_only=True, eq=False, repr=False)
class RateLimited(Value):
    """A request waits for its lane."""

    lane: str
    seconds: float
    """How long, as far as is known when it begins to wait."""


@frozen(kw_only=True, eq=False, repr=False)
class SubmissionUnknown(Value):
    """A submit's answer was lost: it may have been billed. Told once for each; only ``resubmit=True`` sends another after it."""

    request: str
    attempts: int


@frozen(kw_only=True, eq=False, repr=False)
class Polled(Value):
    """One status read of a job that is waited for ended. ``state`` is None where it failed."""

    request_id: str
    state: str | None


@frozen(kw_only=True, eq=False, repr=False)
class StateChanged(Value):
    """A job that is waited for moved on, by whatever source said so first."""

    request_id: str
    state: str
    progress: float | None


@frozen(kw_only=True, eq=False, repr=False)
class BytesSent(Value):
    """A piece of an upload was handed to the socket."""

    request: str
    bytes_sent: int
    bytes_total: int


@frozen(kw_only=True, eq=False, repr=False)
class BytesReceived(Value):
    """A piece of a result came. ``bytes_total`` is None where the storage host doesn't say."""

    request_id: str
    bytes_received: int
    bytes_total: int | None


Event = StepStarted | StepEnded | Attempt | RateLimited | SubmissionUnknown | Polled | StateChanged | BytesSent | BytesReceived
OnEvent = Callable[[Event], object]


def tell_each(*hooks: OnEvent) -> OnEvent:
    """Make one hook of several: each hears every event, whatever the others raise. Make it once, and give clients that share it the same.

    What one raises is raised again when all were told, several as an ExceptionGroup; a client logs it. A CancelledError is told by a
    RuntimeError, for it cancels nothing.

    Raises:
        ConfigurationError: One of them is no plain function.
    """
    given: tuple[object, ...] = hooks  # untyped callers
    for hook in given:
        if not callable(hook) or iscoroutinefunction(hook):
            raise ConfigurationError("Hooks must be plain functions: they are called in the middle of a request, and aren't waited for.")

    def tell(event: Event) -> None:
        raised: list[Exception] = []
        for hook in hooks:
            try:
                hook(event)
            except CancelledError as error:
                cut = RuntimeError("a hook raised CancelledError")
                cut.__cause__ = error
                raised.append(cut)
            except Exception as error:  # noqa: BLE001  whatever a user's hook raises
                raised.append(error)
        if raised:
            raise raised[0] if len(raised) == 1 else ExceptionGroup("several hooks raised", raised)

    return tell
