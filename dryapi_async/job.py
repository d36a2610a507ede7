"""A handle on one paid job: a small value that outlives the process as its ticket."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AbstractContextManager
from math import inf
from os import PathLike
from pathlib import Path
from sys import intern
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar, cast

from dryapi_async.config import DEFAULT_TIMEOUT, is_finite_number
from dryapi_async.engine import Engine, deadline_after
from dryapi_async.errors import ConfigurationError, InputError, JobFailedError, JobTimeoutError, show_value
from dryapi_async.operations import job_class
from dryapi_async.operations.base import JobOperation
from dryapi_async.operations.results import MediaResult
from dryapi_async.protocol.links import Link, mask
from dryapi_async.protocol.replies import shorten
from dryapi_async.protocol.status import SUBMITTED, JobState, Update, fold
from dryapi_async.tracking.board import Poll, Waiter

if TYPE_CHECKING:
    from dryapi_async.operations.results import Result

R_co = TypeVar("R_co", covariant=True)
EngineSource = Callable[[], Engine]


class Doorway:
    """The door that results are given: it leads to what serves the running loop, so that a result outlives the loop it came on."""

    __slots__ = ("_engine",)

    def __init__(self, engine: EngineSource) -> None:
        self._engine = engine

    def open(self, link: Link, *, max_bytes: int | None = None) -> AsyncGenerator[bytes, None]:
        """Stream a file."""
        return self._engine().downloads.open(link, max_bytes=max_bytes)

    async def save(self, link: Link, target: Path, *, ending: str = "", max_bytes: int | None = None) -> Path:
        """Save a file whole or not at all."""
        return await self._engine().downloads.save(link, target, ending=ending, max_bytes=max_bytes)

    async def write(self, request_id: str, text: str, target: Path, *, ending: str, max_bytes: int | None = None) -> Path:
        """Save a text whole or not at all."""
        return await self._engine().downloads.write(request_id, text, target, ending=ending, max_bytes=max_bytes)

    async def renew(self, request_id: str) -> Update:
        """Read the status once more."""
        return await self._engine().downloads.renew(request_id)

    async def decode(self, text: str) -> Any:
        """Decode JSON, off the loop where it is long."""
        return await self._engine().downloads.decode(text)


class Job(Generic[R_co]):
    """One job of the service, found by its ``request_id``.

    ``id`` is the service's id, ``ticket`` the text to store anywhere: ``client.job(ticket)`` takes the job up again, in another process,
    a week later. There is no cancel: the service has none, and the job is paid for.
    """

    __slots__ = ("__weakref__", "_engine", "_kind", "_known", "_operation", "_submitted_at", "id")

    def __init__(
        self,
        request_id: str,
        operation: type[JobOperation[R_co]],
        engine: EngineSource,
        *,
        submitted_at: float | None = None,
        model: str | None = None,
    ) -> None:
        self.id: str = request_id
        self._operation = operation
        self._engine = engine
        self._submitted_at = submitted_at
        # Interned: a hundred thousand jobs of one model share one text.
        self._kind = operation.endpoint.slug if model is None else intern(f"{operation.endpoint.slug} {model}")
        self._known = SUBMITTED

    @property
    def ticket(self) -> str:
        """``"<slug>:<request_id>"``."""
        return f"{self._operation.endpoint.slug}:{self.id}"

    def __repr__(self) -> str:
        return f"<Job {self.ticket} {self._known.state.value}>"

    async def status(self) -> Update:
        """Read the status once: one request, on the account's budget of reads."""
        engine = self._engine()
        update = await engine.read_status(self.id)
        self._take(engine, update)
        return update

    def _take(self, engine: Engine, update: Update) -> None:
        """Fold news in; the journal is told of the end."""
        known = fold(self._known, update)
        if known.finished and not self._known.finished:
            engine.note(self.id, "failed" if known.state is JobState.ERROR else "done")
        self._known = known

    async def updates(self, *, timeout: float | None = DEFAULT_TIMEOUT, poll: Poll = None) -> AsyncGenerator[Update, None]:
        """Stream what becomes of the job, from all sources, until it has ended; leaving the loop cancels nothing.

        Progress never goes back, and a slow reader sees the newest state only. ``poll`` is seconds between reads (0: as fast as the
        account allows), None the client's own cadence.

        Raises:
            JobTimeoutError: The ``timeout`` (seconds, None for ever) passed; the job goes on.
            PollingFailedError: Too many reads failed in a row; the job goes on.
        """
        engine = self._engine()
        self._take_early(engine)
        with self._tell_steps(engine):
            waiter = self._join(engine, deadline_after(timeout), poll)
            try:
                while True:
                    self._take(engine, await waiter.next())
                    yield self._known
                    if self._known.finished:
                        return
            except TimeoutError:
                raise self._late("isn't done", timeout, reads=waiter.entry.reads) from None
            finally:
                engine.watcher.leave(waiter)

    def _tell_steps(self, engine: Engine) -> AbstractContextManager[object]:
        """Tell when a wait begins and ends."""
        return engine.exchange.step("wait", self._operation.endpoint.slug, self.id)

    async def result(self, *, timeout: float | None = DEFAULT_TIMEOUT, poll: Poll = None) -> R_co:
        """Wait until the job is done, and give its result.

        ``timeout`` is seconds over everything (None for ever), ``poll`` as in `updates`.

        Raises:
            JobFailedError: The service says that it failed; ``code`` and ``reason`` are its words.
            JobTimeoutError: The time was over; the job goes on and can be waited for again.
            PollingFailedError: Too many reads failed in a row; the job goes on.
        """
        engine, deadline = self._engine(), deadline_after(timeout)
        await self._wait(engine, deadline, poll, timeout)
        if self._known.state is JobState.ERROR:
            self._raise_failure()
        work = self._operation.read_result(self.id, self._known, Doorway(self._engine))
        if issubclass(self._operation.result_type, MediaResult):
            # It is made of what is known: there is nothing to wait for until its file is fetched.
            return cast("R_co", await work)
        time = asyncio.timeout_at(None if deadline == inf else deadline)
        try:
            async with time:
                result = await work
        except TimeoutError:
            if not time.expired():
                raise
            raise self._late("is done, but its result didn't come", timeout, reads=0) from None
        # Its words are in the caller's hands; there is no file to fetch.
        engine.note(self.id, "saved")
        return cast("R_co", result)

    async def wait(self, *, timeout: float | None = DEFAULT_TIMEOUT, poll: Poll = None) -> Update:
        """Wait until the job has ended, well or not, and give its last news; the result isn't fetched. Arguments as in `result`.

        Raises:
            JobTimeoutError: The time was over; the job goes on and can be waited for again.
            PollingFailedError: Too many reads failed in a row; the job goes on.
        """
        return await self._wait(self._engine(), deadline_after(timeout), poll, timeout)

    async def _wait(self, engine: Engine, deadline: float, poll: Poll, timeout: float | None) -> Update:
        self._take_early(engine)
        if self._known.finished:
            return self._known
        with self._tell_steps(engine):
            waiter = self._join(engine, deadline, poll)
            try:
                while not self._known.finished:
                    self._take(engine, await waiter.next())
            except TimeoutError:
                raise self._late("isn't done", timeout, reads=waiter.entry.reads) from None
            finally:
                engine.watcher.leave(waiter)
        return self._known

    async def save(
        self,
        path: str | PathLike[str],
        format: str | None = None,  # noqa: A002  the service's word
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        poll: Poll = None,
        max_bytes: int | None = None,
    ) -> Path:
        """Wait for the result and write it to disk, whole or not at all. The time-out is the wait's; the transfer has its idle time."""
        result = cast("Result", await self.result(timeout=timeout, poll=poll))
        return await result.save(path, format, max_bytes=max_bytes)

    def _take_early(self, engine: Engine) -> None:
        """Take the news that came by push or webhook before anybody waited, and listen from now on."""
        engine.listen()
        early = engine.take_early(self.id)
        if early is not None:
            self._take(engine, early)

    def _join(self, engine: Engine, deadline: float, poll: Poll) -> Waiter:
        check_poll(poll, webhooks=bool(engine.settings.webhook_secrets))
        submitted_at = self._submitted_at if self._submitted_at is not None else engine.made_at(self.id)
        return engine.watcher.join(
            self.id,
            self._operation.endpoint.slug,
            submitted_at=submitted_at,
            known=self._known,
            poll=poll,
            deadline=deadline,
            kind=self._kind,
        )

    def _late(self, what: str, timeout: float | None, *, reads: int) -> JobTimeoutError:
        known = self._known
        progress = "" if known.progress is None else f" at {known.progress:g} %"
        goes_on = "" if known.finished else "goes on and "
        return JobTimeoutError(
            f"Job {self.ticket} {what} after {timeout or 0:g} s ({known.word}{progress}, {reads} reads). It {goes_on}is paid "
            "for: wait again, or keep the ticket.",
            request_id=self.id,
            ticket=self.ticket,
            state=known.state.value,
            progress=known.progress,
            reads=reads,
            seconds=timeout or 0.0,
        )

    def _raise_failure(self) -> NoReturn:
        known = self._known
        words = shorten(": ".join(word for word in (known.code, known.reason) if word)) or "the service gives no reason"
        raise JobFailedError(
            f"Job {self.ticket} failed ({words}). Mend the request, or make a new call: this job's status won't change any more.",
            request_id=self.id,
            ticket=self.ticket,
            code=known.code,
            reason=known.reason,
        )


async def as_completed(jobs: Iterable[Job[R_co]], *, timeout: float | None, poll: Poll) -> AsyncGenerator[Job[R_co], None]:
    """Give jobs back in the order in which they end."""
    waited = tuple(jobs)
    _check_jobs(waited)
    ended: asyncio.Queue[asyncio.Task[Update]] = asyncio.Queue()
    waits = {asyncio.ensure_future(job.wait(timeout=timeout, poll=poll)): job for job in waited}
    for wait in waits:
        wait.add_done_callback(ended.put_nowait)
    try:
        for _ in range(len(waits)):
            wait = await ended.get()
            await wait
            yield waits.pop(wait)
    finally:
        for wait in waits:
            wait.cancel()
        if waits:
            await asyncio.wait(waits)


def check_poll(poll: Poll, *, webhooks: bool) -> None:
    """Refuse what can't be seconds between reads; ``webhooks`` is whether there is a secret to verify them with.

    Raises:
        ConfigurationError: It is no such number.
    """
    if poll is False:
        if webhooks:
            return
        raise ConfigurationError("poll=False needs a webhook secret: without reads nothing else would ever tell a failure.")
    if poll is not None and not (is_finite_number(poll) and poll >= 0):
        raise ConfigurationError(f"poll must be seconds between reads, 0 or more, not {show_value(poll)}.")


def _check_jobs(given: tuple[object, ...]) -> None:
    for one in given:
        if not isinstance(one, Job):
            raise InputError(f"as_completed() takes jobs, as `await client.txt2img(...)` gives them, not {show_value(one)}.")


def _check_class(given: object) -> None:
    shown = show_value(given)
    if given is not None and not (isinstance(given, type) and issubclass(given, JobOperation)):
        raise InputError(f"job(ticket, operation) takes a class such as Txt2Img, not {shown}.")


def take_up(ticket: str, operation: type[JobOperation[R_co]] | None, engine: EngineSource) -> Job[R_co]:
    """Make a handle of a ticket; without its class, the class is found by the ticket's slug.

    Raises:
        InputError: No ticket, one of another operation, or of none that is known.
    """
    slug, request_id = read_ticket(ticket)
    _check_class(operation)
    found = operation or job_class(slug)
    if found is None:
        raise InputError(f"{mask(ticket)!r} is a ticket of no operation known here.")
    if found.endpoint.slug != slug:
        raise InputError(f"{mask(ticket)!r} is a ticket of {slug!r}, not of {found.__name__}.")
    return Job(request_id, found, engine)


LONGEST_TICKET: Final = 2000
"""Characters: a request_id is a UUID; what is longer than this is a file given by mistake."""


def read_ticket(ticket: str) -> tuple[str, str]:
    """Split a ticket into slug and request_id.

    Raises:
        InputError: It isn't one.
    """
    if not isinstance(ticket, str):  # pyright: ignore[reportUnnecessaryIsInstance]  untyped callers
        raise InputError(f"A ticket is a text such as 'txt2img:<request_id>', not {type(ticket).__name__}.")
    slug, colon, request_id = ticket.strip().partition(":")
    if not (slug and colon and request_id) or not request_id.isprintable() or len(ticket) > LONGEST_TICKET:
        raise InputError(f"{shorten(mask(ticket))!r} is no ticket: it is '<slug>:<request_id>', as job.ticket gives it.")
    return slug, request_id
