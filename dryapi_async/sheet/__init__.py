"""The contact sheet of a batch: one HTML file that grows as results come. It knows nothing of clients."""

from dryapi_async.sheet.sheet import Entry, Sheet

__all__ = ["Entry", "Sheet"]
