"""Requests from a manifest's values: JSON's own types, or the text of a table's cell."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import attrs
from attrs import frozen

from dryapi_async.cli.flags import RequestClass, find_class, method_name
from dryapi_async.cli.words import suggest
from dryapi_async.errors import InputError, show_value
from dryapi_async.operations import ALL
from dryapi_async.operations.base import Lora, Operation
from dryapi_async.protocol.replies import shorten
from dryapi_async.protocol.untyped import is_list, is_object, is_sequence
from dryapi_async.protocol.wire import FILE_KIND

Kind = Literal["file", "files", "loras", "yes or no", "int", "float", "text"]

OWN: Final = ("op", "key")
"""What a line has beside the fields of its request."""
_YES: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_BETWEEN: Final = ";"
"""Between several files or LoRAs in one cell."""


@frozen
class Shape:
    """The fields of a request class, as a manifest gives them."""

    kinds: Mapping[str, Kind]
    required: tuple[str, ...]


@cache
def shape_of(cls: Any) -> Shape:
    """Read a request class's fields, once per class."""
    known: Any = cls
    hints, fields = get_type_hints(cls), attrs.fields(known)
    kinds: dict[str, Kind] = {one.name: _kind_of(hints[one.name], is_file=FILE_KIND in one.metadata) for one in fields}
    return Shape(kinds=kinds, required=tuple(one.name for one in fields if one.default is attrs.NOTHING))


def _kind_of(hint: Any, *, is_file: bool) -> Kind:
    members = [one for one in get_args(hint) if one is not NoneType] if get_origin(hint) in {Union, UnionType} else [hint]
    if is_file:
        return "files" if any(get_origin(one) is Sequence for one in members) else "file"
    if any(Lora in get_args(one) for one in members):
        return "loras"
    plain: dict[Any, Kind] = {bool: "yes or no", int: "int", float: "float"}
    return plain.get(members[0], "text")


@cache
def find_operation(name: str) -> RequestClass | None:
    """Find a billed operation by its slug or its method's name; a manifest of many lines names few."""
    return find_class(name)


def suggest_operation(name: str) -> str:
    """Offer the nearest operation."""
    billed = [cls for cls in ALL if cls.endpoint.price]
    return suggest(name, [*(cls.endpoint.slug for cls in billed), *map(method_name, billed)])


@cache
def all_fields() -> frozenset[str]:
    """Name the fields of every billed operation."""
    billed: list[Any] = [cls for cls in ALL if cls.endpoint.price]
    return frozenset(name for cls in billed for name in shape_of(cls).kinds)


def build(cls: RequestClass, given: Mapping[str, Any], folder: PurePath, *, cells: bool) -> Operation[Any]:
    """Make a request of a line's values; ``cells`` says that they are a table's texts.

    Raises:
        InputError: Says everything that is wrong with it, in one text.
    """
    known: Any = cls
    shape, problems = shape_of(known), list[str]()
    words = [*shape.kinds, *OWN]
    problems += [f"{cls.endpoint.slug} has no field {name!r}{suggest(name, words)}" for name in given if name not in shape.kinds]
    values: dict[str, Any] = {}
    for name, value in given.items():
        try:
            values |= {} if name not in shape.kinds else _read(shape.kinds, name, value, folder, cells=cells)
        except InputError as error:
            problems.append(str(error))
    missing = [name for name in shape.required if name not in given]
    if missing:
        problems.append(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing, which {cls.endpoint.slug} needs")
    if problems:
        raise InputError("; ".join(problems))
    return cls(**values)


def _read(kinds: Mapping[str, Kind], name: str, value: Any, folder: PurePath, *, cells: bool) -> dict[str, Any]:
    """Read one value as its field takes it; several files given for one go to the field for several."""
    kind = kinds[name]
    if cells:
        value = _read_cell(kind, name, value, several=f"{name}s" in kinds)
    if kind in {"file", "files"}:
        paths = [_locate(name, one, folder) for one in value] if is_sequence(value) else _locate(name, value, folder)
        if kind == "file" and is_sequence(paths) and f"{name}s" in kinds:
            return {name: paths[0]} if len(paths) == 1 else {f"{name}s": paths}
        return {name: paths}
    if kind == "loras" and is_list(value):
        return {name: [_read_lora(name, one) for one in value]}
    return {name: value}


def _locate(name: str, given: object, folder: PurePath) -> str:
    """Read a file's path, from the manifest's folder."""
    if not isinstance(given, str) or not given:
        raise InputError(f"{name} must be a file's path, not {show_value(given)}")
    if "\0" in given:
        raise InputError(f"{name} has a NUL in its path")
    # A link is refused by the request's own class, in its words.
    return given if given.lower().startswith(("http://", "https://")) else str(folder / given)


def _read_lora(name: str, given: object) -> Lora:
    """Read ``NAME=WEIGHT`` or ``{"name": ..., "weight": ...}``."""
    if is_object(given) and set(given) == {"name", "weight"}:
        return Lora(name=given["name"], weight=given["weight"])
    text = given if isinstance(given, str) else ""
    word, _, weight = text.rpartition("=")
    try:
        return Lora(name=word, weight=float(weight))
    except ValueError:
        raise InputError(f"{name} takes NAME=WEIGHT, such as ink=0.8, not {show_value(given)}") from None


def _read_cell(kind: Kind, name: str, text: str, *, several: bool) -> Any:
    """Turn a cell's text into what its field takes."""
    if kind in {"files", "loras"} or (kind == "file" and several):
        return list(_split(text))
    readers: dict[Kind, Callable[[str], Any]] = {"int": int, "float": float, "yes or no": lambda word: _YES[word.lower()], "file": str}
    try:
        return readers[kind](text.strip()) if kind in readers else text
    except (ValueError, KeyError):
        wanted = {"int": "no whole number", "float": "no number", "yes or no": "neither yes nor no"}.get(kind, f"no {kind}")
        raise InputError(f"{name}: {shorten(text)!r} is {wanted}") from None


def _split(text: str) -> Iterator[str]:
    return filter(None, (one.strip() for one in text.split(_BETWEEN)))
