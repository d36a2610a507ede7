"""Values of odd types: each is refused by name when a request is made, or spelled as the service reads it."""

import inspect
import json
import math
from collections.abc import Callable
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dryapi_async import File, Img2Img, ImgRmbg, ImgUpscale, InputError, Lora, PromptSamples, ReadStatus, Txt2Embedding, Txt2Img
from dryapi_async.operations import ALL
from dryapi_async.operations.base import Operation
from dryapi_async.protocol.wire import FILE_KIND, TextPart, WireCall, encode, encode_price

from ..conftest import FOX

HUGE = 10**5000
"""More digits than Python spells."""


class Texts(StrEnum):
    MODEL = "Flux1schnell"
    SAMPLES = "text2image"


class MixedTexts(str, Enum):  # noqa: UP042  its str() is another one, and it is met
    MODEL = "Flux1schnell"
    SAMPLES = "text2image"


class Whole(IntEnum):
    SEVEN = 7


class MixedWhole(int, Enum):
    SEVEN = 7


class MixedFraction(float, Enum):
    HALF = 1.5


class Foreign(float):
    """A number whose repr is its library's own, as numpy's are."""

    def __repr__(self) -> str:
        return f"foreign.float64({float(self)})"

    __str__ = __repr__


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no truth")

    def __hash__(self) -> int:
        return 1


def form(call: WireCall) -> dict[str, str]:
    return {part.name: part.text for part in call.parts or () if isinstance(part, TextPart)}


@pytest.mark.parametrize("text", [Texts, MixedTexts])
@pytest.mark.parametrize("whole", [Whole.SEVEN, MixedWhole.SEVEN])
@pytest.mark.parametrize("fraction", [MixedFraction.HALF, Foreign(1.5)])
def test_enums_and_foreign_numbers_are_spelled_by_their_values(text: Any, whole: Any, fraction: Any) -> None:
    loras = [Lora(name=text.MODEL, weight=fraction)]
    told = form(encode(Img2Img(prompt=text.MODEL, model=text.MODEL, steps=whole, seed=whole, image=b"x", guidance=fraction, loras=loras)))
    assert told == {
        "prompt": "Flux1schnell",
        "model": "Flux1schnell",
        "steps": "7",
        "seed": "7",
        "guidance": "1.5",
        "loras[0][name]": "Flux1schnell",
        "loras[0][weight]": "1.5",
    }
    made = Txt2Img(prompt=text.MODEL, model=text.MODEL, width=whole, height=whole, seed=whole, guidance=fraction, loras=loras)
    for call in (encode(made), encode_price(made, {})):
        assert json.loads(call.content or b"") == {
            "prompt": "Flux1schnell",
            "model": "Flux1schnell",
            "width": 7,
            "height": 7,
            "seed": 7,
            "guidance": 1.5,
            "loras": [{"name": "Flux1schnell", "weight": 1.5}],
        }
    for texts in (text.MODEL, [text.MODEL, "b"]):
        (read,) = [json.loads(encode(Txt2Embedding(input=texts, model="m")).content or b"")["input"]]
        assert read == (["Flux1schnell", "b"] if isinstance(texts, list) else "Flux1schnell")
    assert encode(PromptSamples(type=text.SAMPLES, topic=text.MODEL)).query == (("type", "text2image"), ("topic", "Flux1schnell"))


def test_what_was_checked_is_what_is_sent() -> None:
    texts, loras = ["a", "b"], [Lora(name="ink", weight=1)]
    made = Txt2Embedding(input=texts, model="m")
    drawn = Txt2Img(prompt="p", model="m", width=8, height=8, seed=1, loras=loras)
    cast("list[object]", texts).append(object())
    loras.clear()
    assert json.loads(encode(made).content or b"")["input"] == ["a", "b"]
    assert len(json.loads(encode(drawn).content or b"")["loras"]) == 1
    assert hash(made) == hash(Txt2Embedding(input=("a", "b"), model="m"))


make_lora: Callable[..., Lora] = Lora


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Lora(name="ink", weight=math.nan), "weight"),
        (lambda: Lora(name="ink", weight=math.inf), "weight"),
        (lambda: Lora(name="ink", weight=HUGE), "weight"),
        (lambda: Lora(name="ink", weight=True), "weight"),
        (lambda: make_lora(name="ink", weight="1"), "weight"),
        (lambda: make_lora(name=5, weight=1), "name"),
        (lambda: Lora(name="ink\ud800", weight=1), "name"),
        (lambda: make_lora(name=None, weight=1), "name"),
        (lambda: ReadStatus(request_id=""), "request_id"),
    ],
)
def test_what_cant_be_sent_is_refused_when_it_is_made(make: Callable[[], object], name: str) -> None:
    with pytest.raises(InputError, match=rf"\b{name}\b"):
        make()


@pytest.mark.parametrize("measure", [HUGE, -1, 0, math.nan, math.inf, True, "5", None, Unshowable()], ids=lambda one: type(one).__name__)
def test_a_measure_that_is_none_is_named(measure: Any) -> None:
    with pytest.raises(InputError, match="count_text"):
        encode_price(made_of(next(cls for cls in ALL if cls.endpoint.slug == "txt2audio")), {"count_text": measure})


@pytest.mark.parametrize("made", [FOX, Img2Img(prompt="p", model="m", steps=1, seed=1, image=b"x")], ids=["json", "form"])
def test_a_webhook_url_of_the_client_that_cant_be_sent_is_named(made: Any) -> None:
    with pytest.raises(InputError, match=r"img: webhook_url has a character that isn't Unicode"):
        encode(made, webhook_url="https://example.org/\ud800")


RIGHT: dict[str, Any] = {"type": "text2image", "include_ts": True, "speed": 1.0, "sample_rate": 24000}


def made_of(cls: Any, **odd: Any) -> Operation[Any]:
    """Make a request that is right but for what is given."""
    fields: dict[str, Any] = {}
    for one in attrs.fields(cls):
        if one.default is attrs.NOTHING or (one.name == "image" and cls is Img2Img and "images" not in odd):
            hint = inspect.get_annotations(cls)[one.name]
            plain: Any = 8 if hint in {int, float} else "a text"
            fields[one.name] = b"a file" if FILE_KIND in one.metadata else RIGHT.get(one.name, plain)
    request: Operation[Any] = cls(**fields | odd)
    return request


ODD: tuple[Any, ...] = (
    None,
    b"bytes",
    bytearray(b"bytes"),
    {},
    {"a": {"b": [1]}},
    [],
    [None],
    [[["deep"]]],
    (1, "two", b"three"),
    {"a", "set"},
    object(),
    object,
    Unshowable(),
    "",
    "x" * 1_000_000,
    "half a pair \ud800",
    "\0\r\n\x1b[2J",
    ["half a pair \udfff"],
    math.nan,
    math.inf,
    -math.inf,
    -1,
    -0.0,
    0,
    1e308,
    5e-324,
    HUGE,
    -HUGE,
    [HUGE],
    2**64,
    True,
    False,
    1j,
    Lora(name="ink", weight=1),
    [Lora(name="ink", weight=1)],
    [{"name": "ink", "weight": 1}],
    Path("fox.png"),
    File(b"x"),
    [b"a", File(b"b", name="b.png"), Path("c.png")],
    lambda: None,
    iter(()),
    Texts.MODEL,
    MixedWhole.SEVEN,
    Foreign(math.nan),
)
CLASSES: tuple[Any, ...] = ALL
FIELDS = [(cls, one.name) for cls in CLASSES for one in attrs.fields(cls)]


def try_out(cls: Any, name: str, odd: Any) -> None:
    """Make a request with an odd value: it is refused by name, or can be encoded and asked for its price."""
    try:
        request = made_of(cls, **{name: odd})
    except InputError as error:
        assert name.removesuffix("s") in str(error), error  # noqa: PT017  what isn't refused goes on
        assert len(str(error)) < 400  # noqa: PT017  the same
        return
    call = encode(request)
    assert call.content is None or json.loads(call.content) is not None
    if cls.endpoint.price is not None:
        encode_price(request, {})
    assert len(repr(request)) > 0


@pytest.mark.parametrize(("cls", "name"), FIELDS, ids=lambda one: one if isinstance(one, str) else one.__name__)
def test_p26_a_field_of_any_value_is_refused_by_name_or_can_be_sent(cls: Any, name: str) -> None:
    for odd in ODD:
        try_out(cls, name, odd)


LEAF = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.text(st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF))
    | st.binary()
)
BRANCH = st.lists(LEAF, max_size=3) | st.dictionaries(st.text(max_size=3), LEAF, max_size=3) | st.tuples(LEAF)
ANYTHING = LEAF | BRANCH | st.lists(BRANCH, max_size=3) | st.tuples(LEAF, BRANCH)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(FIELDS), ANYTHING)
def test_p26_a_field_of_whatever_value_is_refused_by_name_or_can_be_sent(field: tuple[Any, str], odd: Any) -> None:
    try_out(*field, odd)


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_missing_and_unknown_names_are_pythons_own_errors(cls: Any) -> None:
    with pytest.raises(TypeError, match="no_such_field"):
        made_of(cls, no_such_field=1)
    if any(one.default is attrs.NOTHING for one in attrs.fields(cls)):
        with pytest.raises(TypeError, match="missing"):
            cls()


@pytest.mark.parametrize("cls", CLASSES, ids=lambda one: one.__name__)
def test_a_request_is_a_value(cls: Any) -> None:
    one, same = made_of(cls), made_of(cls)
    assert one == same
    assert hash(one) == hash(same)
    assert one != attrs.astuple(one)
    shown = repr(one)
    assert shown.startswith(f"{cls.__name__}(")
    for field in attrs.fields(cls):
        value = getattr(one, field.name)
        assert f"{field.name}={field.repr(value) if callable(field.repr) else repr(value)}" in shown
        other = attrs.evolve(one)
        object.__setattr__(other, field.name, "another")
        assert other != one


def test_requests_of_two_classes_are_never_the_same() -> None:
    one, other = ImgUpscale(image=b"a file", model="m"), ImgRmbg(image=b"a file", model="m")
    assert attrs.astuple(one) == attrs.astuple(other)
    assert one != other
    assert len({one, other, ImgUpscale(image=b"a file", model="m")}) == 2
