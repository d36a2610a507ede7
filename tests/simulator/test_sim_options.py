"""Options that aren't there are refused before anything is served, by what there is."""

from typing import Any

import pytest

from dryapi_async.simulator import Simulator


def make(**options: Any) -> Simulator:
    return Simulator(pictures=False, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tier": "gold"}, "unknown tier 'gold': known are 'basic', 'none', 'premium'"),
        ({"tier": "premum"}, "unknown tier 'premum': did you mean 'premium'?"),
        ({"tier": None}, "unknown tier None: did you mean 'none'? known are 'basic', 'none', 'premium'"),
        ({"window": "slide"}, "unknown window 'slide'"),
        ({"limits": {"img_rmbg": (1, 60.0)}}, "unknown limit 'img_rmbg': did you mean 'img-rmbg'?"),
        ({"limits": 3}, "limits takes {operation: (requests, seconds)}, such as {'txt2img': (3, 60.0)}; not 3"),
        *(
            ({"limits": {"*": wrong}}, f"(3, 60.0)}}; not *: {wrong!r}")
            for wrong in (3, (3,), ("3", 60.0), (3, 0), (3, -1), (-1, 60), (3, 60, "5"))
        ),
        ({"limits": {"*": (1, 60.0, 5, 7)}}, "not *: (1, 60.0, 5, 7)"),
        (
            {"shared": 300},
            "shared takes (requests, seconds), such as (300, 60.0), with or without a third number, the requests a day; not 300",
        ),
        ({"shared": (300, float("nan"))}, "not (300, nan)"),
        ({"durations": 3}, "durations takes {operation: (median seconds, sigma)}, such as {'txt2img': (2.0, 0.4)}; duration=3 makes"),
        ({"durations": {"txt2imgg": (2.0, 0.4)}}, "unknown operation of durations 'txt2imgg': did you mean 'txt2img'?"),
        ({"durations": {"balance": (2.0, 0.4)}}, "unknown operation of durations 'balance'"),
        ({"durations": {"txt2img": 3}}, "not txt2img: 3"),
        ({"durations": {"txt2img": (0, 0.4)}}, "not txt2img: (0, 0.4)"),
        ({"durations": {"txt2img": (2.0, "0.4")}}, "not txt2img: (2.0, '0.4')"),
    ],
    ids=str,
)
def test_a_wrong_option_is_a_value_error_that_says_what_there_is(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  its words are compared below
        make(**options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        *({"tier": tier} for tier in ("none", "basic", "premium")),
        {"window": "sliding"},
        {"shared": (300, 60)},
        {"shared": [300, 60.0, None]},
        {"limits": {"*": (0, 0.5, 100)}},
        {"limits": {"*": (1, 1.0), "prices": (1, 1.0), "status": (1, 1.0), "whisper": (1, 1.0), "txt2img/price-calculation": (1, 1.0, 5)}},
        {"durations": {"txt2img": (2, 0), "img-rmbg": (2.0, 0.4)}},
    ],
    ids=str,
)
def test_right_options_are_taken(options: dict[str, Any]) -> None:
    assert make(**options).url.startswith("http://")
