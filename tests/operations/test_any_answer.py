"""Any status with any body, on any operation: a value or a DryAPIError, never anything else."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dryapi_async import Client, DryAPIError, Retry, Txt2Embedding, Txt2Img
from dryapi_async.simulator import Fault, Simulator
from dryapi_async.testing import JumpingLoop

FOX = Txt2Img(prompt="a fox", model="Flux1schnell", width=512, height=512, steps=4, seed=7)
WORDS = Txt2Embedding(input="a", model="Bge_M3_FP16")
CALLS: dict[str, Callable[[Client], Awaitable[Any]]] = {
    "txt2img": lambda client: client.call(FOX),
    "txt2img/price-calculation": lambda client: client.call(FOX).price(),
    "balance": lambda client: client.balance(),
    "models": lambda client: client.models(),
    "prompt/image": lambda client: client.prompt_image(prompt="a fox"),
    "prompts/samples": lambda client: client.prompt_samples(type="text2image"),
    "request-status": lambda client: client.job("txt2img:1").result(timeout=5),
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["data", "status", "result", "result_url", "error", "errors", "message", "price", "balance", "prompt", "request_id"]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
bodies = st.sampled_from(["", "<html>hi</html>", "null", "[]", '"text"', "[" * 200_000, "x" * 1_000_000]) | json_values.map(json.dumps)


async def ask(slug: str, status: int, body: str, content_type: str) -> None:
    async with Simulator(pictures=False) as simulator:
        simulator.script(slug, Fault.status(status, body, content_type=content_type, billed=False), times=30)
        async with Client(simulator.key, base_url=simulator.url, retry=Retry(attempts=2, polls=3)) as client:
            with suppress(DryAPIError):
                await CALLS[slug](client)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(CALLS)),
    st.sampled_from(
        [200, 201, 202, 204, 301, 307, 400, 401, 402, 403, 404, 405, 408, 410, 413, 418, 422, 425, 429, 500, 502, 503, 520, 599]
    ),
    bodies,
    st.sampled_from(["application/json", "text/html", "text/plain", "application/octet-stream"]),
)
def test_p20_any_answer_is_a_value_or_a_dryapi_error(slug: str, status: int, body: str, content_type: str) -> None:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(ask(slug, status, body, content_type))


def test_a_done_embedding_of_any_shape() -> None:
    async def main() -> None:
        async with Simulator(pictures=False) as simulator, Client(simulator.key, base_url=simulator.url) as client:
            for text in ("[[0.25, -0.5], [1, 0]]", "[0.5, 1]", "[]", "{}", "words", "[[1, null]]", '[["a"]]', "[" * 150 + "]" * 150, "1"):
                simulator.script("request-status", Fault.status(200, {"data": {"status": "done", "result": text}}))
                try:
                    result = await client.job("txt2embedding:1", Txt2Embedding).result()
                except DryAPIError:
                    continue
                assert all(isinstance(number, float) for row in result.rows for number in row)

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())
