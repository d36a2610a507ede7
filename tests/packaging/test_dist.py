"""The wheel and the sdist hold what they must and nothing else; DRYAPI_DIST names the folder in which `.ci/package` built them."""

import os
import tarfile
import zipfile
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest
from attrs import frozen

from ..conftest import REPOSITORY

DIST = os.environ.get("DRYAPI_DIST")
pytestmark = pytest.mark.skipif(DIST is None, reason="DRYAPI_DIST names no folder with a wheel and an sdist (.ci/package makes them)")

DATA = {"py.typed", "cli/landscape.jpg", "sheet/sheet.html"}
LEFT_OUT = {".git", ".ci", ".venv", "site", "dist"}


@frozen
class Archive:
    """What is in one: bytes by name."""

    name: str
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def wheel() -> Archive:
    (path,) = Path(str(DIST)).glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        return Archive(path.name, {name: opened.read(name) for name in opened.namelist()})


@pytest.fixture(scope="module")
def sdist() -> Archive:
    (path,) = Path(str(DIST)).glob("*.tar.gz")
    files: dict[str, bytes] = {}
    with tarfile.open(path) as opened:
        for member in opened:
            content = opened.extractfile(member)
            if content is not None:
                files[member.name.partition("/")[2]] = content.read()
    return Archive(path.name, files)


def metadata(wheel: Archive) -> Message:
    (name,) = (name for name in wheel.files if name.endswith(".dist-info/METADATA"))
    return BytesParser().parsebytes(wheel.files[name])


def package_files() -> set[str]:
    root = REPOSITORY / "dryapi_async"
    return {str(one.relative_to(REPOSITORY)) for one in root.rglob("*") if one.is_file() and "__pycache__" not in one.parts}


def test_the_wheel_is_the_package_and_what_describes_it(wheel: Archive) -> None:
    package = {name for name in wheel.files if ".dist-info/" not in name}
    assert package == package_files()
    assert {f"dryapi_async/{name}" for name in DATA} == {name for name in package if not name.endswith(".py")}
    described = {name.partition(".dist-info/")[2] for name in wheel.files if ".dist-info/" in name}
    assert described == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    for name in package:
        assert wheel.files[name] == (REPOSITORY / name).read_bytes(), name


def test_the_wheel_is_for_every_machine_and_says_what_it_needs(wheel: Archive) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    told = metadata(wheel)
    assert told["Name"] == "dryapi-async"
    assert told["Requires-Python"] == ">=3.11"
    assert told["License-Expression"] == "MIT"
    needed = [one for one in told.get_all("Requires-Dist", []) if "extra ==" not in one]
    assert sorted(one.partition(">")[0] for one in needed) == ["aiofiles", "aiohttp", "anyio", "attrs", "cattrs"]
    assert str(told.get_payload()).startswith("# dryapi_async")


def test_the_sdist_has_all_that_the_suite_needs_and_no_more(sdist: Archive) -> None:
    package = {name for name in sdist.files if name.startswith("dryapi_async/")}
    assert package == package_files()
    tops = {name.partition("/")[0] for name in sdist.files}
    assert tops & LEFT_OUT == set()
    assert tops >= {"dryapi_async", "tests", "docs", "examples", "benchmarks", "changes", "pyproject.toml"}
    assert tops >= {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "mkdocs.yml"}
    assert not [name for name in sdist.files if "__pycache__" in name or name.endswith((".pyc", ".db"))]
