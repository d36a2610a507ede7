"""A push channel under test, and all that it told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dryapi_async import Update
from dryapi_async.config import Settings
from dryapi_async.io.http import Http
from dryapi_async.io.push import Push
from dryapi_async.protocol.pusher import push_url
from dryapi_async.simulator import Simulator

from ..conftest import now, until

EVENT = "request.status.updated"
MOST_SECONDS = 600.0
TXT2IMG = {"prompt": "a fox", "model": "Flux1schnell", "width": 256, "height": 192, "steps": 4, "seed": 7}


class Ear:
    """A push channel, and all that it told."""

    def __init__(self, sim: Simulator, *, url: str | None = None, client_id: str | None = None, **options: Any) -> None:
        self.sim = sim
        self.news: list[tuple[str, Update]] = []
        self.calls: list[str] = []
        self.times: list[float] = []
        self._called = asyncio.Event()
        trusted = options.pop("ssl", None)
        settings = Settings(**{"api_key": sim.key, "base_url": sim.url, **options})
        self.http = Http(settings, ssl=trusted)
        self.push = Push(
            settings,
            self.http,
            client_id=client_id or sim.client_id,
            url=url or push_url(settings.base_url),
            hear=lambda request_id, update: self.news.append((request_id, update)),
            up=lambda: self._note("up"),
            down=lambda: self._note("down"),
            stopped=lambda reason: self._note(f"stopped: {reason}"),
        )

    def _note(self, what: str) -> None:
        self.calls.append(what)
        self.times.append(now())
        self._called.set()

    async def reach(self, what: str, times: int = 1) -> None:
        """Wait until one of the calls came so often."""
        async with asyncio.timeout(MOST_SECONDS):
            while self.calls.count(what) < times:
                self._called.clear()
                await self._called.wait()

    async def end(self) -> str:
        """Wait until it stopped for good, and give the reason."""
        async with asyncio.timeout(MOST_SECONDS):
            while not self.calls or not self.calls[-1].startswith("stopped: "):
                self._called.clear()
                await self._called.wait()
        return self.calls[-1].removeprefix("stopped: ")

    async def listen(self) -> "Ear":
        self.push.start()
        await self.reach("up")
        assert self.push.healthy
        return self

    async def come_back(self) -> None:
        await self.reach("up", self.calls.count("up") + 1)

    async def close(self) -> None:
        await self.push.close()
        await self.http.close()

    async def submit(self) -> str:
        headers = {"Authorization": f"Bearer {self.sim.key}"}
        async with self.http.session.post(f"{self.sim.url}/api/v1/client/txt2img", json=TXT2IMG, headers=headers) as answer:
            body = await answer.json()
        return str(body["data"]["request_id"])

    def told_of(self, request_id: str) -> list[Update]:
        return [update for one, update in self.news if one == request_id]


@asynccontextmanager
async def open_ear(sim: Simulator, **options: Any) -> AsyncIterator[Ear]:
    tasks = asyncio.all_tasks()
    ear = Ear(sim, **options)
    try:
        yield ear
    finally:
        await ear.close()
        await until(lambda: not sim.push.sockets)
        assert not {task for task in asyncio.all_tasks() - tasks if "push" in task.get_name()}
