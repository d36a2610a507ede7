"""Uploads: sixteen files of 10 MiB at once, this client against a loop by hand on raw aiohttp; plain and TLS, asyncio and uvloop."""

import hashlib
import importlib.util
import os
import random
import tempfile
from collections.abc import Generator, Iterable
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


@frozen
class Way:
    """A way to the server."""

    loop: str
    """The package whose event loop both subjects run on."""
    tls: bool

    def describe(self) -> str:
        """Say it in words."""
        return f"{'TLS' if self.tls else 'plain http'}, {self.loop}"


WAYS: Final = (Way("asyncio", tls=False), Way("asyncio", tls=True), Way("uvloop", tls=False), Way("uvloop", tls=True))


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
    ways = [way for way in WAYS if not lacks(way)]
    with make_files(load) as files:
        checked = check(load, files, ways) if options.check else "not asked for (`--check`)"
        rows = [measure(way, load, files, options) for way in ways]
    return Section(name="upload", text=_write_smoke(load, rows, checked) if options.smoke else _write(load, options, rows, checked))


def lacks(way: Way) -> str | None:
    """Name the package that isn't installed, and without which a way can't be measured."""
    needed = [*(["trustme"] if way.tls else []), way.loop]
    return next((name for name in needed if importlib.util.find_spec(name) is None), None)


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


def check(load: Load, files: Files, ways: Iterable[Way] = WAYS[:1]) -> str:
    """Prove for each subject, in each way, that the server gets each file as it is on disk.

    Raises:
        DigestError: It doesn't.
    """
    digests = files.digests()
    for way in ways:
        with start_server(digests=True, tls=way.tls) as server:
            for subject in SUBJECTS:
                verify(subject, _upload(subject, load, files, server, way)["ids"], digests)
    return f"the SHA-256 of each of {load.uploads} files that the server got is the file's on disk, for each of both, in each way"


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


@frozen(kw_only=True)
class Row:
    """What one way gave."""

    way: Way
    server: Server
    taken: Taken
    figures: list[Figure]


def measure(way: Way, load: Load, files: Files, options: Options) -> Row:
    """Measure both subjects in one way."""
    with start_server(tls=way.tls) as server:
        taken = repeat(way, load, files, server, options)
    return Row(way=way, server=server, taken=taken, figures=compare(way, load, taken.readings))


def repeat(way: Way, load: Load, files: Files, server: Server, options: Options) -> Taken:
    """Run the subjects in turn, again and again."""
    taken = Taken()
    requests = 2_000 if options.smoke else 20_000
    for _ in range(options.repetitions):
        taken.idle_stalls.append(run_child("idle", seconds=IDLE_SECONDS)["reading"]["stall_seconds"])
        if not way.tls:
            taken.rates.append(run_child("rate", port=server.port, body_bytes=load.file_bytes, bodies=load.uploads, requests=requests))
        for subject in SUBJECTS:
            if options.cold:
                files.drop_from_cache()
            taken.readings[subject].append(_upload(subject, load, files, server, way)["reading"])
    return taken


def _upload(subject: str, load: Load, files: Files, server: Server, way: Way) -> Any:
    return run_child(
        "upload",
        subject=subject,
        url=server.url,
        paths=[str(path) for path in files.paths],
        warm_up=str(files.warm_up),
        uploads=load.uploads,
        at_once=load.at_once,
        loop=way.loop,
        authority=server.authority,
    )


def compare(way: Way, load: Load, readings: dict[str, list[dict[str, float]]]) -> list[Figure]:
    """Make the figures out of the readings, with the goals beside them."""
    size = load.uploads * load.file_bytes

    def of(key: str, factor: float) -> dict[str, tuple[float, ...]]:
        ours, raw = (tuple(reading[key] * factor for reading in readings[subject]) for subject in SUBJECTS)
        return {"ours": ours, "raw": raw}

    speed = {who: tuple(size / MIB / seconds for seconds in values) for who, values in of("seconds", 1).items()}
    must, aim = "must be", "aim"
    return [
        Figure(
            name="MiB/s",
            digits=0,
            **speed,
            judged="ratio",
            goals=(Goal(must, ">=", 0.9), Goal(aim, ">=", 1.4 if way.tls else 2)),
        ),
        Figure(
            name="CPU s/GiB",
            digits=2,
            **of("cpu_seconds", 2**30 / size),
            judged="ratio",
            # Encryption is most of what TLS costs, for both alike: no aim.
            goals=(Goal(must, "<=", 1.1), *([] if way.tls else [Goal(aim, "<=", 0.45)])),
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


def _write(load: Load, options: Options, rows: list[Row], checked: str) -> str:
    """Write the section."""
    idle = [seconds * 1000 for row in rows for seconds in row.taken.idle_stalls]
    busy = " **The machine is busy with other work: part of every stall is its own; run it again.**" if median(idle) > QUIET_MS else ""
    cache = "taken out of the page cache before each repetition" if options.cold else "in the page cache"
    tables = "\n\n".join(f"### {row.way.describe()}\n\n{table(row.figures)}" for row in rows)
    missed = "".join(f"\n* {row.way.describe()}: {miss}." for row in rows for miss in misses(row.figures)) or " none."
    return f"""{load.describe()} ({cache}), over loopback on this machine. *Ours* is
`await client.img2img(image=path, ...)`, *raw aiohttp* one `ClientSession` with `FormData` and `open(path, "rb")`. Each repetition runs in a
process of its own, in turn, after one warm-up upload of 4 KiB. A figure is the median of {options.repetitions} repetitions (least to
greatest); a ratio is taken within each repetition, so on the same loop and with or without TLS for both.

{tables}

Goals that aren't met:{missed}

* CPU: user and system time of the client's process with its threads. RSS: {meter.describe_memory()}.
* Stall: how late a task is woken that sleeps {meter.TICK_SECONDS * 1000:g} ms again and again in the client's loop, the worst of the run.
  What the machine itself adds: in a process that does nothing for {IDLE_SECONDS:g} s, in the same run, it is {spread(idle, 1)} ms.{busy}
{_write_aside(rows, checked)}
* {machine.today()}, `{options.command}`. {machine.describe()}.
"""


def _write_aside(rows: list[Row], checked: str) -> str:
    """Write what is said of the other side, and what is missing."""
    plain = [row for row in rows if not row.way.tls]
    bodies, requests = ([rate[key] for row in plain for rate in row.taken.rates] for key in ("mib_per_second", "requests_per_second"))
    fastest = max(median(values) for row in plain for values in (row.figures[0].ours, row.figures[0].raw))
    room = "" if median(bodies) > ROOM * fastest else " **It may be the bottleneck: the fastest subject comes near to it.**"
    left_out = "".join(f"\n* Not measured: {way.describe()}, since {lack} isn't installed." for way in WAYS if (lack := lacks(way)))
    return f"""* Pinning: {machine.describe_pinning()}.
* Server, on {plain[0].server.loop}: takes {spread(bodies, 0)} MiB/s of such bodies from one raw socket without TLS, and
  {spread(requests, 0)} small requests/s.{room}
* Content: {checked}.{left_out}"""


def _write_smoke(load: Load, rows: list[Row], checked: str) -> str:
    """Write what a smoke run says: that it works."""
    seen = "\n".join(
        f"* {row.way.describe()}: " + ", ".join(f"{one.name} {median(one.ours):.{one.digits}f}" for one in row.figures) for row in rows
    )
    return f"""It works: {load.describe()}. Too short to say how fast, so it is written to no file. Seen of ours:
{seen}
Content: {checked}.
"""
