"""Results: what they are, and that they follow from what was asked."""

import io
import json
import wave
from typing import Any

import pytest
from PIL import Image

from dryapi_async.simulator import Simulator

from .conftest import FILES, IMG2IMG, TXT2IMG, Talk, make_png, open_talk

pytestmark = pytest.mark.anyio


async def fetch(talk: Talk, request_id: str, name: str = "result_url") -> tuple[bytes, str]:
    status = await talk.status(request_id)
    link = status[name] if name == "result_url" else status["results_alt_formats"][name]
    code, data, headers = await talk.download(link)
    assert code == 200
    return data, headers["Content-Type"]


def look(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


async def test_a_prompt_is_drawn_in_the_size_asked_for_in_three_formats(talk: Talk) -> None:
    request_id = await talk.submit()
    for name, kind, form in [("result_url", "image/png", "PNG"), ("jpg", "image/jpeg", "JPEG"), ("webp", "image/webp", "WEBP")]:
        data, content_type = await fetch(talk, request_id, name)
        image = look(data)
        assert (content_type, image.format, image.size) == (kind, form, (256, 192))
        assert len(image.convert("RGB").getcolors(256 * 192) or []) > 500


async def test_drawings_follow_the_prompt_and_the_seed(talk: Talk) -> None:
    again = [(await fetch(talk, await talk.submit()))[0] for _ in range(2)]
    other = (await fetch(talk, await talk.submit(fields={**TXT2IMG, "seed": 8})))[0]
    words = (await fetch(talk, await talk.submit(fields={**TXT2IMG, "prompt": "a cat"})))[0]
    assert again[0] == again[1]
    assert len({again[0], other, words}) == 3


async def test_an_edit_keeps_the_picture_and_changes_it(talk: Talk) -> None:
    halves = Image.new("RGB", (300, 200), (250, 250, 250))
    halves.paste((200, 10, 10), (0, 0, 150, 200))
    out = io.BytesIO()
    halves.save(out, "PNG")
    _, body = await talk.upload("img2img", IMG2IMG, [("image", out.getvalue(), "a.png", "image/png")])
    data, _ = await fetch(talk, body["data"]["request_id"])
    image = look(data).convert("RGB")
    assert image.size == (300, 200)
    left, right = image.getpixel((60, 60)), image.getpixel((200, 60))
    assert isinstance(left, tuple)
    assert isinstance(right, tuple)
    assert left[0] > left[1] + 40  # still red
    assert 100 < right[0] < 180  # still grey, but night
    _, body = await talk.upload("img2img", {**IMG2IMG, "width": 128, "height": 64}, [("images[]", out.getvalue(), "a.png", "image/png")])
    assert look((await fetch(talk, body["data"]["request_id"]))[0]).size == (128, 64)


async def test_drawn_results_are_kept(sim: Simulator, talk: Talk) -> None:
    request_id = await talk.submit()
    await talk.status(request_id)
    assert sim.jobs[request_id].blobs == {}
    first, _ = await fetch(talk, request_id)
    blob = sim.jobs[request_id].blobs["image.png"]
    assert (await fetch(talk, request_id))[0] == first
    assert sim.jobs[request_id].blobs["image.png"] is blob


async def upload(talk: Talk, path: str, fields: dict[str, Any], kind: str, data: bytes | None = None) -> str:
    name, stock, content_type = FILES[kind]
    status, body = await talk.upload(path, fields, [(kind, stock if data is None else data, name, content_type)])
    assert status == 200, body
    return str(body["data"]["request_id"])


async def test_upscaling_is_four_times(talk: Talk) -> None:
    data, _ = await fetch(talk, await upload(talk, "img-upscale", {"model": "RealESRGAN_x4plus"}, "image", make_png(50, 40)))
    assert look(data).size == (200, 160)


async def test_a_cut_out_is_transparent_around(talk: Talk) -> None:
    request_id = await upload(talk, "img-rmbg", {"model": "RMBG-1.4"}, "image", make_png(60, 60))
    image = look((await fetch(talk, request_id))[0])
    assert image.mode == "RGBA"
    assert [image.getpixel(at)[3] for at in ((0, 0), (30, 30))] == [0, 255]  # type: ignore[index]  # RGBA pixels are tuples
    formats = (await talk.status(request_id))["results_alt_formats"]
    assert formats["jpg"] is None
    assert formats["webp"].startswith("http://127.0.0.1")


@pytest.mark.parametrize("kind", ["image", "audio", "video"])
async def test_uploads_that_are_only_their_first_bytes_still_give_results(talk: Talk, kind: str) -> None:
    heads = {"image": b"\x89PNG\r\n\x1a\nnothing", "audio": b"ID3nothing", "video": b"\x00\x00\x00\x18ftypmp42nothing"}
    fields: dict[str, Any] = {"model": {"image": "Ben2", "audio": "Ltx2_19B_Dist_FP8", "video": "RMBG-1.4"}[kind]}
    if kind == "audio":
        fields |= {"prompt": "x", "width": 64, "height": 64, "frames": 9, "seed": 1}
    path = {"image": "img-rmbg", "audio": "aud2video", "video": "vid-rmbg"}[kind]
    data, content_type = await fetch(talk, await upload(talk, path, fields, kind, heads[kind]))
    assert content_type == ("image/png" if kind == "image" else "image/gif")
    assert look(data).width > 0


async def test_a_video_is_a_short_animation(talk: Talk) -> None:
    fields = {"prompt": "waves", "width": 640, "height": 320, "guidance": 7.5, "steps": 20, "frames": 97, "fps": 24, "seed": 1}
    data, content_type = await fetch(talk, await talk.submit("txt2video", {**fields, "model": "Ltx2_19B_Dist_FP8"}))
    image = Image.open(io.BytesIO(data))
    assert content_type == "image/gif"
    assert getattr(image, "n_frames", 1) > 4
    assert image.width == 2 * image.height


@pytest.mark.parametrize(("duration", "frames"), [(10, 80_000), (12.5, 100_000)])
async def test_music_has_the_length_asked_for(talk: Talk, duration: float, frames: int) -> None:
    fields = {
        "caption": "calm",
        "model": "ACE-Step-v1.5-turbo",
        "duration": duration,
        "inference_steps": 8,
        "guidance_scale": 1,
        "seed": 1,
        "format": "mp3",
    }
    data, content_type = await fetch(talk, await talk.submit("txt2music", fields))
    with wave.open(io.BytesIO(data)) as sound:
        assert (content_type, sound.getnframes(), sound.getframerate()) == ("audio/wav", frames, 8000)
        assert len(set(sound.readframes(1000))) > 20


async def test_speech_grows_with_its_text_and_shrinks_with_its_speed(talk: Talk) -> None:
    async def speak(text: str, speed: float) -> float:
        fields = {"text": text, "model": "Kokoro", "lang": "en-us", "speed": speed, "format": "flac", "sample_rate": 16_000}
        with wave.open(io.BytesIO((await fetch(talk, await talk.submit("txt2audio", fields)))[0])) as sound:
            assert sound.getframerate() == 16_000
            return sound.getnframes() / 16_000

    assert await speak("a" * 50, 1) == pytest.approx(3.0)
    assert await speak("a" * 50, 2) == pytest.approx(1.5)


@pytest.mark.parametrize("inline", [False, True])
async def test_texts_come_as_a_link_or_inline(sim: Simulator, talk: Talk, inline: bool) -> None:
    fields = {"video_url": "https://youtu.be/x", "include_ts": False, "model": "WhisperLargeV3", "return_result_in_response": inline}
    request_id = await talk.submit("vid2txt", fields)
    status = await talk.status(request_id)
    text, content_type = await fetch(talk, request_id)
    assert content_type == "text/plain; charset=utf-8"
    assert status["result"] == (text.decode() if inline else None)
    assert status["results_alt_formats"] is None
    sim.variants("text-inline")
    assert (await talk.status(request_id))["result_url"] is None
    sim.variants("text-link")
    assert (await talk.status(request_id))["result"] is None


async def test_timestamps_and_json_are_as_asked(talk: Talk) -> None:
    fields = {"audio_url": "https://x.com/i/spaces/1", "include_ts": True, "model": "WhisperLargeV3"}
    assert (await fetch(talk, await talk.submit("aud2txt", fields)))[0].startswith(b"[00:00:00.000 --> ")
    request_id = await upload(talk, "img2txt", {"model": "Nanonets_Ocr_S_F16", "format": "json", "return_result_in_response": "1"}, "image")
    assert set(json.loads((await talk.status(request_id))["result"])) == {"text"}


async def test_embeddings_are_rows_in_order_and_repeatable(talk: Talk) -> None:
    async def embed(given: Any) -> list[list[float]]:
        fields = {"input": given, "model": "Bge_M3_FP16", "return_result_in_response": True}
        rows: list[list[float]] = json.loads((await talk.status(await talk.submit("txt2embedding", fields)))["result"])
        return rows

    one, many = await embed("first"), await embed(["second", "first", "third"])
    assert [len(row) for row in many] == [1024] * 3
    assert many[1] == one[0]
    assert many[0] != many[2]
    assert sum(value * value for value in one[0]) == pytest.approx(1, abs=1e-4)


async def test_small_results_need_no_drawing_and_differ_by_job() -> None:
    async with Simulator(speed=float("inf"), pictures=False, result_size=20_480) as sim, open_talk(sim) as talk:
        ids = [await talk.submit() for _ in range(3)]
        for name, form in [("result_url", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")]:
            files = [(await fetch(talk, each, name))[0] for each in ids]
            assert {len(data) for data in files} == {20_480}
            assert len(set(files)) == 3
            assert {look(data).format for data in files} == {form}
        assert not list((sim._folder or io).glob("results/*"))  # type: ignore[union-attr]  # it is running
