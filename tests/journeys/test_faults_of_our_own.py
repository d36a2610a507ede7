"""A bug where the next read is planned, or in a read, is the waiters' error: it never leaves them waiting for nothing."""

import asyncio
import math

import pytest

from dryapi_async import Client, PollingFailedError
from dryapi_async.protocol.cadence import NO_LIMIT, Budget
from dryapi_async.protocol.status import SUBMITTED, JobState, Update
from dryapi_async.tracking.board import Waiter
from dryapi_async.tracking.watcher import Watcher

from ..conftest import now, settle

pytestmark = pytest.mark.anyio


class Service:
    """Jobs that end after a minute, and faults in the code around them: the ``fault``-th time it is asked for, counted from 0."""

    def __init__(self, client: Client, *, budget_fault: float = math.inf, read_fault: float = math.inf) -> None:
        self._began, self.budgets, self.reads = now(), 0, 0
        self._budget_fault, self._read_fault = budget_fault, read_fault
        self.watcher = Watcher(client.settings, self._read, None, budget=self._budget)

    def _budget(self) -> Budget:
        self.budgets += 1
        if self.budgets == self._budget_fault + 1:
            raise ZeroDivisionError("a budget of nothing")
        return NO_LIMIT

    async def _read(self, request_id: str) -> Update:
        self.reads += 1
        number = self.reads
        await asyncio.sleep(0.01)
        if number == self._read_fault + 1:
            raise ValueError(f"job {request_id} can't be read")
        state = JobState.DONE if now() - self._began > 60 else JobState.PROCESSING
        return Update(state=state, word=state.value, source="poll")

    def join(self, request_id: str) -> Waiter:
        return self.watcher.join(request_id, "txt2img", submitted_at=now(), known=SUBMITTED, poll=None, deadline=math.inf)

    async def wait(self, request_id: str) -> PollingFailedError | None:
        """Wait for a job to its end: None is a good one."""
        waiter = self.join(request_id)
        try:
            async with asyncio.timeout(1000):
                while not (await waiter.next()).finished:
                    pass
        except PollingFailedError as error:
            return error
        finally:
            self.watcher.leave(waiter)
        return None


@pytest.mark.parametrize("fault", range(12))
async def test_p02_a_bug_where_reads_are_planned_ends_no_following_in_silence(client: Client, fault: int) -> None:
    service = Service(client, budget_fault=fault)
    ends = await asyncio.gather(service.wait("1"), service.wait("2"))
    assert service.budgets > fault
    errors = [end for end in ends if end is not None]
    assert errors, "somebody learns of it"
    for error in errors:
        assert isinstance(error.__cause__, ZeroDivisionError)
        assert error.ticket == f"txt2img:{error.request_id}"
        assert "goes on and is paid for" in str(error)
    assert await service.wait("1") is None, "the next wait goes on as ever"
    await service.watcher.close()


async def test_p02_a_bug_where_the_timer_is_set_stops_no_later_wait(client: Client) -> None:
    service = Service(client, budget_fault=1)
    given_up = service.join("1")
    await asyncio.sleep(0.2)
    assert await service.wait("2") is None, "the first one's plan, which is earlier, sets no timer"
    with pytest.raises(PollingFailedError):
        await given_up.next()
    await service.watcher.close()


async def test_p02_a_bug_in_a_read_ends_the_waits_for_its_job_alone(client: Client) -> None:
    service = Service(client, read_fault=3)
    ends = await asyncio.gather(service.wait("1"), service.wait("2"))
    assert sorted(type(end and end.__cause__).__name__ for end in ends) == ["NoneType", "ValueError"]
    await service.watcher.close()


async def test_p02_a_bug_spins_no_loop_while_nobody_takes_its_error(client: Client) -> None:
    service = Service(client, budget_fault=6)
    waiter = service.join("1")
    await asyncio.sleep(30)
    count = service.budgets
    await asyncio.sleep(30)
    assert service.budgets == count, "what was given up is read no more"
    await waiter.next()
    with pytest.raises(PollingFailedError):
        await waiter.next()
    service.watcher.leave(waiter)
    await service.watcher.close()
    await settle()
