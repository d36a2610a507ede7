"""The simulator in a thread, steered from another."""

import asyncio
import threading
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from dryapi_async import Client, JobFailedError, JobState
from dryapi_async.simulator import Fault
from dryapi_async.testing import ThreadedSimulator

from ..conftest import FOX


async def submit(service: ThreadedSimulator) -> str:
    async with Client(service.key, base_url=service.url) as client:
        return (await client.call(FOX)).ticket


async def read(service: ThreadedSimulator, ticket: str) -> tuple[JobState, float | None]:
    async with Client(service.key, base_url=service.url) as client:
        update = await client.job(ticket).status()
        return update.state, update.progress


async def wait(service: ThreadedSimulator, ticket: str) -> object:
    async with Client(service.key, base_url=service.url, poll=0.01) as client:
        return await client.job(ticket).result(timeout=10)


def ask(service: ThreadedSimulator) -> int:
    request = Request(f"{service.url}/api/v1/client/balance", headers={"Authorization": f"Bearer {service.key}"})  # noqa: S310  loopback
    with urlopen(request, timeout=5) as answer:  # noqa: S310  the same
        return int(answer.status)


def test_jobs_are_moved_from_another_thread() -> None:
    with ThreadedSimulator(pictures=False) as service:
        service.hold()
        tickets = [asyncio.run(submit(service)) for _ in range(3)]
        one, two, three = service.jobs
        service.set_progress(one, 40)
        assert asyncio.run(read(service, tickets[0])) == (JobState.PROCESSING, 40.0)
        service.finish(one)
        service.fail(two, "NSFW", "no")
        assert asyncio.run(wait(service, tickets[0]))
        with pytest.raises(JobFailedError):
            asyncio.run(wait(service, tickets[1]))
        assert service.jobs[three].held
        service.release()
        assert asyncio.run(wait(service, tickets[2]))


@pytest.mark.parametrize(
    ("how", "told"), [("finish", ["job.completed"]), ("fail", ["job.failed"]), ("set_progress", []), ("release", ["job.completed"])]
)
def test_webhooks_tell_of_what_another_thread_does(how: str, told: list[str]) -> None:
    with ThreadedSimulator(pictures=False, webhook_url="http://127.0.0.1:9/") as service:
        service.hold()
        asyncio.run(submit(service))
        match how:
            case "finish":
                service.finish(*service.jobs)
            case "fail":
                service.fail(*service.jobs)
            case "set_progress":
                service.set_progress(*service.jobs, 40)
            case _:
                service.release()
        assert [one.event for one in service.webhooks.deliveries if one.event != "job.processing"] == told


def test_it_goes_down_and_comes_up() -> None:
    with ThreadedSimulator(pictures=False) as service:
        url = service.url
        assert ask(service) == 200
        service.run(service.go_down)
        with pytest.raises(URLError):
            ask(service)
        service.run(service.come_up)
        assert (ask(service), service.url) == (200, url)
        asyncio.run(service.go_down())
        with pytest.raises(URLError):
            ask(service)
        asyncio.run(service.come_up())
        assert ask(service) == 200


def test_faults_and_numbers_are_there_and_nothing_is_left() -> None:
    before = threading.active_count()
    with ThreadedSimulator(pictures=False) as service:
        service.script("balance", Fault.status(418))
        with pytest.raises(URLError, match="418"):
            ask(service)
        assert ask(service) == 200
        assert [one.status for one in service.requests] == [418, 200]
    assert threading.active_count() == before
    with pytest.raises(URLError):
        ask(service)


def test_an_error_of_the_body_or_of_the_start_comes_through() -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), ThreadedSimulator(pictures=False) as service:
        raise ZeroDivisionError
    with pytest.raises(OSError, match="address already in use"):  # noqa: SIM117  the first must serve
        with ThreadedSimulator(pictures=False) as service, ThreadedSimulator(pictures=False, port=int(service.url.rpartition(":")[2])):
            pass
    assert threading.active_count() == before


def test_a_script_that_runs_in_its_loop_may_move_jobs_and_nothing_moves_before_the_start() -> None:
    service = ThreadedSimulator(pictures=False)
    with pytest.raises(RuntimeError, match="isn't running"):
        service.run(int)
    with service:
        service.hold()
        ticket = asyncio.run(submit(service))
        service.script(
            lambda received: received.operation == "request-status" and bool(service.finish(next(iter(service.jobs)))), Fault.delay(0)
        )
        assert asyncio.run(wait(service, ticket))
