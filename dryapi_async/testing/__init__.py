"""Offer to a user's tests what our own use: an event loop whose clock jumps."""

from dryapi_async.testing.clock import JumpingLoop, hold_clock, wall_time

__all__ = ["JumpingLoop", "hold_clock", "wall_time"]
