"""P37: the lowest versions that pyproject.toml allows are those that the gate's lowest run installs, from `.ci/lowest.txt`."""

import os
import sysconfig
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import dryapi_async

from ..conftest import REPOSITORY

LOWEST = REPOSITORY / ".ci" / "lowest.txt"
TOOLS = {"bench", "bench-peers", "ci", "docs"}
"""Extras for who works on this package: their users have the newest."""
NOT_INSTALLED = "aiodns"
"""It asks name servers instead of the system, which tests of odd names are about: no run of the suite has it."""


def read_lowest() -> dict[str, Version]:
    lines = [line.partition("#")[0].strip() for line in LOWEST.read_text().splitlines()]
    requirements = [Requirement(line) for line in lines if line]
    assert all(str(one.specifier).startswith("==") and len(one.specifier) == 1 for one in requirements), "exact versions only"
    return {canonicalize_name(one.name): Version(str(one.specifier)[2:]) for one in requirements}


def read_minimums() -> Iterator[tuple[str, Version]]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = [one for name, needed in project["optional-dependencies"].items() if name not in TOOLS for one in needed]
    for text in (*project["dependencies"], *extras):
        requirement = Requirement(text)
        if requirement.name == project["name"]:
            continue
        minimums = [one.version for one in requirement.specifier if one.operator == ">="]
        assert len(minimums) == 1, f"{text} says no lowest version"
        yield canonicalize_name(requirement.name), Version(minimums[0])


@pytest.mark.skipif(not LOWEST.exists(), reason="the sdist has no gate")
def test_p37_the_lowest_run_has_every_minimum_of_the_project() -> None:
    said = sorted(set(read_minimums()))
    assert len({name for name, _ in said}) == len(said), "two minimums for one package"
    assert dict(said) == read_lowest()


@pytest.mark.skipif("DRYAPI_LOWEST" not in os.environ, reason="DRYAPI_LOWEST doesn't say that this is the lowest run")
def test_p37_the_lowest_run_runs_on_the_lowest_versions() -> None:
    lowest = read_lowest()
    installed = {name: Version(version(name)) for name in lowest if name != NOT_INSTALLED}
    assert installed | {NOT_INSTALLED: lowest[NOT_INSTALLED]} == lowest


@pytest.mark.skipif("DRYAPI_WHEEL" not in os.environ, reason="DRYAPI_WHEEL doesn't say that an installed wheel is tested")
def test_the_wheel_is_what_is_tested() -> None:
    assert Path(dryapi_async.__file__).is_relative_to(sysconfig.get_path("purelib"))
    assert not (REPOSITORY / "dryapi_async").exists()
