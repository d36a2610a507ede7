"""Rate limits: pots, windows, headers, the day."""

from typing import Any

import pytest

from dryapi_async.simulator import Simulator
from dryapi_async.simulator.limits import Limiter, Pot, Tier

from .conftest import TXT2IMG, open_talk

pytestmark = pytest.mark.anyio
NEVER = 1e12


def test_a_fixed_window_opens_with_its_first_request() -> None:
    pot = Pot(2, 60.0, None, "fixed")
    taken = [(at, pot.take(at, NEVER).refused) for at in (10.0, 69.0, 69.5, 70.0, 70.5, 71.0)]
    assert taken == [(10.0, None), (69.0, None), (69.5, "minute"), (70.0, None), (70.5, None), (71.0, "minute")]
    assert pot.take(100.2, NEVER).retry_after == 30


def test_a_sliding_window_never_lets_more_into_any_window() -> None:
    pot = Pot(3, 10.0, None, "sliding")
    granted = [at for at in range(60) if pot.take(at, NEVER).refused is None]
    assert granted == [at for at in range(60) if at % 10 < 3]
    assert [pot.take(at, NEVER).refused for at in (66, 67, 68, 69)] == [None, None, None, "minute"]
    assert pot.take(69, NEVER).retry_after == 7
    assert [pot.take(at, NEVER).refused for at in (75.9, 76, 76.5, 77)] == ["minute", None, "minute", None]


def test_a_refused_request_consumes_nothing() -> None:
    pot = Pot(1, 60.0, 2, "fixed")
    assert pot.take(0, 0).refused is None
    for at in range(1, 50):
        assert pot.take(at, at).refused == "minute"
    assert pot.take(60, 60).refused is None
    assert pot.used_today == 2


def test_the_day_ends_at_midnight_utc() -> None:
    pot = Pot(100, 60.0, 2, "fixed")
    noon = 86_400 * 20_000 + 43_200.0
    first = pot.take(0, noon)
    assert first.headers == {
        "X-RateLimit-Limit": "100",
        "X-RateLimit-Remaining": "99",
        "X-RateLimit-Daily-Limit": "2",
        "X-RateLimit-Daily-Remaining": "1",
    }
    pot.take(1, noon + 1)
    refused = pot.take(100, noon + 100)
    assert (refused.refused, refused.retry_after) == ("daily", 43_100)
    assert refused.headers["X-RateLimit-Type"] == "daily"
    assert refused.headers["Retry-After"] == "43100"
    assert pot.take(43_199.5, noon + 43_199.5).refused == "daily"
    assert pot.take(43_200, noon + 43_200).refused is None


@pytest.mark.parametrize(
    ("tier", "operation", "limit"),
    [
        ("none", "txt2img", None),
        ("basic", "txt2img", (3, 100)),
        ("basic", "img2img", (1, 15)),
        ("basic", "request-status", (50, 200)),
        ("basic", "img2img/price-calculation", (50, 200)),
        ("basic", "vid2txt", (1, 10)),
        ("basic", "vid-upscale", None),
        ("basic", "prompt/image", None),
        ("basic", "balance", None),
        ("premium", "txt2img", (300, None)),
        ("premium", "vid2txt", (300, None)),
        ("premium", "models", None),
    ],
)
def test_tiers(tier: Tier, operation: str, limit: tuple[int, int | None] | None) -> None:
    pot = Limiter(tier).pot(operation)
    assert (None if pot is None else (pot.limit, pot.daily)) == limit


def test_what_shares_a_pot() -> None:
    basic, premium = Limiter("basic"), Limiter("premium")
    whisper = [basic.pot(each) for each in ("vid2txt", "videofile2txt", "aud2txt", "audiofile2txt")]
    assert len({id(pot) for pot in whisper}) == 1
    assert basic.pot("txt2img/price-calculation") is basic.pot("vid2txt/price-calculation")
    assert basic.pot("txt2img") is not basic.pot("img2img")
    assert premium.pot("vid2txt") is not premium.pot("aud2txt")
    shared = Limiter("none", shared=(300, 60))
    assert shared.pot("txt2img") is shared.pot("request-status") is shared.pot("prompt/image")
    assert shared.pot("balance") is None
    custom = Limiter("none", {"txt2img": (2, 5), "*": (9, 1, 7)})
    assert [(pot.limit, pot.seconds, pot.daily) for pot in (custom.pot("txt2img"), custom.pot("img2img")) if pot] == [
        (2, 5, None),
        (9, 1, 7),
    ]
    assert custom.pot("img2img") is not custom.pot("txt2audio")


async def test_limited_answers_carry_their_headers_and_429_says_when() -> None:
    async with Simulator(limits={"txt2img": (2, 30, 50)}) as sim, open_talk(sim) as talk:
        seen: list[tuple[int, dict[str, str]]] = []
        for fields in (TXT2IMG, {}, TXT2IMG):
            async with talk.session.post(f"{sim.url}/api/v1/client/txt2img", json=fields) as answer:
                headers = {name: value for name, value in answer.headers.items() if name.startswith(("X-Rate", "Retry"))}
                seen.append((answer.status, headers))
                body: Any = await answer.json()
        day = {"X-RateLimit-Daily-Limit": "50"}
        assert seen[0] == (200, {"X-RateLimit-Limit": "2", "X-RateLimit-Remaining": "1", **day, "X-RateLimit-Daily-Remaining": "49"})
        assert seen[1] == (422, {"X-RateLimit-Limit": "2", "X-RateLimit-Remaining": "0", **day, "X-RateLimit-Daily-Remaining": "48"})
        status, headers = seen[2]
        assert (status, body) == (429, {"message": "Too Many Attempts."})
        assert headers["X-RateLimit-Type"] == "minute"
        assert headers["X-RateLimit-Daily-Remaining"] == "48"
        assert 28 <= int(headers["Retry-After"]) <= 30
        async with talk.session.get(f"{sim.url}/api/v1/client/balance") as answer:
            assert not [name for name in answer.headers if name.startswith("X-Rate")]


async def test_headers_can_be_switched_off_and_bodies_vary() -> None:
    async with Simulator(limits={"txt2img": (1, 30)}, limit_headers=False) as sim, open_talk(sim) as talk:
        await talk.submit()
        for names, body in [
            ((), {"message": "Too Many Attempts."}),
            (("429-skills",), {"error": "Rate limit exceeded", "retry_after": 30}),
            (("429-counts",), {"allowed": False, "minuteUsed": 1, "minuteLimit": 1, "exceeded": "minute"}),
        ]:
            sim.variants(*names)
            async with talk.session.post(f"{sim.url}/api/v1/client/txt2img", json=TXT2IMG) as answer:
                assert (answer.status, await answer.json()) == (429, body)
                assert not [name for name in answer.headers if name.startswith(("X-Rate", "Retry"))]
        sim.variants("429-empty")
        async with talk.session.post(f"{sim.url}/api/v1/client/txt2img", json=TXT2IMG) as answer:
            assert (answer.status, await answer.read()) == (429, b"")
