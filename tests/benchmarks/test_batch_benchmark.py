"""That the batch's benchmark works and counts; how fast it is, is none of a test's business."""

import subprocess
import sys

import pytest

from benchmarks import batch

from ..conftest import REPOSITORY


@pytest.mark.processes
def test_a_smoke_run_counts_every_outcome() -> None:
    command = [sys.executable, "-m", "benchmarks", "batch", "--smoke"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "990 results, 10 errors" in done.stdout


@pytest.mark.parametrize("wrong", [{"results": 98_999}, {"errors": 1_001}, {"left": 1}])
def test_a_wrong_count_is_told(wrong: dict[str, int]) -> None:
    right = {"results": 99_000, "errors": 1_000, "left": 0, "tasks": 131}
    batch.check_counts(batch.FULL, right)
    with pytest.raises(batch.CountError, match="Expected"):
        batch.check_counts(batch.FULL, {**right, **wrong})
