"""Downloads: sixteen files of 10 MiB at once to disk, this client against a loop written by hand on raw aiohttp and aiofiles."""

import asyncio
import hashlib
import importlib.util
import os
import ssl
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import aiofiles
import aiohttp
from attrs import asdict, frozen

from benchmarks import machine, meter
from benchmarks.figures import Figure, Goal, misses, spread, table
from benchmarks.files import PLACE, Storage, make_content, start_storage
from benchmarks.options import Options
from benchmarks.processes import ChildError, run_child
from benchmarks.report import Section

MIB: Final = 2**20
SUBJECTS: Final = ("ours", "raw")
PIECE_BYTES: Final = 256 * 1024
"""What the loop written by hand asks for at once: its best of 64 KiB, 256 KiB and 1 MiB."""
IDLE_SECONDS: Final = 0.5

Download = Callable[[Path], Awaitable[None]]
"""Fetches the file into a path."""


@frozen(kw_only=True)
class Load:
    """How much is fetched."""

    downloads: int
    at_once: int
    file_bytes: int

    def describe(self) -> str:
        """Say it in words."""
        return f"{self.downloads} downloads of {self.file_bytes / MIB:g} MiB to disk, {self.at_once} at once"


FULL: Final = Load(downloads=64, at_once=16, file_bytes=10 * MIB)
SMOKE: Final = Load(downloads=8, at_once=4, file_bytes=MIB)


def run(options: Options) -> Section:
    """Run the benchmark, over plain http and over TLS.

    Raises:
        ChildError: A process failed, or a file on disk isn't the one that was sent.
    """
    load = SMOKE if options.smoke else FULL
    texts: list[str] = []
    with make_certificate() as certificate:
        for paper in (None, certificate) if certificate is not None else (None,):
            with start_storage(file_bytes=load.file_bytes, certificate=paper) as storage:
                verify(load, storage, paper)
                taken = repeat(load, storage, paper, options)
            texts.append(_write_table(load, storage, taken, smoke=options.smoke))
    if certificate is None:
        texts.append("Not over TLS: the package trustme isn't installed.\n")
    if options.smoke:
        return Section(name="download", text="\n".join(texts))
    return Section(name="download", text=_write(load, options, texts))


@contextmanager
def make_certificate() -> Generator[Path | None, None, None]:
    """Make a certificate for this machine with its key (PEM), where trustme is installed."""
    if importlib.util.find_spec("trustme") is None:
        yield None
        return
    trustme: Any = importlib.import_module("trustme")
    with tempfile.TemporaryDirectory(prefix="dryapi-benchmark-") as folder:
        path, authority = Path(folder, "host.pem"), trustme.CA()
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
        authority.cert_pem.write_to_path(path.with_suffix(".ca"))
        yield path


def verify(load: Load, storage: Storage, certificate: Path | None) -> None:
    """Prove for each subject that each file on disk is the one that the host has.

    Raises:
        ChildError: It isn't.
    """
    wanted = hashlib.sha256(make_content(load.file_bytes)).hexdigest()
    for subject in SUBJECTS:
        found = _download(subject, load, storage, certificate, digests=True)["digests"]
        if found != [wanted] * load.downloads:
            raise ChildError(
                f"{subject}: of {load.downloads} files on disk {sum(one != wanted for one in found)} differ from what was sent."
            )


@frozen(kw_only=True)
class Taken:
    """What the repetitions gave: of each subject `meter.Reading` as a dictionary, and the stalls of a loop that does nothing."""

    readings: dict[str, list[dict[str, float]]]
    idle_stalls: list[float]


def repeat(load: Load, storage: Storage, certificate: Path | None, options: Options) -> Taken:
    """Run the subjects in turn, again and again."""
    taken = Taken(readings={subject: [] for subject in SUBJECTS}, idle_stalls=[])
    for _ in range(options.repetitions):
        taken.idle_stalls.append(run_child("idle", seconds=IDLE_SECONDS)["reading"]["stall_seconds"])
        for subject in SUBJECTS:
            taken.readings[subject].append(_download(subject, load, storage, certificate)["reading"])
    return taken


def _download(subject: str, load: Load, storage: Storage, certificate: Path | None, *, digests: bool = False) -> Any:
    return run_child(
        "download:download",
        subject=subject,
        url=storage.url,
        authority=None if certificate is None else str(certificate.with_suffix(".ca")),
        downloads=load.downloads,
        at_once=load.at_once,
        digests=digests,
    )


def download(*, subject: str, url: str, authority: str | None, downloads: int, at_once: int, digests: bool) -> dict[str, Any]:
    """Fetch a file again and again with one subject, in this process: what it cost, or the SHA-256 of each file on disk."""
    with tempfile.TemporaryDirectory(prefix="dryapi-benchmark-") as folder:
        return asyncio.run(
            _run(subject, url, authority, [Path(folder, f"{number}.png") for number in range(downloads)], at_once, digests=digests)
        )


async def _run(subject: str, url: str, authority: str | None, paths: list[Path], at_once: int, *, digests: bool) -> dict[str, Any]:
    context = None if authority is None else ssl.create_default_context(cafile=authority)
    async with OPENERS[subject](url, context, at_once) as fetch:
        for _ in range(2):
            await fetch(paths[0])
        paths[0].unlink()
        reading = await meter.measure(_fetch_all(fetch, paths, at_once))
    return {"reading": asdict(reading), "digests": [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] if digests else []}


async def _fetch_all(fetch: Download, paths: list[Path], at_once: int) -> None:
    left = iter(paths)

    async def work() -> None:
        for path in left:
            await fetch(path)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())


@asynccontextmanager
async def open_ours(url: str, context: ssl.SSLContext | None, at_once: int) -> AsyncGenerator[Download, None]:
    """Open a client, and the result of a job that is done."""
    from dryapi_async import Client, Txt2Img  # noqa: PLC0415  a child that runs raw aiohttp must not carry this client

    async with Client("benchmark", base_url=url, ssl=context, max_in_flight=at_once) as client:
        result = await client.job("txt2img:a-job", Txt2Img).result()

        async def fetch(path: Path) -> None:
            await result.save(path)

        yield fetch


@asynccontextmanager
async def open_raw(url: str, context: ssl.SSLContext | None, at_once: int) -> AsyncGenerator[Download, None]:  # noqa: ARG001  who calls holds to it
    """Open a session; a file comes in pieces, is written in threads, and gets its name once it is whole."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context or True)) as session:

        async def fetch(path: Path) -> None:
            part = path.with_suffix(".part")
            async with session.get(f"{url}{PLACE}") as response, aiofiles.open(part, "wb") as file:
                response.raise_for_status()
                async for piece in response.content.iter_chunked(PIECE_BYTES):
                    await file.write(piece)
            await asyncio.to_thread(os.replace, part, path)

        yield fetch


OPENERS: Final = {"ours": open_ours, "raw": open_raw}


def compare(load: Load, taken: Taken) -> list[Figure]:
    """Make the figures out of the readings, with the goals beside them: those of uploads that make sense here, too."""
    size = load.downloads * load.file_bytes

    def of(key: str, factor: float) -> dict[str, tuple[float, ...]]:
        return {subject: tuple(reading[key] * factor for reading in taken.readings[subject]) for subject in SUBJECTS}

    speed = {who: tuple(size / MIB / seconds for seconds in values) for who, values in of("seconds", 1).items()}
    rss, stall = of("rss_growth_bytes", 1 / MIB), of("stall_seconds", 1000)
    return [
        Figure(name="MiB/s", digits=0, ours=speed["ours"], raw=speed["raw"], judged="ratio", goals=(Goal("must be", ">=", 0.9),)),
        Figure(name="CPU s/GiB", digits=2, **of("cpu_seconds", 2**30 / size), judged="ratio", goals=(Goal("must be", "<=", 1.1),)),
        Figure(name="peak RSS growth, MiB", digits=1, **rss, judged="ours", goals=(Goal("must be", "<=", 20),)),
        Figure(name="longest stall of the loop, ms", digits=1, **stall, judged="ours", goals=(Goal("must be", "<=", 15),)),
    ]


def _write_table(load: Load, storage: Storage, taken: Taken, *, smoke: bool) -> str:
    """Write what was measured over one kind of connection."""
    figures, over = compare(load, taken), "TLS" if storage.tls else "plain http"
    if smoke:
        seen = ", ".join(f"{figure.name} {median(figure.ours):.{figure.digits}f}" for figure in figures)
        return f"It works over {over}: {load.describe()}, each whole. Too short to say how fast. Seen of ours: {seen}.\n"
    missed = "".join(f"\n* {miss}." for miss in misses(figures)) or " none."
    idle = spread([seconds * 1000 for seconds in taken.idle_stalls], 1)
    return f"""Over {over} (the host runs on {storage.loop}; a loop that does nothing is stalled {idle} ms in the same run):

{table(figures)}

Goals that aren't met over {over}:{missed}
"""


def _write(load: Load, options: Options, texts: list[str]) -> str:
    """Write the section."""
    tables = "\n".join(texts)
    return f"""{load.describe()}; asyncio's own loop. *Ours* is `await result.save(path)`, *raw aiohttp*
one `ClientSession`, `iter_chunked` of {PIECE_BYTES // 1024} KiB and an aiofiles file that is renamed once it is whole. Each repetition
runs in a process of its own, in turn; medians, least and greatest of {options.repetitions}.

{tables}
* The sheet of goals has no row for downloads: those here are the musts of uploads.
* Before the repetitions the SHA-256 of each file on disk was compared with the host's, for each of both.
* CPU: user and system time of the client's process with its threads. RSS: {meter.describe_memory()}.
* Stall: how late a task is woken that sleeps {meter.TICK_SECONDS * 1000:g} ms again and again in the client's loop, the worst of the run.
* Pinning: {machine.describe_pinning()}.
* {machine.today()}, `{options.command}`. {machine.describe()}.
"""
