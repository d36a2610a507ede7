"""Who is measured: a module each, with a function for each benchmark that it takes part in."""

from collections.abc import Awaitable, Callable
from pathlib import Path

Upload = Callable[[Path], Awaitable[str]]
"""Submits an img2img job with one file, and gives its request_id."""

Finish = Callable[[int], Awaitable[int]]
"""Brings a job to its end (submit, status, download into memory), and gives its result's bytes. Its number makes its prompt differ."""
