"""The pages' programs pass both type checkers at their strictest."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .pages import ROOT, SNIPPETS


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_p39_the_checkers_find_nothing_in_the_pages(checker: str, tmp_path: Path) -> None:
    binary = Path(sys.executable).parent / checker
    if shutil.which(binary) is None:
        pytest.skip(f"{checker} comes with the extra ci")
    for snippet in SNIPPETS:
        (tmp_path / f"{snippet.name}.py").write_text(f"# pyright: strict\n{snippet.code}")
    files = sorted(str(path) for path in tmp_path.glob("*.py"))
    options = ["--strict", "--no-error-summary"] if checker == "mypy" else ["--pythonpath", sys.executable]
    done = subprocess.run([str(binary), *options, *files], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
