"""What a batch works out without waiting."""

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dryapi_async import Img2Img, ImgUpscale, InputError, Lora, PromptSamples, Txt2Audio, Txt2Embedding, Txt2Img, Vid2Txt
from dryapi_async.protocol.batches import Pace, Template, make_label, make_name, number_name, pick_suffix, price_measures, price_shape

FOX = Txt2Img(prompt="a fox", model="Flux1schnell", width=256, height=192, steps=4, seed=7)


def fill(text: str, **fields: Any) -> str:
    return Template.parse(text).fill(**{"index": 7, "key": "night", "request_id": "ab-12", "seed": 42, "suffix": ".png", **fields})


@pytest.mark.parametrize(
    ("text", "path", "folder"),
    [
        ("out/{index:05}{suffix}", "out/00007.png", "out/"),
        ("{key}", "night", ""),
        ("a/b/{key}/x-{index}.jpg", "a/b/night/x-7.jpg", "a/b/"),
        ("/out/{request_id}-{seed}{suffix}", "/out/ab-12-42.png", "/out/"),
        ("{index:3}|{index:03d}|{index:d}", "  7|007|7", ""),
        ("{{{index}}}", "{7}", ""),
        ("50%/{index}", "50%/7", "50%/"),
    ],
)
def test_a_template_is_filled(text: str, path: str, folder: str) -> None:
    assert (fill(text), Template.parse(text).folder) == (path, folder)


def test_what_has_no_seed_leaves_it_empty() -> None:
    assert fill("{index}-{seed:05}", seed=None) == "7-"
    assert fill("{index}-{seed:05}", seed=-1) == "7--0001"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("out/fox.png", "same path"),
        ("out/{seed}{suffix}", "same path"),
        ("{}", "no field ''"),
        ("{0}", "no field '0'"),
        ("{name}{index}", "no field 'name'; the fields are index, key, request_id, seed, suffix"),
        ("{index.real}", "no field"),
        ("{key[0]}", "no field"),
        ("{index!r}", "digits"),
        ("{index:>5}", "digits"),
        ("{index:.1e}", "digits"),
        ("{index:1000}", "digits"),
        ("{index:x}", "digits"),
        ("{key:5}", "digits"),
        ("{index:{seed}}", "digits"),
        ("{index", "can't be read"),
        ("index}", "can't be read"),
    ],
)
def test_a_template_that_cannot_be_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Template.parse(text)


@given(st.text())
def test_a_name_is_always_one_plain_part_of_a_path(text: str) -> None:
    name = make_name(text)
    assert 1 <= len(name.encode()) <= 120
    assert not set(name) & set('/\\:*?"<>|\0')
    assert name.isprintable()
    assert name.strip(". ") == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a night", "a night"),
        ("Füchse im Schnee", "Füchse im Schnee"),
        ("狐", "狐"),
        ("../../x", "_.._x"),
        ("", "_"),
        ("...", "_"),
        ("a\tb", "a_b"),
        ("\ud800", "_"),
        ("ü" * 61, "ü" * 60),
    ],
)
def test_a_name_keeps_what_it_can(text: str, name: str) -> None:
    assert make_name(text) == name


def test_names_are_numbered_before_their_ending() -> None:
    names = number_name("fox.tar.gz", 12)
    assert [next(names) for _ in range(4)] == ["fox.tar.gz", "fox.tar~12.gz", "fox.tar~12~2.gz", "fox.tar~12~3.gz"]
    assert list(number_name("fox", 3))[1] == "fox~3"
    assert len(set(number_name("fox", 3))) == 1_000


@pytest.mark.parametrize(
    ("url", "suffix"),
    [
        ("https://x/a.jpg?sig=b.png", ".jpg"),
        ("https://x/a.JPG", ".jpg"),
        ("https://x/a.exe", ".bin"),
        ("https://x/a", ".bin"),
        ("https://x.png/a", ".bin"),
        (None, ".bin"),
    ],
)
def test_a_suffix_is_a_known_one(url: str | None, suffix: str) -> None:
    assert pick_suffix(url, ".bin") == suffix


def test_words_seeds_and_delivery_make_no_other_price() -> None:
    same = [evolve(FOX, prompt="b", seed=1), evolve(FOX, negative_prompt="c"), evolve(FOX, webhook_url="https://example.org")]
    other = [evolve(FOX, steps=5), evolve(FOX, width=64), evolve(FOX, model="Other"), evolve(FOX, loras=[Lora(name="a", weight=1)])]
    assert {price_shape(one) for one in same} == {price_shape(FOX)}
    assert len({price_shape(one) for one in (FOX, *other)}) == 5
    edit = Img2Img(prompt="a", image=b"a", model="m", steps=4, seed=1)
    assert price_shape(edit) == price_shape(evolve(edit, image="b.png", prompt="b")) != price_shape(FOX)
    assert price_shape(PromptSamples(type="text2image")) == price_shape(PromptSamples(type="text2image", topic="foxes"))
    assert "a fox" not in str(price_shape(FOX))


def test_a_speech_costs_by_its_characters() -> None:
    speech = Txt2Audio(text="a fox", model="Kokoro", lang="en-us", speed=1, format="mp3", sample_rate=24000, voice="af_sky")
    assert price_measures(speech) == {"count_text": 5}
    assert price_shape(speech) == price_shape(evolve(speech, text="b fox")) != price_shape(evolve(speech, text="fox"))
    assert price_shape(evolve(speech, text="")) is None


@pytest.mark.parametrize(
    "request_",
    [
        ImgUpscale(image=b"a", model="m"),
        Vid2Txt(video_url="https://example.org", include_ts=True),
        Txt2Embedding(input="a", model="m"),
        Txt2Embedding(input=["a"], model="m"),
    ],
)
def test_what_the_service_measures_has_no_shape(request_: Any) -> None:
    assert price_shape(request_) is None


def test_the_pace_is_that_of_late() -> None:
    pace = Pace(100.0)
    assert pace.rate(100.0, 0) == 0.0
    assert pace.rate(110.0, 20) == 2.0
    for second in range(1, 101):
        pace.note(100.0 + second, 10 * second)
        pace.note(100.1 + second, 10 * second + 1)
    assert pace.rate(200.0, 1_000) == pytest.approx(10.0)
    for second in range(1, 101):
        pace.note(200.0 + second, 1_000 + second)
    assert pace.rate(300.0, 1_100) == pytest.approx(1.0)
    assert pace.rate(600.0, 1_100) < 0.1


def test_a_label_is_unicode() -> None:
    assert [make_label(key) for key in ("fox", "Füchse", "\udcff", "")] == ["fox", "Füchse", "?", ""]
