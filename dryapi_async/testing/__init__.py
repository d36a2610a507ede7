"""Offer to a user's tests what our own use: pytest fixtures, an event loop whose clock jumps, signed webhooks, a simulator in a thread."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dryapi_async.testing.clock import JumpingLoop, hold_clock, wall_time
    from dryapi_async.testing.signer import WebhookSigner
    from dryapi_async.testing.threaded import ThreadedSimulator

__all__ = ["JumpingLoop", "ThreadedSimulator", "WebhookSigner", "hold_clock", "wall_time"]

_HOMES: Final = {"ThreadedSimulator": "threaded", "WebhookSigner": "signer"}
"""Where public names live; all others live in ``clock``."""

if not TYPE_CHECKING:  # else any name would pass for one of ours

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first asked for: pytest imports this package in every project where it is installed."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'clock')}"), name)
        return value

    def __dir__() -> list[str]:
        """Name what is there, and what can be."""
        return sorted({*globals(), *__all__})
