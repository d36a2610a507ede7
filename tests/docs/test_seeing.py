"""The page about events, counters, telemetry and the log has all of them, and nothing that isn't."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import attrs
import pytest

from dryapi_async import LaneStats, Stats
from dryapi_async.events import Event

from ..test_architecture import FILES
from .pages import DOCS

PAGE = (DOCS / "seeing.md").read_text()
LEVELS = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR", "exception": "ERROR", "critical": "CRITICAL"}


def names_of(cls: Any) -> list[str]:
    return [one.name for one in attrs.fields(cls)]


def table_below(head: str) -> list[list[str]]:
    """Give the cells of the rows of the table whose first line begins so."""
    (found,) = re.findall(rf"^{re.escape(head)}.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in str(found).splitlines()]


def test_p34_every_event_is_on_the_page_with_its_fields() -> None:
    said = {row[0].strip("`"): row[2].rstrip("|").strip("` ").split("` `") for row in table_below("| event | when |")}
    assert said == {cls.__name__: names_of(cls) for cls in get_args(Event)}


@pytest.mark.parametrize("cls", [Stats, LaneStats])
def test_every_counter_is_on_the_page(cls: type) -> None:
    said = [name for row in table_below(f"| `{cls.__name__}` |") for name in row[0].strip("`").split("`, `")]
    assert said == names_of(cls)


def strings_in(source: str, start: str) -> set[str]:
    return {
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(start + r"[\w.]+", node.value)
    }


def test_p34_every_metric_and_attribute_is_on_the_page() -> None:
    (source,) = (file.read_text() for file in FILES if file.name == "telemetry.py")
    prefix = r"(?:dryapi|http|server|network|error)\."
    in_code = strings_in(source, prefix) - {"dryapi_async"}
    section = PAGE.partition("## OpenTelemetry")[2].partition("## The log")[0]
    said = set(re.findall(rf"`({prefix}[\w.]+)`", section))
    assert said == in_code


def log_calls(file: Path) -> Iterator[tuple[str, str]]:
    """Find what a file logs: level and template."""
    tree = ast.parse(file.read_text())
    loggers: set[str] = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Assign | ast.AnnAssign)
            and isinstance(node.value, ast.Call)
            and "getLogger" in ast.unparse(node.value.func)
        ):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            assert ast.unparse(node.value) == "logging.getLogger('dryapi_async')", f"{file.name}: there is one logger"
            loggers.add(ast.unparse(target))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) in loggers:
            if node.func.attr in LEVELS:
                template = node.args[0]
                assert isinstance(template, ast.Constant), f"{file.name}:{node.lineno}: templates are plain texts"
                yield LEVELS[node.func.attr], str(template.value)
            else:
                assert node.func.attr in {"isEnabledFor", "addHandler", "removeHandler"}, f"{file.name}:{node.lineno}"


def said_of_the_log() -> list[tuple[str, str]]:
    return [(row[0].strip("| "), row[1].strip("`")) for row in table_below("| level | message |")]


def test_every_message_of_the_log_is_on_the_page_and_no_other() -> None:
    said = said_of_the_log()
    assert len(said) == len(set(said))
    assert set(said) == {one for file in FILES for one in log_calls(file)}


def test_the_log_is_read_from_the_code(tmp_path: Path) -> None:
    file = tmp_path / "one.py"
    file.write_text("logger = logging.getLogger('dryapi_async')\nlogger.warning('so %s', 1)\nif 1:\n    logger.exception('and so')\n")
    assert list(log_calls(file)) == [("WARNING", "so %s"), ("ERROR", "and so")]
    file.write_text("logger = logging.getLogger('dryapi_async')\nlogger.warning(f'so {1}')\n")
    with pytest.raises(AssertionError, match="templates are plain texts"):
        list(log_calls(file))
    file.write_text("other = logging.getLogger('other')\n")
    with pytest.raises(AssertionError, match="there is one logger"):
        list(log_calls(file))
