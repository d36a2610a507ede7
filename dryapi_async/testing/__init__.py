"""Offer to a user's tests what our own use: an event loop whose clock jumps, and signed webhooks."""

from dryapi_async.testing.clock import JumpingLoop, hold_clock, wall_time
from dryapi_async.testing.signer import WebhookSigner

__all__ = ["JumpingLoop", "WebhookSigner", "hold_clock", "wall_time"]
