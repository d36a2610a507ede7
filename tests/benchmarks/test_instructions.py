"""Instructions are counted as the difference between many jobs and few, of processes that really ran."""

import sys
from pathlib import Path

import pytest

from benchmarks import instructions
from benchmarks.options import Options
from benchmarks.processes import ChildError
from benchmarks.throughput import OWN, RAW

pytestmark = pytest.mark.processes

# It counts a thousand for the imports and seven for each job that was brought to its end.
COUNTER = """#!{python}
import json, subprocess, sys
given = sys.stdin.read()
done = subprocess.run(sys.argv[3:], input=given, stdout=subprocess.PIPE, text=True)
print(done.stdout)
if {counts}:
    print("==1== Collected :", 1000 + 7 * json.loads(given)["jobs"], file=sys.stderr)
sys.exit(done.returncode)
"""


def options(*, smoke: bool = False) -> Options:
    return Options(
        command="python -m benchmarks instructions", repetitions=1, smoke=smoke, check=False, cold=False, output=Path("results.md")
    )


@pytest.fixture(autouse=True)
def _few_jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(instructions, "FEW", 4)
    monkeypatch.setattr(instructions, "MANY", 10)
    monkeypatch.setattr(instructions, "AT_ONCE", 2)
    monkeypatch.setenv("PATH", str(tmp_path))


def install(folder: Path, *, counts: bool) -> None:
    program = folder / "valgrind"
    program.write_text(COUNTER.format(python=sys.executable, counts=counts))
    program.chmod(0o755)


def test_what_all_jobs_have_in_common_isnt_counted(tmp_path: Path) -> None:
    install(tmp_path, counts=True)
    table = instructions.run(options()).text
    for subject in OWN:
        assert (f"| {subject.name} | 0 | 1.00 |" in table) is not subject.missing
    with instructions.start_server() as server:
        assert [instructions.count(RAW, jobs, server) for jobs in (4, 10)] == [1028, 1070]


def test_a_process_that_fails_or_counts_nothing_is_told(tmp_path: Path) -> None:
    install(tmp_path, counts=False)
    with pytest.raises(ChildError, match="raw aiohttp under valgrind failed with exit status 0"):
        instructions.run(options())


def test_without_valgrind_and_in_a_smoke_run_nothing_is_counted(tmp_path: Path) -> None:
    assert instructions.run(options()).text.startswith("Not counted")
    install(tmp_path, counts=True)
    assert instructions.run(options(smoke=True)).text.startswith("Not counted")
