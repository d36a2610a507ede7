"""What the type checkers say, held as a test: the file beside this one is checked by both, and its comments are their words."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CALLS = Path(__file__).parent / "calls.py"


def expected() -> dict[int, str]:
    return {
        number: found[1] for number, line in enumerate(CALLS.read_text().splitlines(), 1) if (found := re.search(r"# says: (.+)$", line))
    }


def said_by(command: list[str]) -> dict[int, str]:
    done = subprocess.run([*command, str(CALLS)], capture_output=True, text=True, check=False, cwd=CALLS.parents[2])
    found: dict[int, str] = {}
    for line in done.stdout.splitlines():
        if match := re.search(r"calls\.py:(\d+)(?::\d+)? ?[:-] (?:error|note|information): ?(.*)", line.replace(" - ", ": ")):
            found[int(match[1])] = found.get(int(match[1]), "") + match[2]
    return found


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_p39_the_checkers_know_each_call(checker: str) -> None:
    if shutil.which(checker, path=str(Path(sys.executable).parent)) is None:
        pytest.skip(f"{checker} comes with the extra ci")
    binary = str(Path(sys.executable).parent / checker)
    command = [binary, "--strict", "--no-error-summary"] if checker == "mypy" else [binary, "--pythonpath", sys.executable]
    said = said_by(command)
    wanted = expected()
    assert set(said) == set(wanted), said
    for number, words in wanted.items():
        if words == "error":
            assert "Revealed" not in said[number]
            assert "Type of" not in said[number]
        else:
            assert words in re.sub(r"\b(?:dryapi_async|decimal|builtins)(?:\.\w+)*\.(?=\w)", "", said[number]), said[number]
