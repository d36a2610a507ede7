"""What a model's limits say about a request, before anything is sent."""

from pathlib import Path
from typing import Any

import pytest

from dryapi_async import Client, Img2Img, InputError, Lora, Txt2Audio, Txt2Img, Txt2Video
from dryapi_async.operations.account import Model, normalise_type, read_models
from dryapi_async.operations.limits import find_problems
from dryapi_async.simulator import Simulator

LIMITS = {
    "min_width": 256,
    "max_width": 2048,
    "max_height": 1024,
    "resolution_step": 128,
    "max_steps": 8,
    "min_guidance": 1,
    "max_guidance": 7.5,
}
FLUX = Model(slug="Flux", name="Flux", types=("txt2img",), limits=LIMITS, features={"supports_negative_prompt": False}, loras=("ink",))
FOX: dict[str, Any] = {"prompt": "a fox", "model": "Flux", "width": 512, "height": 512, "seed": 7}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"steps": 8, "guidance": 7.5}, []),
        ({"width": 128}, ["width: 128 is below the model's 256"]),
        ({"width": 300}, ["width: 300 is no multiple of the model's 128"]),
        ({"height": 2048}, ["height: 2048 is over the model's 1024"]),
        ({"steps": 9, "guidance": 0.5}, ["steps: 9 is over the model's 8", "guidance: 0.5 is below the model's 1"]),
        ({"negative_prompt": "blur"}, ["negative_prompt: the model doesn't support it (supports_negative_prompt)"]),
        ({"loras": [Lora(name="ink", weight=1)]}, []),
        ({"loras": [Lora(name="oil", weight=1)]}, ["loras: the model has no 'oil'"]),
        ({"model": "Fluks"}, ["model: 'Fluks' isn't among the 1 models of this account: did you mean 'Flux'?"]),
        ({"model": "Nope"}, ["model: 'Nope' isn't among the 1 models of this account"]),
    ],
)
def test_what_the_service_would_refuse(changes: dict[str, Any], said: list[str]) -> None:
    assert list(find_problems(Txt2Img(**(FOX | changes)), "txt2img", (FLUX,))) == said


def test_a_model_of_another_operation() -> None:
    film = Txt2Video(prompt="p", model="Flux", width=512, height=512, frames=10, seed=1)
    assert find_problems(film, "txt2video", (FLUX,)) == ("model: Flux serves txt2img, not txt2video",)


def test_pictures_are_counted_and_one_is_the_most_where_nothing_is_said() -> None:
    request = Img2Img(prompt="p", images=[b"a", b"b"], model="M", steps=1, seed=1)
    assert find_problems(request, "img2img", (Model(slug="M", name="M"),)) == ("images: 2 pictures are over the model's 1",)
    assert find_problems(request, "img2img", (Model(slug="M", name="M", limits={"max_input_images": 3}),)) == ()


def test_speech() -> None:
    model = Model(slug="K", name="K", limits={"max_text": 3, "output_formats": ["mp3"]}, languages=({"slug": "en-us", "name": "English"},))
    request = Txt2Audio(text="hello", model="K", lang="fr", speed=1, format="wav", sample_rate=24000)
    assert find_problems(request, "txt2audio", (model,)) == (
        "text: 5 is over the model's 3",
        "format: the model makes mp3, not wav",
        "lang: the model speaks en-us, not fr",
    )


@pytest.mark.parametrize(
    ("words", "same"),
    [
        (("img_upscale", "img-upscale", "Img-Upscale"), True),
        (("vid2txt", "video2text"), True),
        (("aud2txt", "audio2text"), True),
        (("videofile2txt", "video_file2text"), True),
        (("audiofile2txt", "audio_file2text"), True),
        (("aud2video", "audio2video"), True),
        (("txt2img", "img2txt"), False),
        (("img2video", "vid2txt"), False),
    ],
)
def test_the_words_for_an_operation(words: tuple[str, ...], same: bool) -> None:
    assert (len({normalise_type(word) for word in words}) == 1) is same


def test_values_become_what_they_mean() -> None:
    info = {
        "limits": {"max_guidance": "7.5", "min_guidance": "0", "output_formats": ["mp3"], "note": "x"},
        "features": {"a": "1", "b": 0, "c": "false", "d": True},
        "defaults": {"steps": "4", "format": "mp3", "flag": "true"},
    }
    (model,) = read_models({"data": [{"slug": "m", "info": info, "status": "standard_model"}, None, {"name": "no slug"}]}).models
    assert dict(model.limits) == {"max_guidance": 7.5, "min_guidance": 0, "output_formats": ["mp3"], "note": "x"}
    assert dict(model.features) == {"a": True, "b": False, "c": False, "d": True}
    assert all(isinstance(value, bool) for value in model.features.values())
    assert dict(model.defaults) == {"steps": 4, "format": "mp3", "flag": True}
    assert model.extra == {"status": "standard_model"}
    assert model.name == "m"


@pytest.mark.anyio
async def test_a_client_that_checks_sends_nothing_wrong(simulator: Simulator, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(10 * 1024 * 1024))
    async with Client(simulator.key, base_url=simulator.url, check=True) as client:
        call = client.img2img(prompt="p", image=large, model="QwenImageEdit_Plus_NF4", steps=9999, seed=1)
        with pytest.raises(InputError, match=r"steps: 9999 .*; image: .*large.png has 10,485,768 bytes"):
            await call
        with pytest.raises(InputError, match="isn't among"):
            await client.txt2img(prompt="p", model="Nope", width=512, height=512, seed=1)
        assert await client.check(Txt2Img(prompt="p", model="Flux1schnell", width=512, height=512, steps=4, seed=1)) == ()
        await client.txt2img(prompt="p", model="Flux1schnell", width=512, height=512, steps=4, seed=1)
    assert [one.operation for one in simulator.requests] == ["models", "txt2img"]


@pytest.mark.anyio
@pytest.mark.parametrize("url", ["ftp://a.example/x", "a.example", "https://a.example/" + "x" * 2048])
async def test_webhook_addresses(url: str, simulator: Simulator, client: Client) -> None:
    with pytest.raises(InputError, match="webhook_url"):
        await client.txt2img(prompt="p", model="Flux1schnell", width=512, height=512, steps=4, seed=1, webhook_url=url)
    assert not simulator.requests
