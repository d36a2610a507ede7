"""The beginning and the end of a step, told to whoever listens."""

import asyncio
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from types import TracebackType
from typing import Final, Self

from dryapi_async.events import OnEvent, Step, StepEnded, StepStarted

_numbers: Final = count(1)
UNHEARD: Final[AbstractContextManager[None]] = nullcontext()
"""A step while nobody listens."""


class ToldStep:
    """A step between its beginning and its end. ``request_id`` may become known on the way."""

    __slots__ = ("_began", "_number", "_operation", "_step", "_tell", "request_id")

    def __init__(self, tell: OnEvent, step: Step, operation: str, request_id: str | None) -> None:
        self._tell = tell
        self._step: Step = step
        self._operation = operation
        self._number = next(_numbers)
        self._began = 0.0
        self.request_id: str | None = request_id

    def __enter__(self) -> Self:
        self._began = asyncio.get_running_loop().time()
        self._tell(StepStarted(step=self._step, number=self._number, operation=self._operation, request_id=self.request_id))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._tell(
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
