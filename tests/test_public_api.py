"""What the package promises to export, and that importing it does nothing else."""

import subprocess
import sys

import dryapi_async
from dryapi_async import errors


def test_every_error_is_exported() -> None:
    tree = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.DryAPIError)}
    assert tree <= set(dryapi_async.__all__)


def test_the_drawing_shows_every_error_under_its_base() -> None:
    drawing = [line for line in (errors.__doc__ or "").splitlines() if "Error" in line and ("──" in line or line.strip() == "DryAPIError")]
    stack: list[tuple[int, str]] = []
    drawn: dict[str, str] = {}
    for line in drawing:
        name = next(word for word in line.replace("(", " ").split() if word.endswith("Error"))
        column = line.index(name)
        while stack and stack[-1][0] >= column:
            stack.pop()
        drawn[name] = stack[-1][1] if stack else ""
        stack.append((column, name))
    tree = {name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.DryAPIError)}
    assert drawn == {name: "" if name == "DryAPIError" else value.__mro__[1].__name__ for name, value in tree.items()}


def test_all_names_exist_and_are_sorted_as_ruff_sorts() -> None:
    assert all(hasattr(dryapi_async, name) for name in dryapi_async.__all__)


def test_importing_creates_nothing() -> None:
    code = "import threading, asyncio, dryapi_async; assert threading.active_count() == 1; assert asyncio._get_running_loop() is None"
    done = subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_extra_is_imported_by_the_client() -> None:
    code = "import sys, dryapi_async; print([name for name in ('click', 'rich', 'PIL', 'dryapi_async.simulator') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
