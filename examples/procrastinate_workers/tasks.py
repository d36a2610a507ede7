"""The task of the queue: bring one picture to its end, from wherever a dead worker left it, and pay for it once."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import attrs
from procrastinate import App, BaseRetryStrategy, JobContext, PsycopgConnector, RetryDecision
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job as QueueJob
from psycopg.types.json import Jsonb

from dryapi_async import (
    Client,
    DryAPIError,
    GoneError,
    Image,
    InputError,
    InsufficientBalanceError,
    Job,
    JobFailedError,
    NotFoundError,
    PayloadTooLargeError,
    RateLimitError,
    SubmissionUnknownError,
    Txt2Img,
    ValidationError,
)
from examples.procrastinate_workers.ledger import Connection, HeldError, Ledger, Picture, Pool

if TYPE_CHECKING:
    from procrastinate.types import JSONDict

QUEUE: Final = "pictures"
REFUSALS: Final = (InputError, ValidationError, PayloadTooLargeError, NotFoundError, GoneError)
"""What trying again doesn't mend."""


class LookAgain(BaseRetryStrategy):
    """Whatever a run ended in, run again: the picture's row says what may still be done, and nothing else does."""

    def get_retry_decision(self, *, exception: BaseException, job: QueueJob) -> RetryDecision:  # noqa: ARG002  procrastinate's names
        """Say when: where the service told, then; else soon."""
        if isinstance(exception, RateLimitError) and exception.resets_at:
            return RetryDecision(retry_at=datetime.fromtimestamp(exception.resets_at, UTC))
        return RetryDecision(retry_in={"seconds": 5 if isinstance(exception, HeldError) else 60})


@attrs.frozen
class Desk:
    """What a worker works with."""

    client: Client
    ledger: Ledger
    out: Path
    heartbeat_seconds: float


def find_desk(context: JobContext) -> Desk:
    return cast("Desk", context.additional_context["desk"])  # pyright: ignore[reportUnknownMemberType]  a dict of whatever


app = App(connector=PsycopgConnector())  # opened by who uses it: it knows no address yet


@app.task(name="make_picture", queue=QUEUE, retry=LookAgain(), pass_context=True)
async def make_picture(context: JobContext, picture: int) -> None:
    """Bring one picture to its end, from wherever a dead worker left it."""
    desk = find_desk(context)
    async with desk.ledger.hold(picture) as row:
        if row.state == "queued":
            job = await submit(desk, row)
        elif row.state == "intent":  # whoever wrote this holds its lock no longer: it is dead
            await desk.ledger.give_up(row.id, f"{row.owner} died between its intent and the answer.")
            job = None
        else:
            job = desk.client.job(row.ticket, Txt2Img) if row.state == "submitted" and row.ticket else None
        if job is not None:
            await fetch(desk, row, job)


async def submit(desk: Desk, picture: Picture) -> Job[Image] | None:
    """Submit a picture once; None where there is no job to wait for."""
    ledger = desk.ledger
    try:
        call = desk.client.call(Txt2Img(**picture.request))
    except (TypeError, InputError) as error:
        await ledger.end(picture.id, "refused", why=str(error))
        return None
    if not await ledger.intend(picture.id):
        call.close()
        return None
    try:
        job = await call
    except SubmissionUnknownError as lost:
        found = await desk.client.settle(lost)
        if found is None:
            await ledger.give_up(picture.id, str(lost))
            return None
        job = found
    except DryAPIError as error:  # nothing was accepted
        if isinstance(error, REFUSALS) and not isinstance(error, InsufficientBalanceError):
            await ledger.end(picture.id, "refused", why=str(error))
            return None
        await ledger.give_back(picture.id, str(error))
        raise  # LookAgain says when
    await ledger.keep(picture.id, job)
    return job


async def fetch(desk: Desk, picture: Picture, job: Job[Image]) -> None:
    """Wait for a picture that is paid for, and save it whole; what breaks here costs nothing and is done again."""
    try:
        path = await job.save(desk.out / f"{picture.id:05}.png")
    except JobFailedError as failure:
        await desk.ledger.end(picture.id, "failed", why=str(failure))
    else:
        await desk.ledger.end(picture.id, "done", path=str(path))


# Six columns: the last are seconds. Before all pictures in the queue, or it would come after them.
@app.periodic(cron="* * * * * */5")
@app.task(name="requeue_stalled", queue=QUEUE, queueing_lock="requeue_stalled", priority=1, pass_context=True)
async def requeue_stalled(context: JobContext, timestamp: int) -> None:  # noqa: ARG001  procrastinate's name
    """Queue again what workers without a heartbeat had: a worker that is merely slow still holds its locks, so this harms nothing."""
    desk = find_desk(context)
    stalled = await app.job_manager.get_stalled_jobs(task_name="make_picture", seconds_since_heartbeat=3 * desk.heartbeat_seconds)
    for job in stalled:
        try:
            await app.job_manager.retry_job(job)
        except ConnectorException:  # it has ended, or another worker was faster
            continue


async def enqueue(pool: Pool, requests: Sequence[Txt2Img]) -> list[int]:
    """Write rows and queue their jobs in one transaction: there is never one without the other."""
    rows = [Jsonb({name: value for name, value in attrs.asdict(request).items() if value not in (None, ())}) for request in requests]
    async with pool.connection() as connection:
        cursor = await connection.execute("INSERT INTO pictures (request) SELECT unnest(%s::jsonb[]) RETURNING id", (rows,))
        return await _defer(connection, [row[0] for row in await cursor.fetchall()])


async def resubmit_unknown(pool: Pool) -> list[int]:
    """Queue the unknown pictures again, at a person's word: each may be paid for twice."""
    async with pool.connection() as connection:
        cursor = await connection.execute("UPDATE pictures SET state = 'queued', owner = NULL WHERE state = 'unknown' RETURNING id")
        return await _defer(connection, [row[0] for row in await cursor.fetchall()])


async def _defer(connection: Connection, pictures: list[int]) -> list[int]:
    wanted: list[JSONDict] = [{"picture": picture} for picture in pictures]
    if wanted:
        await make_picture.configure(connection=connection).batch_defer_async(*wanted)
    return pictures
