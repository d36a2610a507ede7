"""What the pages say of the package is so: errors, options, operations, rooms, promises, links."""

import importlib.util
import re
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import click
import pytest

import dryapi_async
from dryapi_async import Client, DryAPIError, Limits, Retry, Timeouts, errors
from dryapi_async.cli.app import COMMANDS, dryapi
from dryapi_async.operations import ALL

from ..test_architecture import FILES, imports_of, room_of
from .pages import DOCS, PAGES, ROOT


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_errors_has_the_whole_tree() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for dashes, name in re.findall(r"^\| ((?:\u2013 )*)`(\w+Error)`", (DOCS / "errors.md").read_text(), re.MULTILINE):
        path[len(dashes) // 2 :] = [name]
        drawn[name] = path[-2] if len(path) > 1 else "DryAPIError"
    tree = {name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, DryAPIError)}
    assert drawn == {name: value.__mro__[1].__name__ if value is not DryAPIError else "DryAPIError" for name, value in tree.items()}


def options_of(name: str) -> set[str]:
    command = dryapi.get_command(click.Context(dryapi), name)
    assert command is not None
    return {flag for one in command.params if isinstance(one, click.Option) for flag in one.opts if flag.startswith("--")}


def test_the_page_of_the_command_has_every_command_and_option() -> None:
    page = (DOCS / "command.md").read_text()
    sections: dict[str, str] = dict(re.findall(r"^## ([a-z ]+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    for name in COMMANDS:
        assert f"| `dryapi {name}" in page
        (section,) = (text for title, text in sections.items() if name in title.split())
        assert options_of(name) - set(re.findall(r"--[\w-]+", section)) == set(), name


def test_the_page_of_the_command_has_no_option_that_isnt() -> None:
    known = {"--help", "--version", "--verbose"}
    for name in COMMANDS:
        known |= options_of(name)
        command = dryapi.get_command(click.Context(dryapi), name)
        if isinstance(command, click.Group):
            for inner in command.list_commands(click.Context(command)):
                made = command.get_command(click.Context(command), inner)
                assert made is not None
                known |= {flag for one in made.params for flag in (*one.opts, *one.secondary_opts)}
    assert set(re.findall(r"--[a-z][\w-]*", (DOCS / "command.md").read_text())) - known == set()


def test_the_operations_are_all_there_and_called_as_said(hooks: ModuleType) -> None:
    listed = hooks.list_wire_operations()
    assert len(listed) == len(set(listed)) == 47
    text = hooks.write_operations()
    for cls in ALL:
        assert f"### {cls.__name__} {{#" in text
        assert callable(getattr(Client, hooks.method_name(cls), None)) or cls.endpoint.path_field
        known: Any = cls
        for field in attrs.fields(known):
            assert f"| `{field.name}` |" in text
    assert hooks.OPERATIONS_MARK in (DOCS / "operations.md").read_text()


def drawn_rooms() -> tuple[dict[str, float], set[tuple[str, str]]]:
    """Read the picture: each room's height in it, and the arrows."""
    picture = (DOCS / "assets" / "rooms.svg").read_text()
    rooms = {name: float(top) for name, top in re.findall(r'data-room="(\w+)" x="[\d.]+" y="([\d.]+)"', picture)}
    return rooms, set(re.findall(r'data-from="(\w+)" data-to="(\w+)"', picture))


def real_imports() -> set[tuple[str, str]]:
    rooms = {room_of(file) for file in FILES}
    found: set[tuple[str, str]] = set()
    for file in FILES:
        for name in imports_of(file):
            top, *rest = name.split(".")
            if top == "dryapi_async":
                found.add((room_of(file), rest[0] if rest and rest[0] in rooms else "top"))
    return {(one, other) for one, other in found if one != other}


def test_the_picture_of_the_rooms_is_what_is_so() -> None:
    rooms, arrows = drawn_rooms()
    imports = real_imports()
    assert set(rooms) == {room_of(file) for file in FILES}, "docs/assets/rooms.svg: a room came or went"
    assert arrows <= imports, "an arrow that is no import"
    reached: dict[str, set[str]] = defaultdict(set)
    for _ in rooms:  # no way is longer
        for one, other in arrows:
            reached[one] |= {other} | reached[other]
    missing = {(one, other) for one, other in imports if other not in reached[one]}
    assert missing == set(), "imports that no arrows lead to"
    assert {(one, other) for one, other in imports if rooms[one] > rooms[other]} == set(), "arrows that turn back"


def test_the_promises_name_tests_that_are_there() -> None:
    rows = re.findall(r"^\| P(\d+) \| .+? \| (.+) \|$", (DOCS / "promises.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 43))
    for number, checked in rows:
        files = [ROOT / "tests" / name for name in re.findall(r"`([\w/]+\.py)`", checked)]
        for file in files:
            assert file.exists(), f"P{number}: there is no {file.name}"
        named = re.compile(rf"[_\"\b]p0?{number}[_ ]|\bP{number}\b")
        assert not files or any(named.search(file.read_text()) for file in files), f"P{number}: no test has its name"
        for name in re.findall(r"benchmark `([\w-]+)`", checked):
            assert f'"{name}":' in (ROOT / "benchmarks" / "__main__.py").read_text(), f"P{number}: there is no benchmark {name}"


@pytest.mark.parametrize("page", [*PAGES, *sorted((DOCS / "decisions").glob("*.md"))], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} leads to {target}"


def test_names_that_are_said_to_be_exported_are() -> None:
    for page in PAGES:
        for block in re.findall(r"^from dryapi_async import \(?([\w,\s]+?)\)?$", page.read_text(), re.MULTILINE):
            for name in filter(None, re.split(r"[,\s]+", block)):
                assert hasattr(dryapi_async, name), f"{page.name}: {name}"


@pytest.mark.parametrize(
    ("written", "source", "here", "mended"),
    [
        ("[a](money.md#limits)", "docs/index.md", "index.md", "[a](money.md#limits)"),
        ("[a](../examples/fastapi_app)", "docs/web_backends.md", "web_backends.md", "[a](examples/fastapi_app.md)"),
        ("[a](../fastapi_app)", "examples/aiohttp_app/README.md", "examples/aiohttp_app.md", "[a](fastapi_app.md)"),
        ("[a](../benchmarks/results.md)", "docs/index.md", "index.md", "[a](benchmarks/results.md)"),
        ("[a](decisions)", "docs/design.md", "design.md", "[a](decisions/index.md)"),
        ("[a](../pyproject.toml)", "docs/index.md", "index.md", "a"),
        ("[a](https://example.org/b.md)", "docs/index.md", "index.md", "[a](https://example.org/b.md)"),
    ],
)
def test_links_out_of_docs_lead_to_pages_of_the_site(hooks: ModuleType, written: str, source: str, here: str, mended: str) -> None:
    assert hooks.mend_links(written, source, here) == mended


def test_a_list_that_follows_a_line_is_one_on_the_site_too(hooks: ModuleType) -> None:
    assert hooks.loosen_lists("Goals:\n* one\n* two\n") == "Goals:\n\n* one\n* two\n"
    assert hooks.loosen_lists("```text\na\n* b\n```\n") == "```text\na\n* b\n```\n"


def test_the_time_outs_and_retries_are_as_said() -> None:
    said = set(re.findall(r"^\| `(Timeouts|Retry)\.(\w+)` \| `([^`]+)` \|", (DOCS / "connections.md").read_text(), re.MULTILINE))
    assert said == {(cls.__name__, one.name, repr(one.default)) for cls in (Timeouts, Retry) for one in attrs.fields(cls)}


def test_the_basic_account_is_as_said() -> None:
    page = (DOCS / "money.md").read_text()
    heads, values = re.findall(r"^\| .*\|$", page[page.index("Basic, in requests") :], re.MULTILINE)[:2]
    others = {"img2img": ("txt2video", "img2video", "aud2video", "txt2music"), "transcriptions": (), "prices": (), "status": ()}
    said: dict[str, str] = {}
    for head, value in zip(heads.strip("| ").split(" | "), values.strip("| ").split(" | "), strict=True):
        lanes = re.findall(r"`([\w-]+)`", head) or [{"transcriptions": "whisper"}.get(head.split(",")[0].split()[0], head.split()[0])]
        for lane in (*lanes, *others.get(lanes[0], ())):
            said[lane] = value.removesuffix(" each")
    assert said == {lane: f"{minute.limit} / {day.limit}" for lane, (minute, day) in Limits.basic().lanes.items()}
