"""Values: what is compared, hashed and shown by its fields."""

from typing import Any

import attrs


class Value:
    """A frozen attrs class whose comparison and repr are written once, here, not made for each class (``eq=False, repr=False``).

    Making them was a fifth of the package's own import. Where a comparison is part of the work (`Update`, `LinkRules`) attrs makes it,
    which is faster. A frozen class with ``eq=False`` that isn't a value would be compared by identity without a word: a test forbids it.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        cls: Any = type(self)
        ways = [(one.name, one.repr if callable(one.repr) else repr) for one in attrs.fields(cls) if one.repr]
        return f"{cls.__name__}({', '.join(f'{name}={way(getattr(self, name))}' for name, way in ways)})"

    def __eq__(self, other: object) -> bool:
        return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), _compared(self)))


def _compared(value: object) -> tuple[Any, ...]:
    cls: Any = type(value)
    return tuple(getattr(value, one.name) for one in attrs.fields(cls) if one.eq)
