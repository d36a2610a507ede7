"""The API host: keys, routes, jobs' lives, models, balance."""

import asyncio
import math
import socket
from decimal import Decimal

import pytest

from dryapi_async.simulator import Fault, SimModel, Simulator

from .conftest import IMG2IMG, TXT2IMG, Talk, make_png, open_talk

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic MXxzaW11bGF0b3Ita2V5", "1|simulator-key", "Bearer dpn-sk-1|simulator-key"])
async def test_no_or_a_wrong_key_is_401(sim: Simulator, talk: Talk, header: str | None) -> None:
    talk.session.headers.pop("Authorization")
    headers = {"Authorization": header} if header else {}
    assert await talk.post("txt2img", TXT2IMG, headers=headers) == (401, {"message": "Unauthenticated."})
    assert sim.requests[-1].status == 401
    assert sim.requests[-1].fields == {}
    assert not sim.jobs


async def test_a_suspended_account_is_403(sim: Simulator, talk: Talk) -> None:
    sim.suspended = True
    assert await talk.get("balance") == (403, {"message": "Your account has been suspended."})


async def test_unknown_routes_are_404_and_wrong_methods_405(talk: Talk) -> None:
    assert await talk.get("nothing") == (404, {"message": "The route api/v1/client/nothing could not be found."})
    assert (await talk.get("request-status/"))[0] == 404
    status, body = await talk.get("txt2img")
    assert status == 405
    assert body["message"].startswith("The GET method is not supported")
    assert (await talk.post("balance", {}))[0] == 405


async def test_a_request_is_recorded(sim: Simulator, talk: Talk) -> None:
    request_id = await talk.submit()
    seen = sim.requests[-1]
    assert (seen.operation, seen.method, seen.path, seen.status) == ("txt2img", "POST", "/api/v1/client/txt2img", 200)
    assert seen.fields == TXT2IMG
    assert seen.headers["authorization"] == "Bearer 1|simulator-key"
    assert seen.request_id == request_id
    assert seen.ended is not None
    assert seen.ended >= seen.started
    assert seen.body_size == int(seen.headers["Content-Length"])
    assert not seen.reused
    await talk.status(request_id)
    assert sim.requests[-1].operation == "request-status"
    assert sim.requests[-1].reused
    assert sim.requests[-1].peer_port == seen.peer_port
    assert sim.connections.total == 1


async def test_a_job_lives_through_its_states() -> None:
    async with Simulator(seed=3, duration=0.4) as sim, open_talk(sim) as talk:
        request_id = await talk.submit()
        first = await talk.status(request_id)
        assert first == {
            "status": "pending",
            "preview": None,
            "result_url": None,
            "results_alt_formats": None,
            "result": None,
            "progress": 0.0,
        }
        seen = [first]
        while seen[-1]["status"] != "done":
            await asyncio.sleep(0.03)
            seen.append(await talk.status(request_id))
        words = [row["status"] for row in seen]
        assert list(dict.fromkeys(words)) == ["pending", "processing", "done"]
        progress = [row["progress"] for row in seen]
        assert progress == sorted(progress)
        assert 0 < progress[-2] < 100
        assert progress[-1] == 100
        assert seen[-1]["result_url"].startswith(sim.storage_url)
        assert set(seen[-1]["results_alt_formats"]) == {"jpg", "webp"}


async def test_durations_are_drawn_and_repeatable() -> None:
    drawn: list[list[float]] = []
    for seed in (5, 5, 6):
        async with Simulator(seed=seed, speed=10, durations={"txt2img": (8.0, 0.3)}) as sim, open_talk(sim) as talk:
            for _ in range(20):
                await talk.submit()
            drawn.append([job.planned for job in sim.jobs.values()])
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 20
    assert 0.6 < sorted(drawn[0])[10] < 1.1


async def test_an_infinite_speed_is_done_at_the_first_read(talk: Talk) -> None:
    assert (await talk.status(await talk.submit()))["status"] == "done"


async def test_an_unknown_id_is_404(talk: Talk) -> None:
    assert await talk.get("request-status/nobody") == (404, {"message": "No query results for model [JobRequest] nobody"})


async def test_jobs_can_fail(sim: Simulator, talk: Talk) -> None:
    sim.script("txt2img", Fault.job_error(code="WORKER_TIMEOUT", message="Gone."))
    failed, fine = await talk.submit(), await talk.submit()
    status = await talk.status(failed)
    assert status["status"] == "error"
    assert set(status) == {"status", "preview", "result_url", "results_alt_formats", "result", "progress"}
    assert status["result_url"] is None
    assert (sim.jobs[failed].code, sim.jobs[failed].message) == ("WORKER_TIMEOUT", "Gone.")
    assert (await talk.status(fine))["status"] == "done"
    sim.variants("status-error-fields")
    status = await talk.status(failed)
    assert (status["error_code"], status["error_message"], status["retryable"]) == ("WORKER_TIMEOUT", "Gone.", True)


async def test_a_part_of_the_jobs_fails() -> None:
    async with Simulator(seed=1, speed=math.inf, fail=0.3) as sim, open_talk(sim) as talk:
        ids = [await talk.submit() for _ in range(60)]
        failed = [each for each in ids if (await talk.status(each))["status"] == "error"]
        assert 8 <= len(failed) <= 30


async def test_speed_divides_and_an_error_keeps_its_progress() -> None:
    async with Simulator(duration=4, speed=8, seed=1) as sim, open_talk(sim) as talk:
        job = sim.jobs[await talk.submit()]
        assert job.duration == pytest.approx(0.5)
        sim.fail(job.request_id)
        status = await talk.status(job.request_id)
        assert status["status"] == "error"
        assert status["progress"] < 50


async def test_jobs_can_be_moved_by_hand(sim: Simulator, talk: Talk) -> None:
    sim.hold("txt2img", times=2)
    one, two, free = [await talk.submit() for _ in range(3)]
    assert [(await talk.status(each))["status"] for each in (one, two, free)] == ["processing", "processing", "done"]
    sim.set_progress(one, 45.5)
    assert (await talk.status(one))["progress"] == 45.5
    sim.finish(one)
    sim.fail(two, "PROCESSING_ERROR", "No.")
    assert [(await talk.status(each))["status"] for each in (one, two)] == ["done", "error"]
    sim.hold("*")
    held = await talk.submit()
    assert (await talk.status(held))["status"] == "processing"
    sim.release("*")
    assert (await talk.status(held))["status"] == "done"
    assert (await talk.status(await talk.submit()))["status"] == "done"


async def test_the_balance_pays_for_jobs_and_runs_out(sim: Simulator, talk: Talk) -> None:
    status, body = await talk.post("txt2img/price-calculation", TXT2IMG)
    assert status == 200
    cost = Decimal(str(body["data"]["price"]))
    sim.balance = cost * Decimal("1.5")
    await talk.submit()
    assert sim.balance == cost * Decimal("0.5")
    assert await talk.post("txt2img", TXT2IMG) == (422, {"message": "Not enough balance.", "errors": {"balance": ["Not enough balance."]}})
    assert (sim.jobs_billed, len(sim.jobs)) == (1, 1)
    assert await talk.get("balance") == (200, {"balance": float(cost / 2)})


async def test_billing_is_counted_per_request(sim: Simulator, talk: Talk) -> None:
    for seed in (1, 2, 1):
        await talk.submit(fields={**TXT2IMG, "seed": seed})
    png = make_png()
    for data in (png, png + b"x"):
        assert (await talk.upload("img2img", IMG2IMG, [("image", data, "a.png", "image/png")]))[0] == 200
    await talk.post("prompt/image", {"prompt": "a fox", "negative_prompt": None})
    assert sorted(sim.billed.values()) == [1, 1, 1, 1, 2]
    assert sim.jobs_billed == 6


async def test_models_are_filtered_and_paged(sim: Simulator, talk: Talk) -> None:
    every = (await talk.get("models?per_page=100"))[1]["data"]
    assert [row["slug"] for row in every] == [model.slug for model in sim.models]
    assert set(every[0]) == {"name", "slug", "inference_types", "info", "loras", "languages"}
    assert every[0]["inference_types"] == {"txt2img": {}}
    assert len((await talk.get("models"))[1]["data"]) == 15
    assert [row["slug"] for row in (await talk.get("models?per_page=7&page=2"))[1]["data"]] == [row["slug"] for row in every[7:14]]
    assert (await talk.get("models?filter[inference_types]=nothing"))[1] == {"data": []}
    found = (await talk.get("models?filter%5Binference_types%5D=img_upscale,txt2embedding"))[1]["data"]
    assert [row["slug"] for row in found] == ["Bge_M3_FP16", "RealESRGAN_x4plus"]
    sim.models.append(SimModel("New", "New one", ("txt2img",)))
    assert (await talk.get("models?per_page=100"))[1]["data"][-1]["info"] == {"limits": {}, "features": {}, "defaults": {}}


async def test_an_account_may_be_asked_before_it_is_started() -> None:
    sim = Simulator()
    assert sim.key == "1|simulator-key"
    with pytest.raises(RuntimeError, match="isn't started"):
        _ = sim.balance


async def test_head_is_answered_without_a_body(talk: Talk) -> None:
    assert await talk.send("HEAD", "balance") == (200, b"")


def has_ipv6() -> bool:
    """Say whether this machine listens on IPv6's loopback."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_an_ipv6_address_stands_in_brackets() -> None:
    sim = Simulator(host="::1", port=8080, storage_port=8081)
    assert (sim.url, sim.storage_url) == ("http://[::1]:8080", "http://[::1]:8081")
    assert Simulator(host="localhost", port=8080).url == "http://localhost:8080"


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
async def test_it_serves_over_ipv6() -> None:
    async with Simulator(seed=1, speed=math.inf, host="::1") as sim, open_talk(sim) as talk:
        done = await talk.status(await talk.submit())
        assert done["result_url"].startswith(f"{sim.storage_url}/")
        assert (await talk.download(done["result_url"]))[0] == 200
        assert [one.peer_port > 0 for one in (*sim.requests, *sim.storage_requests)] == [True] * 3
        channel = f"{sim.url.replace('http:', 'ws:')}/app/{sim.push.app_key}?protocol=7"
        async with talk.session.ws_connect(channel) as socket_of_push:
            assert (await socket_of_push.receive_json(timeout=5))["event"] == "pusher:connection_established"
