"""The simulator lives in the loop's time, leaves nothing behind, and starts again."""

import asyncio
import gc
import logging
import threading
from typing import TYPE_CHECKING

import aiohttp
import pytest

from dryapi_async.simulator import Fault, Simulator

from .conftest import IMG2IMG, TXT2IMG, make_png, open_talk, run, wait_until

if TYPE_CHECKING:
    from pathlib import Path

NEVER = aiohttp.ClientTimeout(total=None)


def test_all_time_is_the_loops() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        wall = threading.get_native_id(), loop.time()
        async with (
            Simulator(duration=600, tier="basic", link_seconds=3600, epoch=1_700_000_000, seed=1) as sim,
            open_talk(sim, timeout=NEVER) as talk,
        ):
            ids = [await talk.submit() for _ in range(3)]
            assert (await talk.post("txt2img", TXT2IMG))[0] == 429
            await asyncio.sleep(300)
            assert [(await talk.status(each))["progress"] for each in ids] == pytest.approx([41.2] * 3, abs=0.2)
            await asyncio.sleep(301)
            link = (await talk.status(ids[0]))["result_url"]
            assert (await talk.download(link))[0] == 200
            await asyncio.sleep(3601)
            assert (await talk.download(link))[0] == 403
            async with talk.session.get(f"{sim.url}/api/v1/client/balance") as answer:
                # Real seconds pass while threads are at work: a busy machine adds some.
                assert answer.headers["Date"] in {f"Tue, 14 Nov 2023 23:23:2{second} GMT" for second in (2, 3, 4, 5)}
            assert 4202 <= sim.now() - 1_700_000_000 < 4205
            sim.script("balance", Fault.hang(seconds=1000), Fault.delay(50), times=1)
            began = loop.time()
            assert (await talk.get("balance"))[0] == 200  # the hang's end is repeated by aiohttp, and meets the delay
            assert 1050 <= loop.time() - began < 1051
        assert wall[0] == threading.get_native_id()
        assert loop.time() - wall[1] > 5000

    run(main())


def test_nothing_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    folders: list[Path] = []

    async def main() -> None:
        threads = threading.active_count()
        for fault in (None, Fault.hang(), Fault.hang("mid_body"), Fault.delay(1e6), Fault.trickle(0.1)):
            async with Simulator() as sim, open_talk(sim) as talk:
                assert sim._folder is not None
                folders.append(sim._folder)
                if fault is not None:
                    sim.script("img2img", fault)
                upload = asyncio.create_task(
                    talk.upload("img2img", IMG2IMG, [("image", make_png() + b"\0" * 900_000, "a.png", "image/png")])
                )
                await wait_until(lambda task=upload, fault=fault, seen=sim.requests: task.done() or (fault is not None and seen))
                assert upload.done() == (fault is None)
                await sim.close()
                await sim.close()
                await asyncio.gather(upload, return_exceptions=True)
            await asyncio.sleep(0.05)
            assert asyncio.all_tasks() == {asyncio.current_task()}
        assert threading.active_count() == threads

    with caplog.at_level(logging.WARNING, "asyncio"):
        run(main())
    gc.collect()
    assert not [folder for folder in folders if folder.exists()]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.anyio
async def test_ports_can_go_down_and_come_up_again() -> None:
    async with Simulator(speed=float("inf")) as sim, open_talk(sim) as talk:
        url = sim.url
        request_id = await talk.submit()
        await sim.go_down()
        with pytest.raises(aiohttp.ClientConnectorError):
            await talk.get("balance")
        await sim.come_up()
        assert sim.url == url
        assert (await talk.status(request_id))["status"] == "done"
        assert (await talk.download((await talk.status(request_id))["result_url"]))[0] == 200


@pytest.mark.anyio
async def test_it_can_be_started_again_after_its_end() -> None:
    sim = Simulator(speed=float("inf"))
    for _ in range(2):
        async with sim, open_talk(sim) as talk:
            assert (await talk.status(await talk.submit()))["status"] == "done"
            assert len(sim.board.listeners) == 1
    assert not sim.board.listeners


@pytest.mark.anyio
async def test_a_taken_port_is_an_error_that_leaves_nothing() -> None:
    async with Simulator() as sim:
        other = Simulator(port=int(sim.url.rpartition(":")[2]))
        with pytest.raises(OSError, match="address already in use"):
            await other.start()
        assert other._folder is None


@pytest.mark.anyio
async def test_records_are_bounded_and_can_be_off() -> None:
    async with Simulator(most_records=3, most_jobs=2, speed=float("inf")) as sim, open_talk(sim) as talk:
        ids = [await talk.submit() for _ in range(5)]
        assert (len(sim.requests), list(sim.jobs)) == (3, ids[3:])
        assert (await talk.get(f"request-status/{ids[0]}"))[0] == 404
    async with Simulator(record=False) as sim, open_talk(sim) as talk:
        await talk.submit()
        assert (len(sim.requests), dict(sim.billed), sim.jobs_billed) == (0, {}, 1)
