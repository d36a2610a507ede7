"""Uploads: sixteen files of 10 MiB at once, this client against a loop written by hand on raw aiohttp."""

import hashlib
import os
import random
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from attrs import define, field, frozen

from benchmarks import machine, meter
from benchmarks.figures import Figure, Goal, misses, spread, table
from benchmarks.options import Options
from benchmarks.processes import Server, run_child, start_server
from benchmarks.report import Section

MIB: Final = 2**20
SUBJECTS: Final = ("ours", "raw_aiohttp")
IDLE_SECONDS: Final = 0.5
QUIET_MS: Final = 1.0
"""An idle loop's longest stall on a machine that does nothing else stays below this."""
ROOM: Final = 1.5
"""The server's own rate over that of the fastest subject: with less, it may be what is measured."""


@frozen(kw_only=True)
class Load:
    """How much is sent."""

    uploads: int
    at_once: int
    file_bytes: int

    def describe(self) -> str:
        """Say it in words."""
        return f"{self.uploads} uploads of {self.file_bytes / MIB:g} MiB, {self.at_once} at once, {self.at_once} different files on disk"


FULL: Final = Load(uploads=64, at_once=16, file_bytes=10 * MIB)
SMOKE: Final = Load(uploads=8, at_once=4, file_bytes=MIB)


class DigestError(Exception):
    """The server got other bytes than the file has."""


@frozen(kw_only=True)
class Files:
    """Pictures on disk, as far as their first bytes tell, and a small one to warm up with."""

    paths: tuple[Path, ...]
    warm_up: Path

    def digests(self) -> list[str]:
        """Digest each file: SHA-256, in hexadecimal."""
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in self.paths]

    def drop_from_cache(self) -> None:
        """Have the system forget the files' pages, where it can be asked."""
        for path in self.paths:
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def run(options: Options) -> Section:
    """Run the benchmark.

    Raises:
        DigestError: The check failed.
        ChildError: A process failed.
    """
    load = SMOKE if options.smoke else FULL
    with make_files(load) as files:
        checked = check(load, files) if options.check else "not asked for (`--check`)"
        with start_server() as server:
            taken = repeat(load, files, server, options)
    figures, aside = compare(load, taken.readings), _Aside(server=server, taken=taken, checked=checked)
    return Section(name="upload", text=_write_smoke(load, figures, aside) if options.smoke else _write(load, options, figures, aside))


@contextmanager
def make_files(load: Load) -> Generator[Files, None, None]:
    """Make the files in a temporary directory, which is removed at the end."""
    noise = random.Random(16)  # noqa: S311  content, no secret
    with tempfile.TemporaryDirectory(prefix="dryapi-benchmark-") as folder:
        sizes = {"warm-up": 4096} | {f"picture-{number}": load.file_bytes for number in range(load.at_once)}
        paths: list[Path] = []
        for name, size in sizes.items():
            magic = b"\x89PNG\r\n\x1a\n"
            paths.append(Path(folder, f"{name}.png"))
            with paths[-1].open("wb") as file:
                file.write(magic + noise.randbytes(size - len(magic)))
                file.flush()
                os.fsync(file.fileno())  # else the pages are dirty, and can't leave the cache
        yield Files(warm_up=paths[0], paths=tuple(paths[1:]))


def check(load: Load, files: Files) -> str:
    """Prove for each subject that the server gets each file as it is on disk.

    Raises:
        DigestError: It doesn't.
    """
    digests = files.digests()
    with start_server(digests=True) as server:
        for subject in SUBJECTS:
            verify(subject, _upload(subject, load, files, server)["ids"], digests)
    return f"the SHA-256 of each of {load.uploads} files that the server got is the file's on disk, for each of both"


def verify(subject: str, ids: list[str], digests: list[str]) -> None:
    """Compare the digests that the server gave as ids with those of the files.

    Raises:
        DigestError: They differ.
    """
    wrong = [number for number, found in enumerate(ids) if found != digests[number % len(digests)]]
    if wrong or not ids:
        raise DigestError(f"{subject}: of {len(ids)} uploads these had another SHA-256 at the server than on disk: {wrong}.")


@define(kw_only=True)
class Taken:
    """What the repetitions gave, in their order."""

    readings: dict[str, list[dict[str, float]]] = field(factory=lambda: {subject: [] for subject in SUBJECTS})
    """Of each subject, `meter.Reading` as a dictionary."""
    rates: list[dict[str, float]] = field(factory=list[dict[str, float]])
    """The server's own."""
    idle_stalls: list[float] = field(factory=list[float])
    """Seconds that a loop which does nothing was stalled: the machine's own part."""


def repeat(load: Load, files: Files, server: Server, options: Options) -> Taken:
    """Run the subjects in turn, again and again."""
    taken = Taken()
    requests = 2_000 if options.smoke else 20_000
    for _ in range(options.repetitions):
        taken.idle_stalls.append(run_child("idle", seconds=IDLE_SECONDS)["reading"]["stall_seconds"])
        taken.rates.append(run_child("rate", port=server.port, body_bytes=load.file_bytes, bodies=load.uploads, requests=requests))
        for subject in SUBJECTS:
            if options.cold:
                files.drop_from_cache()
            taken.readings[subject].append(_upload(subject, load, files, server)["reading"])
    return taken


def _upload(subject: str, load: Load, files: Files, server: Server) -> Any:
    return run_child(
        "upload",
        subject=subject,
        url=server.url,
        paths=[str(path) for path in files.paths],
        warm_up=str(files.warm_up),
        uploads=load.uploads,
        at_once=load.at_once,
    )


def compare(load: Load, readings: dict[str, list[dict[str, float]]]) -> list[Figure]:
    """Make the figures out of the readings, with the goals beside them."""
    size = load.uploads * load.file_bytes

    def of(key: str, factor: float) -> dict[str, tuple[float, ...]]:
        ours, raw = (tuple(reading[key] * factor for reading in readings[subject]) for subject in SUBJECTS)
        return {"ours": ours, "raw": raw}

    speed = {who: tuple(size / MIB / seconds for seconds in values) for who, values in of("seconds", 1).items()}
    must, aim = "must be", "aim"
    return [
        Figure(
            name="MiB/s", digits=0, ours=speed["ours"], raw=speed["raw"], judged="ratio", goals=(Goal(must, ">=", 0.9), Goal(aim, ">=", 2))
        ),
        Figure(
            name="CPU s/GiB",
            digits=2,
            **of("cpu_seconds", 2**30 / size),
            judged="ratio",
            goals=(Goal(must, "<=", 1.1), Goal(aim, "<=", 0.45)),
        ),
        Figure(
            name="peak RSS growth, MiB",
            digits=1,
            **of("rss_growth_bytes", 1 / MIB),
            judged="ours",
            goals=(Goal("promise", "<=", 32), Goal(must, "<=", 20), Goal(aim, "<=", 5)),
        ),
        Figure(
            name="longest stall of the loop, ms",
            digits=1,
            **of("stall_seconds", 1000),
            judged="ours",
            goals=(Goal("promise", "<=", 15), Goal(aim, "<=", 6)),
        ),
    ]


@frozen(kw_only=True)
class _Aside:
    """What is said beside the figures."""

    server: Server
    taken: Taken
    checked: str


def _write(load: Load, options: Options, figures: list[Figure], aside: _Aside) -> str:
    """Write the section."""
    idle = [seconds * 1000 for seconds in aside.taken.idle_stalls]
    busy = " **The machine is busy with other work: part of every stall is its own; run it again.**" if median(idle) > QUIET_MS else ""
    cache = "taken out of the page cache before each repetition" if options.cold else "in the page cache"
    missed = "".join(f"\n* {miss}." for miss in misses(figures)) or " none."
    return f"""{load.describe()} ({cache}), over plain http on this machine; asyncio's own loop. *Ours* is
`await client.img2img(image=path, ...)`, *raw aiohttp* one `ClientSession` with `FormData` and `open(path, "rb")`. Each repetition runs in a
process of its own, in turn, after one warm-up upload of 4 KiB. A figure is the median of {options.repetitions} repetitions (least to
greatest); a ratio is taken within each repetition.

{table(figures)}

Goals that aren't met:{missed}

* CPU: user and system time of the client's process with its threads. RSS: {meter.describe_memory()}.
* Stall: how late a task is woken that sleeps {meter.TICK_SECONDS * 1000:g} ms again and again in the client's loop, the worst of the run.
  What the machine itself adds: in a process that does nothing for {IDLE_SECONDS:g} s, in the same run, it is {spread(idle, 1)} ms.{busy}
{_write_aside(figures, aside)}
* {machine.today()}, `{options.command}`. {machine.describe()}.
"""


def _write_aside(figures: list[Figure], aside: _Aside) -> str:
    """Write what is said of the other side."""
    bodies, requests = ([rate[key] for rate in aside.taken.rates] for key in ("mib_per_second", "requests_per_second"))
    fastest = max(median(figures[0].ours), median(figures[0].raw))
    room = "" if median(bodies) > ROOM * fastest else " **It may be the bottleneck: the fastest subject comes near to it.**"
    return f"""* Pinning: {machine.describe_pinning()}.
* Server, on {aside.server.loop}: takes {spread(bodies, 0)} MiB/s of such bodies from one raw socket, and
  {spread(requests, 0)} small requests/s.{room}
* Content: {aside.checked}."""


def _write_smoke(load: Load, figures: list[Figure], aside: _Aside) -> str:
    """Write what a smoke run says: that it works."""
    seen = ", ".join(f"{figure.name} {median(figure.ours):.{figure.digits}f}" for figure in figures)
    return f"""It works: {load.describe()}. Too short to say how fast, so it is written to no file. Seen of ours: {seen}.
Content: {aside.checked}.
"""
