"""Checked by mypy and pyright, never run. ``# says:`` is what a checker must say of the line: a revealed type, or that it is wrong."""
# mypy: disable-error-code="unused-awaitable"
# pyright: reportUnusedCoroutine=false

import asyncio
from typing import reveal_type

from dryapi_async import Client, Image, Img2Img, Txt2Img

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


async def refuse(client: Client) -> None:
    """Show what both checkers refuse."""
    client.img2img(prompt="a", image="a.png", model="m", steps=1, sed=1)  # says: error
    client.img2img(prompt="a", image="a.png", model="m", steps=1)  # says: error
    client.img2img(prompt="a", image="a.png", model="m", steps="1", seed=1)  # says: error
    client.txt2img("a", model="m", width=1, height=1, steps=1, seed=1)  # says: error
