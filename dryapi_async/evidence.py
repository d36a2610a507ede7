"""What is known of calls whose answers were lost or whose processes died: late answers, the journal, webhooks with a call's key."""

from typing import TYPE_CHECKING, Any

from dryapi_async.engine import Engine
from dryapi_async.errors import InputError, SubmissionUnknownError, show_value
from dryapi_async.job import EngineSource, Job
from dryapi_async.operations import job_class

if TYPE_CHECKING:
    from dryapi_async.io.journal import Journal, JournalRow


def _job_of(row: "JournalRow | None", engine: EngineSource) -> Job[Any] | None:
    """Make a handle of a journal's row, where it has a job."""
    operation = None if row is None else job_class(row.operation)
    return None if row is None or row.request_id is None or operation is None else Job(row.request_id, operation, engine)


async def find_unfinished(journal: "Journal", engine: EngineSource) -> tuple[Job[Any], ...]:
    """Take over the jobs that dead processes left in the journal."""
    found = [_job_of(row, engine) for row in await journal.take_over()]
    return tuple(job for job in found if job is not None)


async def settle_by_key(engine: Engine, source: EngineSource, key: str, request_id: str) -> None:
    """Note the job of a submit whose answer was lost: its webhook came to the address with its key."""
    if engine.journal is not None:
        # The job stays the process's that made it: it may live, and wait for its answer.
        await engine.journal.record(key, "submitted", request_id=request_id, owned=False)
    slug = engine.find_slug(key)
    operation = None if slug is None else job_class(slug)
    if operation is not None:
        engine.find(key, Job(request_id, operation, source))


async def settle(source: EngineSource, error: object) -> Job[Any] | None:
    """Look for the job of a submit whose answer was lost.

    Raises:
        InputError: It is another error.
    """
    if not isinstance(error, SubmissionUnknownError):
        raise InputError(f"settle() takes the SubmissionUnknownError that a call raised, not {show_value(error)}.")
    engine = source()
    found = await engine.find_answer(error.journal_key)
    if isinstance(found, Job):
        job: Job[Any] = found  # pyright: ignore[reportUnknownVariableType]  what it gives isn't known here
        return job
    if engine.journal is None or error.journal_key is None:
        return None
    return _job_of(await engine.journal.find(error.journal_key), source)
