"""What the README says is what works: its code runs as it stands, and is the example that the type checkers see."""

import re
import subprocess
import sys
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
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert EXAMPLE.read_text() == block


@pytest.mark.processes
def test_the_readmes_code_runs_as_it_stands(tmp_path: Path) -> None:
    simulate = [sys.executable, "-m", "dryapi_async", "simulate", "--speed", "20"]
    with subprocess.Popen(simulate, stdout=subprocess.PIPE, text=True, cwd=ROOT) as service:
        assert service.stdout is not None
        environment = {"DRYAPI_BASE_URL": service.stdout.readline().strip(), "DRYAPI_API_KEY": "1|simulator-key", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", str(EXAMPLE)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=tmp_path,
            env=environment,
        )
        service.terminate()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("img2img:")
    for name, kind in (("fox.png", "PNG"), ("night.webp", "WEBP")):
        with Picture.open(tmp_path / name) as picture:
            assert (picture.size, picture.format) == ((1024, 768), kind)
