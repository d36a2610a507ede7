"""Every operation through the client to the simulator and back: the job, its result, its price, and each uploaded part's SHA-256."""

import hashlib
import inspect
import io
import json
import math
import wave
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dryapi_async import (
    Aud2Txt,
    Aud2Video,
    Audio,
    AudioFile2Txt,
    Client,
    Embedding,
    EnhancedPrompt,
    GoneError,
    Image,
    Img2Img,
    Img2Txt,
    Img2Video,
    ImgRmbg,
    ImgUpscale,
    InputError,
    ListModels,
    NotFoundError,
    PromptImage,
    PromptImage2Image,
    PromptSamples,
    PromptSpeech,
    PromptVideo,
    ReadBalance,
    ReadStatus,
    ResponseError,
    SamplePrompt,
    Text,
    Transcript,
    Txt2Audio,
    Txt2Embedding,
    Txt2Img,
    Txt2Music,
    Txt2Video,
    Vid2Txt,
    Video,
    VideoFile2Txt,
    VidRmbg,
    VidUpscale,
)
from dryapi_async.operations import ALL, JOBS
from dryapi_async.operations.base import JobOperation
from dryapi_async.simulator import Fault, Simulator

pytestmark = pytest.mark.anyio


def png() -> bytes:
    from PIL import Image as Picture  # noqa: PLC0415  only this file draws

    drawn = io.BytesIO()
    Picture.new("RGB", (64, 64), "teal").save(drawn, "PNG")
    return drawn.getvalue()


def wav() -> bytes:
    written = io.BytesIO()
    with wave.open(written, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\0\0" * 8000)
    return written.getvalue()


PNG, WAV, MP4 = png(), wav(), b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + b"\x00" * 64
FILM: dict[str, Any] = {"prompt": "waves", "width": 512, "height": 512, "frames": 97, "seed": 42, "fps": 24, "steps": 1}
FILES: dict[str, bytes] = {"image": PNG, "first_frame_image": PNG, "last_frame_image": PNG, "audio": WAV, "ref_audio": WAV, "video": MP4}

REQUESTS: dict[type, tuple[Any, type, dict[str, float]]] = {
    Txt2Img: (Txt2Img(prompt="a fox", model="Flux1schnell", width=512, height=512, steps=4, seed=7), Image, {}),
    Img2Img: (Img2Img(prompt="night", image=PNG, model="QwenImageEdit_Plus_NF4", steps=20, seed=42), Image, {}),
    ImgUpscale: (ImgUpscale(image=PNG, model="RealESRGAN_x4plus"), Image, {"width": 64, "height": 64}),
    ImgRmbg: (ImgRmbg(image=PNG, model="Ben2"), Image, {"width": 64, "height": 64}),
    Img2Txt: (Img2Txt(image=PNG, model="Nanonets_Ocr_S_F16"), Text, {"width": 64, "height": 64}),
    Txt2Video: (Txt2Video(model="Ltx2_19B_Dist_FP8", **FILM), Video, {}),
    Img2Video: (Img2Video(model="Ltx2_19B_Dist_FP8", first_frame_image=PNG, last_frame_image=PNG, **FILM), Video, {}),
    Aud2Video: (Aud2Video(model="Ltx2_19B_Dist_FP8", audio=WAV, **FILM), Video, {}),
    VidUpscale: (VidUpscale(video=MP4, model="RealESRGAN_x4plus"), Video, {"width": 64, "height": 64, "duration": 3}),
    VidRmbg: (VidRmbg(video=MP4, model="RMBG-1.4"), Video, {"width": 64, "height": 64}),
    Txt2Audio: (
        Txt2Audio(
            text="hello",
            model="Kokoro",
            lang="en-us",
            voice="af_sky",
            speed=1,
            format="mp3",
            sample_rate=24000,
            mode="voice_clone",
            ref_audio=WAV,
        ),
        Audio,
        {"count_text": 5},
    ),
    Txt2Music: (
        Txt2Music(caption="calm", model="ACE-Step-v1.5-turbo", duration=30, inference_steps=8, guidance_scale=1, seed=-1, format="mp3"),
        Audio,
        {},
    ),
    Vid2Txt: (
        Vid2Txt(video_url="https://www.youtube.com/watch?v=x", include_ts=True, model="WhisperLargeV3"),
        Transcript,
        {"duration_seconds": 60},
    ),
    VideoFile2Txt: (VideoFile2Txt(video=MP4, include_ts=False, model="WhisperLargeV3"), Transcript, {"duration_seconds": 60}),
    Aud2Txt: (
        Aud2Txt(audio_url="https://x.com/i/spaces/1", include_ts=True, model="WhisperLargeV3"),
        Transcript,
        {"duration_seconds": 60},
    ),
    AudioFile2Txt: (AudioFile2Txt(audio=WAV, include_ts=True, model="WhisperLargeV3"), Transcript, {"duration_seconds": 60}),
    Txt2Embedding: (Txt2Embedding(input=["a", "b", "c"], model="Bge_M3_FP16"), Embedding, {}),
    PromptImage: (PromptImage(prompt="a fox"), EnhancedPrompt, {}),
    PromptVideo: (PromptVideo(prompt="a fox", image=PNG), EnhancedPrompt, {}),
    PromptSpeech: (PromptSpeech(prompt="hello", lang_code="en"), EnhancedPrompt, {}),
    PromptImage2Image: (PromptImage2Image(prompt="a fox", image=PNG), EnhancedPrompt, {}),
    PromptSamples: (PromptSamples(type="text2image", topic="cities"), SamplePrompt, {}),
}


def test_every_operation_takes_the_journey() -> None:
    assert set(REQUESTS) == set(ALL) - {ReadBalance, ListModels, ReadStatus}


@pytest.mark.parametrize("cls", JOBS, ids=lambda cls: cls.endpoint.slug)
async def test_a_job_goes_there_and_back(cls: Any, simulator: Simulator, client: Client, tmp_path: Path) -> None:
    request, kind, _ = REQUESTS[cls]
    job = await client.call(request)
    result = await job.result()
    assert type(result) is kind
    saved = await result.save(tmp_path)
    assert saved.parent == tmp_path
    assert saved.stem == job.id
    assert saved.stat().st_size > 0
    check_result(result, saved)
    received = next(one for one in simulator.requests if one.operation == cls.endpoint.slug)
    assert received.status == 200
    for file in received.files:
        assert file.sha256 == hashlib.sha256(FILES[file.field]).hexdigest()
        assert Path(file.name or "").suffix in {".png", ".wav", ".mp4"}
    assert len(received.files) == sum(name in FILES and getattr(request, name) is not None for name in dir(request))
    assert simulator.jobs_billed == 1


def check_result(result: Any, saved: Path) -> None:
    if isinstance(result, Text | Transcript):
        assert saved.read_text() == result.text != ""
    elif isinstance(result, Embedding):
        assert len(result.rows) == 3
        assert len({len(row) for row in result.rows}) == 1
        assert json.loads(saved.read_text()) == [list(row) for row in result.rows]
    else:
        assert saved.suffix


@pytest.mark.parametrize("cls", REQUESTS, ids=lambda cls: cls.endpoint.slug)
async def test_a_price_is_asked_and_nothing_is_submitted(cls: Any, simulator: Simulator, client: Client) -> None:
    request, _, measures = REQUESTS[cls]
    price = await client.call(request).price()
    assert isinstance(price, Decimal)
    assert price >= 0
    if measures:
        assert isinstance(await client.call(request).price(**measures), Decimal)
        assert not simulator.requests[-1].files
        assert set(measures) <= set(simulator.requests[-1].fields)
    assert {one.operation for one in simulator.requests} == {f"{cls.endpoint.slug}/price-calculation"}
    assert simulator.jobs_billed == 0


@pytest.mark.parametrize("cls", [cls for cls in REQUESTS if not issubclass(cls, JobOperation)], ids=lambda cls: cls.endpoint.slug)
async def test_a_prompt_tool_answers_at_once(cls: Any, simulator: Simulator, client: Client) -> None:
    request, kind, _ = REQUESTS[cls]
    call = client.call(request)
    answer: Any = await call
    assert type(answer) is kind
    assert answer.prompt
    assert await call is answer
    assert len(simulator.requests) == 1
    if "negative_prompt" in dir(request):
        assert "negative_prompt" in simulator.requests[0].fields


async def test_measures_are_checked(client: Client) -> None:
    call = client.img_upscale(image=PNG, model="RealESRGAN_x4plus")
    for wrong in ({"depth": 3}, {"width": -1}, {"width": float("nan")}):
        with pytest.raises(InputError):
            await call.price(**wrong)
    with pytest.raises(InputError, match="costs nothing"):
        await client.balance().price()


async def test_a_price_that_is_a_request_id_is_an_error_and_no_job_is_followed(simulator: Simulator, client: Client) -> None:
    simulator.script("audiofile2txt/price-calculation", Fault.status(200, {"data": {"request_id": "x"}}), times=math.inf)
    with pytest.raises(ResponseError, match="no price"):
        await client.audiofile2txt(audio=WAV, include_ts=True, model="WhisperLargeV3").price(duration_seconds=3)
    assert [one.operation for one in simulator.requests] == ["audiofile2txt/price-calculation"] * 4


async def test_the_account(simulator: Simulator, client: Client) -> None:
    before = (await client.balance()).amount
    price = await client.call(REQUESTS[Txt2Img][0]).price()
    await client.call(REQUESTS[Txt2Img][0])
    assert (await client.balance()).amount == before - price
    update = await client.call(ReadStatus(request_id=next(iter(simulator.jobs))))
    assert not update.finished


async def test_models_are_read_page_by_page(simulator: Simulator, client: Client) -> None:
    simulator.variants("models-paged")
    models = await client.models()
    assert len({model.slug for model in models}) == len(models) > 5
    first = await anext(aiter(client.models()))
    assert first == models[0]
    assert {"limit=50", "per_page=50", "page=1"} <= set(simulator.requests[0].query.split("&"))
    for word in ("img_upscale", "img-upscale", "Img-Upscale"):
        found = await client.models(word)
        assert found
        assert all(model.serves("img-upscale") for model in found)
    assert await client.models("nothing-of-the-kind") == ()


@pytest.mark.parametrize("meta", [{"current_page": 1, "last_page": 9}, {"current_page": 1}, None, {"page": "1", "total_pages": "9"}])
async def test_a_page_number_that_comes_back_unchanged_ends_it(meta: Any, simulator: Simulator, client: Client) -> None:
    page = {"data": [{"slug": "m", "name": "M"}]} | ({"meta": meta} if meta else {})
    simulator.script("models", Fault.status(200, page), times=20)
    assert len(await client.models()) in {1, 2}
    assert len([one for one in simulator.requests if one.operation == "models"]) <= 2


async def test_text_behind_a_link_is_text_all_the_same(simulator: Simulator, client: Client) -> None:
    simulator.variants("text-link")
    text = await client.img2txt(image=PNG, model="Nanonets_Ocr_S_F16").result()
    assert str(text) == text.text != ""


async def test_a_retired_tool_names_its_successor(simulator: Simulator, client: Client) -> None:
    simulator.variants("prompts-gone")
    with pytest.raises(GoneError) as caught:
        await client.prompt_image(prompt="a fox")
    assert caught.value.successor
    assert caught.value.successor in str(caught.value)


@pytest.mark.parametrize(
    "answer", [Fault.status(404, "<html>Not Found</html>"), Fault.status(404, {"message": "The route could not be found."})]
)
async def test_a_host_that_serves_only_a_part_says_so(answer: Fault, simulator: Simulator, client: Client) -> None:
    simulator.script("txt2img", answer)
    with pytest.raises(NotFoundError, match="base_url"):
        await client.call(REQUESTS[Txt2Img][0])


@pytest.mark.parametrize("ending", ["", "/", "/api/v1", "/api/v1/client/"])
async def test_a_base_url_with_or_without_its_path(ending: str, simulator: Simulator) -> None:
    async with Client(f"dpn-sk-{simulator.key}", base_url=simulator.url + ending) as client:
        assert (await client.balance()).amount > 0
    assert simulator.requests[0].headers["Authorization"] == f"Bearer {simulator.key}"


def test_help_shows_the_real_signature() -> None:
    signature = inspect.signature(Client.img2video)
    assert list(signature.parameters)[:4] == ["self", "prompt", "model", "width"]
    assert "first_frame_image" in signature.parameters
    assert signature.return_annotation == "JobCall"
    assert "film" in (Client.img2video.__doc__ or "")
    assert next(iter(inspect.signature(Client("key").img2video).parameters)) == "prompt"


def test_every_class_has_its_method() -> None:
    named = {cls.endpoint.slug.replace("-", "_").replace("/", "_").replace("prompts_", "prompt_") for cls in REQUESTS}
    assert all(callable(getattr(Client, name)) for name in named)
