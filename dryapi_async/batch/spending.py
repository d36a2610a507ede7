"""A batch's money: what each kind of request costs, what was spent, and where to stop."""

import logging
from decimal import Decimal
from typing import Any

from dryapi_async.batch.outcomes import Work
from dryapi_async.calls import Call
from dryapi_async.errors import BudgetExceededError, DryAPIError, SubmissionUnknownError
from dryapi_async.job import EngineSource
from dryapi_async.operations.base import Operation
from dryapi_async.protocol.batches import MOST_SHAPES, price_measures, price_shape

logger: logging.Logger = logging.getLogger("dryapi_async")


class Purse:
    """So much and no more; what was spent is the sum of the prices that the service told before each submit."""

    def __init__(self, budget: Decimal, engine: EngineSource, timeout: float | None) -> None:
        self._budget = budget
        self._engine = engine
        self._timeout = timeout
        self._prices: dict[str, Decimal] = {}
        self.spent: Decimal = Decimal(0)

    async def reserve(self, work: Work[Any]) -> None:
        """Ask what an operation costs, and count it as spent; a job that is there already was paid before.

        Raises:
            BudgetExceededError: It would pass the budget, and isn't counted.
            DryAPIError: The price can't be had, and there is a budget to keep to.
        """
        if work.operation is None:
            return
        try:
            work.price = await self._ask(work.operation)
        except DryAPIError as error:
            if self._budget.is_finite():
                raise
            # Asked for to be shown, not to be kept to.
            logger.warning("the price of %s couldn't be had: %s", work.key, error)
            return
        if self.spent + work.price > self._budget:
            raise BudgetExceededError(
                f"The next request costs {work.price} and {self.spent} of the budget of {self._budget} is spent. It wasn't sent: give a "
                "larger budget to go on."
            )
        self.spent += work.price

    def settle(self, work: Work[Any], error: Exception) -> None:
        """Give back what an operation that failed didn't cost: one that was refused, or never sent."""
        if work.price is not None and work.job is None and not isinstance(error, SubmissionUnknownError):
            self.spent -= work.price

    async def _ask(self, operation: Operation[Any]) -> Decimal:
        """Find a price: asked once for requests that cost the same, each time where only the service can measure what it costs."""
        if operation.endpoint.price is None:
            return Decimal(0)
        shape = price_shape(operation)
        if shape is not None and shape in self._prices:
            return self._prices[shape]
        price: Decimal = await Call(operation, self._engine).price(timeout=self._timeout, **price_measures(operation))
        if shape is not None:
            self._prices[shape] = price
            if len(self._prices) > MOST_SHAPES:
                del self._prices[next(iter(self._prices))]
        return price
