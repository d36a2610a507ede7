"""Flags come from the fields of the request classes, whatever class it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import click
import pytest

from dryapi_async import Image, Img2Img, InputError, Lora, Txt2Embedding, Txt2Img
from dryapi_async.cli.app import start
from dryapi_async.cli.flags import RequestClass, field_help, find_class, make_request, options_for
from dryapi_async.operations import ALL
from dryapi_async.operations.base import JobOperation, file_field
from dryapi_async.protocol.endpoint import Endpoint, Price, job
from dryapi_async.protocol.files import Source

TXT2IMG = ("--prompt", "fox", "--model", "Flux1schnell", "--width", "512", "--height", "384", "--seed", "-1")
IMG2IMG = ("--prompt", "night", "--model", "Q", "--steps", "4", "--seed", "1")


@attrs.frozen(kw_only=True)
class Everything(JobOperation[Image]):
    """Have a field of every type."""

    endpoint: ClassVar[Endpoint] = job("img-every-thing", body="multipart", price=Price(body="multipart"))
    result_type: ClassVar[type[Image]] = Image

    long_name: str
    """A ``text``."""
    count: int
    sure: bool
    kind: Literal["a", "b"]
    frames: Sequence[Source] = attrs.field(metadata=file_field("image", name="frames[]"))
    share: float | None = None
    maybe: bool | None = None
    tags: Sequence[str] = ()
    input: str | Sequence[str] = ""
    first: Source | None = attrs.field(default=None, metadata=file_field("image"))
    styles: Sequence[Lora] = ()


NEEDED = ("--long-name", "x", "--count", "-3", "--no-sure", "--kind", "b", "--frame", "1.png", "--frames", "2.png")


def read(cls: RequestClass, *words: str) -> Any:
    """Make a request as the command does."""
    command = click.Command("op", params=options_for(cls))
    return make_request(cls, command.make_context("op", list(words)).params)


def test_a_field_of_every_type_has_its_flag() -> None:
    assert read(Everything, *NEEDED) == Everything(long_name="x", count=-3, sure=False, kind="b", frames=["1.png", "2.png"])
    more = ("--share", "0.5", "--maybe", "--tag", "t", "--input", "one", "--first", "f.png", "--style", "ink=0.8", "--styles", "a=b=1")
    assert read(Everything, *NEEDED, *more) == Everything(
        long_name="x",
        count=-3,
        sure=False,
        kind="b",
        frames=["1.png", "2.png"],
        share=0.5,
        maybe=True,
        tags=["t"],
        input="one",
        first="f.png",
        styles=[Lora(name="ink", weight=0.8), Lora(name="a=b", weight=1.0)],
    )


@pytest.mark.parametrize("left_out", ["--long-name", "--count", "--no-sure", "--kind"])
def test_a_required_field_is_a_required_flag(left_out: str) -> None:
    at = NEEDED.index(left_out)
    words = NEEDED[:at] + NEEDED[at + (1 if left_out == "--no-sure" else 2) :]
    with pytest.raises(click.MissingParameter):
        read(Everything, *words)


@pytest.mark.parametrize("words", [("--count", "many"), ("--kind", "c"), ("--share", "half"), ("--nonsense", "1")])
def test_a_value_of_another_type_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError):
        read(Everything, *NEEDED, *words)


def test_one_picture_is_image_and_more_are_images() -> None:
    one, two = read(Img2Img, *IMG2IMG, "--image", "a.png"), read(Img2Img, *IMG2IMG, "--image", "a.png", "--image", "b.png")
    assert (one.image, one.images) == ("a.png", None)
    assert (two.image, two.images) == (None, ("a.png", "b.png"))
    assert read(Img2Img, *IMG2IMG, "--images", "a.png").images == ("a.png",)
    for pictures in (("--image", "a.png"), ("--image", "a.png", "--image", "b.png")):
        with pytest.raises(InputError, match="got both"):
            read(Img2Img, *IMG2IMG, *pictures, "--images", "c.png")


def test_loras_and_inputs_repeat() -> None:
    assert read(Txt2Img, *TXT2IMG, "--lora", "ink=0.5", "--loras", "oil=1").loras == (
        Lora(name="ink", weight=0.5),
        Lora(name="oil", weight=1.0),
    )
    with pytest.raises(InputError, match="NAME=WEIGHT"):
        read(Txt2Img, *TXT2IMG, "--lora", "ink")
    assert read(Txt2Embedding, "--input", "a", "--model", "m").input == "a"
    assert read(Txt2Embedding, "--input", "a", "--input", "b", "--model", "m").input == ("a", "b")


@pytest.mark.parametrize("cls", [cls for cls in ALL if cls.endpoint.price], ids=lambda cls: str(cls.__name__))
def test_every_field_of_every_operation_has_a_flag_and_its_help(cls: Any) -> None:
    options = {one.name: one for one in options_for(cls) if isinstance(one, click.Option)}
    assert set(options) == {one.name for one in attrs.fields(cls)}
    assert {name for name, one in options.items() if one.required} == {
        one.name for one in attrs.fields(cls) if one.default is attrs.NOTHING
    }
    assert all(one.help and "`" not in one.help for one in options.values())
    assert find_class(cls.endpoint.slug) is cls


def test_without_source_there_is_no_help() -> None:
    made: dict[str, Any] = {"__name__": "nowhere"}
    exec("import attrs\n@attrs.frozen\nclass Made:\n    x: int\n    'Said.'\n", made)  # noqa: S102  a class without a file
    assert field_help(made["Made"]) == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "txt2img", "--prompt", "p", "--out", "x.png"), "Missing option '--model'"),
        (("run", "nonsense"), "No such command"),
        (("run", "txt2img", *TXT2IMG, "--out", "x.png", "--timeout", "nan"), "nan is no number of seconds"),
        (("run", "txt2img", *TXT2IMG, "--out", "x.png", "--timeout", "0"), "0 is no number of seconds"),
        (("run", "txt2img", *TXT2IMG, "--out", "file/x.png"), "is no folder. Nothing was sent"),
        (("run", "txt2img", *TXT2IMG, "--out", "/dev/null"), "is no plain file"),
        (("wait", "txt2img:1", "--out", "file"), "is no folder"),
        (("demo", "--out", "file/inside"), "is no folder"),
        (("simulate", "--port", "99999"), "not in the range"),
        (("run", "txt2img", *TXT2IMG, "--out", f"{'x' * 300}.png"), ".png can't be written to (File name too long). Nothing was sent."),
        (("run", "txt2img", *TXT2IMG, "--out", f"{'x' * 300}/x.png"), "(File name too long). Nothing was sent."),
        (("run", "txt2img", *TXT2IMG, "--out", "x/" * 2100), "(File name too long). Nothing was sent."),
        (("wait", "txt2img:1", "--out", "x" * 300), "(File name too long). Nothing was sent."),
        (("price", "img-rmbg", "--model", "m", "--width", "nan", "--height", "3"), "'--width': nan is no finite number over 0"),
        (("price", "img-rmbg", "--model", "m", "--width", "3", "--height", "inf"), "'--height': inf is no finite number over 0"),
        (("price", "vid2txt", "--model", "m", "--duration-seconds", "-inf"), "-inf is no finite number over 0"),
        (("price", "vid2txt", "--model", "m", "--duration-seconds", "0"), "0 is no finite number over 0"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["dryapi", *words])
    assert start() == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1), err
    assert said in err
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_demo_without_its_picture_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.png").write_text("these are words")
    for name, said in (("nope.png", "can't be read"), ("words.png", "is no picture")):
        monkeypatch.setattr("sys.argv", ["dryapi", "demo", "--image", name, "--out", "made"])
        with pytest.raises(SystemExit) as ended:
            start()
        err = capsys.readouterr().err
        assert (ended.value.code, err.count("\n")) == (1, 1)
        assert err.startswith(f"SourceError: {name} {said}")
    assert [one.name for one in tmp_path.iterdir()] == ["words.png"]


def test_signs_that_steer_a_terminal_are_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["dryapi", "demo", "--image", "\x1b[31mred\n.png"])
    with pytest.raises(SystemExit):
        start()
    err = capsys.readouterr().err
    assert err.startswith("SourceError: \\x1b[31mred .png can't be read")
    assert err.count("\n") == 1
