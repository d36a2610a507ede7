"""Prices for show: asked once for requests that cost the same; where they can't be had nothing is said."""

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, cast

from dryapi_async import Client, DryAPIError
from dryapi_async.operations.base import JobOperation, Operation
from dryapi_async.operations.limits import file_fields
from dryapi_async.protocol.batches import price_measures, price_shape

_PATIENCE_SECONDS: Final = 10.0
_MOST_FAILURES: Final = 3
_MOST_LOOKED_AT: Final = 1024 * 1024
"""Bytes of a picture's beginning."""


class Prices:
    """What requests cost, as far as that can be had without uploading a file."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, Decimal | None] = {}
        self._failures = 0
        self.problem: str = ""
        """Why a price couldn't be had, in the service's words."""

    async def ask(self, operation: Operation[Any]) -> Decimal | None:
        """Give what a request costs, in US dollars; None where that can't be had."""
        measures = dict(price_measures(operation)) or await _measure_picture(operation)
        shape = f"{operation.endpoint.slug} {measures} {getattr(operation, 'model', '')}" if measures else price_shape(operation)
        if shape is None:
            return None
        if shape not in self._known:
            self._known[shape] = await self._ask(operation, measures)
        return self._known[shape]

    async def _ask(self, operation: Operation[Any], measures: dict[str, float]) -> Decimal | None:
        if self._failures >= _MOST_FAILURES:
            return None
        call = self._client.call(cast("JobOperation[Any]", operation))
        try:
            return await call.price(timeout=_PATIENCE_SECONDS, **measures)
        except DryAPIError as error:
            self._failures += 1
            self.problem = str(error)
            return None


async def _measure_picture(operation: Operation[Any]) -> dict[str, float]:
    """Measure the picture whose size makes the price, where its first bytes say it."""
    price = operation.endpoint.price
    if price is None or set(price.measures) != {"width", "height"}:
        return {}
    for _, _, source in file_fields(operation):
        size = await asyncio.to_thread(_measure, Path(str(source)))
        if size is not None:
            return {"width": size[0], "height": size[1]}
    return {}


def _measure(path: Path) -> tuple[int, int] | None:
    try:
        from dryapi_async.simulator.sniff import measure  # noqa: PLC0415  loaded by what needs it

        with path.open("rb") as file:
            size: tuple[int, int] | None = measure(file.read(_MOST_LOOKED_AT))
    except (OSError, ImportError):
        return None
    return size
