"""Values are compared, hashed and shown by their fields, whoever wrote the code for it."""

import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest
from attrs import field, frozen

import dryapi_async
from dryapi_async.values import Value


@frozen(eq=False, repr=False)
class Point(Value):
    x: int
    note: str = field(default="", eq=False)
    secret: str = field(default="", repr=False)
    shown: float = field(default=0.0, repr=lambda value: f"{value:.1f}")


@frozen(eq=False, repr=False)
class Other(Value):
    x: int


class Named(Point):
    """A class that adds no field, as the kinds of results are."""

    __slots__ = ()


def test_equal_fields_of_the_same_class_are_equal() -> None:
    assert Point(1) == Point(1, note="left out")
    assert hash(Point(1)) == hash(Point(1, note="left out"))
    assert Named(1) == Named(1)
    assert {Point(1), Point(1), Point(2)} == {Point(2), Point(1)}


@pytest.mark.parametrize("other", [Point(2), Point(1, secret="k"), Other(1), Named(1), 1, (1, "", 0.0)])
def test_all_else_is_not(other: Any) -> None:
    assert Point(1) != other
    assert other != Point(1)


def test_what_cant_be_hashed_in_it_is_told() -> None:
    several: Any = [1]
    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        hash(Point(several))


def test_it_is_shown_by_its_fields_but_for_secrets() -> None:
    assert repr(Point(1, "n", "key", 2.25)) == "Point(x=1, note='n', shown=2.2)"
    assert repr(Named(1)) == "Named(x=1, note='', shown=0.0)"


def test_attrs_makes_comparisons_only_where_they_are_part_of_the_work() -> None:
    code = """
import sys
from dryapi_async import Client
modules = [module for name, module in list(sys.modules.items()) if name.startswith("dryapi_async")]
classes = {one for module in modules for one in vars(module).values() if isinstance(one, type) and "__attrs_attrs__" in vars(one)}
assert len(classes) > 70, len(classes)
print(sorted(one.__name__ for one in classes if one.__module__.startswith("dryapi_async") and "__eq__" in vars(one)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['LinkRules', 'Update']\n"


def modules() -> Generator[ModuleType, None, None]:
    for one in pkgutil.walk_packages(dryapi_async.__path__, "dryapi_async."):
        with suppress(ModuleNotFoundError):  # an extra that isn't installed here
            yield importlib.import_module(one.name)


def test_whatever_is_frozen_is_compared_by_its_fields() -> None:
    classes = {one for module in modules() for one in vars(module).values() if isinstance(one, type) and "__attrs_attrs__" in vars(one)}
    values = {one for one in classes if one.__module__.startswith("dryapi_async") and one.__setattr__ is not object.__setattr__}
    assert len(values) > 80
    assert [one for one in values if one.__eq__ is object.__eq__] == []
