"""Client methods made from request classes: signature, documentation and types are the class's."""

from collections.abc import Callable
from functools import cached_property
from inspect import Parameter, signature
from types import MethodType
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar, cast, overload

from dryapi_async.calls import InstantCall, JobCall
from dryapi_async.operations.base import InstantOperation, JobOperation

P = ParamSpec("P")
R = TypeVar("R")


class Caller(Protocol):
    """A client: what makes a call from a request."""

    @property
    def call(self) -> Callable[..., Any]:
        """Make a call."""
        ...


class _Method(Generic[P, R]):
    """A client method made from a request class: its signature and its documentation are the class's."""

    def __init__(self, operation: Callable[P, Any]) -> None:
        self._operation = operation

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner, self._name = owner, name

    @cached_property
    def _method(self) -> Callable[..., Any]:
        """The function itself, made at its first use: 25 signatures are a fiftieth of the package's own import."""
        operation: Any = self._operation

        def method(client: Caller, **fields: Any) -> Any:
            return client.call(operation(**fields))

        described = signature(operation)
        me = Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)
        made = "JobCall" if issubclass(operation, JobOperation) else "InstantCall"
        method.__doc__, method.__module__ = operation.__doc__, self._owner.__module__
        method.__name__, method.__qualname__ = self._name, f"{self._owner.__name__}.{self._name}"
        vars(method)["__signature__"] = described.replace(parameters=[me, *described.parameters.values()], return_annotation=made)
        return method


class job_method(_Method[P, R]):  # noqa: N801  it is written as a decorator is
    """A method whose call makes a paid job."""

    def __init__(self, operation: Callable[P, JobOperation[R]]) -> None:
        super().__init__(operation)

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: Caller, owner: type) -> Callable[P, JobCall[R]]: ...
    def __get__(self, client: Caller | None, owner: type) -> "Self | Callable[P, JobCall[R]]":
        return cast("Any", self._method) if client is None else cast("Callable[P, JobCall[R]]", MethodType(self._method, client))


class instant_method(_Method[P, R]):  # noqa: N801  it is written as a decorator is
    """A method whose call is answered at once."""

    def __init__(self, operation: Callable[P, InstantOperation[R]]) -> None:
        super().__init__(operation)

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: Caller, owner: type) -> Callable[P, InstantCall[R]]: ...
    def __get__(self, client: Caller | None, owner: type) -> "Self | Callable[P, InstantCall[R]]":
        return cast("Any", self._method) if client is None else cast("Callable[P, InstantCall[R]]", MethodType(self._method, client))
