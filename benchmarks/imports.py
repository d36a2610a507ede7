"""Imports: what a fresh process pays for this client before its first call, beside aiohttp's own import and other SDKs."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from statistics import median
from typing import Final

from attrs import frozen

from benchmarks import machine
from benchmarks.figures import Figure, Goal, goal_table, spread
from benchmarks.options import Options
from benchmarks.processes import ROOT, ChildError, run_child
from benchmarks.report import Section

REPETITIONS: Final = 5
"""Processes of each kind in one repetition of the options': one takes a fraction of a second."""
GOALS: Final = (Goal("must be", "<=", 60.0), Goal("aim", "<=", 35.0))


@frozen
class Start:
    """A program that is started again and again; ``package`` must be installed."""

    name: str
    code: str
    package: str
    judged: bool = False


STARTS: Final = (
    Start("bare Python", "pass", "sys"),
    Start("`import aiohttp`", "import aiohttp", "aiohttp"),
    Start("ours: `import dryapi_async`", "import dryapi_async", "dryapi_async"),
    Start("ours: `from dryapi_async import Client`", "from dryapi_async import Client", "dryapi_async", judged=True),
    Start("ours, and a client made", "from dryapi_async import Client; Client('1|a-key')", "dryapi_async", judged=True),
    Start("openai, and a client made", "from openai import AsyncOpenAI; AsyncOpenAI(api_key='a-key')", "openai"),
    Start("replicate, and a client made", "import replicate; replicate.Client(api_token='a-key')", "replicate"),
    Start("fal-client, and a client made", "import fal_client; fal_client.AsyncClient(key='a-key')", "fal_client"),
)
BARE, BASE = STARTS[0], STARTS[1]
OURS: Final = STARTS[:5]
INSIDE: Final = ("`import aiohttp`", "then `from dryapi_async import Client`", "and a client made")
CLOCK: Final = """
import json, time
began = time.perf_counter()
import aiohttp
based = time.perf_counter()
from dryapi_async import Client
imported = time.perf_counter()
Client('1|a-key')
print(json.dumps([based - began, imported - based, time.perf_counter() - based]))
"""
"""A program that says itself how long its imports take: the difference of two processes has the noise of both, and their ends in it."""
WITHOUT: Final = "import sys; sys.modules['orjson'] = None\n"
"""What every program begins with: what the extra ``speed`` installs isn't part of the client."""


def run(options: Options) -> Section:
    """Run the benchmark.

    Raises:
        ChildError: A process failed.
    """
    # Others' byte code alone takes half a minute to write: a smoke run goes without them.
    starts = [one for one in (OURS if options.smoke else STARTS) if importlib.util.find_spec(one.package) is not None]
    repetitions = 1 if options.smoke else REPETITIONS * options.repetitions
    taken: dict[str, list[float]] = run_child("imports:measure", names=[one.name for one in starts], repetitions=repetitions)
    inside: list[list[float]] = run_child("imports:measure_inside", repetitions=repetitions)
    if options.smoke:
        seen = ", ".join(f"{one.name} {median(taken[one.name]):.0f} ms" for one in starts)
        return Section(name="import", text=f"It works: {seen}. Too few to say how fast.\n")
    rows = "\n".join(_write_row(one, taken) for one in starts)
    absent = ", ".join(one.package for one in STARTS if one not in starts)
    return Section(
        name="import",
        text=f"""| program | process, ms | over bare Python, ms | over aiohttp's own import, ms | goals |
|---|---|---|---|---|
{rows}

By the program's own clock, in one process, ms:

{goal_table(_make_figures(inside))}

* A process is timed from its start to its end, its tidying up at the end included, {len(taken[BARE.name])} of each in turn; a
  difference is taken within each turn: median, least and greatest. It is one of two large times, and has the noise of both.
* By the program's own clock aiohttp is imported first, and what comes then is what this client adds: {len(inside)} processes.
* Byte code is written before, into a folder of its own; nothing else is kept between processes. orjson is taken as not installed.
* Public names are loaded when they are first used, so `import dryapi_async` alone does little; the goals are for a program that has its
  client. Making the client loads all that the first call needs: a test holds that the first call imports nothing of ours and nothing of
  anybody else's.
* Not installed, so not measured: {absent or "none"}.
* Pinning: each process runs on core {machine.CLIENT_CORE}.
* {machine.today()}, `{options.command}`. {machine.describe()}.
""",
    )


def _make_figures(inside: list[list[float]]) -> list[Figure]:
    """Make the figures of what the programs said of themselves."""
    columns = zip(INSIDE, ((), GOALS, GOALS), zip(*inside, strict=True), strict=True)
    return [Figure(name=name, digits=1, ours=values, raw=(), judged="ours", goals=goals) for name, goals, values in columns]


def measure_inside(*, repetitions: int) -> list[list[float]]:
    """Run the program that has a clock of its own, again and again: milliseconds of each of its parts.

    Raises:
        ChildError: It failed.
    """
    with _environment() as environment:
        said = [_run("imports with a clock", CLOCK, environment) for _ in range(1 + repetitions)]
    return [[seconds * 1000 for seconds in json.loads(line)] for line in said[1:]]


def measure(*, names: list[str], repetitions: int) -> dict[str, list[float]]:
    """Run programs in turn, again and again, on the core of this process: milliseconds of each.

    Raises:
        ChildError: One failed.
    """
    starts = [one for one in STARTS if one.name in names]
    taken: dict[str, list[float]] = {one.name: [] for one in starts}
    with _environment() as environment:
        for one in starts:
            _run(one.name, one.code, environment)
        for _ in range(repetitions):
            for one in starts:
                began = time.perf_counter()
                _run(one.name, one.code, environment)
                taken[one.name].append((time.perf_counter() - began) * 1000)
    return taken


@contextmanager
def _environment() -> Generator[dict[str, str], None, None]:
    """Give the environment of a program: its byte code has a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="dryapi-benchmark-") as folder:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        yield kept | {"PYTHONPYCACHEPREFIX": folder, "PYTHONPATH": str(ROOT)}


def _run(name: str, code: str, environment: dict[str, str]) -> str:
    """Run a program in a fresh process, and give what it says."""
    command = [sys.executable, "-c", WITHOUT + code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChildError(f"{name} failed with exit status {done.returncode}:\n{done.stderr}")
    return done.stdout


def _write_row(start: Start, taken: dict[str, list[float]]) -> str:
    """Write a row of the table."""
    values = taken[start.name]
    over = [value - base for value, base in zip(values, taken[BASE.name], strict=True)]
    bare = [value - base for value, base in zip(values, taken[BARE.name], strict=True)]
    goals = "<br>".join(f"{goal}: {goal.judge(over)}" for goal in GOALS) if start.judged else ""
    beside = start not in {BARE, BASE}
    cells = (start.name, spread(values, 0), "" if start is BARE else spread(bare, 0), spread(over, 0) if beside else "", goals)
    return f"| {' | '.join(cells)} |"
