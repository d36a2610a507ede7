"""Calls are sentences: nothing is sent until one is finished, and finishing it again sends nothing again."""

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Generator
from contextlib import AbstractContextManager
from decimal import Decimal
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from dryapi_async.config import DEFAULT_TIMEOUT
from dryapi_async.engine import Engine, deadline_after
from dryapi_async.errors import ClientClosedError, ConfigurationError, DryAPIError, InputError, RequestTimeoutError, show_value
from dryapi_async.io.exchange import UNHEARD
from dryapi_async.io.trail import Trail, lose
from dryapi_async.job import EngineSource, Job, check_poll
from dryapi_async.operations.account import Model
from dryapi_async.operations.base import InstantOperation, JobOperation, Operation
from dryapi_async.operations.results import check_format, check_max_bytes, check_path
from dryapi_async.protocol.links import check_webhook_url
from dryapi_async.protocol.replies import read_money, read_request_id
from dryapi_async.protocol.wire import encode, encode_price
from dryapi_async.tracking.board import Poll

if TYPE_CHECKING:
    from dryapi_async.operations.results import Result

T_co = TypeVar("T_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)


NOT_BEGUN: Final = Trail(key="")
"""Stands for the trail of a call that nobody has begun to finish; nothing is ever noted in it."""


class Call(Coroutine[Any, Any, T_co], Generic[T_co]):
    """A request that is sent once, however often and by however many tasks it is finished.

    It is a coroutine as well as an awaitable, so ``asyncio.create_task``, ``TaskGroup.create_task`` and ``gather`` take it. One that is
    dropped untouched warns as a coroutine does.
    """

    def __init__(  # noqa: PLR0913  all that isn't the request's own
        self,
        operation: Operation[Any],
        engine: EngineSource,
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        resubmit: bool = False,
        label: str = "",
        once: bool = False,
        again: Collection[str] = (),
        covered: frozenset[str] | None = None,
    ) -> None:
        self._touched = True  # nothing is dropped by a call that isn't made
        if not isinstance(label, str):  # pyright: ignore[reportUnnecessaryIsInstance]  untyped callers
            raise InputError(f"label must be a text, your own word for the call, not {show_value(label)}.")
        self._unless = read_once(once, again, label)
        self._again = tuple(again)
        self._covered = covered
        self.operation = operation
        self._engine = engine
        self._timeout = timeout
        self._resubmit = resubmit
        self._label = label
        self._touched = False
        self._steps: dict[asyncio.Task[Any] | None, Coroutine[Any, Any, T_co]] = {}
        self._work: asyncio.Task[T_co] | None = None
        self._trail = NOT_BEGUN
        self._finishers = 0
        self._cutoff: asyncio.TimerHandle | None = None
        self.__name__: str = operation.endpoint.slug
        self.__qualname__: str = operation.endpoint.slug

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.operation!r}>"

    def __await__(self) -> Generator[Any, None, T_co]:
        return self._finish(self._timeout).__await__()

    def send(self, value: Any, /) -> Any:
        """Run to the next suspension, as a coroutine does."""
        return self._step(lambda steps: steps.send(value))

    def throw(self, typ: Any, val: Any = None, tb: TracebackType | None = None, /) -> Any:
        """Raise inside, as a coroutine does."""
        return self._step(lambda steps: steps.throw(typ) if val is None and tb is None else steps.throw(typ, val, tb))

    def close(self) -> None:
        """Give the call up; what is on the wire is finished by the client."""
        self._touched = True
        for steps in self._steps.values():
            steps.close()
        self._steps.clear()

    def __del__(self) -> None:
        if not self._touched:
            warnings.warn(f"call {self.__name__!r} was never awaited: nothing was sent", RuntimeWarning, stacklevel=2, source=self)

    def _step(self, go_on: Callable[[Coroutine[Any, Any, T_co]], Any]) -> Any:
        """Run one step; each task that was made of this call has a coroutine of its own, so that any number of them can finish it."""
        self._touched = True
        task = _current_task()
        if task not in self._steps:
            self._steps[task] = self._finish(self._timeout)
        try:
            return go_on(self._steps[task])
        except BaseException:
            self._steps.pop(task, None)
            raise

    async def _finish(self, timeout: float | None) -> T_co:
        self._touched = True
        if self._trail.lost is not None:
            raise self._trail.lost
        with self._tell_steps(self._engine()):
            return await self._finish_by(deadline_after(timeout))

    def _tell_steps(self, engine: Engine) -> AbstractContextManager[object]:
        """Tell when somebody begins to finish the call, and when that ends; what becomes of a lost one is for others to say."""
        return UNHEARD if self._trail.lost is not None else engine.exchange.step("call", self.__name__)

    async def _finish_by(self, deadline: float) -> T_co:
        """Send if nothing was sent, else wait for what was; the answer, or the error, is the same for all."""
        self._touched = True
        if self._work is not None:
            await self._look_back(self._work)
        work, engine = self._join(deadline)
        self._finishers += 1
        try:
            if not work.done():
                await self._trail.wait(deadline, engine.deadlines)
            if not work.done():
                raise self._late()
            if work.cancelled():
                closed = ClientClosedError(f"The client was closed before {self.__name__} was sent: nothing was billed.")
                raise self._trail.lost or closed
            return work.result()
        except asyncio.CancelledError:
            if work.done() and not self._finishers - 1 and self._trail.may_be_billed:
                # Its answer came in the same moment: it is on its way to nobody.
                engine.adopt(work, job=isinstance(self, JobCall))
            raise
        finally:
            self._finishers -= 1
            if not self._finishers and not work.done():
                self._leave(work, engine)

    async def _look_back(self, work: asyncio.Task[T_co]) -> None:
        """See what became of the task that was started before: it may be on its way to its end, or never get there."""
        if self._cutoff is not None:
            self._cutoff.cancel()
            self._cutoff = None
        self._leave_closed_loop(work)
        if self._work is not None and work.cancelling() and not work.done():
            # It was given up before anything was sent; only its end tells for sure.
            await asyncio.wait([work])

    def _join(self, deadline: float) -> tuple[asyncio.Task[T_co], Engine]:
        """Find the task that sends, or start it."""
        if self._trail.lost is not None:
            raise self._trail.lost
        engine = self._engine()
        if self._unless and engine.journal is None:
            raise ConfigurationError("once=True needs a journal, which knows what was submitted: give Client(journal='jobs.db').")
        if self._work is None or self._work.cancelled():
            self._trail = Trail(
                patience=deadline,
                resubmit=self._resubmit,
                label=self._label,
                unless=self._unless,
                covered=self._covered,
                journal=engine.journal,
            )
            if deadline <= engine.loop.time():
                raise self._late()
            heard = engine.teller is not None and self.operation.endpoint.kind in {"submit", "prompt"}
            self._work = engine.start(self._run_told(engine) if heard else self._run(engine), self._trail)
        else:
            engine.give_back(self._work)
        self._trail.abandoned = False
        self._trail.patience = max(self._trail.patience, deadline)
        return self._work, engine

    def _leave_closed_loop(self, work: asyncio.Task[T_co]) -> None:
        """Let go of a task whose event loop was closed under it: it never ends, and what it had sent is lost."""
        trail = self._trail
        if work.done() or not work.get_loop().is_closed():
            return
        if trail.may_be_billed:
            trail.lost = lose(trail, "waiting", "its event loop was closed before its answer came")
        else:
            trail.lost = trail.before
        self._work = None

    def _leave(self, work: asyncio.Task[T_co], engine: Engine) -> None:
        """Nobody waits any more: stop what wasn't sent; what may be billed goes on, and its answer is kept."""
        # Adopted in either case: it may be sent in the moment before the cancellation reaches it, and is then told as unknown.
        engine.adopt(work, job=isinstance(self, JobCall))
        self._trail.abandoned = True
        if self._trail.may_be_billed:
            self._cutoff = engine.loop.call_later(engine.settings.timeouts.orphan, work.cancel)
        else:
            if self._trail.body is not None:
                self._trail.body.revoked = True
            work.cancel()

    def _late(self) -> DryAPIError:
        """Make the error for who runs out of patience; the work itself has no deadline, since others may wait for it longer."""
        trail = self._trail
        if trail.before is not None and not trail.may_be_billed:
            return trail.before
        if trail.may_be_billed:
            return lose(trail, "waiting", "the time given was over before its answer came, which is listened to a little longer")
        if trail.on_wire and not trail.billed:
            return RequestTimeoutError(f"{self.__name__}: no answer came within the time given. Try again, or give a longer timeout.")
        return RequestTimeoutError(
            f"{self.__name__}: the time given was over while it waited for {trail.waits_for}. Nothing was sent: finish the same call again."
        )

    async def price(self, *, timeout: float | None = DEFAULT_TIMEOUT, **measures: float) -> Decimal:
        """Ask what the call would cost, in US dollars, exact; it submits nothing and may be asked any number of times.

        ``measures`` stand in for the file or text that they measure, so that nothing is uploaded: ``width`` and ``height``,
        ``duration_seconds``, ``count_text``, as the operation's class says.

        Raises:
            InputError: The operation has no price, or takes other measures.
            ResponseError: The answer has no price.
        """
        self._touched = True
        call = encode_price(self.operation, measures)
        return await self._engine().exchange.call(call, _read_price, deadline=deadline_after(timeout), exact=True)

    async def _run(self, engine: Engine) -> T_co:
        raise TypeError(f"A call runs something on {engine!r}.")

    async def _agree(self, engine: Engine) -> None:
        """Look up which calls the user's word to pay once more covers: those that are so now, none that is lost while it waits."""
        trail = self._trail
        if trail.unless and trail.covered is None and engine.journal is not None:
            trail.covered = await engine.journal.keys(self._again, self._label)

    async def _run_told(self, engine: Engine) -> T_co:
        """Tell when what is paid for begins, and how it ends."""
        with engine.exchange.step("submit", self.__name__) as step:
            answer = await self._run(engine)
            made: object = answer
            if step is not None and isinstance(made, Job):
                step.request_id = made.id
            return answer


MADE: Final = ("intent", "waiting", "submitted", "done", "saved", "unknown", "failed")
"""States in the journal of a call that was made, is being made, or may have been: all but refused."""
AGAIN: Final = ("unknown", "failed")
"""Those of them that the user may name to pay once more."""


def read_once(once: object, again: object, label: str) -> tuple[str, ...]:
    """Say in which states another call of the same label forbids this one.

    Raises:
        InputError: Nothing to know it by, or a state that can't be paid for again.
    """
    if once is False and again == ():
        return ()
    if not isinstance(once, bool) or not isinstance(again, Collection) or isinstance(again, str) or not set(again) <= set(AGAIN):  # pyright: ignore[reportUnknownArgumentType]  of whatever
        shown = f"{show_value(once)} and {show_value(again)}"  # pyright: ignore[reportUnknownArgumentType]  of whatever
        raise InputError(f"once is True or False, again a tuple out of {AGAIN}, not {shown}.")
    if once and not label:
        raise InputError("once=True needs a label: your own word for the call, by which the journal knows it again.")
    return tuple(state for state in MADE if state not in again) if once else ()  # pyright: ignore[reportUnknownArgumentType]  checked above


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _read_price(body: object) -> Decimal:
    return read_money(body, "price", "estimated_price")


class InstantCall(Call[R_co]):
    """A call that is answered at once: await it for the answer."""

    operation: InstantOperation[R_co]

    async def _run(self, engine: Engine) -> R_co:
        read, trail = type(self.operation).read_answer, self._trail
        if self._again:
            await self._agree(engine)
        answer: R_co = await engine.exchange.call(encode(self.operation), read, trail=trail, exact=True)
        trail.note("saved")
        return answer


class JobCall(Call[Job[R_co]]):
    """A call that makes a paid job: await it for the `Job`, or finish it with ``.result()`` or ``.save()``."""

    operation: JobOperation[R_co]

    async def _run(self, engine: Engine) -> Job[R_co]:
        settings, trail = engine.settings, self._trail
        for url in (settings.webhook_url, getattr(self.operation, "webhook_url", None)):
            if url is not None:
                check_webhook_url(url.replace("{key}", trail.key), local=settings.is_local)
        if settings.check and (problems := await engine.find_problems(self.operation)):
            raise InputError(f"{self.__name__} would be refused: {'; '.join(problems)}. Nothing was sent.")
        if self._again:
            await self._agree(engine)
        call = encode(self.operation, webhook_url=settings.webhook_url, key=trail.key)
        request_id = await engine.exchange.call(call, read_request_id, trail=trail)
        await engine.keep(request_id, call.slug, trail)
        model = getattr(self.operation, "model", None)
        return Job(request_id, type(self.operation), self._engine, submitted_at=engine.loop.time(), model=model)

    async def result(self, *, timeout: float | None = DEFAULT_TIMEOUT, poll: Poll = None) -> R_co:
        """Submit, wait until the job is done, and give its result; ``timeout`` (seconds, None for ever) is over both.

        Raises:
            SubmissionUnknownError: The submit's answer was lost; it may have been billed and isn't repeated.
            JobFailedError: The service says that the job failed.
            JobTimeoutError: The time was over; the job goes on.
        """
        self._touched = True
        engine = self._engine()
        check_poll(poll, webhooks=bool(engine.settings.webhook_secrets))
        with self._tell_steps(engine):
            job, left = await self._submit(timeout)
            try:
                return await job.result(timeout=left, poll=poll)
            except asyncio.CancelledError:
                # Nobody has it but the call, which may be gone, too.
                engine.keep_orphan(job)
                raise

    async def _submit(self, timeout: float | None) -> tuple[Job[R_co], float | None]:
        """Give the job, and the seconds that are left for it."""
        deadline = deadline_after(timeout)
        job = await self._finish_by(deadline)
        return job, None if timeout is None else max(deadline - asyncio.get_running_loop().time(), 0.0)

    async def save(
        self,
        path: str | PathLike[str],
        format: str | None = None,  # noqa: A002  the service's word
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        poll: Poll = None,
        max_bytes: int | None = None,
    ) -> Path:
        """Submit, wait, and write the result to disk, whole or not at all. Errors are those of `result` and of its ``save``.

        What can be refused is refused before anything is paid for: a path that can't be written, an unknown format.
        """
        self._touched = True
        check_poll(poll, webhooks=bool(self._engine().settings.webhook_secrets))
        target = check_path(path)
        check_format(format)
        check_max_bytes(max_bytes)
        await self._engine().downloads.check_target(target)
        engine = self._engine()
        with self._tell_steps(engine):
            job, left = await self._submit(timeout)
            try:
                result = cast("Result", await job.result(timeout=left, poll=poll))
                return await result.save(target, format, max_bytes=max_bytes)
            except asyncio.CancelledError:
                engine.keep_orphan(job)
                raise


class ModelList(Awaitable[tuple[Model, ...]]):
    """The models of the account: await it for all of them, or iterate page by page."""

    def __init__(self, engine: EngineSource, type: str | None) -> None:  # noqa: A002  the service's word
        self._engine = engine
        self._type = type

    def __await__(self) -> Generator[Any, None, tuple[Model, ...]]:
        return self._read_all().__await__()

    async def __aiter__(self) -> AsyncIterator[Model]:
        async for model in self._engine().list_models():
            if self._type is None or model.serves(self._type):
                yield model

    async def _read_all(self) -> tuple[Model, ...]:
        return tuple([model async for model in self])
