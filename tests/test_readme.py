"""What the README says is what works: its code runs as it stands, and is the example that the type checkers see."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image as Picture

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLE = ROOT / "examples" / "first_picture.py"


def test_the_readme_has_two_set_up_commands_and_no_other() -> None:
    commands = [line for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
    assert [line.rpartition("&& ")[2] for line in commands] == ["dryapi demo", "pytest"]
    assert all(line.startswith("python3 -m venv .venv && . .venv/bin/activate && pip install ") for line in commands)


def test_the_example_is_the_readmes() -> None:
    # The second is a test, and run as one: `test_plugin.py`.
    block, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert EXAMPLE.read_text() == block


@contextmanager
def serve() -> Iterator[dict[str, str]]:
    """Serve a simulator, and give the environment that leads to it."""
    simulate = [sys.executable, "-m", "dryapi_async", "simulate", "--speed", "20"]
    with subprocess.Popen(simulate, stdout=subprocess.PIPE, text=True, cwd=ROOT) as service:
        assert service.stdout is not None
        url = service.stdout.readline().strip()
        yield {"DRYAPI_BASE_URL": url, "DRYAPI_API_KEY": "1|simulator-key", "PYTHONPATH": str(ROOT)}
        service.terminate()


def run(*command: str, folder: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a program as a user would, with every warning an error."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env=environment,
    )


@pytest.mark.processes
def test_the_readmes_code_runs_as_it_stands(tmp_path: Path) -> None:
    with serve() as environment:
        done = run(str(EXAMPLE), folder=tmp_path, environment=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("img2img:")
    for name, kind in (("fox.png", "PNG"), ("night.webp", "WEBP")):
        with Picture.open(tmp_path / name) as picture:
            assert (picture.size, picture.format) == ((1024, 768), kind)


CRASH = """
import asyncio, os
from dryapi_async import Client

async def main():
    client = Client(journal="jobs.db")
    await client.txt2img(prompt="a fox", model="Flux1schnell", width=256, height=192, steps=4, seed=1)
    os._exit(1)

asyncio.run(main())
"""


def test_the_example_of_the_journal_is_the_pages() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "money.md").read_text(), re.DOTALL)
    assert (ROOT / "examples" / "after_a_crash.py").read_text() == block


@pytest.mark.processes
def test_what_a_crash_left_is_saved_as_the_page_says(tmp_path: Path) -> None:
    with serve() as environment:
        assert run("-c", CRASH, folder=tmp_path, environment=environment).returncode == 1
        first, second = (run(str(ROOT / "examples" / "after_a_crash.py"), folder=tmp_path, environment=environment) for _ in range(2))
    assert (first.returncode, first.stderr, second.returncode, second.stdout) == (0, "", 0, "")
    assert first.stdout.startswith("saved out/")
    (picture,) = (tmp_path / "out").iterdir()
    assert picture.suffix == ".png"
