"""What tells a client's ``on_event`` hook. It is made, and with it the events are loaded, only where somebody listens."""

import asyncio
import logging
from itertools import count
from types import TracebackType
from typing import Final, Self

from dryapi_async.events import (
    Attempt,
    BytesReceived,
    BytesSent,
    Event,
    OnEvent,
    Polled,
    RateLimited,
    StateChanged,
    Step,
    StepEnded,
    StepStarted,
    SubmissionUnknown,
)

logger: logging.Logger = logging.getLogger("dryapi_async")
_numbers: Final = count(1)


class Teller:
    """Makes events and gives them to a hook. Two are equal whose hooks are."""

    __slots__ = ("_hook",)

    def __init__(self, hook: OnEvent) -> None:
        """Give what is told to this hook."""
        self._hook = hook

    def __eq__(self, other: object) -> bool:
        # Not by identity: a method is bound anew each time that it is named.
        return self._hook == other._hook if isinstance(other, Teller) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._hook)

    def tell(self, event: Event) -> None:
        """Tell the user's hook; what it raises is logged and breaks nothing."""
        try:
            self._hook(event)
        except (Exception, asyncio.CancelledError):
            # No real cancellation comes out of a plain call: it would cut a payment off.
            logger.exception("on_event raised on %s", type(event).__name__)

    def step(self, step: Step, operation: str, request_id: str | None) -> "ToldStep":
        """Tell the beginning and the end of a part of the work."""
        return ToldStep(self, step, operation, request_id)

    def attempt(  # noqa: PLR0913  the event's fields
        self,
        request: str,
        number: int,
        seconds: float,
        *,
        status: int | None,
        error: str | None,
        host: str,
        bytes_sent: int = 0,
        bytes_received: int,
        request_id: str | None = None,
    ) -> None:
        """Tell that a request ended."""
        self.tell(
            Attempt(
                request=request,
                number=number,
                seconds=seconds,
                status=status,
                error=error,
                host=host,
                bytes_sent=bytes_sent,
                bytes_received=bytes_received,
                request_id=request_id,
            )
        )

    def rate_limited(self, lane: str, seconds: float) -> None:
        """Tell that a request waits for its lane."""
        self.tell(RateLimited(lane=lane, seconds=seconds))

    def submission_unknown(self, request: str, attempts: int) -> None:
        """Tell that a submit's answer was lost."""
        self.tell(SubmissionUnknown(request=request, attempts=attempts))

    def polled(self, request_id: str, state: str | None) -> None:
        """Tell that a status read ended."""
        self.tell(Polled(request_id=request_id, state=state))

    def state_changed(self, request_id: str, state: str, progress: float | None) -> None:
        """Tell that a job moved on."""
        self.tell(StateChanged(request_id=request_id, state=state, progress=progress))

    def bytes_sent(self, request: str, sent: int, total: int) -> None:
        """Tell that a piece of an upload was handed to the socket."""
        self.tell(BytesSent(request=request, bytes_sent=sent, bytes_total=total))

    def bytes_received(self, request_id: str, received: int, total: int | None) -> None:
        """Tell that a piece of a result came."""
        self.tell(BytesReceived(request_id=request_id, bytes_received=received, bytes_total=total))


class ToldStep:
    """A step between its beginning and its end. ``request_id`` may become known on the way."""

    __slots__ = ("_began", "_number", "_operation", "_step", "_teller", "request_id")

    def __init__(self, teller: Teller, step: Step, operation: str, request_id: str | None) -> None:
        self._teller = teller
        self._step: Step = step
        self._operation = operation
        self._number = next(_numbers)
        self._began = 0.0
        self.request_id: str | None = request_id

    def __enter__(self) -> Self:
        self._began = asyncio.get_running_loop().time()
        self._teller.tell(StepStarted(step=self._step, number=self._number, operation=self._operation, request_id=self.request_id))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._teller.tell(
            StepEnded(
                step=self._step,
                number=self._number,
                operation=self._operation,
                # A generator that is dropped may be closed when its loop is gone.
                seconds=max(_now(self._began) - self._began, 0.0),
                request_id=self.request_id,
                error=None if kind is None else kind.__name__,
            )
        )


def _now(otherwise: float) -> float:
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return otherwise
