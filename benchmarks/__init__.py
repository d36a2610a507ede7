"""A small instrument: what the client costs, beside a loop written by hand on raw aiohttp. ``python -m benchmarks --help``."""
