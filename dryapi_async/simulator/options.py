"""Options that are refused before anything is served: a misspelt one would be found out much later, or never."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.util import find_spec
from typing import cast, get_args

from dryapi_async.simulator.contract import OPERATIONS
from dryapi_async.simulator.faults import check_name
from dryapi_async.simulator.limits import TIERS, Window

JOBS: tuple[str, ...] = ("*", *(slug for slug, row in OPERATIONS.items() if row.action == "job"))
"""What may be held: every operation that makes a job, or all."""
_LIMITED = ("*", "prices", "status", "whisper", *OPERATIONS)
_LIMITS = "limits takes {operation: (requests, seconds)}, such as {'txt2img': (3, 60.0)}"
_SHARED = "shared takes (requests, seconds), such as (300, 60.0), with or without a third number, the requests a day"
_DURATIONS = "durations takes {operation: (median seconds, sigma)}, such as {'txt2img': (2.0, 0.4)}; duration=3 makes each job take 3 s"


def check_options(*, tier: object, window: object, limits: object, shared: object, durations: object, pictures: bool) -> None:
    """Refuse what isn't there; a ValueError names what is. A RuntimeError says what has to be installed."""
    check_name("tier", tier, TIERS)
    check_name("window", window, get_args(Window))
    for name, limit in _read(limits, _LIMITS).items():
        check_name("limit", name, _LIMITED)
        if not _is_limit(limit):
            raise ValueError(f"{_LIMITS}; not {name}: {limit!r}")
    if shared is not None and not _is_limit(shared):
        raise ValueError(f"{_SHARED}; not {shared!r}")
    for slug, drawn in _read(durations, _DURATIONS).items():
        check_name("operation of durations", slug, JOBS[1:])
        if not _is_distribution(drawn):
            raise ValueError(f"{_DURATIONS}; not {slug}: {drawn!r}")
    if pictures and find_spec("PIL") is None:
        raise RuntimeError("drawn pictures need Pillow: pip install 'dryapi-async[simulator]', or Simulator(pictures=False)")


def _read(given: object, usage: str) -> Mapping[object, object]:
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"{usage}; not {given!r}")
    return cast("Mapping[object, object]", given or {})


def _list(given: object) -> list[object]:
    return list(cast("tuple[object, ...]", given)) if isinstance(given, tuple | list) else []


def _is_limit(given: object) -> bool:
    """Whether it is a number of requests and a number of seconds, with or without a number of requests a day."""
    match _list(given):
        case [requests, seconds] | [requests, seconds, None]:
            return _is_count(requests) and _is_count(seconds) and seconds != 0
        case [requests, seconds, day]:
            return _is_count(requests) and _is_count(seconds) and seconds != 0 and _is_count(day)
        case _:
            return False


def _is_count(given: object) -> bool:
    return isinstance(given, int | float) and 0 <= given < math.inf


def _is_distribution(drawn: object) -> bool:
    """Whether it is a median over 0 and a sigma from 0 on, which `lognormvariate` takes."""
    match _list(drawn):
        case [int() | float() as median, int() | float() as sigma]:
            return 0 < median < math.inf and 0 <= sigma < math.inf
        case _:
            return False
