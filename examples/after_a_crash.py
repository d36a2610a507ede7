import asyncio
from pathlib import Path

from dryapi_async import Client


async def main() -> None:
    async with Client(journal="jobs.db") as client:  # DRYAPI_API_KEY, DRYAPI_BASE_URL
        for job in await client.unfinished():  # what a process that died left: paid for, not saved yet
            print("saved", await job.save("out"))
        for row in await client.journal.list("unknown"):  # may be paid for: a person decides
            print("unknown", row.operation, row.label, row.cause)


Path("out").mkdir(exist_ok=True)
asyncio.run(main())
