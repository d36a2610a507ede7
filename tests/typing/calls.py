"""Checked by mypy and pyright, never run. ``# says:`` is what a checker must say of the line: a revealed type, or that it is wrong."""
# ruff: noqa: E501  one call a line, with what is said of it
# fmt: off
# mypy: disable-error-code="unused-awaitable"
# pyright: reportUnusedCoroutine=false

import asyncio
from typing import reveal_type

from dryapi_async import Client, Image, Img2Img, ListModels, ReadStatus, Txt2Img

RIGHT = Img2Img(prompt="a", image="a.png", model="m", steps=1, seed=1)


async def reveal(client: Client) -> None:
    """Show the types of every way to finish a call."""
    reveal_type(await client.txt2img(prompt="a", model="m", width=1, height=1, steps=1, seed=1))  # says: Job[Image]
    reveal_type(await client.img2img(prompt="a", image="a.png", model="m", steps=1, seed=1))  # says: Job[Image]
    reveal_type(await client.img2img(prompt="a", images=[b"", "b.png"], model="m", steps=1, seed=1).result())  # says: Image
    reveal_type(await client.call(RIGHT))  # says: Job[Image]
    reveal_type(client.job("img2img:1", Img2Img))  # says: Job[Image]
    task = asyncio.create_task(client.img2img(prompt="a", image="a.png", model="m", steps=1, seed=1))
    reveal_type(await task)  # says: Job[Image]
    image: Image = await client.call(Txt2Img(prompt="a", model="m", width=1, height=1, steps=1, seed=1)).result()
    await image.save("a.png")


async def reveal_every_operation(client: Client) -> None:
    """Show the type of each call."""
    reveal_type(await client.img_upscale(image="a.png", model="m"))  # says: Job[Image]
    reveal_type(await client.img_rmbg(image=b"", model="m"))  # says: Job[Image]
    reveal_type(await client.img2txt(image="a.png", model="m", format="json"))  # says: Job[Text]
    reveal_type(await client.txt2video(prompt="p", model="m", width=1, height=1, frames=1, seed=1))  # says: Job[Video]
    reveal_type(await client.img2video(prompt="p", model="m", width=1, height=1, frames=1, seed=1, first_frame_image="a.png"))  # says: Job[Video]
    reveal_type(await client.aud2video(prompt="p", model="m", width=1, height=1, frames=1, seed=1, audio="a.wav"))  # says: Job[Video]
    reveal_type(await client.vid_upscale(video="a.mp4", model="m"))  # says: Job[Video]
    reveal_type(await client.vid_rmbg(video="a.mp4", model="m"))  # says: Job[Video]
    reveal_type(await client.txt2audio(text="t", model="m", lang="en", speed=1, format="mp3", sample_rate=1))  # says: Job[Audio]
    reveal_type(await client.txt2music(caption="c", model="m", duration=9, inference_steps=1, guidance_scale=1, seed=1, format="mp3"))  # says: Job[Audio]
    reveal_type(await client.vid2txt(video_url="u", include_ts=True))  # says: Job[Transcript]
    reveal_type(await client.videofile2txt(video="a.mp4", include_ts=True))  # says: Job[Transcript]
    reveal_type(await client.aud2txt(audio_url="u", include_ts=True, model="m"))  # says: Job[Transcript]
    reveal_type(await client.audiofile2txt(audio="a.wav", include_ts=True))  # says: Job[Transcript]
    reveal_type(await client.txt2embedding(input=["a", "b"], model="m"))  # says: Job[Embedding]
    reveal_type(await client.prompt_image(prompt="p"))  # says: EnhancedPrompt
    reveal_type(await client.prompt_video(prompt="p", image="a.png"))  # says: EnhancedPrompt
    reveal_type(await client.prompt_speech(prompt="p", lang_code="en"))  # says: EnhancedPrompt
    reveal_type(await client.prompt_image2image(prompt="p", image="a.png"))  # says: EnhancedPrompt
    reveal_type(await client.prompt_samples(type="text2image"))  # says: SamplePrompt
    reveal_type(await client.balance())  # says: Balance
    reveal_type(await client.models("img2img"))  # says: tuple[Model, ...]
    reveal_type(await client.call(ListModels(page=2)))  # says: ModelPage
    reveal_type(await client.call(ReadStatus(request_id="1")))  # says: Update
    reveal_type(await client.img_upscale(image="a.png", model="m").price(width=1, height=1))  # says: Decimal


async def refuse(client: Client) -> None:
    """Show what both checkers refuse."""
    client.img2img(prompt="a", image="a.png", model="m", steps=1, sed=1)  # says: error
    client.img2img(prompt="a", image="a.png", model="m", steps=1)  # says: error
    client.img2img(prompt="a", image="a.png", model="m", steps="1", seed=1)  # says: error
    client.txt2img("a", model="m", width=1, height=1, steps=1, seed=1)  # says: error
    client.img2txt(image="a.png", model="m", format="html")  # says: error
    client.prompt_samples(type="text2video")  # says: error
    client.balance(currency="EUR")  # says: error
