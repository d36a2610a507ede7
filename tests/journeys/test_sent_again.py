"""A submit that is sent again at the user's word, after its answer was lost: what comes after that doesn't make the loss good."""

import asyncio
from pathlib import Path

import pytest

from dryapi_async import AuthenticationError, Client, Img2Img, SubmissionUnknownError, ValidationError
from dryapi_async.simulator import Fault, Simulator
from dryapi_async.testing import WebhookSigner

from ..conftest import FOX, PNG, finish, give_up, make_client, seen, until

pytestmark = pytest.mark.anyio
SECRET = "whsec_test"
EDIT = Img2Img(prompt="the same, at night", model="QwenImageEdit_Plus_NF4", steps=20, seed=42, image=PNG)
HOOK = "http://127.0.0.1:9/hook/{key}"
"""Nobody listens there: what would come is delivered by hand."""


def lose(sim: Simulator, *then: Fault, slug: str = "txt2img") -> None:
    sim.script(slug, Fault.reset("after_body"), *then)


@pytest.mark.parametrize(
    ("fault", "cause"),
    [(Fault.status(422, {"message": "no"}), ValidationError), (Fault.status(401), AuthenticationError)],
    ids=["422", "401"],
)
async def test_p01_a_refusal_after_a_loss_is_still_a_loss(sim: Simulator, client: Client, fault: Fault, cause: type[Exception]) -> None:
    lose(sim, fault)
    with pytest.raises(SubmissionUnknownError, match="answer was lost") as caught:
        await client.call(FOX, resubmit=True)
    assert type(caught.value.__cause__) is cause
    assert caught.value.attempt == 1
    assert client.stats().submits_unknown == 1
    assert sim.jobs_billed == 1


async def test_p01_closed_between_two_attempts_it_is_a_loss(sim: Simulator) -> None:
    client = make_client(sim)
    lose(sim, Fault.rate_limited(retry_after=60))
    task = asyncio.create_task(finish(client.call(FOX, resubmit=True)))
    await until(lambda: len(seen(sim, "txt2img")) == 2)
    await asyncio.sleep(1)
    await client.aclose()
    with pytest.raises(SubmissionUnknownError):
        await task
    assert len(seen(sim, "txt2img")) == 2


async def test_p01_given_up_between_two_attempts_its_next_finish_says_the_loss(sim: Simulator, tmp_path: Path) -> None:
    async with make_client(sim, journal=tmp_path / "jobs.db") as client:
        lose(sim, Fault.rate_limited(retry_after=60))
        call = client.call(FOX, resubmit=True, label="a fox", once=True)
        task = asyncio.create_task(finish(call))
        await until(lambda: len(seen(sim, "txt2img")) == 2)
        await asyncio.sleep(1)
        await give_up(task)
        with pytest.raises(SubmissionUnknownError):
            await call
        assert sorted(row.state for row in await client.journal.list()) == ["refused", "unknown"]
    assert len(seen(sim, "txt2img")) == 2


async def test_p02_out_of_time_between_two_attempts_it_is_a_loss(sim: Simulator, client: Client) -> None:
    lose(sim, Fault.rate_limited(retry_after=60))
    with pytest.raises(SubmissionUnknownError):
        await client.call(FOX, resubmit=True, timeout=30)
    assert sim.jobs_billed == 1


@pytest.mark.parametrize("slug", ["txt2img", "img2img"])
async def test_p01_each_attempt_has_an_address_of_its_own(sim: Simulator, tmp_path: Path, slug: str) -> None:
    """Else the second job's webhook would settle the first attempt, whose payment nobody would look for any more."""
    async with make_client(sim, journal=tmp_path / "jobs.db", webhook_url=HOOK) as client:
        lose(sim, slug=slug)
        call = client.call(FOX, resubmit=True) if slug == "txt2img" else client.call(EDIT, resubmit=True)
        job = await call
        rows = {row.key: (row.state, row.request_id) for row in await client.journal.list()}
        keys = [one.fields["webhook_url"].rpartition("/")[2] for one in seen(sim, slug)]
        assert rows == {keys[0]: ("unknown", None), keys[1]: ("submitted", job.id)}
        assert len({one.fields["webhook_url"] for one in seen(sim, slug)}) == 2


async def test_p16_a_webhook_that_comes_before_the_loss_is_evidence_of_it(sim: Simulator) -> None:
    """Without a journal, too: the client keeps what came to the call's address while its answer was still awaited."""
    async with make_client(sim, webhook_url=HOOK, webhook_secret=SECRET) as client:
        sim.script("txt2img", Fault.hang(seconds=5))
        task = asyncio.create_task(finish(client.call(FOX)))
        await until(lambda: sim.jobs)
        key = seen(sim, "txt2img")[0].fields["webhook_url"].rpartition("/")[2]
        (request_id,) = sim.jobs
        headers, body = WebhookSigner(SECRET).sign({"job_request_id": request_id, "status": "processing"}, event="job.processing")
        await client.deliver(headers, body, key=key)
        with pytest.raises(SubmissionUnknownError) as caught:
            await task
        job = await client.settle(caught.value)
        assert job is not None
        assert job.id == request_id


async def test_p16_a_webhook_leaves_a_job_to_the_process_that_made_it(sim: Simulator, tmp_path: Path) -> None:
    """It may live, and wait for its answer: only what a dead process left is another's to finish."""
    maker = make_client(sim, journal=tmp_path / "jobs.db", webhook_url=HOOK)
    web = make_client(sim, journal=tmp_path / "jobs.db", webhook_secret=SECRET)
    async with maker, web:
        sim.script("txt2img", Fault.delay(5))
        task = asyncio.create_task(finish(maker.call(FOX)))
        await until(lambda: sim.jobs)
        (row,) = await maker.journal.list()
        headers, body = WebhookSigner(SECRET).sign({"job_request_id": next(iter(sim.jobs)), "status": "processing"}, event="job.processing")
        await web.deliver(headers, body, key=row.key)
        (told,) = await web.journal.list()
        assert (told.state, told.owner) == ("submitted", row.owner)
        job = await task
        (told,) = await web.journal.list()
        assert (told.request_id, told.owner) == (job.id, row.owner)
        assert await web.unfinished() == ()


async def test_p13_evidence_of_what_was_answered_after_all_isnt_kept(sim: Simulator) -> None:
    async with make_client(sim, webhook_url=HOOK, webhook_secret=SECRET) as client:
        sim.script("txt2img", Fault.delay(5))
        task = asyncio.create_task(finish(client.call(FOX)))
        await until(lambda: sim.jobs)
        key = seen(sim, "txt2img")[0].fields["webhook_url"].rpartition("/")[2]
        headers, body = WebhookSigner(SECRET).sign({"job_request_id": next(iter(sim.jobs)), "status": "processing"}, event="job.processing")
        await client.deliver(headers, body, key=key)
        assert list(client._engine().answers) == [key]
        await task
        await asyncio.sleep(0)
        assert client._engine().answers == {}
