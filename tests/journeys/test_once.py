"""A label is sent once: with a journal, by however many calls, clients and processes."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from dryapi_async import AlreadySubmittedError, Client, ConfigurationError, InputError, JobFailedError, StatusError, SubmissionUnknownError
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, REPOSITORY, give_up, make_client, make_sim, seen, until

pytestmark = pytest.mark.anyio


async def test_p01_of_two_calls_of_one_label_one_is_sent(sim: Simulator, tmp_path: Path) -> None:
    async with make_client(sim, journal=tmp_path / "jobs.db") as one, make_client(sim, journal=tmp_path / "jobs.db") as other:
        calls = [client.call(FOX, label="a fox", once=True) for client in (one, other, one, other)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        jobs = [one for one in answers if not isinstance(one, BaseException)]
        refused = [one for one in answers if isinstance(one, AlreadySubmittedError)]
        assert (len(jobs), len(refused), sim.jobs_billed) == (1, 3, 1)
        assert {error.state for error in refused} <= {"intent", "submitted"}
        with pytest.raises(AlreadySubmittedError, match=r"'a fox' is in the journal already \(submitted") as caught:
            await one.call(FOX, label="a fox", once=True)
        assert caught.value.ticket == jobs[0].ticket
        await other.call(FOX, label="another", once=True)
        await other.call(FOX, label="a fox")
        assert sim.jobs_billed == 3, "without the word a label means nothing"


async def test_p01_whatever_became_of_it_but_a_refusal_forbids_the_next(sim: Simulator, tmp_path: Path) -> None:
    async with make_client(sim, journal=tmp_path / "jobs.db") as client:
        sim.script("txt2img", Fault.status(422, {"message": "no"}))
        with pytest.raises(StatusError):
            await client.call(FOX, label="refused", once=True)
        await client.call(FOX, label="refused", once=True)

        sim.script("txt2img", Fault.reset("after_body"))
        with pytest.raises(SubmissionUnknownError):
            await client.call(FOX, label="unknown", once=True)
        with pytest.raises(AlreadySubmittedError, match="unknown"):
            await client.call(FOX, label="unknown", once=True)
        await client.call(FOX, label="unknown", once=True, again=("unknown",))
        with pytest.raises(AlreadySubmittedError, match="submitted"):
            await client.call(FOX, label="unknown", once=True, again=("unknown",))

        job = await client.call(FOX, label="failed", once=True)
        sim.fail(job.id)
        with pytest.raises(JobFailedError):
            await job.result()
        with pytest.raises(AlreadySubmittedError, match="failed"):
            await client.call(FOX, label="failed", once=True, again=("unknown",))
        await client.call(FOX, label="failed", once=True, again=("failed",))


@pytest.mark.parametrize("opened", [True, False])
async def test_p01_the_word_to_pay_again_is_for_what_was_lost_when_it_was_given(sim: Simulator, tmp_path: Path, *, opened: bool) -> None:
    one, other = make_client(sim, journal=tmp_path / "jobs.db"), make_client(sim, journal=tmp_path / "jobs.db", max_in_flight=1)
    sim.script("txt2img", Fault.reset("after_body"), Fault.delay(5), Fault.reset("after_body"))
    with pytest.raises(SubmissionUnknownError):
        await one.call(FOX, label="a fox", once=True)
    await asyncio.sleep(2)
    if opened:
        await other.journal.open()
    ahead = asyncio.create_task(other.call(FOX, label="ahead"))
    waiting = asyncio.create_task(other.call(FOX, label="a fox", once=True, again=("unknown",)))
    await until(lambda: len(seen(sim, "txt2img")) == 2)
    with pytest.raises(SubmissionUnknownError):
        await one.call(FOX, label="a fox", once=True, again=("unknown",))
    await asyncio.sleep(2)
    await ahead
    with pytest.raises(AlreadySubmittedError, match=r"'a fox' .* \(unknown\): nothing was sent\. It came to that after you agreed"):
        await waiting
    assert len(seen(sim, "txt2img")) == 3
    assert await other.call(FOX, label="a fox", once=True, again=("unknown",))
    assert len(seen(sim, "txt2img")) == 4
    await one.aclose()
    await other.aclose()


async def test_p01_a_batch_sends_nothing_again_that_another_lost_since(sim: Simulator, tmp_path: Path) -> None:
    async with make_client(sim, journal=tmp_path / "jobs.db") as one, make_client(sim, journal=tmp_path / "jobs.db") as other:
        batches = [client.batch({"a fox": FOX}.items(), once=True, again=("unknown",)) for client in (one, other)]
        sim.script("txt2img", Fault.reset("after_body"))
        async with batches[0], batches[1]:
            errors: list[BaseException | None] = []
            for batch in batches:
                errors += [outcome.error async for outcome in batch]
                await asyncio.sleep(2)
        assert [type(error) for error in errors] == [SubmissionUnknownError, AlreadySubmittedError]
        assert len(seen(sim, "txt2img")) == 1


async def test_sent_again_at_the_users_word_its_own_lost_attempt_forbids_nothing(sim: Simulator, tmp_path: Path) -> None:
    async with make_client(sim, journal=tmp_path / "jobs.db") as client:
        for label, again in (("plain", ()), ("once more", ("unknown",))):
            sim.script("txt2img", Fault.reset("after_body"))
            job = await client.call(FOX, label=label, once=True, resubmit=True, again=again)
            rows = [(row.state, row.request_id) for row in await client.journal.list() if row.label == label]
            assert sorted(rows, key=str) == [("submitted", job.id), ("unknown", None)]


async def test_p01_what_waits_to_be_sent_again_is_one_call(sim: Simulator, tmp_path: Path) -> None:
    async with make_client(sim, journal=tmp_path / "jobs.db") as client:
        sim.script("txt2img", Fault.rate_limited(retry_after=5), Fault.reset("headers"))
        first = asyncio.create_task(client.call(FOX, label="a fox", once=True))
        await until(lambda: seen(sim, "txt2img"))
        await asyncio.sleep(1)
        with pytest.raises(AlreadySubmittedError):
            await client.call(FOX, label="a fox", once=True)
        await asyncio.wait([first])
        assert len([one for one in seen(sim, "txt2img") if one.status == 429]) == 1
        assert sim.jobs_billed <= 1


async def test_p01_one_that_was_given_up_in_line_forbids_nothing(tmp_path: Path) -> None:
    async with make_sim(limits={"txt2img": (1, 60.0)}) as sim, make_client(sim, journal=tmp_path / "jobs.db") as client:
        sim.script("txt2img", Fault.rate_limited(retry_after=30))
        waiting = asyncio.create_task(client.call(FOX, label="a fox", once=True))
        await until(lambda: seen(sim, "txt2img"))
        await asyncio.sleep(1)
        await give_up(waiting)
        await asyncio.sleep(40)
        await client.call(FOX, label="a fox", once=True)
        assert sim.jobs_billed == 1


async def test_once_needs_a_journal_and_a_label(sim: Simulator, client: Client, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="journal"):
        await client.call(FOX, label="a fox", once=True)
    async with make_client(sim, journal=tmp_path / "jobs.db") as keeping:
        with pytest.raises(InputError, match="label"):
            keeping.call(FOX, once=True)
        for again in ("unknown", ("saved",), 5):
            with pytest.raises(InputError, match="again"):
                keeping.call(FOX, label="a fox", once=True, again=again)  # type: ignore[call-overload]
    assert not sim.requests


async def test_a_journal_of_before_gets_its_index(sim: Simulator, tmp_path: Path) -> None:
    async with make_client(sim, journal=tmp_path / "jobs.db") as client:
        await client.call(FOX, label="a fox")
        assert await client.journal.is_alive((await client.journal.list())[0].owner)
        assert not await client.journal.is_alive("0" * 16)


PROGRAM = """
import asyncio, json, sys
from dryapi_async import AlreadySubmittedError, Client, Txt2Img

async def main():
    url, key, journal, count = sys.argv[1:]
    fox = Txt2Img(prompt="a fox", model="Flux1schnell", width=64, height=64, steps=4, seed=7)
    made = []
    async with Client(key, base_url=url, journal=journal) as client:
        async def one(number):
            try:
                await client.call(fox, label=f"line {number}", once=True)
            except AlreadySubmittedError:
                return
            made.append(number)
        await asyncio.gather(*(one(number) for number in range(int(count))))
    print(json.dumps(made))

asyncio.run(main())
"""


@pytest.mark.processes
def test_p01_four_processes_send_each_label_once(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)

    async def run(sim: Simulator) -> list[int]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(str(script), sim.url, sim.key, str(tmp_path / "jobs.db"), "200"),
            stdout=asyncio.subprocess.PIPE,
            env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin"},
        )
        said, _ = await process.communicate()
        assert process.returncode == 0
        made: list[int] = json.loads(said)
        return made

    async def main() -> None:
        async with make_sim() as sim:
            shares = await asyncio.gather(*(run(sim) for _ in range(4)))
            assert sorted(number for share in shares for number in share) == list(range(200))
            assert sim.jobs_billed == 200

    asyncio.run(main())


@pytest.mark.processes
def test_the_word_to_pay_again_is_good_for_what_a_dead_process_left(tmp_path: Path) -> None:
    async def main() -> None:
        async with make_sim() as sim:
            sim.script("txt2img", Fault.hang())
            command = ("-c", PROGRAM, sim.url, sim.key, str(tmp_path / "jobs.db"), "1")
            process = await asyncio.create_subprocess_exec(sys.executable, *command, env={"PYTHONPATH": str(REPOSITORY)})
            await until(lambda: seen(sim, "txt2img"))
            process.kill()
            await process.wait()
            client = make_client(sim, journal=tmp_path / "jobs.db")
            # Made before the journal is open, so before anybody knows that its owner is dead.
            call = client.call(FOX, label="line 0", once=True, again=("unknown",))
            assert await call
            await client.aclose()
            assert len(seen(sim, "txt2img")) == 2

    asyncio.run(main())
