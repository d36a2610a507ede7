import asyncio
from dryapi_async import Client, JobFailedError, JobTimeoutError


async def main() -> None:
    async with Client() as client:  # DRYAPI_API_KEY, DRYAPI_BASE_URL
        # A call is a sentence: nothing is sent until it is finished.
        await client.txt2img(
            prompt="a fox in snow", model="Flux1schnell", width=1024, height=768, steps=4, seed=7
        ).save("fox.png")

        job = await client.img2img(  # submits: the file streams from disk
            prompt="the same, at night", image="fox.png", model="QwenImageEdit_Plus_NF4", steps=20, seed=42
        )
        print(job.ticket)  # a text to store anywhere: client.job(ticket) goes on in another process
        try:
            image = await job.result(timeout=300)
            print("saved", await image.save("night.webp"))
        except JobFailedError as error:
            print("failed:", error.code, error.reason)
        except JobTimeoutError:
            print("still running; keep the ticket")


asyncio.run(main())
