"""What a batch is told, checked before anything is sent."""

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from decimal import Decimal
from inspect import iscoroutinefunction
from typing import Any, TypeGuard, cast

from dryapi_async.batch.outcomes import Outcome, is_hopeless, is_tuple
from dryapi_async.config import is_finite_number
from dryapi_async.errors import ConfigurationError, InputError, show_value


def check_source(operations: object) -> None:
    """Refuse what isn't a number of requests.

    Raises:
        InputError: It isn't.
    """
    given = operations
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable | AsyncIterable):
        raise InputError(f"batch() takes an iterable of requests, or of pairs (.items() of a dict), not {show_value(operations)}.")


def check_numbers(*, at_once: object, budget: object, timeout: float | None) -> None:
    """Refuse numbers that can't be.

    Raises:
        ConfigurationError: Names the option and what it takes.
    """
    if not isinstance(at_once, int) or isinstance(at_once, bool) or at_once < 1:
        raise ConfigurationError(f"at_once must be a whole number of at least 1, not {show_value(at_once)}.")
    if timeout is not None and not (is_finite_number(timeout) and timeout >= 0):
        raise ConfigurationError(f"timeout must be a number of seconds, or None for no deadline, not {show_value(timeout)}.")
    if budget is None:
        return
    if isinstance(budget, bool) or not isinstance(budget, Decimal | int) or Decimal(budget).is_nan() or budget < 0:
        raise ConfigurationError(f"budget must be US dollars as a Decimal, such as Decimal('5.00'), not {show_value(budget)}.")


def read_stop_on(stop_on: object) -> Callable[[Outcome[Any]], bool]:
    """Read what ends a batch, as a function of an outcome.

    Raises:
        ConfigurationError: It is neither errors nor a function.
    """
    if stop_on is None:
        return is_hopeless
    kinds = stop_on if is_tuple(stop_on) else (stop_on,)
    if all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        classes = cast("tuple[type[BaseException], ...]", kinds)
        return lambda outcome: isinstance(outcome.error, classes)
    if _is_predicate(stop_on):
        return stop_on
    raise ConfigurationError(f"stop_on must be errors such as (InsufficientBalanceError,), or a plain function, not {show_value(stop_on)}.")


def _is_predicate(value: object) -> TypeGuard[Callable[[Outcome[Any]], bool]]:
    return callable(value) and not iscoroutinefunction(value)
