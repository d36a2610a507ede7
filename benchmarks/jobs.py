"""Jobs from submit to the file in memory: what a child process of the throughput benchmark runs."""

import asyncio
import gc
import importlib
import json
import socket
import ssl
import sys
import time
from bisect import bisect
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from statistics import quantiles
from typing import Any, Final

from attrs import asdict

from benchmarks.answers import RESULT_BYTES, ROOT, SIGNED, name_job, read_answer
from benchmarks.meter import measure
from benchmarks.pace import Pace
from benchmarks.subjects import Finish

WARM_UP: Final = 4
"""Jobs for each of those at once, before anything is measured: connections are open then, and what is prepared once is prepared."""
PIPELINED: Final = 20
"""Jobs whose requests the raw socket sends ahead of their answers."""


def drive(*, jobs: int, **subject: Any) -> dict[str, Any]:
    """Bring jobs to their end with one subject, in one turn: what it cost, and its latencies' p99 / p50."""
    with open_subject(**subject) as finish:
        return sum_up([finish(jobs=jobs)])


def take_turns(**subject: Any) -> Generator[dict[str, Any], None, None]:
    """Say when one subject is ready, and then what each turn cost; a line of standard input is what to give the subject for a turn."""
    with open_subject(**subject) as finish:
        yield {}
        for line in sys.stdin:
            yield finish(**json.loads(line))


@contextmanager
def open_subject(
    *, subject: str, url: str, authority: str | None, at_once: int, loop: str, without: list[str]
) -> Generator[Callable[..., dict[str, Any]], None, None]:
    """Open a subject and warm it up: what is given brings ``jobs`` to their end, and says what that cost.

    ``loop`` is the package whose ``new_event_loop`` is used; ``without`` names packages that are taken as not installed.
    What is given takes ``paced=True``: then it does a piece of equal work after each job.
    """
    for name in without:
        sys.modules[name] = None  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]  this is how an import is made to fail
    with asyncio.Runner(loop_factory=importlib.import_module(loop).new_event_loop) as runner:
        opening = importlib.import_module(f"benchmarks.subjects.{subject}").open_jobs(url, at_once, trust(authority))
        finish = runner.run(opening.__aenter__())
        try:
            runner.run(_finish_all(finish, WARM_UP * at_once, at_once))
            gc.collect()
            gc.freeze()  # for all alike: a full collection takes longer than all jobs at once

            def take(jobs: int, *, paced: bool = False) -> dict[str, Any]:
                return runner.run(_take_turn(finish, jobs, at_once, paced=paced))

            yield take
        finally:
            runner.run(opening.__aexit__(None, None, None))


async def _take_turn(finish: Finish, jobs: int, at_once: int, *, paced: bool) -> dict[str, Any]:
    # Others' turns take seconds, in which pools close connections that are idle for longer than they keep them: each its own time.
    await _finish_all(finish, at_once, at_once)
    spans: list[tuple[float, float]] = []
    pace = Pace() if paced else None
    reading = await measure(_finish_all(finish, jobs, at_once, spans, pace))
    assert len(spans) == jobs
    work = [] if pace is None else pace.measure(spans)
    return {**asdict(reading), "latencies": [end - begin for begin, end in spans], "work": work, "ends": count_ends(spans)}


def sum_up(turns: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Make one reading of a subject's turns: times are sums, memory and stalls the worst, spreads those of all jobs."""
    sums = {name: sum(turn[name] for turn in turns) for name in ("seconds", "cpu_seconds")}
    worst = {name: max(turn[name] for turn in turns) for name in ("rss_growth_bytes", "rss_peak_bytes", "stall_seconds")}
    spreads = {name: _spread([one for turn in turns for one in turn[name]]) for name in ("latencies", "work", "ends")}
    return {**sums, **worst, **spreads}


def _spread(values: Sequence[float]) -> float:
    """Give p99 / p50; of nothing it is 0."""
    if not values:
        return 0.0
    cuts = quantiles(values, n=100)
    return cuts[98] / cuts[49]


def count_ends(spans: Sequence[tuple[float, float]]) -> list[int]:
    """Say how many jobs ended during each, itself included: as many as there are at once, where no job is overtaken.

    ``spans`` are the jobs' moments of begin and end, in the order of their ends.
    """
    ends = [end for _, end in spans]
    return [number - bisect(ends, begin) for number, (begin, _) in enumerate(spans, 1)]


async def _finish_all(
    finish: Finish, jobs: int, at_once: int, spans: list[tuple[float, float]] | None = None, pace: Pace | None = None
) -> None:
    """Finish jobs, ``at_once`` at once, and note when each began and ended, and the pace behind it."""
    numbers = iter(range(jobs))

    async def work() -> None:
        for number in numbers:
            began = time.perf_counter()
            size = await finish(number)
            if spans is not None:
                spans.append((began, time.perf_counter()))
            if pace is not None:
                pace.note()
            assert size == RESULT_BYTES

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())


def trust(authority: str | None) -> ssl.SSLContext | None:
    """Make a context that trusts one authority; None for plain http."""
    return None if authority is None else ssl.create_default_context(cadata=authority)


def rate(*, url: str, authority: str | None, jobs: int) -> dict[str, float]:
    """Measure the server alone, with a raw socket that sends the three requests of each job ahead of their answers."""
    port = int(url.rpartition(":")[2])
    host = b"Host: 127.0.0.1:%d\r\nAuthorization: Bearer benchmark\r\nAccept: application/json\r\n" % port
    body, name = b'{"prompt": "a fox in snow", "model": "Flux1schnell", "width": 512, "height": 512}', name_job(1)
    requests = (
        f"POST {ROOT}txt2img HTTP/1.1\r\n".encode() + host + b"Content-Length: %d\r\n\r\n" % len(body) + body,
        f"GET {ROOT}request-status/{name} HTTP/1.1\r\n".encode() + host + b"\r\n",
        f"GET /results/{name}/result.png?{SIGNED} HTTP/1.1\r\n".encode() + host + b"\r\n",
    )
    context = trust(authority)
    with closing(socket.create_connection(("127.0.0.1", port))) as plain:
        connection = plain if context is None else context.wrap_socket(plain, server_hostname="127.0.0.1")
        with connection, connection.makefile("rb") as answers:
            sizes = [_ask(connection, answers, request) for request in requests]
            bundle, answer_bytes = b"".join(requests) * PIPELINED, sum(sizes) * PIPELINED
            began = time.perf_counter()
            for _ in range(jobs // PIPELINED):
                connection.sendall(bundle)
                assert len(answers.read(answer_bytes)) == answer_bytes
            seconds = time.perf_counter() - began
    return {"jobs_per_second": jobs // PIPELINED * PIPELINED / seconds}


def _ask(connection: socket.socket, answers: Any, request: bytes) -> int:
    """Send one request, and give the bytes of its answer."""
    connection.sendall(request)
    return read_answer(answers)
