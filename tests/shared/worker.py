"""What the processes of these tests do. Run as a program: a task's name, and its arguments as JSON."""

import asyncio
import json
import logging
import sys
import time
from typing import Any

from aiohttp import web
from attrs import evolve

from dryapi_async import Client, Limits, Rate, Txt2Img
from dryapi_async.events import Attempt, Event
from dryapi_async.shared import RedisState
from dryapi_async.webhooks import aiohttp as hooks


def say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def listen_to_stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


class Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def make_client(work: dict[str, Any], **options: Any) -> Client:
    state = RedisState(work["redis"], processes=work.get("processes", 8))
    return Client(work["key"], base_url=work["url"], shared=state, webhook_secret="whsec_simulator", **options)


def fox(index: int) -> Txt2Img:
    return Txt2Img(prompt="a fox", model="Flux1schnell", width=256, height=192, steps=4, seed=index)


async def send(work: dict[str, Any]) -> None:
    """Submit jobs with so many callers for so many seconds, and tell how long each waited for its turn, and what was answered."""
    warnings, statuses, waits, tickets = Warnings(), list[int | None](), list[float](), list[str]()
    logging.getLogger("dryapi_async").addHandler(warnings)

    def hear(event: Event) -> None:
        if isinstance(event, Attempt):
            statuses.append(event.status)

    limits = Limits(lanes={"txt2img": Rate(work["limit"], work["seconds"])})
    errors: list[str] = []
    async with make_client(work, limits=limits, max_in_flight=200, on_event=hear) as client:
        stdin = await listen_to_stdin()
        # Connections are open before the time is taken.
        await asyncio.gather(*(client.balance() for _ in range(work["callers"])))
        say("ready")
        await stdin.readline()
        ends = time.monotonic() + work["duration"]

        async def call(index: int) -> None:
            while time.monotonic() < ends:
                began = time.monotonic()
                try:
                    tickets.append((await client.call(fox(index), timeout=None)).ticket)
                except Exception as error:  # noqa: BLE001  whatever it is, the test tells
                    errors.append(repr(error))
                waits.append(time.monotonic() - began)

        await asyncio.gather(*(call(index) for index in range(work["callers"])))
    say({"waits": waits, "statuses": statuses, "tickets": tickets, "warnings": warnings.texts, "errors": errors})


async def receive(work: dict[str, Any]) -> None:
    """Make jobs, serve webhooks, and wait for the jobs by webhook alone (``poll`` false) or as a client waits."""
    warnings = Warnings()
    logging.getLogger("dryapi_async").addHandler(warnings)
    async with make_client(work, limits=Limits.none()) as client:
        app = web.Application()
        app.router.add_post("/hook", hooks.handler(client))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        stdin = await listen_to_stdin()
        say("ready")
        say(runner.addresses[0][1])
        ports: list[int] = json.loads(await stdin.readline())
        lost: list[str] = []
        seconds: list[float] = []
        gate = asyncio.Semaphore(work.get("at_once", 50))

        async def call(index: int) -> None:
            # It lands in another process than the one that waits.
            port = ports[(work["number"] + 1 + index % (len(ports) - 1)) % len(ports)]
            async with gate:
                call = client.call(evolve(fox(index), webhook_url=f"http://127.0.0.1:{port}/hook"))
                began = time.monotonic()
                job = await call
                try:
                    await job.wait(timeout=work["patience"], poll=False)
                except TimeoutError:
                    lost.append(job.ticket)
                seconds.append(time.monotonic() - began)

        await asyncio.gather(*(call(index) for index in range(work["jobs"])))
        say({"lost": lost, "seconds": seconds, "warnings": warnings.texts})
        await stdin.readline()
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run({"send": send, "receive": receive}[sys.argv[1]](json.loads(sys.argv[2])))
