"""Shared limits while their store is away: nothing goes before what all processes sent counts no more, however high the limit is."""

import math
import time
from collections.abc import Sequence

import pytest

from dryapi_async import SharedStateError
from dryapi_async.io.shared_lanes import SharedLanes
from dryapi_async.shared import SharedRate

from ..conftest import now

pytestmark = pytest.mark.anyio


class Store:
    """A store that gives every place, until it is away."""

    def __init__(self) -> None:
        self.away = False

    async def reserve(self, lane: str, rates: Sequence[SharedRate], *, token: str, most_wait: float, first: bool = False) -> float:
        self._check()
        return 0.0

    async def end(self, rates: Sequence[SharedRate], *, token: str, counted: bool) -> None:
        self._check()

    async def hold(self, lane: str, seconds: float) -> None:
        self._check()

    def _check(self) -> None:
        if self.away:
            raise SharedStateError("The store is away. Bring it back.")


def _ignore(lane: str, seconds: float) -> None:
    """Listen to nothing."""


@pytest.mark.parametrize("limit", [3, 10**12])
async def test_a_process_alone_begins_when_what_all_sent_counts_no_more(limit: int) -> None:
    store = Store()
    lanes = SharedLanes(store, processes=2, when_away="degrade", tell=_ignore, wall=time.time)
    rates = (SharedRate(name="txt2img", limit=limit, seconds=60.0),)
    lanes.end(await lanes.enter("txt2img", rates, deadline=math.inf, request="POST txt2img"), counted=True)
    store.away = True
    lanes.end(await lanes.enter("txt2img", rates, deadline=math.inf, request="POST txt2img"), counted=True)
    assert now() == pytest.approx(60, abs=0.5)
    await lanes.close()
