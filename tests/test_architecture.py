"""The law of imports: arrows never turn back."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dryapi_async"

GROUND = {"errors", "values", "config", "events", "teller", "version", "shared"}
ROOMS: dict[str, set[str]] = {
    # room: what it may import of ours, beside itself
    "version": set(),
    "errors": set(),
    "values": set(),
    "events": {"errors", "values"},
    "teller": {"events"},
    "shared": {"errors", "values"},
    "config": {"errors", "values", "shared"},
    "protocol": GROUND,
    "operations": GROUND | {"protocol"},
    "io": GROUND | {"protocol"},
    "tracking": GROUND | {"protocol", "io"},
    "webhooks": GROUND | {"protocol"},
    "sheet": GROUND | {"protocol"},
    "engine": GROUND | {"protocol", "io", "tracking", "operations"},
    "job": GROUND | {"protocol", "io", "tracking", "operations", "engine"},
    "calls": GROUND | {"protocol", "io", "tracking", "operations", "engine", "job"},
    "batch": GROUND | {"protocol", "io", "tracking", "operations", "engine", "job", "calls", "sheet"},
    "life": GROUND | {"io", "engine"},
    "evidence": GROUND | {"io", "operations", "engine", "job"},
    "stats": GROUND | {"protocol", "io", "engine"},
    "telemetry": GROUND,
    "methods": GROUND | {"operations", "calls"},
    "options": GROUND | {"protocol", "io", "operations"},
    "client": GROUND
    | {"protocol", "io", "tracking", "operations", "engine", "job", "calls", "methods", "batch", "options", "evidence", "stats", "life"},
    "simulator": set(),
    "testing": {"client", "simulator", "top"},
    "cli": GROUND | {"protocol", "operations", "io", "engine", "job", "calls", "batch", "sheet", "client", "simulator", "top"},
    "__main__": {"cli"},
    "top": GROUND | {"protocol", "operations", "job", "client", "batch", "stats"},
}
PURE = {"asyncio", "anyio", "aiohttp", "aiofiles", "time", "os", "random", "secrets", "socket", "pathlib", "threading"}
CORE = {"aiohttp", "attrs", "attr", "cattrs", "anyio", "aiofiles", "yarl", "multidict"}
EXTRAS = {
    "cli": {"click", "rich", "PIL"},
    "__main__": set[str](),
    "simulator": {"PIL"},
    "sheet": {"PIL"},
    "webhooks": {"starlette"},
    "shared": {"redis"},
    "testing": {"pytest"},
    "telemetry": {"opentelemetry"},
}


def room_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return "top" if parts == ("__init__",) else parts[0]


def imports_of(file: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            found += [f"{node.module}.{one.name}" if node.module == "dryapi_async" else str(node.module) for one in node.names]
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_keep_the_law(file: Path) -> None:
    room = room_of(file)
    for name in imports_of(file):
        top, *rest = name.split(".")
        if top == "dryapi_async":
            is_room = bool(rest) and ((PACKAGE / rest[0]).exists() or (PACKAGE / f"{rest[0]}.py").exists())
            other = rest[0] if is_room else "top"
            assert other == room or other in ROOMS[room], f"{room} may not import {name}"
        elif top not in sys.stdlib_module_names:
            assert top in CORE | EXTRAS.get(room, set()), f"{room} may not import {name}: core dependencies are five"
        if room == "protocol":
            assert top not in PURE, f"protocol is pure: it may not import {name}"


def test_every_room_has_a_law() -> None:
    assert {room_of(file) for file in FILES} <= set(ROOMS)


def test_the_law_catches_a_breach(tmp_path: Path) -> None:
    breach = tmp_path / "breach.py"
    breach.write_text("import time\nfrom dryapi_async.client import Client\nfrom dryapi_async import Client as C\n")
    assert imports_of(breach) == ["time", "dryapi_async.client", "dryapi_async.Client"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_and_functions_stay_readable(file: Path) -> None:
    text = file.read_text()
    assert text.count("\n") <= 400, f"{file.name} is over 400 lines: split it"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.body[0].lineno + 1
            assert length <= 50, f"{file.name}: {node.name} is over 50 lines"
