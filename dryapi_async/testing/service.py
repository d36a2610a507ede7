"""What the fixtures of `plugin` give: a simulator in the test's loop or in a thread, and a client of it."""

import asyncio
import os
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final
from urllib.request import getproxies_environment

import pytest
from attrs import define

from dryapi_async import Client
from dryapi_async.simulator import Simulator
from dryapi_async.simulator.server import DEFAULT_WEBHOOK_SECRET
from dryapi_async.testing.clock import VirtualClock
from dryapi_async.testing.threaded import ThreadedSimulator

SOON: Final = 0.01
"""Seconds that a job takes, and between two reads of it, where the clock doesn't jump: a test is over in milliseconds."""
_OTHERS: Final = ("DRYAPI_CLIENT_ID", "DRYAPI_LIMITS", "DRYAPI_PUSH_URL")
Options = Mapping[str, Any]


@define
class Service:
    """A simulator that runs, and the client that the test was given."""

    simulator: Simulator
    jumping: bool = False
    client: Client | None = None

    def open_client(self, options: Options) -> Client:
        """Make the test's client; it is closed with the service."""
        defaults = {"api_key": self.simulator.key, "base_url": self.simulator.url, "poll": None if self.jumping else SOON}
        given: dict[str, Any] = {**defaults, **options}
        self.client = Client(**given)
        return self.client

    def describe_requests(self, most: int = 30) -> str:
        """Write what was asked of the service, a line for each request, the last ones."""
        requests = list(self.simulator.requests)
        lines = [f"({len(requests) - most} before these)"] if len(requests) > most else []
        for one in requests[-most:]:
            fault = f" (fault: {one.fault})" if one.fault else ""
            lines.append(f"{one.method} {one.operation}: {one.status or 'no answer'}{fault}")
        return "\n".join(lines)


def check_jumping() -> None:
    """Fail the test if its loop's clock doesn't jump."""
    if not isinstance(asyncio.get_running_loop(), VirtualClock):
        pytest.fail(
            "dryapi_jumping_clock: this test's loop is another's choice. It needs pytest-asyncio 1.4 or newer without a "
            "pytest_asyncio_loop_factories of your own, or anyio without a wider async fixture that keeps a loop of its own",
            pytrace=False,
        )


@asynccontextmanager
async def serve_here(options: Options) -> AsyncGenerator[Service]:
    """Serve in the running loop."""
    jumping = isinstance(asyncio.get_running_loop(), VirtualClock)
    async with Simulator(**_add_defaults(options, jumping=jumping)) as simulator:
        service = Service(simulator, jumping)
        try:
            yield service
        finally:
            # Before the client, which listens to submits on the wire for a while: the test is over, and nobody waits for them.
            await simulator.go_down()
            if service.client is not None:
                await service.client.aclose()


@contextmanager
def serve_in_thread(options: Options) -> Generator[Service]:
    """Serve in a loop of its own."""
    with ThreadedSimulator(**_add_defaults(options, jumping=False)) as simulator:
        service = Service(simulator)
        try:
            yield service
        finally:
            if service.client is not None:
                with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                    runner.run(service.client.aclose())


def _add_defaults(options: Options, *, jumping: bool) -> dict[str, Any]:
    return {"pictures": False, **({} if jumping else {"duration": SOON}), **options}


@contextmanager
def lead_environment(simulator: Simulator, options: Options) -> Generator[None]:
    """Let every client that is made without a key or a host be one of the simulator, in child processes, too."""
    before = dict(os.environ)
    secret = options.get("webhook_secret", DEFAULT_WEBHOOK_SECRET)
    ours = {"DRYAPI_API_KEY": simulator.key, "DRYAPI_BASE_URL": simulator.url, "DRYAPI_WEBHOOK_SECRET": secret, **dict.fromkeys(_OTHERS)}
    if getproxies_environment():
        ours["no_proxy"] = _spare(simulator.host, before.get("no_proxy") or before.get("NO_PROXY"))
    try:
        _set(ours)
        yield
    finally:
        _set({name: before.get(name) for name in ours})


def _spare(host: str, spared: str | None) -> str:
    return spared if spared == "*" else ",".join(filter(None, (spared, host)))


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
