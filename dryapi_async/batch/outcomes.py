"""What goes into a batch and what comes out of it."""

import errno
from collections.abc import AsyncIterable, Callable, Iterable
from decimal import Decimal
from os import PathLike
from pathlib import Path
from typing import Any, Final, Generic, TypeGuard, TypeVar, Union

from attrs import define, frozen

from dryapi_async.errors import (
    AccountSuspendedError,
    AuthenticationError,
    ClientClosedError,
    InputError,
    InsufficientBalanceError,
    JournalError,
    RateLimitError,
    SharedStateError,
    show_value,
)
from dryapi_async.job import Job
from dryapi_async.operations.base import InstantOperation, JobOperation

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
_HOPELESS: Final = (
    AuthenticationError,
    AccountSuspendedError,
    InsufficientBalanceError,
    ClientClosedError,
    JournalError,
    SharedStateError,
)
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


@frozen(kw_only=True)
class Outcome(Generic[R_co]):
    """What became of one operation of a batch. ``error`` is None where all went well."""

    index: int
    """Its place in the source, from 0."""
    key: str
    """The user's word for it; else the index as text."""
    operation: JobOperation[R_co] | InstantOperation[R_co] | None
    """The request; None for a `Job` that was taken up, and for what was no request at all."""
    job: Job[R_co] | None
    """The job, once it is paid for; also where waiting or saving failed."""
    result: R_co | None
    """Also there where only saving failed."""
    error: Exception | None
    """A `DryAPIError`, or the OSError of a file that can't be written."""
    path: Path | None
    """Where it was saved."""
    price: Decimal | None
    """US dollars, as asked before the submit; None without a budget, or where the price couldn't be had."""
    seconds: float
    """From its submit to its end, waits in line included."""


Item = Union[  # noqa: UP007  a generic alias of the older kind, which the checkers can subscribe
    JobOperation[R], InstantOperation[R], Job[R], tuple[str, JobOperation[R] | InstantOperation[R] | Job[R]]
]
"""A request, a job that is paid for already, or a pair of your key and either."""
Operations = Union[Iterable[Item[R]], AsyncIterable[Item[R]]]  # noqa: UP007  the same
Money = Decimal | int
"""US dollars; no float, which couldn't be exact."""
Save = str | PathLike[str] | Callable[[Outcome[Any]], str | PathLike[str]]
StopOn = type[Exception] | tuple[type[Exception], ...] | Callable[[Outcome[Any]], bool]


def is_hopeless(outcome: Outcome[Any]) -> bool:
    """Say whether the next operations would fail in the same way: what ends a batch unless ``stop_on`` says otherwise.

    No or a wrong key, a suspended account, no balance, a day's limit used up, a journal that can't be written, a closed client; a disk
    that is full: what is paid for from then on couldn't be saved.
    """
    error = outcome.error
    if isinstance(error, RateLimitError):
        return error.kind == "daily"
    return error.errno in _FULL if isinstance(error, OSError) else isinstance(error, _HOPELESS)


@frozen(kw_only=True)
class Progress:
    """How far a batch has come, in plain numbers."""

    finished: int
    """Ended well, and saved where that was asked for."""
    failed: int
    """Ended with an error."""
    unknown: int
    """Of these, submits whose answer was lost: they may be paid for."""
    submitted: int
    """Accepted by the service, or unknown."""
    waiting: int
    """Jobs that are waited for or being saved."""
    total: int | None
    """All that there are; None where the source has no length."""
    rate: float
    """Operations ended in a second, lately."""
    seconds_left: float | None
    """None while that can't be told."""


@define(eq=False, kw_only=True)
class Work(Generic[R]):
    """One operation on its way."""

    index: int
    key: str
    operation: JobOperation[R] | InstantOperation[R] | None = None
    job: Job[R] | None = None
    result: R | None = None
    path: Path | None = None
    price: Decimal | None = None
    problem: Exception | None = None
    """Why it isn't sent at all."""
    began: float = 0.0
    """Loop time."""

    def tell(self, error: Exception | None, now: float) -> Outcome[R]:
        """Tell what became of it."""
        return Outcome(
            index=self.index,
            key=self.key,
            operation=self.operation,
            job=self.job,
            result=self.result,
            error=error,
            path=self.path,
            price=self.price,
            seconds=max(now - self.began, 0.0),
        )


def read_item(item: object, index: int, now: float) -> Work[Any]:
    """Read an item of a source; what is no request becomes work that fails."""
    work: Work[Any] = Work(index=index, key=str(index), began=now)
    if is_tuple(item):
        key = item[0] if len(item) == 2 else None  # noqa: PLR2004  a pair
        if not isinstance(key, str):
            work.problem = InputError(f"A tuple in a batch is a pair of a key (str) and a request, not {show_value(item)}.")
            return work
        work.key, item = key, item[1]
    if isinstance(item, JobOperation):
        job_operation: JobOperation[Any] = item  # pyright: ignore[reportUnknownVariableType]  what it gives isn't known here
        work.operation = job_operation
    elif isinstance(item, InstantOperation):
        instant_operation: InstantOperation[Any] = item  # pyright: ignore[reportUnknownVariableType]  what it gives isn't known here
        work.operation = instant_operation
    elif isinstance(item, Job):
        job: Job[Any] = item  # pyright: ignore[reportUnknownVariableType]  what it gives isn't known here
        work.job = job
    else:
        work.problem = InputError(
            f"A batch takes requests such as Txt2Img(...), jobs, or pairs of a key and either, not {show_value(item)}."
        )
    return work


def is_tuple(item: object) -> TypeGuard[tuple[object, ...]]:
    """Say whether a value is a tuple, of whatever."""
    return isinstance(item, tuple)
