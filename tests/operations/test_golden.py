"""Golden answers, read through the public face over a real socket: each is a kind of answer that the service has been seen to give."""

import json
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import dryapi_async
from dryapi_async import Client, DryAPIError, Retry, Txt2Img
from dryapi_async.simulator import Fault, Simulator

pytestmark = pytest.mark.anyio

GOLDEN = [json.loads(line) for line in (Path(__file__).parents[1] / "data" / "golden.jsonl").read_text().splitlines()]
FOX = Txt2Img(prompt="a fox", model="Flux1schnell", width=512, height=512, steps=4, seed=7)
SLUGS = {
    "status": "request-status",
    "submit": "txt2img",
    "price": "txt2img/price-calculation",
    "balance": "balance",
    "models": "models",
    "prompt_image": "prompt/image",
    "prompt_speech": "prompt/speech",
    "prompt_samples": "prompts/samples",
}


CALLS: dict[str, Callable[[Client], Awaitable[Any]]] = {
    "status": lambda client: client.job("txt2img:some-id", Txt2Img).status(),
    "submit": lambda client: client.call(FOX),
    "price": lambda client: client.call(FOX).price(),
    "balance": lambda client: client.balance(),
    "models": lambda client: client.models(),
    "prompt_image": lambda client: client.prompt_image(prompt="a fox"),
    "prompt_speech": lambda client: client.prompt_speech(prompt="hello"),
    "prompt_samples": lambda client: client.prompt_samples(type="text2image"),
}


def plain(value: Any) -> Any:
    """Compare tuples as lists and amounts as text, as the golden file writes them."""
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return str(value) if isinstance(value, Decimal) else value


def check(found: Any, wanted: Any) -> None:
    if isinstance(wanted, dict):
        for name, one in wanted.items():
            assert plain(getattr(found, name)) == one, name
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, row in zip(found, wanted, strict=True):
            check(one, row)
    else:
        assert plain(found.amount if isinstance(found, dryapi_async.Balance) else found) == wanted


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden["id"])
async def test_p20_golden_answers(golden: dict[str, Any], simulator: Simulator) -> None:
    headers = {name: value for name, value in golden["headers"].items() if name != "Content-Type"}
    fault = Fault.status(golden["status"], golden["body"], headers=headers, content_type=golden["headers"]["Content-Type"])
    simulator.script(SLUGS[golden["call"]], fault)
    async with Client(simulator.key, base_url=simulator.url, retry=Retry(attempts=1)) as client:
        if "error" not in golden:
            check(await CALLS[golden["call"]](client), golden["value"])
            return
        with pytest.raises(DryAPIError) as caught:
            await CALLS[golden["call"]](client)
    assert type(caught.value).__name__ == golden["error"]
    for name in set(golden) & {"message", "errors", "kind", "retry_after", "successor"}:
        assert plain(getattr(caught.value, name)) == golden[name], name
