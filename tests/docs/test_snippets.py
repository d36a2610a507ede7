"""Every program on the pages runs as it stands, against the simulator, and prints what the page says."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..test_readme import run, serve
from .pages import DOCS, PAGES, ROOT, SNIPPETS, Snippet

pytestmark = pytest.mark.processes
ELSEWHERE = {"batches_1", "money_1"}
"""They leave files, and have tests of their own that look at them: `test_batch_docs.py`, `test_readme.py`. `test_plugin.py` runs tests."""
LANDSCAPE = ROOT / "dryapi_async" / "cli" / "landscape.jpg"


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with serve() as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("photo.jpg", "fox.png"):  # a file of another kind than its name says is sent as what it is
        shutil.copy(LANDSCAPE, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    "snippet", [one for one in SNIPPETS if not one.is_test and one.name not in ELSEWHERE], ids=lambda snippet: snippet.name
)
def test_a_snippet_runs_and_prints_what_the_page_says(snippet: Snippet, folder: Path, environment: dict[str, str]) -> None:
    done = run("-c", snippet.code, folder=folder, environment=environment)
    # asyncio's debug mode, which -X dev turns on, also reports each step that a busy machine makes slow.
    assert [line for line in done.stderr.splitlines() if not line.startswith("Executing <")] == [], done.stderr
    assert done.returncode == 0
    assert snippet.allows(done.stdout), f"it printed:\n{done.stdout}\nand the page says:\n{snippet.output}"


def test_no_program_is_missed() -> None:
    blocks = sum(page.read_text().count("```python") for page in PAGES)
    assert blocks == len(SNIPPETS)
    assert {one.name for one in SNIPPETS} >= ELSEWHERE


def test_the_console_lines_of_the_quickstart_are_the_readmes() -> None:
    (first, _) = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    for page in ("index.md", "quickstart.md"):
        assert first.removesuffix(" && dryapi demo") in (DOCS / page).read_text()
