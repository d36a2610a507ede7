"""Two thousand jobs, some 15 % of all requests broken in every way: none paid twice, none lost, every file whole."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from dryapi_async import Client, DownloadError, Img2Img, JobFailedError, Retry, SubmissionUnknownError, Timeouts, Txt2Img
from dryapi_async.operations.base import JobOperation
from dryapi_async.operations.results import Image
from dryapi_async.simulator import Fault, Simulator

from ..conftest import PNG, files_in, make_client, make_sim, sha256

pytestmark = pytest.mark.anyio

JOBS = 2_000
SHARE = 0.15
SUBMIT_FAULTS = (
    Fault.reset("before_body"),
    Fault.reset("mid_body"),
    Fault.reset(),
    Fault.close("mid_body"),
    Fault.close(),
    Fault.hang(),
    Fault.garbage(),
    Fault.reset("headers"),
    Fault.truncate("headers"),
    Fault.truncate(),
    Fault.close("payload"),
    Fault.garbage("payload"),
    Fault.html(500),
    Fault.html(502),
    Fault.html(502, early=True),
    Fault.html(504),
    Fault.redirect("http://127.0.0.1:9/elsewhere"),
    Fault.rate_limited(retry_after=2),
    Fault.rate_limited(retry_after=1, early=True),
    Fault.delay(7),
    Fault.job_error(),
)
READ_FAULTS = (
    Fault.reset("before_body"),
    Fault.reset(),
    Fault.close(),
    Fault.hang(),
    Fault.garbage(),
    Fault.truncate("headers"),
    Fault.truncate(),
    Fault.garbage("payload"),
    Fault.html(502),
    Fault.rate_limited(retry_after=1),
)
FILE_FAULTS = (
    Fault.reset(),
    Fault.reset("payload"),
    Fault.close("payload", at=0.6),
    Fault.truncate(at=0.3),
    Fault.hang("payload"),
    Fault.html(503),
    Fault.status(403, b"<Error/>"),
    Fault.trickle(100_000),
)


def make_request(index: int) -> JobOperation[Image]:
    """Make a request that no other job has."""
    if index % 4:
        return Txt2Img(prompt="a fox", model="Flux1schnell", width=256, height=192, steps=4, seed=index)
    return Img2Img(prompt="at night", model="QwenImageEdit_Plus_NF4", steps=20, seed=index, image=PNG)


def break_things(sim: Simulator) -> None:
    """Let every kind of request meet its faults by chance."""
    for slug in ("txt2img", "img2img"):
        sim.script(slug, *SUBMIT_FAULTS, probability=SHARE)
    sim.script("request-status", *READ_FAULTS, probability=SHARE)
    sim.script("storage", *FILE_FAULTS, probability=SHARE)


async def make_one(client: Client, index: int, folder: Path, tickets: dict[int, str]) -> str:
    """Do what a user would do, and say how it ended."""
    try:
        job = await client.call(make_request(index), timeout=None)
    except SubmissionUnknownError:
        return "unknown"
    tickets[index] = job.ticket
    while True:
        try:
            await job.save(folder / f"{index}.png", timeout=None)
        except JobFailedError:
            return "failed"
        except DownloadError:
            continue  # "Save it again later": the link and its renewal both met a fault
        return "done"


@pytest.mark.parametrize("seed", [random.SystemRandom().randrange(1_000_000)])
async def test_p01_chaos_two_thousand_jobs(tmp_path: Path, seed: int) -> None:
    print(f"seed {seed}")  # noqa: T201  a failing run can be made again
    tickets: dict[int, str] = {}
    async with make_sim(seed=seed, duration=None, result_size=20_000, most_records=1_000_000) as sim:
        break_things(sim)
        async with make_client(
            sim, timeouts=Timeouts(idle=5), retry=Retry(attempts=20, polls=100), max_in_flight=64, pool_size=200
        ) as client:
            ends = await asyncio.gather(*(make_one(client, index, tmp_path, tickets) for index in range(JOBS)))
        counts = Counter(ends)
        assert set(counts) <= {"done", "failed", "unknown"}, counts
        assert counts.total() == JOBS
        assert max(sim.billed.values()) == 1, "paid twice"
        # Each job that was billed is one that its caller has, or knows to be unknown.
        known = {ticket.partition(":")[2] for ticket in tickets.values()}
        assert len(set(sim.jobs) - known) <= counts["unknown"]
        assert known <= set(sim.jobs)
        assert counts["unknown"] > JOBS * SHARE / 3
        assert counts["done"] > JOBS * (1 - 2 * SHARE)
        assert files_in(tmp_path) == sorted(f"{index}.png" for index, end in enumerate(ends) if end == "done")
        for index, ticket in tickets.items():
            if ends[index] == "done":
                assert sha256(tmp_path / f"{index}.png") == made_hash(sim, ticket.partition(":")[2])


def made_hash(sim: Simulator, request_id: str) -> str:
    """Give the SHA-256 of the file that the simulator made for a job."""
    (blob,) = [blob for name, blob in sim.jobs[request_id].blobs.items() if name.endswith(".png")]
    return sha256(blob.read(0, blob.size))
