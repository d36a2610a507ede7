"""The batch itself: workers that take, submit, wait and save, and the iterator that hands over."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Collection, Iterator, Sized
from decimal import Decimal
from types import GeneratorType, TracebackType
from typing import Any, Final, Generic, Self, TypeVar, cast

from dryapi_async.batch.options import check_numbers, check_source, read_stop_on
from dryapi_async.batch.outcomes import Item, Money, Operations, Outcome, Progress, Save, StopOn, Work, read_item
from dryapi_async.batch.saving import Saver, read_save
from dryapi_async.batch.sheets import Album, SheetWriter
from dryapi_async.batch.spending import Purse
from dryapi_async.calls import InstantCall, JobCall, read_once
from dryapi_async.config import DEFAULT_TIMEOUT
from dryapi_async.engine import deadline_after
from dryapi_async.errors import BudgetExceededError, ConfigurationError, SubmissionUnknownError
from dryapi_async.job import EngineSource, Job, check_poll
from dryapi_async.operations.base import InstantOperation
from dryapi_async.protocol.batches import Pace, make_label
from dryapi_async.tracking.board import Poll

R = TypeVar("R")

_END: Final = object()
"""What a source gives that has no more."""


class Batch(Generic[R]):
    """Many requests, ``at_once`` at a time: enter it (``async with``), and iterate (``async for``) over an `Outcome` each.

    One operation's failure is its outcome's ``error`` and ends nothing else. Leaving the ``async with`` early stops the waiting at once
    and closes a generator that was the source; what is on the wire then comes to ``client.orphans``, and `unfinished` lists the jobs
    that were paid for and not handed over.

    Args:
        operations: Requests, jobs that are paid for already (they are waited for), or pairs of your key and either; sync or async,
            read lazily: never more than ``at_once`` ahead of the outcomes that you took. A sync one is read on the event loop.
        at_once: Operations between the source and you: being submitted, waited for, saved, or waiting to be taken. ``max_in_flight``
            of the client bounds transfers, this bounds jobs.
        ordered: Give the outcomes in the source's order; an early slow one then holds back what comes behind it.
        save: Where each result is written: a path with ``{index}`` (``{index:05}``), ``{key}``, ``{request_id}``, ``{seed}`` and
            ``{suffix}`` (the file's own ending) in it, or a function of the outcome. Folders are made. Two outcomes never get the same
            path: the second has its number in the name (``night~7.png``). Files of earlier runs are replaced.
        stop_on: What ends the batch: errors, or a function of the outcome. None is `is_hopeless`, ``()`` nothing.
        budget: US dollars. The price of each kind of request is asked before the first of its kind is sent (and of each request where a
            file is measured); where the next would pass the budget, nothing more is sent. ``Decimal("inf")`` only asks for prices.
        timeout: Seconds for each operation, submit and wait together; None is no deadline.
        poll: As in ``Job.result``.
        once: Submit a key only where the journal has no call of that label, by whatever process: else the outcome's error is
            AlreadySubmittedError. So several processes may share one list, and one that was killed may begin it again.
        again: Those of the states ``unknown`` and ``failed`` in which a key is submitted all the same: that pays once more, for what is in
            the journal when the batch is entered. What another process loses later isn't sent again.
        sheet: A contact sheet to write as it goes: the path of its HTML file, or a `Sheet`. One that can't be written any more is left.

    Raises:
        InputError: Nothing to iterate over, or a path that would be the same for all.
        ConfigurationError: Another argument that can't be; nothing was sent in either case.
    """

    def __init__(  # noqa: PLR0913, PLR0917  each is an option that a user may need
        self,
        operations: Operations[R],
        engine: EngineSource,
        at_once: int = 16,
        ordered: bool = False,  # noqa: FBT002  the client's method passes all on by place; there they are keywords
        save: Save | None = None,
        stop_on: StopOn | None = None,
        budget: Money | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        poll: Poll = None,
        once: bool = False,  # noqa: FBT002  the same
        again: Collection[str] = (),
        sheet: "Album | None" = None,
    ) -> None:
        check_source(operations)
        read_once(once, again, "a key")
        check_numbers(at_once=at_once, budget=budget, timeout=timeout)
        self._operations = operations
        self._engine = engine
        self._at_once = at_once
        self._ordered = ordered
        self._make_path = read_save(save)
        self._ends = read_stop_on(stop_on)
        self._purse = None if budget is None else Purse(Decimal(budget), engine, timeout)
        self._timeout = timeout
        self._poll: Poll = poll
        self._once, self._again = once, tuple(again)
        self.covered: frozenset[str] | None = None
        """Keys in the journal of the calls that ``again`` is about; without any given they are read when the batch is entered."""
        self._sheet = None if sheet is None else SheetWriter(sheet)
        self._source: Iterator[Item[R]] | AsyncIterator[Item[R]] | None = None
        self._group: asyncio.TaskGroup | None = None
        self._workers: set[asyncio.Task[None]] = set()
        self._idle = 0
        self._puller: asyncio.Task[Any] | None = None
        self._started = self._stopping = self._left = False
        self._ready: dict[int, Outcome[R]] = {}
        self._jobs: dict[int, Job[R]] = {}
        self._taken = self._arrived = self._next = 0
        self._ended = self._failed = self._unknown = self._submitted = self._waiting = 0
        self._refused: Outcome[R] | None = None
        self._broken: BaseException | None = None
        self.stopped_by: Outcome[R] | None = None
        """The outcome that ended the batch before its source did."""

    async def __aenter__(self) -> Self:
        if self._group is not None:
            raise ConfigurationError("A batch is entered once: make a new one with client.batch(...).")
        engine = self._engine()
        check_poll(self._poll, webhooks=bool(engine.settings.webhook_secrets))
        self._saver = None if self._make_path is None else Saver(self._make_path, engine)
        if self._saver is not None:
            await self._saver.prepare()
        if self._once and engine.journal is None:
            raise ConfigurationError("once=True needs a journal, which knows what was submitted: give Client(journal='jobs.db').")
        if self._again and self.covered is None and engine.journal is not None:
            self.covered = await engine.journal.keys(self._again)
        if self._sheet is not None:
            await self._sheet.open()
        given = self._operations
        self._source = aiter(given) if isinstance(given, AsyncIterable) else iter(given)
        self._turn, self._permits, self._news = asyncio.Lock(), asyncio.Semaphore(self._at_once), asyncio.Event()
        # The loop's clock, not the loop: progress may be read after it has ended.
        self._now = engine.loop.time
        self._pace = Pace(self._now())
        # asyncio's group, not anyio's: a cancelled submit or download cleans up behind itself after one cancellation, which anyio would
        # repeat at every step. There are `at_once` workers and no task for each operation, so that its cost isn't in question.
        group = asyncio.TaskGroup()
        await group.__aenter__()
        self._group = group
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._left = self._stopping = True
        for worker in self._workers:
            worker.cancel()
        try:
            if self._group is not None:
                # Nothing of the body's error: the group would wrap it.
                await self._group.__aexit__(None, None, None)
        finally:
            self._news.set()
            if self._sheet is not None:
                await self._sheet.close()
            source = self._source
            if isinstance(source, AsyncGenerator):
                await source.aclose()
            elif isinstance(source, GeneratorType):
                source.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[R]:
        if self._group is None:
            raise ConfigurationError("Enter a batch before you iterate: async with client.batch(...) as batch.")
        if not self._started and not self._stopping:
            self._started = True
            self._begin_worker()
        while not self._left:
            outcome = self._ready.pop(self._next, None)
            if outcome is not None:
                self._next += 1
                self._permits.release()
                self._jobs.pop(outcome.index, None)
                return outcome
            if not self._workers:
                return self._give_last()
            self._news.clear()
            await self._news.wait()
        raise StopAsyncIteration

    def stop(self) -> None:
        """Send nothing more; what is under way comes to its end, its outcomes are handed over, and then iteration ends."""
        self._stopping = True
        if self._puller is not None and self._puller is not asyncio.current_task():
            self._puller.cancel()

    @property
    def unfinished(self) -> tuple[Job[R], ...]:
        """The jobs that are paid for and not handed over yet: ``at_once`` at most. After leaving early they are yours to go on with."""
        return tuple(self._jobs.values())

    @property
    def spent(self) -> Decimal | None:
        """The prices of what was sent and not refused, in US dollars, unknown submissions included; None without a budget."""
        return None if self._purse is None else self._purse.spent

    @property
    def progress(self) -> Progress:
        """How far it has come; reading it costs nothing."""
        total = len(self._operations) if isinstance(self._operations, Sized) else None
        rate = 0.0 if self._group is None else self._pace.rate(self._now(), self._ended)
        left = self._taken - self._ended if self._stopping else None if total is None else max(total - self._ended, 0)
        return Progress(
            finished=self._ended - self._failed,
            failed=self._failed,
            unknown=self._unknown,
            submitted=self._submitted,
            waiting=self._waiting,
            total=total,
            rate=rate,
            seconds_left=0.0 if left == 0 else left / rate if left is not None and rate else None,
        )

    def _give_last(self) -> Outcome[R]:
        """End the iteration: with what the budget refused, with the source's own error, or just so."""
        if self._refused is not None:
            outcome, self._refused = self._refused, None
            return outcome
        if self._broken is not None:
            error, self._broken = self._broken, None
            raise error
        raise StopAsyncIteration

    def _begin_worker(self) -> None:
        assert self._group is not None  # noqa: S101  for the type checker
        worker = self._group.create_task(self._work())
        self._workers.add(worker)
        worker.add_done_callback(self._end_worker)

    def _end_worker(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if worker.cancelled() and not self._stopping:
            # Not by us: a loop that ends cancels all its tasks. Who iterates mustn't take that for the end of the source.
            self._break(asyncio.CancelledError())
        if not self._workers:
            self._news.set()

    async def _work(self) -> None:
        """Take one operation after another; another worker is begun where none is left that would take the next."""
        while True:
            self._idle += 1
            try:
                work = await self._take()
            finally:
                self._idle -= 1
            if work is None:
                return
            if not self._idle and len(self._workers) < self._at_once:
                self._begin_worker()
            outcome = await self._run(work)
            if self._sheet is not None:
                await self._sheet.put(outcome)
            self._end(outcome)

    async def _take(self) -> Work[R] | None:
        """Take the next operation once there is room for it, and reserve its price; None ends the worker."""
        async with self._turn:
            if not self._stopping:
                await self._permits.acquire()
            item = _END if self._stopping else await self._pull()
            if item is _END or self._stopping:
                self._stopping = True
                return None
            work: Work[R] = read_item(item, self._taken, self._now())
            self._taken += 1
            if self._purse is None or await self._reserve(work, self._purse):
                return work
            # Stopped while its price was asked: nothing is told of it, unless it was this one that the budget refused.
            self._taken -= self._refused is None
            return None

    async def _reserve(self, work: Work[R], purse: Purse) -> bool:
        """Reserve an operation's price, and say whether it may be sent."""
        try:
            await purse.reserve(work)
        except BudgetExceededError as error:
            self._refused = self._count(work.tell(error, self._now()))
            self.stopped_by = self.stopped_by or self._refused
            self.stop()
        except Exception as error:  # noqa: BLE001  no price, no submit: it is the outcome's error
            work.problem = error
        return not self._stopping

    async def _pull(self) -> object:
        """Read the source; what it raises is kept for the iteration's end."""
        source = self._source
        try:
            if not isinstance(source, AsyncIterator):
                return next(cast("Iterator[object]", source), _END)
            self._puller = asyncio.current_task()
            try:
                return await anext(source, _END)
            finally:
                self._puller = None
        except asyncio.CancelledError as error:
            if self._left or (_is_cancelled() and not self._stopping):
                raise
            if not self._stopping:
                self._break(error)
        except Exception as error:  # noqa: BLE001  it is raised to who iterates
            self._break(error)
        return _END

    async def _run(self, work: Work[R]) -> Outcome[R]:
        """Bring one operation to its end, whatever that is."""
        try:
            await self._finish(work)
        except Exception as error:  # noqa: BLE001  one operation's failure is its outcome's
            if self._purse is not None:
                self._purse.settle(work, error)
            # Told from in here: the error's traceback leads to this frame, which must not lead back to the error.
            return work.tell(error, self._now())
        return work.tell(None, self._now())

    async def _finish(self, work: Work[R]) -> None:
        """Submit, wait and save."""
        if work.problem is not None:
            raise work.problem
        deadline = deadline_after(self._timeout)
        operation = work.operation
        if isinstance(operation, InstantOperation):
            work.result = await InstantCall(operation, self._engine, **self._tell_call(work))
            self._submitted += 1
        elif operation is not None:
            work.job = await JobCall(operation, self._engine, **self._tell_call(work))
            self._submitted += 1
        if work.job is None:
            return
        self._jobs[work.index] = work.job
        self._waiting += 1
        try:
            left = None if self._timeout is None else max(deadline - self._now(), 0.0)
            work.result = await work.job.result(timeout=left, poll=self._poll)
            if self._saver is not None:
                work.path = await self._saver.save(work)
        finally:
            self._waiting -= 1

    def _tell_call(self, work: Work[R]) -> dict[str, Any]:
        """Give what a call is told beside its request."""
        return {
            "timeout": self._timeout,
            "label": make_label(work.key),
            "once": self._once,
            "again": self._again,
            "covered": self.covered,
        }

    def _end(self, outcome: Outcome[R]) -> None:
        """Hand an outcome to who iterates, and look whether it ends the batch."""
        self._ready[outcome.index if self._ordered else self._arrived] = self._count(outcome)
        self._arrived += 1
        self._news.set()
        try:
            ends = not self._stopping and self._ends(outcome)
        except Exception as error:  # noqa: BLE001  the user's own function: it is raised to who iterates
            self._break(error)
            return
        if ends:
            self.stopped_by = outcome
            self.stop()

    def _count(self, outcome: Outcome[R]) -> Outcome[R]:
        self._ended += 1
        self._failed += outcome.error is not None
        if isinstance(outcome.error, SubmissionUnknownError):
            self._unknown += 1
            self._submitted += 1
        self._pace.note(self._now(), self._ended)
        return outcome

    def _break(self, error: BaseException) -> None:
        """Keep what ends the batch by no fault of an operation; it is raised once everything under way was handed over."""
        self._broken = self._broken or error
        self.stop()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
