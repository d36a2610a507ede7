"""The command against a simulator in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def service() -> Iterator[dict[str, str]]:
    """Start `dryapi simulate`, and give the environment that reaches it."""
    command = [sys.executable, "-m", "dryapi_async", "simulate", "--speed", "50", "--seed", "1", "--key", "7|key"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        url = running.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        yield {"DRYAPI_BASE_URL": url, "DRYAPI_API_KEY": "7|key"}
        running.terminate()
        assert running.wait(10) == 0


def clean_environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("DRYAPI_")} | {"COLUMNS": "80"} | more


@pytest.fixture
def command(service: dict[str, str], tmp_path: Path) -> Command:
    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dryapi_async", *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=tmp_path,
            env=clean_environment(**(service | environment)),
        )

    return run
