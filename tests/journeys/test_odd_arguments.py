"""Whatever is given where something else is meant: a typed error at once that says what to do, and nothing is sent."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from dryapi_async import Client, ConfigurationError, InputError, Limits, Rate, Retry, Settings, Timeouts
from dryapi_async.simulator import Simulator

from ..conftest import FOX, make_client

pytestmark = pytest.mark.anyio

HUGE = 10**5000
"""More digits than Python spells."""
ODD_OPTIONS: dict[str, Any] = {
    "storage_hosts": [5, (5,), [None], object()],
    "allow_http": ["no", 1, HUGE],
    "check": ["yes", 1],
    "expect100": [1],
    "ssl": [5, "cert.pem", True],
    "session": [5, object()],
    "connector": [5, object()],
    "on_event": [5, "print"],
    "limits": [5, "basic", HUGE],
    "timeouts": [5, HUGE],
    "retry": [5],
    "max_in_flight": [-HUGE, 0, 1.5, "16"],
    "pool_size": [-HUGE, True],
    "poll": [-HUGE, -1, "fast"],
    "journal": [5, object()],
    "webhook_secret": [5, [], [""], [5]],
    "client_id": [5, "a b", "x" * 500, "a/b"],
    "push_url": [5, "nowhere", "https://127.0.0.1/app/key", "ws://[::1/app/key", "ws://127.0.0.1:9/", "wss://a:b@127.0.0.1/app/k"],
    "webhook_url": [5],
    "proxy": [5, "nowhere"],
}


@pytest.mark.parametrize("name", ODD_OPTIONS)
def test_an_odd_option_is_refused_by_name(name: str) -> None:
    for odd in ODD_OPTIONS[name]:
        with pytest.raises(ConfigurationError) as refused:
            Client("1|a-key", base_url="http://127.0.0.1:9", **{name: odd})
        assert name.removesuffix("s") in str(refused.value).lower()
        assert len(str(refused.value)) < 600


@pytest.mark.parametrize("make", [
    lambda: Limits(lanes=5),  # type: ignore[arg-type]
    lambda: Limits(lanes={"status": 5}),  # type: ignore[dict-item]
    lambda: Limits(default=HUGE),  # type: ignore[arg-type]
    lambda: Limits.parse(5),  # type: ignore[arg-type]
    lambda: Limits.parse("9" * 5000),
    lambda: Limits.shared(-HUGE),
    lambda: Rate(-HUGE),
    lambda: Rate(5, -HUGE),
    lambda: Timeouts(idle=-HUGE),
    lambda: Retry(attempts=-HUGE),
    lambda: Retry(unexecuted=5),  # type: ignore[arg-type]
    lambda: Retry(unexecuted={HUGE}),
    lambda: Settings(api_key="1|a-key", max_in_flight=-HUGE),
])  # fmt: skip
def test_an_odd_part_of_the_settings_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        make()
    assert len(str(refused.value)) < 600


async def first(iterator: AsyncIterator[Any]) -> Any:
    return await anext(iterator)


ODD_CALLS: dict[str, Callable[[Client], Any]] = {
    "call": lambda client: client.call(5),  # type: ignore[call-overload]
    "call, a label": lambda client: client.call(FOX, label=object()),  # type: ignore[call-overload]
    "job": lambda client: client.job(5),  # type: ignore[call-overload]
    "job, a long id": lambda client: client.job("txt2img:" + "x" * 5000),
    "job, blanks": lambda client: client.job("txt2img: \n"),
    "job, no class": lambda client: client.job("txt2img:1", 5),  # type: ignore[call-overload]
    "job, no operation": lambda client: client.job("https://x.test/?X-Amz-Signature=stolen:1"),
    "check": lambda client: client.check(5),  # type: ignore[arg-type]
    "settle": lambda client: client.settle(5),  # type: ignore[arg-type]
    "as_completed": lambda client: first(client.as_completed([5])),  # type: ignore[list-item]
    "models": lambda client: client.models(HUGE),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("call", ODD_CALLS.values(), ids=ODD_CALLS)
async def test_an_odd_argument_is_refused_and_nothing_is_sent(sim: Simulator, call: Callable[[Client], Any]) -> None:
    async with make_client(sim) as client:
        with pytest.raises(InputError) as refused:
            await call(client)
    assert "stolen" not in str(refused.value)
    assert len(str(refused.value)) < 600
    assert not sim.requests


@pytest.mark.parametrize("odd", [-HUGE, "soon", -1, float("nan"), True], ids=["huge", "word", "negative", "nan", "flag"])
async def test_an_odd_time_is_refused(sim: Simulator, client: Client, odd: Any) -> None:
    job = client.job("txt2img:1")
    for wait in (job.result(timeout=odd), job.result(poll=odd), client.call(FOX, timeout=odd).price(timeout=odd)):
        with pytest.raises(ConfigurationError) as refused:
            await wait
        assert len(str(refused.value)) < 600
    assert not sim.requests


async def test_a_ticket_may_have_blanks_around_it(client: Client) -> None:
    assert client.job(" txt2img:1\n").id == "1"
