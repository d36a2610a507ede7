"""P26: whatever comes back, wherever it comes back to: only errors of one tree come out, and each says what to do."""

import math
import pickle
import re
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from dryapi_async import DryAPIError, PromptImage2Image, PromptSpeech, PromptVideo, Txt2Embedding, Vid2Txt
from dryapi_async.simulator import Fault

from ..conftest import FOX, PNG, files_in, make_sim
from .test_fault_table import Act, Stage, ask_sample, ask_tool, fetch, finish_json, finish_upload, moved, stage_on

pytestmark = pytest.mark.anyio

SPOKEN = Vid2Txt(video_url="https://www.youtube.com/watch?v=fox", include_ts=False, model="WhisperLargeV3")
WORDS = Txt2Embedding(input="a fox", model="Bge_M3_FP16")


async def awaited(call: Awaitable[Any]) -> Any:
    return await call


async def listed(items: Any) -> list[Any]:
    return [item async for item in items]


async def stream(stage: Stage) -> list[bytes]:
    return await listed((await stage.job.result()).stream())


async def save(stage: Stage) -> Path:
    return await (await stage.job.result()).save(stage.folder / "fox.png")


CALLS: dict[str, tuple[str, Act]] = {
    # what the user calls: the operation that meets the fault, and the call
    "client.balance()": ("balance", lambda stage: stage.client.balance()),
    "client.models() awaited": ("models", lambda stage: awaited(stage.client.models())),
    "client.models() iterated": ("models", lambda stage: listed(stage.client.models())),
    "client.check()": ("models", lambda stage: stage.client.check(FOX)),
    "call.price()": ("txt2img/price-calculation", lambda stage: stage.client.call(FOX).price()),
    "call.price() of a file": ("img-rmbg/price-calculation", lambda stage: stage.client.img_rmbg(image=PNG, model="Ben2").price()),
    "await call": ("txt2img", finish_json),
    "await call with a file": ("img2img", finish_upload),
    "call.result(), submitting": ("txt2img", lambda stage: stage.client.call(FOX).result()),
    "call.result(), waiting": ("request-status", lambda stage: stage.client.call(FOX).result()),
    "call.result() of a text": ("request-status", lambda stage: stage.client.call(SPOKEN).result()),
    "call.result() of vectors": ("request-status", lambda stage: stage.client.call(WORDS).result()),
    "call.save(), submitting": ("txt2img", lambda stage: stage.client.call(FOX).save(stage.folder / "fox.png")),
    "call.save(), waiting": ("request-status", lambda stage: stage.client.call(FOX).save(stage.folder / "fox.png")),
    "call.save(), fetching": ("storage", lambda stage: stage.client.call(FOX).save(stage.folder / "fox.png")),
    "job.status()": ("request-status", lambda stage: stage.job.status()),
    "job.updates()": ("request-status", lambda stage: listed(stage.job.updates())),
    "job.result()": ("request-status", lambda stage: stage.job.result()),
    "job.save(), waiting": ("request-status", lambda stage: stage.job.save(stage.folder)),
    "job.save(), fetching": ("storage", lambda stage: stage.job.save(stage.folder)),
    "result.read()": ("storage", fetch),
    "result.stream()": ("storage", stream),
    "result.save()": ("storage", save),
    "client.prompt_image()": ("prompt/image", ask_tool),
    "client.prompt_video()": ("prompt/video", lambda stage: stage.client.call(PromptVideo(prompt="a fox", image=PNG))),
    "client.prompt_speech()": ("prompt/speech", lambda stage: stage.client.call(PromptSpeech(prompt="a fox"))),
    "client.prompt_image2image()": ("prompt/image2image", lambda stage: stage.client.call(PromptImage2Image(prompt="a fox", image=PNG))),
    "client.prompt_samples()": ("prompts/samples", ask_sample),
}


def body(content: bytes, content_type: str = "application/json", **headers: str) -> Fault:
    return Fault.status(200, content, content_type=content_type, headers={name.replace("_", "-"): text for name, text in headers.items()})


WRONGS = {
    "RST before the body": Fault.reset("before_body"),
    "RST after the body": Fault.reset(),
    "RST in the payload": Fault.reset("payload"),
    "FIN after the body": Fault.close(),
    "FIN in the headers": Fault.close("headers"),
    "hang": Fault.hang(),
    "hang in the payload": Fault.hang("payload"),
    "truncated": Fault.truncate(),
    "no HTTP": Fault.garbage(),
    "broken headers": Fault.garbage("headers"),
    "undecodable": Fault.garbage("payload"),
    "307": moved(),
    "401": Fault.unauthorized(),
    "418 in plain text": Fault.status(418, b"teapot"),
    "429": Fault.rate_limited(),
    "502 as HTML": Fault.html(502),
    "599": Fault.status(599, b""),
    "no content": Fault.status(204, b""),
    "empty": body(b""),
    "null": body(b"null"),
    "a list": body(b"[1, 2]"),
    "an empty object": body(b"{}"),
    "wrong types": body(b'{"data": {"request_id": [], "status": 7, "price": {}, "prompt": 5}, "balance": "much"}'),
    "HTML": body(b"<!doctype html><title>Welcome</title>", "text/html"),
    "not UTF-8": body(b'{"data": "\xff\xfe"}'),
    "nested without end": body(b"[" * 100_000),
    "a number without end": body(b'{"balance": 1e99999, "price": ' + b"9" * 10_000 + b"}"),
    "packed wrong": body(b"no gzip", Content_Encoding="gzip"),
    "packed unknown": body(b"no brotli", Content_Encoding="br"),
    "an alphabet nobody knows": body(b"{}", "application/json; charset=klingon"),
}
TOLERATED = {("models", "a list")}
"""A list where models are is a list of models, its odd items left out."""
ADVICE = re.compile(r"\b(again|check|later|look at|settle)\b", re.IGNORECASE)


async def meet_wrongs(slug: str, act: Act, folder: Path) -> AsyncIterator[tuple[str, BaseException | None]]:
    """Make a call once for each wrong, and give what came out of it."""
    async with make_sim(keep_files=False) as sim:
        for name, wrong in WRONGS.items():
            async with stage_on(sim, None) as stage:
                scripted = sim.script(slug, wrong, times=math.inf)
                try:
                    await act(evolve(stage, folder=folder))
                except Exception as error:  # noqa: BLE001  whatever comes out is what this is about
                    yield name, error
                else:
                    yield name, None
                assert scripted.used, name
                scripted.remove()


@pytest.mark.parametrize(("slug", "act"), CALLS.values(), ids=CALLS)
async def test_p26_only_errors_of_one_tree_come_out_and_say_what_to_do(slug: str, act: Act, tmp_path: Path) -> None:
    async for name, error in meet_wrongs(slug, act, tmp_path):
        if error is None:
            assert (slug, name) in TOLERATED
            continue
        assert isinstance(error, DryAPIError), (name, error)
        words = str(error)
        assert ADVICE.search(words), (name, words)
        assert not re.search(r"Signature=[0-9a-f]|simulator-key", f"{words} {error!r}"), name
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301  our own
        assert (type(copy), str(copy)) == (type(error), words), name
    assert files_in(tmp_path) == []
