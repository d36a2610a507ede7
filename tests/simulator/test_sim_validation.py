"""Validation in the service's rules and words."""

from typing import Any

import pytest

from dryapi_async.simulator import Simulator

from .conftest import FILES, IMG2IMG, TXT2IMG, Talk, make_png

pytestmark = pytest.mark.anyio
WITHOUT: Any = object()


async def test_everything_missing_is_one_message_and_a_count(talk: Talk) -> None:
    status, body = await talk.post("txt2img", {})
    assert status == 422
    assert body["message"] == "The prompt field is required. (and 4 more errors)"
    assert body["errors"] == {name: [f"The {name} field is required."] for name in ("prompt", "model", "width", "height", "seed")}


async def test_one_error_has_no_count_and_two_say_error(talk: Talk) -> None:
    fields = {name: value for name, value in TXT2IMG.items() if name != "width"}
    assert (await talk.post("txt2img", fields))[1]["message"] == "The width field is required."
    del fields["prompt"]
    assert (await talk.post("txt2img", fields))[1]["message"].endswith("(and 1 more error)")


@pytest.mark.parametrize(
    ("name", "value", "field", "words"),
    [
        ("prompt", 5, "prompt", "The prompt field must be a string."),
        ("prompt", "", "prompt", "The prompt field is required."),
        ("prompt", None, "prompt", "The prompt field is required."),
        ("width", "wide", "width", "The width field must be an integer."),
        ("width", 256.5, "width", "The width field must be an integer."),
        ("width", True, "width", "The width field must be an integer."),
        ("width", 260, "width", "The width field must be a multiple of 8."),
        ("width", 4096, "width", "The width field must be between 64 and 2048."),
        ("steps", 1000, "steps", "The steps field must be between 1 and 150."),
        ("guidance", "x", "guidance", "The guidance field must be a number."),
        ("guidance", None, "guidance", "The guidance field must be a number."),
        ("guidance", [], "guidance", "The guidance field must be a number."),
        ("model", "Nobody", "model", "The selected model does not exist."),
        ("model", "Kokoro", "model", "The selected model does not support Text To Image."),
        ("loras", "x", "loras", "The loras field must be an array."),
        ("loras", {"name": "style_lora", "weight": 1}, "loras", "The loras field must be an array."),
        ("loras", [{"weight": 1}], "loras.0.name", "The loras.0.name field is required."),
        ("loras", [{"name": "style_lora"}], "loras.0.weight", "The loras.0.weight field is required."),
        ("loras", [{"name": "style_lora", "weight": -1}], "loras.0.weight", "The loras.0.weight field must be at least 0."),
        ("loras", [{"name": "nobody", "weight": 1}], "loras.0.name", "The selected loras.0.name is invalid."),
        ("webhook_url", "http://example.com/hook", "webhook_url", "The webhook url field must be a valid HTTPS URL."),
        ("webhook_url", "ftp://example.com", "webhook_url", "The webhook url field must be a valid URL."),
        ("webhook_url", "https://[", "webhook_url", "The webhook url field must be a valid URL."),
        (
            "webhook_url",
            "https://example.com/" + "x" * 2048,
            "webhook_url",
            "The webhook url field must not be greater than 2048 characters.",
        ),
    ],
)
async def test_a_wrong_value_is_named(talk: Talk, name: str, value: Any, field: str, words: str) -> None:
    status, body = await talk.post("txt2img", {**TXT2IMG, name: value})
    assert status == 422
    assert body["errors"] == {field: [words]}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", "256"),
        ("width", 256.0),
        ("guidance", "7.5"),
        ("guidance", WITHOUT),
        ("steps", WITHOUT),
        ("seed", -1),
        ("negative_prompt", None),
        ("negative_prompt", ""),
        ("loras", []),
        ("loras", [{"name": "style_lora", "weight": 0.75}]),
        ("webhook_url", None),
        ("webhook_url", "https://example.com/hook?a=1"),
        ("webhook_url", "http://127.0.0.1:8000/hook"),
        ("webhook_url", "http://localhost/hook"),
        ("something_new", [1]),
    ],
)
async def test_what_the_live_service_takes_is_taken(talk: Talk, name: str, value: Any) -> None:
    fields = {key: each for key, each in {**TXT2IMG, name: value}.items() if each is not WITHOUT}
    status, body = await talk.post("txt2img", fields)
    assert status == 200, body


@pytest.mark.parametrize(("steps", "taken"), [("20", True), (None, False)])
async def test_img2img_asks_for_steps(talk: Talk, steps: str | None, taken: bool) -> None:
    fields = {name: value for name, value in {**IMG2IMG, "steps": steps}.items() if value is not None}
    status, body = await talk.upload("img2img", fields, [("image", make_png(), "a.png", "image/png")])
    assert (status == 200) is taken, body


async def test_exactly_one_of_image_and_images(talk: Talk) -> None:
    png = make_png()
    both = [("image", png, "a.png", "image/png"), ("images[]", png, "b.png", "image/png")]
    status, body = await talk.upload("img2img", IMG2IMG, both)
    assert (status, body["errors"]) == (422, {"image": ["The image field prohibits images from being present."]})
    status, body = await talk.upload("img2img", IMG2IMG, [])
    assert (status, set(body["errors"])) == (422, {"image", "images"})
    assert (await talk.upload("img2img", IMG2IMG, both[:1]))[0] == 200
    assert (await talk.upload("img2img", IMG2IMG, both[1:] * 4))[0] == 200
    status, body = await talk.upload("img2img", IMG2IMG, both[1:] * 5)
    assert (status, body["errors"]) == (422, {"images": ["The images field must not have more than 4 items."]})


@pytest.mark.parametrize(
    ("field", "data", "errors"),
    [
        (
            "image",
            b"hello",
            ["The image field must be an image.", "The image field must be a file of type: jpg, jpeg, png, gif, bmp, webp."],
        ),
        ("images", make_png(), ["The images field must be an array."]),
        ("image[]", make_png(), ["The image field must be a file."]),
    ],
)
async def test_a_file_that_is_none_of_its_kind(talk: Talk, field: str, data: bytes, errors: list[str]) -> None:
    status, body = await talk.upload("img2img", IMG2IMG, [(field, data, "a.png", "image/png")])
    assert status == 422
    assert body["errors"][field.removesuffix("[]")] == errors


async def test_an_item_of_images_is_named_by_its_index(talk: Talk) -> None:
    files = [("images[]", make_png(), "a.png", "image/png"), ("images[]", b"hello", "b.png", "image/png")]
    assert list((await talk.upload("img2img", IMG2IMG, files))[1]["errors"]) == ["images.1"]


async def test_a_text_in_place_of_a_file(talk: Talk) -> None:
    assert (await talk.upload("img-rmbg", {"model": "Ben2", "image": "x"}, []))[1]["errors"] == {
        "image": ["The image field must be a file."]
    }
    assert (await talk.upload("img-rmbg", {"model": "Ben2", "image": ""}, []))[1]["errors"] == {"image": ["The image field is required."]}


@pytest.mark.parametrize("value", [1, 0, True, False, "1", "0"])
async def test_booleans_in_json(talk: Talk, value: Any) -> None:
    fields = {"video_url": "https://youtu.be/x", "include_ts": value, "model": "WhisperLargeV3"}
    assert (await talk.post("vid2txt", fields))[0] == 200


@pytest.mark.parametrize("value", ["true", "yes", 2, [], None])
async def test_no_booleans_in_json(talk: Talk, value: Any) -> None:
    fields = {"video_url": "https://youtu.be/x", "include_ts": value, "model": "WhisperLargeV3"}
    assert list((await talk.post("vid2txt", fields))[1]["errors"]) == ["include_ts"]


@pytest.mark.parametrize(
    ("value", "taken"), [("1", True), ("0", True), ("true", True), ("false", True), ("yes", False), ("", False), ("True", False)]
)
async def test_booleans_in_forms(sim: Simulator, talk: Talk, value: str, taken: bool) -> None:
    name, data, kind = FILES["audio"][0], FILES["audio"][1], FILES["audio"][2]
    status, body = await talk.upload("audiofile2txt", {"include_ts": value, "model": "WhisperLargeV3"}, [("audio", data, name, kind)])
    assert (status == 200) is taken, body
    if taken:
        assert next(iter(sim.jobs.values())).fields["include_ts"] is (value in {"1", "true"})


@pytest.mark.parametrize(
    ("path", "fields", "missing"),
    [
        (
            "txt2video",
            {"prompt": "x", "width": 512, "height": 512, "steps": 20, "frames": 97, "seed": 1, "model": "Ltx2_19B_Dist_FP8"},
            "fps",
        ),
        ("vid2txt", {"video_url": "https://youtu.be/x", "include_ts": True}, "model"),
        ("prompt/image", {"prompt": "a fox"}, "negative_prompt"),
        ("prompt/image", {"negative_prompt": None}, "prompt"),
        ("txt2embedding", {"input": [], "model": "Bge_M3_FP16"}, "input"),
        ("txt2embedding", {"input": ["a", 5], "model": "Bge_M3_FP16"}, "input"),
        ("txt2embedding", {"input": ["a"] * 2049, "model": "Bge_M3_FP16"}, "input"),
        ("img-rmbg/price-calculation", {"model": "Ben2", "width": 100}, "height"),
        ("img-rmbg/price-calculation", {"model": "Ben2"}, "image"),
        ("txt2audio/price-calculation", {"model": "Kokoro", "lang": "en-us", "speed": 1, "format": "flac", "sample_rate": 24000}, "text"),
        ("aud2txt/price-calculation", {"model": "WhisperLargeV3", "include_ts": 1}, "audio_url"),
    ],
)
async def test_what_is_asked_for_in_practice(talk: Talk, path: str, fields: dict[str, Any], missing: str) -> None:
    status, body = await talk.post(path, fields)
    errors = body["errors"]
    assert status == 422
    assert missing in (errors if isinstance(errors, dict) else [row["field"] for row in errors])


@pytest.mark.parametrize(
    ("more", "missing"),
    [
        ({"mode": "voice_clone"}, "ref_audio"),
        ({"mode": "voice_design"}, "instruct"),
        ({"mode": "singing"}, "mode"),
        ({"speed": 9}, "speed"),
        ({}, None),
    ],
)
async def test_speech_modes_ask_for_their_field(talk: Talk, more: dict[str, Any], missing: str | None) -> None:
    fields = {"text": "Hello", "model": "Kokoro", "lang": "en-us", "speed": 1, "format": "flac", "sample_rate": 24000, **more}
    status, body = await talk.post("txt2audio", fields)
    assert (status, list(body.get("errors", []))) == ((422, [missing]) if missing else (200, []))


async def test_music_takes_no_lyrics_and_a_known_time_signature_only(talk: Talk) -> None:
    fields = {
        "caption": "calm",
        "model": "ACE-Step-v1.5-turbo",
        "duration": 10,
        "inference_steps": 8,
        "guidance_scale": 1,
        "seed": 1,
        "format": "mp3",
    }
    assert (await talk.post("txt2music", fields))[0] == 200
    assert list((await talk.post("txt2music", {**fields, "timesignature": 5}))[1]["errors"]) == ["timesignature"]
    assert list((await talk.post("txt2music", {**fields, "duration": 5}))[1]["errors"]) == ["duration"]


@pytest.mark.parametrize("query", ["", "?type=music", "?type=text2image&topic=" + "x" * 501, "?type=text2image&lang_code=toolong"])
async def test_samples_check_their_query(talk: Talk, query: str) -> None:
    status, body = await talk.get("prompts/samples" + query)
    assert status == 422
    assert [set(row) for row in body["errors"]] == [{"field", "messages"}]
    assert body["statusCode"] == 422
