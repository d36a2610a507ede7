"""Instructions: what a job takes in the client's process, counted by valgrind, for processor time says little where others share it."""

import json
import os
import re
import shutil
import subprocess
import sys
from typing import Final

from benchmarks import machine
from benchmarks.options import Options
from benchmarks.processes import ROOT, ChildError, Server, start_server
from benchmarks.report import Section
from benchmarks.throughput import OWN, RAW, Subject

FEW: Final = 128
MANY: Final = 512
"""Jobs in two counts: imports, connections and the warm-up are in both, so the difference is the jobs' alone."""
AT_ONCE: Final = 64
PATIENCE: Final = 600.0
"""Seconds for one count: valgrind takes fifty times as long as the process alone."""
_COUNTED: Final = re.compile(r"Collected : (\d+)")


def run(options: Options) -> Section:
    """Run the benchmark. A smoke run counts nothing: valgrind takes half a minute for the imports alone.

    Raises:
        ChildError: A process failed.
    """
    if shutil.which("valgrind") is None or options.smoke:
        return Section(name="instructions", text="Not counted: it needs valgrind, and minutes.\n")
    subjects = [subject for subject in OWN if not subject.missing]
    with start_server() as server:
        counts = {subject.name: (count(subject, MANY, server) - count(subject, FEW, server)) / (MANY - FEW) for subject in subjects}
    rows = "\n".join(f"| {name} | {taken / 1000:,.0f} | {taken / counts[RAW.name]:.2f} |" for name, taken in counts.items())
    return Section(
        name="instructions",
        text=f"""| a job of | instructions, in thousands | of raw aiohttp's |
|---|---|---|
{rows}

* The jobs of the throughput benchmark, {AT_ONCE} at once, in one process under `valgrind --tool=callgrind`: the count for {MANY} jobs less
  that for {FEW}, divided by the difference. Two counts of the same code differ by some 0.2 %, whatever else the machine does. What the
  kernel does isn't counted.
* {machine.today()}, `{options.command}`. {machine.describe()}.
""",
    )


def count(subject: Subject, jobs: int, server: Server) -> int:
    """Count the instructions of one process that brings so many jobs to their end.

    Raises:
        ChildError: It failed, or valgrind counted nothing.
    """
    work = {
        "subject": subject.module,
        "url": server.url,
        "authority": server.authority,
        "jobs": jobs,
        "at_once": AT_ONCE,
        "loop": subject.loop,
        "without": subject.without,
    }
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, "-m", "benchmarks.child", "jobs:drive"]
    # Texts hash the same in each process, so that dictionaries are walked alike.
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, input=json.dumps(work), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    counted = _COUNTED.search(done.stderr)
    if done.returncode or counted is None:
        raise ChildError(f"{subject.name} under valgrind failed with exit status {done.returncode}:\n{done.stderr}")
    return int(counted[1])
