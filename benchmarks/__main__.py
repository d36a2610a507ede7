"""The command: ``python -m benchmarks [NAME ...]``."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks import batch, download, imports, instructions, long_run, memory, report, throughput, upload, watch
from benchmarks.options import Options
from benchmarks.processes import ChildError
from benchmarks.report import Section

BENCHMARKS: Final[dict[str, Callable[[Options], Section]]] = {
    "throughput": throughput.run,
    "upload": upload.run,
    "memory": memory.run,
    "watch": watch.run,
    "batch": batch.run,
    "download": download.run,
    "import": imports.run,
    "instructions": instructions.run,
    "long-run": long_run.run,
}


def main(arguments: list[str]) -> int:
    """Run benchmarks, print their sections, and write them to the results file.

    A smoke run writes no file. The exit status says whether it worked; a goal that is missed is said in the report.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure the client beside a loop written by hand on raw aiohttp."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument(
        "--smoke", action="store_true", help="seconds, and little work: that it works, not how fast; implies --check, writes no file"
    )
    parser.add_argument("--check", action="store_true", help="prove first that the server gets the files as they are on disk")
    parser.add_argument("--cold", action="store_true", help="take the files out of the page cache before each repetition")
    parser.add_argument("--tls", action="store_true", help="throughput: a second table, over TLS (needs trustme)")
    parser.add_argument("--repetitions", type=int, default=5, help="5 by default")
    parser.add_argument("--output", type=Path, default=report.RESULTS, help="the file to write (benchmarks/results.md)")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))} (there is {', '.join(BENCHMARKS)})")
    if given.repetitions < 1:
        parser.error("--repetitions must be at least 1")
    if given.cold and not hasattr(os, "posix_fadvise"):
        parser.error("--cold needs a system with posix_fadvise")
    options = Options(
        command=" ".join(["python -m benchmarks", *arguments]),
        repetitions=1 if given.smoke else given.repetitions,
        smoke=given.smoke,
        check=given.check or given.smoke,
        cold=given.cold,
        output=given.output,
        tls=given.tls,
    )
    try:
        sections = [BENCHMARKS[name](options) for name in given.names or BENCHMARKS]
    except (ChildError, upload.DigestError) as error:
        print(error, file=sys.stderr)
        return 1
    for section in sections:
        print(f"## {section.name}\n\n{section.text}")
    if not options.smoke:
        report.write(sections, given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
