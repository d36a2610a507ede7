"""Flags from fields: what a request class takes is what its command takes."""

import ast
import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
import click

from dryapi_async import InputError, Lora
from dryapi_async.operations import ALL
from dryapi_async.operations.base import Operation
from dryapi_async.protocol.untyped import is_sequence
from dryapi_async.protocol.wire import FILE_KIND

RequestClass = type[Operation[Any]]


def method_name(cls: RequestClass) -> str:
    """Name the client's method of a class, as users of the command may, too."""
    return cls.endpoint.slug.replace("-", "_").replace("prompts/", "prompt_").replace("/", "_")


def find_class(name: str) -> RequestClass | None:
    """Find a billed operation by its slug or its method's name."""
    return next((cls for cls in ALL if cls.endpoint.price and name in {cls.endpoint.slug, method_name(cls)}), None)


@cache
def field_help(cls: Any) -> Mapping[str, str]:
    """Read the text below each field in the class's source; without a source there is none."""
    try:
        (tree,) = ast.parse(inspect.getsource(cls)).body
    except (OSError, TypeError, SyntaxError):
        return {}
    found: dict[str, str] = {}
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    for field, text in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found[field.target.id] = str(text.value.value).replace("``", "")
    return found


def options_for(cls: RequestClass, *, optional: Sequence[str] = ()) -> list[click.Parameter]:
    """Make an option of each field; ``optional`` names fields that aren't required here."""
    known: Any = cls
    hints, texts = get_type_hints(cls), field_help(known)
    options: list[click.Parameter] = []
    for one in attrs.fields(known):
        flag = "--" + one.name.replace("_", "-")
        core = _core(hints[one.name])
        settings: dict[str, Any] = _settings(core)
        if FILE_KIND in one.metadata:
            settings = {"multiple": get_origin(core) is Sequence, "metavar": "PATH"}
        if settings.pop("switch", False):
            flag += f"/--no-{one.name.replace('_', '-')}"
        required = one.default is attrs.NOTHING and one.name not in optional
        if not required:
            settings["default"] = None
        options.append(click.Option([flag, one.name], required=required, help=texts.get(one.name), **settings))
    return options


def _core(hint: Any) -> Any:
    """Take ``X`` out of ``X | None``; of a text or several, several."""
    members = [one for one in get_args(hint) if one is not NoneType]
    if get_origin(hint) not in {Union, UnionType}:
        return hint
    return next((one for one in members if get_origin(one) is Sequence), members[0])


def _settings(hint: Any) -> dict[str, Any]:
    if hint is bool:
        return {"switch": True}
    if get_origin(hint) is Literal:
        return {"type": click.Choice([str(one) for one in get_args(hint)])}
    if get_origin(hint) is Sequence:
        return {"multiple": True, "metavar": "NAME=WEIGHT" if get_args(hint)[0] is Lora else "TEXT"}
    return {"type": {int: int, float: float}.get(hint, str)}


def make_request(cls: RequestClass, values: Mapping[str, Any], *, measures: Mapping[str, float] | None = None) -> Operation[Any]:
    """Make a request from the flags given; fields that measures stand for are filled with nothing that is sent."""
    fields = {name: _value(cls, name, value) for name, value in values.items() if value is not None and value != ()}
    price = cls.endpoint.price
    if measures and price is not None:
        fields |= {name: "-" for name in price.replaces if name not in fields}
    return cls(**fields)


def _value(cls: RequestClass, name: str, value: Any) -> Any:
    if name == "loras":
        return [_read_lora(one) for one in value]
    hint = get_type_hints(cls)[name]
    if not is_sequence(value):
        return value
    one_will_do = str in get_args(hint) and FILE_KIND not in _metadata(cls, name)
    return value[0] if one_will_do and len(value) == 1 else list(value)


def _metadata(cls: Any, name: str) -> Mapping[str, Any]:
    metadata: Mapping[str, Any] = getattr(attrs.fields(cls), name).metadata
    return metadata


def _read_lora(text: str) -> Lora:
    name, _, weight = text.rpartition("=")
    try:
        return Lora(name=name, weight=float(weight))
    except ValueError:
        raise InputError(f"--loras takes NAME=WEIGHT, such as ink=0.8, not {text!r}.") from None
