"""What the fixtures of `plugin` give: a simulator in the test's loop or in a thread, and a client of it."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar
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
T = TypeVar("T")


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
        self.client = _make(Client, given, mark="dryapi_client")
        return self.client

    def describe_requests(self, most: int = 30) -> str:
        """Write what was asked of the service, a line for each request, the last ones."""
        requests = list(self.simulator.requests)
        lines = [f"({len(requests) - most} before these)"] if len(requests) > most else []
        for one in requests[-most:]:
            fault = f" (fault: {one.fault})" if one.fault else ""
            lines.append(f"{one.method} {one.operation}: {one.status or 'no answer'}{fault}")
        return "\n".join(lines)

    def describe_unmet_faults(self) -> str:
        """Write which scripted faults no request has met, a line for each script; empty where all were met."""
        lines: list[str] = []
        for scripted in self.simulator.scripted:
            if count := scripted.unmet:
                where = "requests that a function picks" if callable(scripted.match) else scripted.match
                lines.append(f"{count} scripted fault{'s' if count > 1 else ''} of {where} {'were' if count > 1 else 'was'} never met")
        return "\n".join(lines)


def _make(factory: Callable[..., T], options: Options, *, mark: str) -> T:
    """Make it, or fail the test with what is wrong with the options: a traceback through the fixtures would hide it."""
    try:
        return factory(**options)
    except (TypeError, ValueError) as error:
        wrong = f"@pytest.mark.{mark}: {error}"
    pytest.fail(wrong, pytrace=False)  # not inside: pytest would show the first error, too


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
    async with _make(Simulator, _add_defaults(options, jumping=jumping), mark="dryapi_simulator") as simulator:
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
    with _make(ThreadedSimulator, _add_defaults(options, jumping=False), mark="dryapi_simulator") as simulator:
        service = Service(simulator)
        try:
            yield service
        finally:
            if service.client is not None:
                with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                    runner.run(service.client.aclose())


def _add_defaults(options: Options, *, jumping: bool) -> dict[str, Any]:
    return {"pictures": False, **({} if jumping else {"duration": SOON}), **options}


def lead_environment(patch: pytest.MonkeyPatch, simulator: Simulator, options: Options) -> None:
    """Let every client that is made without a key or a host be one of the simulator, in child processes, too."""
    # By pytest's own patch, which a test may use on the same names: two that put back what they found would do so in the wrong order.
    patch.setenv("DRYAPI_API_KEY", simulator.key)
    patch.setenv("DRYAPI_BASE_URL", simulator.url)
    secret = options.get("webhook_secret", DEFAULT_WEBHOOK_SECRET)
    for name in _OTHERS if secret else (*_OTHERS, "DRYAPI_WEBHOOK_SECRET"):
        patch.delenv(name, raising=False)
    if secret:
        patch.setenv("DRYAPI_WEBHOOK_SECRET", secret)
    if getproxies_environment():
        patch.setenv("no_proxy", _spare(simulator.host, os.environ.get("no_proxy") or os.environ.get("NO_PROXY")))


def _spare(host: str, spared: str | None) -> str:
    return spared if spared == "*" else ",".join(filter(None, (spared, host)))
