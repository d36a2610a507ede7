"""What docs/batches.md shows is what works."""

import re
from pathlib import Path

import pytest

from ..conftest import REPOSITORY, files_in
from ..test_readme import run, serve


@pytest.mark.processes
def test_the_pages_code_runs_as_it_stands(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "batches.md").read_text(), re.DOTALL)
    with serve() as environment:
        done = run("-c", block, folder=tmp_path, environment=environment)
    # asyncio's debug mode, which -X dev turns on, also reports each step that a busy machine makes slow.
    assert [line for line in done.stderr.splitlines() if not line.startswith("Executing <")] == []
    assert done.returncode == 0
    *lines, last = done.stdout.splitlines()
    assert sorted(lines) == sorted(f"fox {seed} out/{seed:05}-fox {seed}.png" for seed in range(50))
    assert re.fullmatch(r"50 saved for 0\.\d+ dollars", last)
    assert len(files_in(tmp_path / "out")) == 50
