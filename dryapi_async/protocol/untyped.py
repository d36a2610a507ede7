"""The JSON edge: what was decoded is anything, and becomes typed here or nowhere."""

from collections.abc import Mapping
from typing import Any, TypeGuard


def is_object(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Say whether a decoded value is an object; JSON's keys are text."""
    # What JSON gives is a dict, and to ask an abstract class costs several times as much.
    return type(value) is dict or isinstance(value, Mapping)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Say whether a decoded value is a list."""
    return isinstance(value, list)


def is_sequence(value: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """Say whether a value holds several others: a text and bytes are one each."""
    return isinstance(value, (list, tuple))
