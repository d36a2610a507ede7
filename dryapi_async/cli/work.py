"""The work of a batch: rounds over a manifest's lines, until each is done, or told why not."""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar, cast

from attrs import evolve, frozen

from dryapi_async import AlreadySubmittedError, Batch, BudgetExceededError, Client, Job, JobFailedError, Outcome, SubmissionUnknownError
from dryapi_async.cli.board import Board
from dryapi_async.cli.inputs import digest_line
from dryapi_async.cli.manifest import Line, Problem
from dryapi_async.cli.pages import Pages
from dryapi_async.cli.prices import Prices
from dryapi_async.cli.results import Log, State, Told, find_results, pick_result, take_name, write_answer
from dryapi_async.cli.resume import Records
from dryapi_async.io.parts import sweep
from dryapi_async.operations.base import InstantOperation, JobOperation

P = ParamSpec("P")
T = TypeVar("T")

_LOOK_SECONDS: Final = 1.0
"""Between looks at what other processes have done."""
_LOOK_SHARE: Final = 5
"""So many times as long as a look takes it waits for the next: a journal of 50,000 calls takes its time."""
_GRACE_SECONDS: Final = 60.0
"""Beyond its time-out a living process gets so long to end a line, before that line is told as not done."""
_SETTLE_SECONDS: Final = 5.0
"""A text is noted as saved a moment before its file is there."""


@frozen(kw_only=True)
class Options:
    """How a batch is to be run."""

    folder: Path
    at_once: int
    timeout: float
    budget: Decimal | None
    prices: bool
    sheet: bool
    again: tuple[str, ...]
    """States of earlier calls that the user pays for once more."""


class Work:
    """One process's part in a batch: other processes may be at work on the same journal."""

    def __init__(self, client: Client, board: Board, lines: Sequence[Line], options: Options) -> None:
        self.states: dict[str, State] = {}
        """What has become of each line, by its key; lines that weren't sent have none."""
        self.stopping: bool = False
        self._client = client
        self._board = board
        self._lines = {line.key: line for line in lines}
        self._options = options
        self._records = Records(client, self._lines.keys())
        self._log = Log(options.folder)
        self._pages = Pages(options.folder, board) if options.sheet else None
        self._prices = Prices(client) if options.prices and options.budget is None else None
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="dryapi-batch")
        self._logged: dict[str, str] = {}
        self._results: dict[str, tuple[str, float]] = {}
        self._redo: set[str] = set()
        self._covered: frozenset[str] = frozenset()
        self._fetches: set[str] = set()
        self._began: dict[str, float] = {}
        self._contested = False
        self._seen: dict[str, tuple[str, float]] = {}
        self._batch: Batch[Any] | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._spent = Decimal(0)
        self._now = asyncio.get_running_loop().time
        self._pause = _LOOK_SECONDS

    async def find_changed(self) -> list[Problem]:
        """Read the journal, and find the lines whose key was another request's in an earlier run: nothing of it is sent then.

        Raises:
            JournalError: It can't be read.
        """
        await self._records.read()
        return await self._in_thread(self._find_changed)

    def _find_changed(self) -> list[Problem]:
        problems: list[Problem] = []
        for key, row in self._records.rows.items():
            line = self._lines[key]
            digest = None if row.state == "refused" else digest_line(line)
            if digest is not None and digest != row.digest:
                words = f"key {key!r} was another request in an earlier run: give it another key, or use another --out"
                problems.append(Problem(line.number, words))
        return sorted(problems, key=lambda problem: problem.number)

    async def run(self) -> None:
        """Bring all lines to an end, or as far as they come.

        Raises:
            JournalError: The journal can't be read any more.
            OSError: The folder can't be used.
        """
        try:
            await self._prepare()
            while not self.stopping:
                sends, redone = await self._plan()
                if sends or redone:
                    await self._go(redone, self._options.again)
                    await self._go(sends, ())
                elif len(self.states) < len(self._lines):
                    await self._wait_for_others()
                else:
                    break
        finally:
            if self._pages is not None:
                await self._pages.close()
            self._threads.shutdown(wait=False)

    def stop(self) -> None:
        """Send nothing more, and come to an end with what is under way."""
        self.stopping = True
        if self._batch is not None:
            self._batch.stop()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def _prepare(self) -> None:
        await self._in_thread(sweep, self._options.folder)
        self._logged = await self._in_thread(self._log.read_states)
        if self._pages is not None:
            await self._pages.open()
        if self._options.prices or self._options.budget is not None:
            self._board.spent = Decimal(0)
        again = self._options.again
        self._covered = self._records.lost
        self._redo = {key for key, row in self._records.rows.items() if row.state in again}

    async def _plan(self) -> tuple[deque[str], deque[str]]:
        """Look at the journal and the folder: settle what is done, and give the lines to work on and those to pay for once more."""
        began = self._now()
        await self._records.read()
        self._results = await self._in_thread(find_results, self._options.folder)
        sends, fetches, redone, settled, elsewhere = deque[str](), deque[str](), deque[str](), list[Told](), 0
        for key, line in self._lines.items():
            if key in self.states:
                continue
            what = self._judge(key)
            if what == "elsewhere":
                elsewhere += 1
            elif what == "fetch":
                fetches.append(key)
            elif what == "send":
                (redone if key in self._redo else sends).append(key)
            else:
                settled.append(await self._settle(line, what))
        self._board.elsewhere = elsewhere
        await self._tell_settled(settled)
        self._pause = max(_LOOK_SECONDS, _LOOK_SHARE * (self._now() - began))
        self._fetches = set(fetches)
        # What is paid for comes first.
        return fetches + sends, redone

    def _judge(self, key: str) -> str:
        row = self._records.rows.get(key)
        result = None if row is None else pick_result(self._results, key, row.created_at)
        what = self._records.judge(key, result, self._options.again if key in self._redo else ())
        if row is None or not self._records.living.get(row.owner) or row.request_id in self._records.taken:
            return what
        # A living process has it: for how long has it been as it is?
        held = f"{row.owner} {row.state}"
        if self._seen.get(key, ("", 0.0))[0] != held:
            self._seen[key] = held, self._now()
        seconds = self._now() - self._seen[key][1]
        if what == "elsewhere" and seconds > self._options.timeout + _GRACE_SECONDS:
            return "late"
        return "elsewhere" if what in {"fetch", "gone"} and seconds < _SETTLE_SECONDS else what

    async def _settle(self, line: Line, what: str) -> Told:
        """Tell of a line that needs nothing more from this process."""
        row = self._records.rows[line.key]
        told = Told(key=line.key, line=line.number, op=line.operation.endpoint.slug, state="failed", ticket=row.ticket)
        if what == "saved":
            if row.state != "saved":
                # Its process died between the file and the note.
                await self._client.journal.record(row.key, "saved")
            return evolve(told, state="saved", path=pick_result(self._results, line.key, row.created_at))
        if what == "gone":
            words = "its answer was saved and isn't there any more, and can't be fetched again: give it another key to pay for it again"
            return evolve(told, error="FileNotFoundError", message=words)
        if what == "late":
            words = f"another process has it ({row.state}) and doesn't come to an end with it: the same command goes on"
            return evolve(told, state="stopped", error="TimeoutError", message=words)
        if what == "unknown":
            return evolve(told, state="unknown", error="SubmissionUnknownError", message=row.cause or "its answer was lost")
        return evolve(told, error="JobFailedError", message="the job failed in an earlier run; --retry-failed pays for it once more")

    async def _tell_settled(self, settled: list[Told]) -> None:
        for told in settled:
            self.states[told.key] = told.state
            self._board.count(told.state)
            if self._pages is not None:
                await self._pages.put_missing(self._lines[told.key], told)
        await self._note([told for told in settled if self._logged.get(told.key) != told.state])

    async def _note(self, told: list[Told]) -> None:
        """Write outcomes down; where that fails, the results count for more."""
        if not told:
            return
        try:
            await self._in_thread(self._log.append, told)
        except OSError as error:
            self._board.warn(f"outcomes.jsonl can't be written: {error.strerror}")

    async def _go(self, keys: deque[str], again: tuple[str, ...]) -> None:
        """Send what is to be sent, take up what is paid for, and see all of it to its end."""
        if not keys or self.stopping:
            return
        options = self._options
        folder = str(options.folder).replace("{", "{{").replace("}", "}}")
        self._batch = self._client.batch(
            self._give(keys),
            at_once=options.at_once,
            save=f"{folder}/{{key}}{{suffix}}",
            budget=None if options.budget is None else max(options.budget - self._spent, Decimal(0)),
            timeout=options.timeout,
            once=True,
            again=again,
        )
        # The user's word was given for what the journal said at the start.
        self._batch.covered = self._covered
        try:
            async with self._batch as batch:
                async for outcome in batch:
                    await self._take(outcome)
                    if batch.spent is not None:
                        self._board.spent = self._spent + batch.spent
            if batch.stopped_by is not None:
                self.stopping = True
        finally:
            self._spent += self._batch.spent or 0
            self._batch = None

    async def _give(self, keys: deque[str]) -> AsyncIterator[tuple[str, JobOperation[Any] | InstantOperation[Any] | Job[Any]]]:
        """Give line after line, but for those that another process has by then."""
        looked = self._now()
        while keys:
            if self._contested and self._now() - looked >= self._pause:
                await self._part_ways(keys)
                looked = self._now()
                continue
            key = keys.popleft()
            self._began[key] = self._now()
            self._board.running = len(self._began)
            yield key, self._records.job(key) if key in self._fetches else cast("JobOperation[Any]", self._lines[key].operation)

    async def _part_ways(self, keys: deque[str]) -> None:
        """Pass over what other processes have by now, and go on at another place of the manifest than they."""
        self._contested = False
        await self._records.read()
        left = [key for key in keys if key in self._fetches or self._judge(key) == "send"]
        self._board.elsewhere += len(keys) - len(left)
        self._redo.difference_update(set(keys) - set(left))
        keys.clear()
        keys.extend(left)
        keys.rotate(random.randrange(len(left) + 1))  # noqa: S311  a place to go on, no secret

    async def _take(self, outcome: Outcome[Any]) -> None:
        """Take what became of one line."""
        line, seconds = self._lines[outcome.key], self._now() - self._began.pop(outcome.key, self._now())
        self._board.running = len(self._began)
        self._redo.discard(line.key)
        if isinstance(outcome.error, AlreadySubmittedError):
            self._contested = True
            self._board.elsewhere += 1
            return
        told = Told(
            key=line.key,
            line=line.number,
            op=line.operation.endpoint.slug,
            state=_state_of(outcome),
            ticket=None if outcome.job is None else outcome.job.ticket,
            seconds=round(seconds, 3),
            price=await self._price(outcome),
            error=None if outcome.error is None else type(outcome.error).__name__,
            message=None if outcome.error is None else str(outcome.error),
        )
        if told.state == "saved":
            told = await self._place(told, outcome)
        self.states[line.key] = told.state
        await self._note([told])
        self._board.show(told)
        if self._pages is not None:
            await self._pages.put(line, told)

    async def _place(self, told: Told, outcome: Outcome[Any]) -> Told:
        """See that a result has its name; an answer that makes no file is written here."""
        try:
            if outcome.path is not None:
                return evolve(told, path=(await self._in_thread(take_name, outcome.path, told.key)).name)
            return evolve(told, path=await self._in_thread(write_answer, self._options.folder, told.key, outcome.result))
        except OSError as error:
            return evolve(told, state="stopped", error=type(error).__name__, message=str(error))

    async def _price(self, outcome: Outcome[Any]) -> Decimal | None:
        """Find what a line that was sent now has cost, where somebody wants to know."""
        if self._prices is None or outcome.operation is None or _state_of(outcome) in {"refused", "stopped"}:
            return outcome.price
        price = await self._prices.ask(outcome.operation)
        if price is not None and self._board.spent is not None:
            self._board.spent += price
        return price

    async def _wait_for_others(self) -> None:
        """Wait a moment while living processes have lines of this manifest."""
        self._waiting = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._waiting], timeout=self._pause)
        self._waiting = None

    def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *args, **kwargs))


def _state_of(outcome: Outcome[Any]) -> State:
    """Say in one word what became of a line."""
    error = outcome.error
    if error is None:
        return "saved"
    if isinstance(error, SubmissionUnknownError):
        return "unknown"
    if isinstance(error, JobFailedError):
        return "failed"
    return "stopped" if outcome.job is not None or isinstance(error, BudgetExceededError) else "refused"
