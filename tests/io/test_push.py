"""The push channel over real sockets: it comes back, authorises anew, and never speaks twice at once."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator

import pytest

from dryapi_async import JobState
from dryapi_async.io import push as push_module
from dryapi_async.io.push import MOST_FRAME_BYTES
from dryapi_async.protocol.pusher import push_url
from dryapi_async.simulator import Fault, Simulator

from ..conftest import now, seen, until
from .ears import EVENT, Ear, open_ear

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ear(sim: Simulator) -> AsyncIterator[Ear]:
    async with open_ear(sim) as opened:
        yield await opened.listen()


@pytest.mark.parametrize("data_as", ["string", "object"])
async def test_p22_a_job_is_heard_from_start_to_done(sim: Simulator, ear: Ear, data_as: str) -> None:
    sim.push.data_as = data_as
    request_id = await ear.submit()
    await until(lambda: ear.news and ear.news[-1][1].finished)
    told = ear.told_of(request_id)
    assert [update.state for update in told] == [JobState.PROCESSING] * 4 + [JobState.DONE]
    assert [update.progress for update in told] == [0.0, 25.0, 50.0, 75.0, 100.0]
    assert {update.source for update in told} == {"push"}
    assert (told[-1].url or "").startswith(sim.storage_url)
    assert not seen(sim, "request-status")


async def test_p22_foreign_jobs_words_and_previews_come_as_they_are(sim: Simulator, ear: Ear) -> None:
    sim.push.send(
        f".{EVENT}", {"request_id": "foreign", "status": "in_progress", "progress": "45.50", "preview": "data:image/png;base64,!"}
    )
    await until(lambda: ear.news)
    request_id, update = ear.news[0]
    assert (request_id, update.word, update.progress, update.preview) == ("foreign", "in_progress", 45.5, "data:image/png;base64,!")


async def test_p22_a_silent_server_is_pinged_and_nothing_else_is_done(sim: Simulator) -> None:
    sim.push.activity_timeout = 120
    async with open_ear(sim) as ear:
        await ear.listen()
        line = sim.push.sockets[0]
        for _ in range(20):
            await asyncio.sleep(31)
            assert now() - line.heard <= 30
            assert ear.push.healthy
        assert (sim.push.total, ear.calls) == (1, ["up"])
        assert len(seen(sim, "broadcasting/auth")) == 1


async def test_p22_the_servers_own_silence_counts_where_it_is_shorter(sim: Simulator) -> None:
    sim.push.activity_timeout = 5
    async with open_ear(sim) as ear:
        await ear.listen()
        await asyncio.sleep(60)
        assert (sim.push.total, ear.calls) == (1, ["up"])
        assert now() - sim.push.sockets[0].heard <= 5
        frozen_at = now()
        sim.push.freeze()
        await ear.reach("down")
        assert now() - frozen_at <= 15.1
        sim.push.thaw()


async def test_p22_the_servers_pings_are_answered(sim: Simulator, ear: Ear) -> None:
    await asyncio.sleep(3)
    line = sim.push.sockets[0]
    asked_at = now()
    line.send("pusher:ping", "{}")
    await asyncio.sleep(1)
    assert line.heard == pytest.approx(asked_at, abs=0.1)


@pytest.mark.parametrize(("code", "least", "most"), [(4200, 0.0, 0.01), (4100, 1.0, 2.01), (1001, 0.0, 1.01), (4500, 0.0, 1.01)])
async def test_p22_close_codes_say_when_to_come_back(sim: Simulator, ear: Ear, code: int, least: float, most: float) -> None:
    for times in (1, 2):
        await asyncio.sleep(60)
        first = sim.push.sockets[0].socket_id
        await sim.push.drop(code)
        await ear.reach("up", times + 1)
        assert ear.calls == ["up", *["down", "up"] * times]
        assert least <= ear.times[-1] - ear.times[-2] <= most
        assert sim.push.sockets[0].socket_id != first
        assert (len(sim.push.sockets), sim.push.peak) == (1, 1)
    request_id = await ear.submit()
    await until(lambda: ear.told_of(request_id) and ear.told_of(request_id)[-1].finished)
    assert len(ear.told_of(request_id)) == 5


async def test_p22_an_error_without_a_close_is_taken_at_its_word(sim: Simulator, ear: Ear) -> None:
    sim.push.sockets[0].send("pusher:error", {"code": 4301, "message": "client event rejected"})
    sim.push.sockets[0].send("pusher:error", {"code": None})
    await asyncio.sleep(5)
    assert ear.calls == ["up"]
    sim.push.sockets[0].send("pusher:error", {"code": 4200, "message": "restarting"})
    await ear.come_back()
    assert (sim.push.total, sim.push.peak) == (2, 1)


async def test_p22_a_server_that_errs_and_freezes_is_not_waited_for(sim: Simulator, ear: Ear) -> None:
    sim.push.freeze()
    line = sim.push.sockets[0]._response
    await line.send_str('{"event": "pusher:ping"}')  # its answer is the last thing that the frozen server takes
    await asyncio.sleep(0.1)
    await line.send_str('{"event": "pusher:error", "data": {"code": 4200}}')
    await ear.reach("down")
    await until(lambda: len(seen(sim, "push")) == 2)
    assert now() - ear.times[-1] <= 0.6
    sim.push.thaw()
    await ear.reach("up", 2)


async def test_p22_first_words_that_do_not_come_are_not_waited_for(sim: Simulator) -> None:
    sim.push.freeze()
    async with open_ear(sim) as ear:
        ear.push.start()
        await asyncio.sleep(60)
        assert len(seen(sim, "push")) >= 4
        sim.push.thaw()
        await ear.reach("up")


async def test_p22_4001_is_for_good(sim: Simulator, ear: Ear, caplog: pytest.LogCaptureFixture) -> None:
    await sim.push.drop(4001, "no such app")
    assert (await ear.end()).startswith("the push server closed for good with 4001 (no such app)")
    assert ear.calls[:2] == ["up", "down"]
    await asyncio.sleep(600)
    ear.push.start()
    await asyncio.sleep(600)
    assert (sim.push.total, ear.push.healthy) == (1, False)
    assert [record.levelno for record in caplog.records if record.levelno >= logging.WARNING] == [logging.WARNING]


async def test_p22_a_wrong_app_key_is_for_good(sim: Simulator) -> None:
    async with open_ear(sim, url=push_url(sim.url).replace("depin", "other")) as ear:
        ear.push.start()
        assert (await ear.end()).startswith("the push server closed for good with 4001")
        assert not seen(sim, "broadcasting/auth")


async def test_p22_a_server_that_drops_at_once_again_and_again_is_given_time(sim: Simulator, ear: Ear) -> None:
    began = now()
    while now() - began < 120:
        if ear.push.healthy:
            await sim.push.drop(4200)
        await asyncio.sleep(0.1)
    assert 5 <= sim.push.total <= 30
    assert sim.push.peak == 1


async def test_p22_a_half_open_connection_is_noticed_within_40_seconds(sim: Simulator, ear: Ear) -> None:
    frozen_at = now()
    sim.push.freeze()
    await ear.reach("down")
    assert 30 <= ear.times[1] - frozen_at <= 40.1
    assert not ear.push.healthy
    for _ in range(600):
        await asyncio.sleep(0.1)
        assert len(sim.push.sockets) <= 1
    sim.push.thaw()
    await ear.come_back()
    await asyncio.sleep(1)
    assert (len(sim.push.sockets), sim.push.peak) == (1, 1)
    request_id = await ear.submit()
    await until(lambda: ear.told_of(request_id) and ear.told_of(request_id)[-1].finished)
    assert len(ear.told_of(request_id)) == 5


async def test_p22_a_refused_authorisation_is_asked_again_with_the_new_id(sim: Simulator) -> None:
    sim.push.refuse_auth = 1
    async with open_ear(sim) as ear:
        await ear.listen()
        asked = seen(sim, "broadcasting/auth")
        assert [one.status for one in asked] == [403, 200]
        assert asked[0].fields["socket_id"] != asked[1].fields["socket_id"] == sim.push.sockets[0].socket_id
        assert (ear.calls, sim.push.peak) == (["up"], 1)


async def test_p22_a_subscription_that_is_refused_is_authorised_anew(sim: Simulator) -> None:
    sim.script("broadcasting/auth", Fault.status(200, {"auth": "depin-api-prod-key:00"}))
    async with open_ear(sim) as ear:
        await ear.listen()
        assert (sim.push.total, sim.push.peak) == (2, 1)


@pytest.mark.parametrize("options", [{"client_id": "2002"}, {"api_key": "1|wrong"}])
async def test_p22_a_channel_that_is_always_refused_ends_it(
    sim: Simulator, options: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    async with open_ear(sim, **options) as ear:
        ear.push.start()
        assert "check client_id" in await ear.end()
        await asyncio.sleep(300)
        assert (len(ear.calls), len(seen(sim, "broadcasting/auth")), sim.push.peak) == (1, 6, 1)
    assert sum(record.levelno >= logging.WARNING for record in caplog.records) == 1
    assert "1|wrong" not in caplog.text


@pytest.mark.parametrize(
    "fault",
    [
        Fault.status(500),
        Fault.html(),
        Fault.status(200, "<html>"),
        Fault.status(200, {"auth": 5}),
        Fault.reset("before_body"),
        Fault.hang("before_body"),
        Fault.truncate(),
        Fault.rate_limited("minute", retry_after=7),
    ],
    ids=str,
)
async def test_p22_an_authorisation_that_breaks_is_repeated(sim: Simulator, fault: Fault) -> None:
    sim.script("broadcasting/auth", fault, times=4)
    async with open_ear(sim) as ear:
        began = now()
        await ear.listen()
        asked = seen(sim, "broadcasting/auth")
        assert (len(asked), sim.push.peak) == (5, 1)
        assert now() - began <= 4 * 10 + 15.1
        if fault.answer is not None and fault.answer.status == 429:
            assert now() - began >= 4 * 7


async def test_p22_a_server_that_restarts_is_found_again_with_new_ids(sim: Simulator, ear: Ear) -> None:
    request_id = await ear.submit()
    await until(lambda: ear.told_of(request_id))
    first = sim.push.sockets[0].socket_id
    await sim.go_down()
    await ear.reach("down")
    await asyncio.sleep(30)
    await sim.come_up()
    back_at = now()
    await ear.come_back()
    assert now() - back_at <= 31
    assert sim.push.sockets[0].socket_id != first
    assert seen(sim, "broadcasting/auth")[-1].fields["socket_id"] == sim.push.sockets[0].socket_id
    assert sim.push.peak == 1


async def test_p22_an_upgrade_that_is_refused_is_tried_again_but_not_often(sim: Simulator) -> None:
    sim.push.down = True
    async with open_ear(sim) as ear:
        ear.push.start()
        await asyncio.sleep(300)
        assert 8 <= len(seen(sim, "push")) <= 60
        assert not ear.calls
        sim.push.down = False
        await ear.come_back()
    sim.script("push", Fault.status(503, headers={"Retry-After": "120"}))
    async with open_ear(sim) as ear:
        began = now()
        await ear.listen()
        assert 120 <= now() - began <= 133


@pytest.mark.parametrize(
    "fault", [Fault.reset("before_body"), Fault.close("before_body"), Fault.hang("before_body"), Fault.status(200, "hello")], ids=str
)
async def test_p22_an_upgrade_that_breaks_is_tried_again(sim: Simulator, fault: Fault) -> None:
    sim.script("push", fault, times=2)
    async with open_ear(sim) as ear:
        began = now()
        await ear.listen()
        assert (len(seen(sim, "push")), sim.push.total) == (3, 1)
        assert now() - began <= 2 * 20 + 3.1


async def test_p22_garbage_is_passed_over(sim: Simulator, ear: Ear) -> None:
    for data in ("{", "[" * 50_000, None, 5, [], {"request_id": "a"}, {"request_id": "a", "status": ["done"]}, "\ud800"):
        sim.push.send(EVENT, data)
    line = sim.push.sockets[0]
    line.send("", None)
    line.send("pusher_internal:subscription_succeeded", "{}", "private-client.1001")
    line._queue.extend(["", "{", "nonsense", "[]", '{"event": []}', '{"event": 5, "channel": []}'])
    await line._response.send_bytes(b"\0\xff")
    sim.push.send(EVENT, {"request_id": "good", "status": "done"})
    await until(lambda: ear.news)
    assert [request_id for request_id, _ in ear.news] == ["good"]
    assert (sim.push.total, ear.calls) == (1, ["up"])


async def test_p22_a_frame_over_the_bound_costs_the_connection_not_the_memory(sim: Simulator, ear: Ear) -> None:
    sim.push.send(EVENT, {"request_id": "big", "status": "processing", "preview": "A" * MOST_FRAME_BYTES})
    await ear.come_back()
    assert (ear.news, ear.calls, sim.push.peak) == ([], ["up", "down", "up"], 1)


async def test_p22_previews_are_decoded_in_a_thread_and_in_order(sim: Simulator, ear: Ear) -> None:
    preview = "data:image/png;base64," + "iVBO/w0K" * 20_000
    before = set(threading.enumerate())
    sim.push.send(EVENT, {"request_id": "a", "status": "processing", "progress": "10.00"})
    await until(lambda: ear.news)
    assert set(threading.enumerate()) <= before
    sim.push.send(EVENT, {"request_id": "a", "status": "processing", "progress": "50.00", "preview": preview})
    sim.push.send(EVENT, {"request_id": "a", "status": "done"})
    await until(lambda: len(ear.news) == 3)
    assert any("dryapi" in thread.name for thread in set(threading.enumerate()) - before)
    assert [(update.progress, update.preview) for _, update in ear.news] == [(10.0, None), (50.0, preview), (None, None)]


async def test_p22_a_flood_lets_the_loop_breathe(sim: Simulator, ear: Ear) -> None:
    for number in range(20_000):
        sim.push.send(EVENT, {"request_id": str(number), "status": "done"})
    most, before = 0, 0
    while len(ear.news) < 20_000:
        await asyncio.sleep(0)
        most, before = max(most, len(ear.news) - before), len(ear.news)
    assert most <= push_module.FRAMES_AT_ONCE
    assert [request_id for request_id, _ in ear.news] == [str(number) for number in range(20_000)]
