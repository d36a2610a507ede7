"""Every documented live shape can be switched on, and the default is the document's own."""

from typing import Any

import pytest

from dryapi_async.simulator import VARIANTS, Fault, Simulator

from .conftest import FILES, TXT2IMG, Talk

pytestmark = pytest.mark.anyio
SPEECH_PRICE = ("audiofile2txt/price-calculation", {"duration_seconds": 120, "include_ts": "1", "model": "WhisperLargeV3"})


async def test_unknown_names_are_refused(sim: Simulator) -> None:
    with pytest.raises(ValueError, match="unknown variants"):
        sim.variants("balance-data", "nonsense")


async def test_no_names_go_back_to_the_document(sim: Simulator, talk: Talk) -> None:
    sim.variants("balance-data")
    assert await talk.get("balance") == (200, {"data": {"balance": 100_000}})
    sim.variants()
    assert await talk.get("balance") == (200, {"balance": 100_000})


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("balance-string", {"balance": "100000"}),
        ("balance-both", {"data": {"balance": 100_000}, "balance": 100_000, "credits": 100_000, "currency": "USD"}),
    ],
)
async def test_balance(sim: Simulator, talk: Talk, name: str, body: Any) -> None:
    sim.variants(name)
    assert await talk.get("balance") == (200, body)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("", {"data": {"price": 0.0024}}),
        ("price-string", {"data": {"price": "0.0024"}}),
        ("price-estimated", {"data": {"estimated_price": 0.0024, "currency": "USD"}}),
        ("price-top", {"price": 0.0024}),
        ("price-null", {"data": {"price": None}}),
        ("price-request-id", {"data": {"request_id": "c08a339c-73e5-4d67-a4d5-231302fbff9a"}}),
    ],
)
async def test_prices(sim: Simulator, talk: Talk, name: str, body: Any) -> None:
    sim.variants(*filter(None, [name]))
    assert await talk.upload(*SPEECH_PRICE, []) == (200, body)


async def test_prices_are_exact_digits(talk: Talk) -> None:
    async with talk.session.post(f"{talk.sim.url}/api/v1/client/prompt/speech/price-calculation", json={"prompt": "hello"}) as answer:
        assert await answer.text() == '{"price":0.00012345}'


async def test_models(sim: Simulator, talk: Talk) -> None:
    async def read(*names: str, query: str = "per_page=100&limit=50") -> Any:
        sim.variants(*names)
        return (await talk.get(f"models?{query}"))[1]

    plain = await read()
    assert (await read("models-nested"))["data"] == plain
    assert (await read("models-types-list"))["data"][-1]["inference_types"] == ["img_upscale", "vid_upscale"]
    live = await read("models-types-list", "models-live-words")
    assert live["data"][-1]["inference_types"] == ["img-upscale", "vid-upscale"]
    assert (await read("models-live-words", query="filter[inference_types]=img_upscale"))["data"] == []
    assert len((await read("models-live-words", query="filter[inference_types]=img-upscale"))["data"]) == 1
    strings = (await read("models-strings"))["data"][0]["info"]
    assert (strings["limits"]["max_width"], strings["features"]["supports_guidance"]) == ("2048", "1")
    assert (await read("models-info-empty"))["data"][0]["info"] == []
    assert (await read("models-info-null"))["data"][0]["info"] is None
    assert (await read("models-extra"))["data"][0]["status"] == "standard_model"
    dry = await read("models-dry-src")
    assert "name" not in dry["data"][0]
    assert dry["meta"]["total"] == len(sim.models)


async def test_paged_models_go_by_limit(sim: Simulator, talk: Talk) -> None:
    sim.variants("models-paged")
    sim.models.extend([model for model in list(sim.models) for _ in range(3)])
    total = len(sim.models)
    first = (await talk.get("models"))[1]
    assert (len(first["data"]), first["meta"]["per_page"], first["meta"]["total"]) == (25, 25, total)
    assert first["links"]["prev"] is None
    assert first["links"]["next"].endswith("?page=2")
    assert len((await talk.get("models?per_page=3"))[1]["data"]) == 25
    second = (await talk.get("models?limit=1000&page=2"))[1]
    assert (second["meta"]["per_page"], second["meta"]["last_page"], len(second["data"])) == (50, 2, total - 50)
    assert second["links"]["next"] is None
    beyond = (await talk.get("models?limit=50&page=9"))[1]
    assert (beyond["data"], beyond["meta"]["from"]) == ([], None)


async def test_submits(sim: Simulator, talk: Talk) -> None:
    sim.variants("request-id-number")
    number = (await talk.post("txt2img", TXT2IMG))[1]["data"]["request_id"]
    assert isinstance(number, int)
    assert (await talk.status(str(number)))["status"] == "done"
    sim.variants("submit-202", "submit-extra")
    status, body = await talk.post("txt2img", TXT2IMG)
    assert (status, body["message"], body["data"]["result"]) == (202, "ok", None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("status-upper", ["PROCESSING", "COMPLETED", "FAILED"]),
        ("status-words", ["in_progress", "completed", "failed"]),
        ("status-in-progress", ["in_progress", "done", "error"]),
    ],
)
async def test_status_words(sim: Simulator, talk: Talk, name: str, words: list[str]) -> None:
    sim.script("txt2img", Fault.job_error())
    failed, done = await talk.submit(), await talk.submit()
    sim.hold()
    held = await talk.submit()
    sim.variants(name)
    assert [(await talk.status(each))["status"] for each in (held, done, failed)] == words


async def test_status_shapes(sim: Simulator, talk: Talk) -> None:
    done = await talk.submit()
    sim.hold()
    held = await talk.submit()
    sim.set_progress(held, 45.5)

    async def read(request_id: str, *names: str) -> dict[str, Any]:
        sim.variants(*names)
        return await talk.status(request_id)

    assert (await read(held, "status-progress-string"))["progress"] == "45.50"
    assert "progress" not in await read(held, "status-no-progress")
    assert (await read(held, "status-preview"))["preview"].startswith("data:image/")
    assert set(await read(held, "status-sparse")) == {"status", "progress"}
    assert (await read(done, "status-extra"))["metadata"] == {"worker": "simulator"}
    assert (await read(done, "alt-empty-list"))["results_alt_formats"] == []
    assert (await read(done, "alt-null"))["results_alt_formats"] is None
    partial = (await read(done, "alt-partial"))["results_alt_formats"]
    assert (partial["jpg"], partial["webp"] is None) == (None, False)
    sim.fail(held, "X", "why")
    assert (await read(held, "status-error-string"))["error"] == "why"
    assert (await read(held, "status-error-object"))["error"] == {"code": "X", "message": "why"}
    sim.variants("status-unwrapped")
    assert (await talk.get(f"request-status/{done}"))[1]["status"] == "done"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("401-docs", {"data": None, "message": "Unauthorized user.", "errors": [], "statusCode": 401}),
        ("401-seed", {"data": {}, "message": "string", "errors": [None], "statusCode": 0}),
    ],
)
async def test_401(sim: Simulator, talk: Talk, name: str, body: Any) -> None:
    sim.variants(name)
    assert await talk.get("balance", headers={"Authorization": "Bearer x"}) == (401, body)


async def test_404(sim: Simulator, talk: Talk) -> None:
    sim.variants("404-docs")
    assert await talk.get("request-status/x") == (404, {"data": None, "message": "Request not found.", "errors": [], "statusCode": 404})
    sim.variants("404-seed")
    assert (await talk.get("request-status/x"))[1]["errors"] == [None]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("422-list", {"data": None, "message": "Validation failed", "errors": [{"field": "steps", "messages": ["W"]}], "statusCode": 422}),
        ("422-null-entry", {"message": "W", "errors": [None]}),
        ("422-missing", {"message": "W"}),
        ("422-empty", {"message": "W", "errors": []}),
        ("422-strings", {"message": "W", "errors": ["W"]}),
        ("422-error-string", {"error": "W"}),
        ("422-error-object", {"error": {"code": "validation_failed", "message": "W", "detail": ["W"]}}),
    ],
)
async def test_422(sim: Simulator, talk: Talk, name: str, body: Any) -> None:
    sim.variants(name)
    status, got = await talk.post("txt2img", {**TXT2IMG, "steps": "x"})
    words = "The steps field must be an integer."
    assert (status, got) == (422, _fill(body, words))


def _fill(body: Any, words: str) -> Any:
    if isinstance(body, dict):
        return {name: _fill(value, words) for name, value in body.items()}
    if isinstance(body, list):
        return [_fill(value, words) for value in body]
    return words if body == "W" else body


async def test_402(sim: Simulator, talk: Talk) -> None:
    sim.variants("402-balance")
    sim.balance = sim.balance * 0
    status, body = await talk.post("txt2img", TXT2IMG)
    assert (status, body["error"]["code"]) == (402, "insufficient_credits")


async def test_prompt_tools_may_be_gone(sim: Simulator, talk: Talk) -> None:
    sim.variants("prompts-gone")
    for method, path in [("POST", "prompt/image"), ("POST", "prompt/speech/price-calculation"), ("GET", "prompts/samples?type=text2image")]:
        async with talk.session.request(method, f"{sim.url}/api/v1/client/{path}", json={}) as answer:
            assert (answer.status, answer.headers["Deprecation"]) == (410, "true")
            assert 'rel="successor-version"' in answer.headers["Link"]
    sim.variants("prompts-data")
    body = (await talk.post("prompt/speech", {"prompt": "hello"}))[1]
    assert set(body) == {"data"}


def test_every_name_has_its_meaning() -> None:
    assert all(VARIANTS.values())
    assert FILES
