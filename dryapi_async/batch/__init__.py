"""Many requests, so many at once: their outcomes as they come, in memory that doesn't grow with their number."""

from dryapi_async.batch.batch import Batch
from dryapi_async.batch.outcomes import Item, Money, Operations, Outcome, Progress, Save, StopOn, is_hopeless
from dryapi_async.batch.sheets import Album

__all__ = ["Album", "Batch", "Item", "Money", "Operations", "Outcome", "Progress", "Save", "StopOn", "is_hopeless"]
