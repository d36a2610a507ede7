"""Processes that open one new journal at the same moment, as a server's workers do when it starts."""

import multiprocessing
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dryapi_async.io.ledger import Ledger

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

WORKERS, ROUNDS = 6, 100


def _open(path: Path, at: float, told: "SimpleQueue[str]") -> None:
    ledger = Ledger(path, base_url="https://api.example")
    while time.time() < at:
        pass
    try:
        ledger.find("a", "nobody's key")
    except Exception as error:  # noqa: BLE001  whatever it is, the test says it
        told.put(repr(error))
    else:
        told.put("")


@pytest.mark.processes
def test_workers_that_open_a_new_journal_at_once_all_get_it(tmp_path: Path) -> None:
    start = multiprocessing.get_context("fork")
    told: SimpleQueue[str] = start.SimpleQueue()
    errors: list[str] = []
    for number in range(ROUNDS):
        at = time.time() + 0.03
        workers = [start.Process(target=_open, args=(tmp_path / f"{number}.db", at, told)) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        errors += [told.get() for _ in workers]
    assert [error for error in errors if error] == []
    assert len(errors) == WORKERS * ROUNDS
