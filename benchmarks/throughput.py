"""Throughput: two thousand jobs from submit to result, 64 at once, this client against a loop written by hand, and its peers."""

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from attrs import field, frozen

from benchmarks import machine, meter, plots
from benchmarks.answers import RESULT_BYTES
from benchmarks.figures import Figure, Goal, goal_table, misses, spread, table
from benchmarks.jobs import sum_up
from benchmarks.options import Options
from benchmarks.pace import PIECE
from benchmarks.plots import Bar, Bars
from benchmarks.processes import Server, run_child, start_child, start_server
from benchmarks.report import Section

PLOT: Final = "throughput.png"
MIB: Final = 2**20
IDLE_SECONDS: Final = 0.5
QUIET_MS: Final = 1.0
"""An idle loop's longest stall on a machine that does nothing else stays below this."""
ROOM: Final = 2.0
"""The server's own rate over that of the fastest subject: with less, it may be what is measured."""
MUST: Final = "must be"
AIM: Final = "aim"
SPEED: Final = ("uvloop", "orjson")
"""What the extra ``speed`` installs, as far as it is of use on one host."""


@frozen(kw_only=True)
class Load:
    """How much is done."""

    jobs: int
    at_once: int
    turns: int
    """Everybody does a part of the jobs, then everybody the next: what else the machine does in the meantime falls on all alike."""
    rated: int
    """Jobs whose requests are sent to measure the server alone."""


FULL: Final = Load(jobs=2_000, at_once=64, turns=8, rated=4_000)
SMOKE: Final = Load(jobs=60, at_once=8, turns=2, rated=100)


@frozen(kw_only=True)
class Subject:
    """Who is measured: a module of ``benchmarks.subjects``, and what it runs with."""

    name: str
    module: str
    loop: str = "asyncio"
    needs: tuple[str, ...] = ()
    """Packages without which it is left out."""
    without: tuple[str, ...] = ()
    """Packages that are taken as not installed."""
    times_less: float = 0.0
    """Of a peer: so many times less than its CPU ours must be."""
    settings: str = ""
    """Of a peer: what was set, and what was left as it comes."""

    @property
    def missing(self) -> list[str]:
        """Its packages that aren't installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


RAW: Final = Subject(name="raw aiohttp", module="raw_aiohttp", without=SPEED)
OURS: Final = Subject(name="ours", module="ours", without=SPEED)
RAW_UVLOOP: Final = Subject(name="raw aiohttp on uvloop", module="raw_aiohttp", loop="uvloop", needs=("uvloop",))
OURS_SPEED: Final = Subject(name="ours with speed", module="ours", loop="uvloop", needs=SPEED)
OWN: Final = (RAW, OURS, RAW_UVLOOP, OURS_SPEED)
PEERS: Final = (
    Subject(
        name="openai",
        module="openai_videos",
        needs=("openai",),
        times_less=7,
        settings="videos.create, videos.poll(poll_interval_ms=0), videos.download_content; base_url; its own pool (1,000 connections, 100 "
        "kept), time-outs (600 s) and 2 retries",
    ),
    Subject(
        name="replicate",
        module="replicate_predictions",
        needs=("replicate",),
        times_less=9,
        settings="predictions.async_create, async_wait() with poll_interval=0, FileOutput.aread(); base_url; a pool that keeps all its "
        "connections (httpx's own keeps 20, and opens the others anew); its own time-outs (5 s, 30 s to read) and 10 attempts",
    ),
    Subject(
        name="fal-client",
        module="fal_queue",
        needs=("fal_client",),
        times_less=9,
        settings="AsyncClient.submit, get(interval=0), which reads the status and then the answer, so four requests a job; "
        "FAL_QUEUE_RUN_HOST, and its fixed https:// replaced; its pool can't be set (100 connections, 20 kept); its own time-out (120 s); "
        "the file by one httpx.AsyncClient that keeps all its connections",
    ),
)


@frozen(kw_only=True)
class Taken:
    """What the repetitions gave, in their order."""

    server: Server
    readings: dict[str, list[dict[str, float]]]
    """Of each subject, what `jobs.drive` says."""
    rates: list[float] = field(factory=list[float])
    """Jobs a second of the server alone."""
    idle_stalls: list[float] = field(factory=list[float])
    """Milliseconds that a loop which does nothing was stalled: the machine's own part."""

    def values(self, subject: Subject, key: str, factor: float = 1.0) -> tuple[float, ...]:
        """Give one value of each repetition."""
        return tuple(reading[key] * factor for reading in self.readings[subject.name])


def run(options: Options) -> Section:
    """Run the benchmark; draw its plot beside the results where matplotlib is installed.

    Raises:
        ChildError: A process failed.
    """
    load = SMOKE if options.smoke else FULL
    own = [subject for subject in OWN if not subject.missing]
    peers = [subject for subject in PEERS if not subject.missing]
    plain = repeat(load, [*own, *peers], options, tls=False)
    tls = None if _why_no_tls(options) else repeat(load, (RAW, OURS) if options.smoke else own, options, tls=True)
    if options.smoke:
        with tempfile.TemporaryDirectory() as folder:
            drawn = draw(load, plain, [*own, *peers], Path(folder, PLOT))
        return Section(name="throughput", text=_write_smoke(load, plain, tls, drawn=drawn))
    drawn = draw(load, plain, [*own, *peers], options.output.with_name(PLOT))
    return Section(name="throughput", text=_write(load, options, plain, tls, drawn=drawn))


def _why_no_tls(options: Options) -> str:
    """Say why TLS isn't measured; empty where it is. A smoke run does all that can be done."""
    if not importlib.util.find_spec("trustme"):
        return "trustme isn't installed"
    return "" if options.tls or options.smoke else "not asked for (`--tls`)"


def repeat(load: Load, subjects: Sequence[Subject], options: Options, *, tls: bool) -> Taken:
    """Run the subjects in turn, again and again."""
    with start_server(tls=tls) as server:
        taken = Taken(server=server, readings={subject.name: [] for subject in subjects})
        for _ in range(options.repetitions):
            taken.idle_stalls.append(run_child("idle", seconds=IDLE_SECONDS)["reading"]["stall_seconds"] * 1000)
            taken.rates.append(run_child("jobs:rate", url=server.url, authority=server.authority, jobs=load.rated)["jobs_per_second"])
            for name, reading in take_turns(load, subjects, server).items():
                taken.readings[name].append(reading)
    return taken


def take_turns(load: Load, subjects: Sequence[Subject], server: Server) -> dict[str, dict[str, float]]:
    """Run the subjects side by side, each in a process of its own, but only one at a time; give what each took for all its jobs."""
    turns: dict[str, list[dict[str, Any]]] = {subject.name: [] for subject in subjects}
    with ExitStack() as stack:
        asked = {subject.name: stack.enter_context(_start(subject, load, server)) for subject in subjects}
        for _ in range(load.turns):
            for name, ask in asked.items():
                turns[name].append(ask({"jobs": load.jobs // load.turns}))
        # Each turn begins and ends with fewer at once than it has in its middle: latencies are of one that is long.
        whole = {name: sum_up([ask({"jobs": load.jobs, "paced": True})]) for name, ask in asked.items()}
    return {name: _read(sum_up(took), whole[name], load) for name, took in turns.items()}


def _start(subject: Subject, load: Load, server: Server) -> AbstractContextManager[Callable[[Any], Any]]:
    return start_child(
        "jobs:take_turns",
        subject=subject.module,
        url=server.url,
        authority=server.authority,
        at_once=load.at_once,
        loop=subject.loop,
        without=subject.without,
    )


def _read(turns: dict[str, float], whole: dict[str, float], load: Load) -> dict[str, float]:
    return {
        "us": turns["cpu_seconds"] / load.jobs * 1e6,
        "speed": load.jobs / turns["seconds"],
        "spread": whole["latencies"],
        "spread_work": whole["work"],
        "spread_ends": whole["ends"],
        "stall": whole["stall_seconds"] * 1000,
        "rss": whole["rss_peak_bytes"] / MIB,
    }


def compare(taken: Taken) -> list[Figure]:
    """Make the figures of ours beside raw aiohttp, with the goals."""

    def of(name: str, key: str, digits: int, *goals: Goal, ours: Subject = OURS, judged: Any = "ratio") -> Figure:
        return Figure(name=name, digits=digits, ours=taken.values(ours, key), raw=taken.values(RAW, key), judged=judged, goals=goals)

    figures = [
        of("CPU us a job", "us", 0, Goal(MUST, "<=", 1.35), Goal(AIM, "<=", 1.2)),
        of("jobs/s", "speed", 0, Goal(MUST, ">=", 0.72), Goal(AIM, ">=", 0.84)),
        of("p99 / p50 of a job's latency", "spread", 2, Goal(MUST, "<=", 1.25), Goal(AIM, "<=", 1.12), judged="ours"),
        of("the same by the work the processor could do meanwhile", "spread_work", 2, judged="ours"),
        of("the same by the jobs that ended meanwhile", "spread_ends", 2, judged="ours"),
        of("longest stall of the loop, ms", "stall", 1),
        of("peak RSS, MiB", "rss", 1),
    ]
    if OURS_SPEED.name in taken.readings:
        figures += [
            of("CPU us a job with `speed`, beside plain raw", "us", 0, Goal(MUST, "<=", 1.05), Goal(AIM, "<=", 0.9), ours=OURS_SPEED),
            of("jobs/s with `speed`, beside plain raw", "speed", 0, ours=OURS_SPEED),
        ]
    return figures


def compare_peers(taken: Taken) -> list[Figure]:
    """Make the figures of how many times ours a peer's CPU is, with the goals."""
    ours = taken.values(OURS, "us")
    return [
        Figure(
            name=f"CPU a job of {peer.name}, times ours",
            digits=1,
            ours=tuple(theirs / own for theirs, own in zip(taken.values(peer, "us"), ours, strict=True)),
            raw=(),
            judged="ours",
            goals=(Goal(MUST, ">=", peer.times_less),),
        )
        for peer in PEERS
        if peer.name in taken.readings
    ]


def list_all(taken: Taken) -> str:
    """Write everybody's figures as a Markdown table."""
    head = "| | CPU us a job | jobs/s | p99 / p50 | longest stall, ms | peak RSS, MiB |\n|---|---|---|---|---|---|\n"
    digits = {"us": 0, "speed": 0, "spread": 2, "stall": 1, "rss": 1}
    rows = (
        [subject.name, *(spread(taken.values(subject, key), places) for key, places in digits.items())]
        for subject in (*OWN, *PEERS)
        if subject.name in taken.readings
    )
    return head + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def draw(load: Load, taken: Taken, subjects: Sequence[Subject], target: Path) -> bool:
    """Draw CPU and rate of everybody; False where matplotlib isn't installed."""
    if not plots.can_draw():
        return False

    def bars(key: str, title: str, label: str, digits: int) -> Bars:
        shown = tuple(
            Bar(name=one.name, values=taken.values(one, key), kind="ours" if one.module == "ours" else "raw" if one in OWN else "peer")
            for one in subjects
        )
        return Bars(title=title, x_label=label, bars=shown, digits=digits)

    title = f"{load.jobs:,} jobs, {load.at_once} at once: submit, status, {RESULT_BYTES // 1024} KiB download"
    plots.draw([bars("us", title, "CPU us a job: less is better", 0), bars("speed", "", "jobs/s: more is better", 0)], target)
    return True


def _write(load: Load, options: Options, plain: Taken, tls: Taken | None, *, drawn: bool) -> str:
    """Write the section."""
    figures, peers = compare(plain), compare_peers(plain)
    secure = [] if tls is None else compare(tls)
    missed = "".join(f"\n* {miss}." for miss in [*misses(figures + peers), *(f"TLS: {miss}" for miss in misses(secure))]) or " none."
    picture = f"![CPU a job and jobs a second of everybody]({PLOT})\n" if drawn else "(No plot: matplotlib isn't installed.)\n"
    kib = RESULT_BYTES // 1024
    return f"""{load.jobs:,} jobs, {load.at_once} at once, over plain http on this machine: submit txt2img, one status read that says
*done*, and the result ({kib} KiB) as bytes. *Ours* is `job = await client.call(Txt2Img(...))`, `image = await job.result(poll=0)`,
`await image.read()` with `Limits.none()`, *raw aiohttp* one `ClientSession`, json, nothing checked but the status; both on asyncio's own
loop. *With `speed`* is ours with uvloop and orjson. In each repetition everybody has a process of its own, warmed up and with
`gc.freeze()`, for all alike. They go on in turn, one at a time: {load.turns} times {load.jobs // load.turns} jobs each, of which CPU and
jobs/s are, and at last all jobs in one go, of which latencies, stalls and memory are. A turn begins with {load.at_once} jobs that aren't
counted: the others' turns take seconds, after which pools close their idle connections, ours after 4 s, aiohttp's own after 15 s. A
figure is the median of {options.repetitions} repetitions (least to greatest); a ratio is taken within each repetition.

{table(figures)}

{_write_peers(peers)}

Goals that aren't met:{missed}

{picture}
Everybody, over plain http:

{list_all(plain)}

{_write_tls(tls, secure, _why_no_tls(options))}

* CPU: user and system time of the client's process. RSS: {meter.describe_memory()}; all of the process.
  Latency: from before the submit to the result's last byte.
* Stall: how late a task is woken that sleeps {meter.TICK_SECONDS * 1000:g} ms again and again in the client's loop, the worst of the run.
  {_write_idle(plain.idle_stalls)}
* p99 / p50: a job's time, and the same in pieces of equal work ({PIECE} steps of Python, done at each job's end by all alike) that the
  processor could have done in that time: a core that is slower for a while, since others use it, too, makes the first larger and the
  second hardly. By the jobs that ended from its begin to its end it is the client's alone: 1 where no job is overtaken by others.
* Pinning: {machine.describe_pinning()}.
{_write_servers(plain, tls)}
{_write_settings()}
* {machine.today()}, `{options.command}`. {machine.describe()}{_write_versions()}.
"""


def _write_peers(peers: list[Figure]) -> str:
    return goal_table(peers) if peers else "(No peer is installed: `pip install dryapi-async[bench-peers]`.)"


def _write_tls(tls: Taken | None, figures: list[Figure], why_not: str) -> str:
    if tls is None:
        return f"Over TLS: {why_not}."
    return f"Over TLS (the same goals):\n\n{table(figures)}\n\n{list_all(tls)}"


def _write_idle(stalls: list[float]) -> str:
    """Write how much of a stall is the machine's own."""
    busy = " **The machine is busy with other work: part of every figure is its own; run it again.**" if median(stalls) > QUIET_MS else ""
    idle = f"in a process that does nothing for {IDLE_SECONDS:g} s, in the same run, it is {spread(stalls, 1)} ms"
    return f"What the machine itself adds: {idle}.{busy}"


def _write_servers(plain: Taken, tls: Taken | None) -> str:
    """Write what the servers can do alone."""
    lines: list[str] = []
    for name, taken in (("Server", plain), ("The same over TLS", tls)):
        if taken is not None:
            fastest = max(median(reading["speed"] for reading in readings) for readings in taken.readings.values())
            room = "" if median(taken.rates) > ROOM * fastest else " **It may be the bottleneck: the fastest subject comes near to it.**"
            rate = f"{spread(taken.rates, 0)} jobs/s ({median(taken.rates) * 3:,.0f} requests/s) from one raw socket"
            lines.append(f"* {name}, on {taken.server.loop}: answers {rate}.{room}")
    return "\n".join(lines)


def _write_settings() -> str:
    """Write how the peers were set, and who is left out."""
    lines = [f"* {peer.name}: {peer.settings}." for peer in PEERS if not peer.missing]
    lines += [f"* Left out: {one.name}, for {', '.join(one.missing)} isn't installed." for one in (*OWN, *PEERS) if one.missing]
    return "\n".join(lines)


def _write_versions() -> str:
    found = [name for one in (OURS_SPEED, *PEERS) for name in one.needs if name not in one.missing]
    return "".join(f", {name.replace('_', '-')} {version(name)}" for name in found)


def _write_smoke(load: Load, plain: Taken, tls: Taken | None, *, drawn: bool) -> str:
    """Write what a smoke run says: that it works."""
    left_out = ", ".join(one.name for one in (*OWN, *PEERS) if one.missing) or "none"
    secure = "trustme is missing" if tls is None else ", ".join(tls.readings)
    plot = "drawn" if drawn else "matplotlib is missing"
    return f"""It works: {load.jobs} jobs by each of {", ".join(plain.readings)}; over TLS: {secure}.
Left out: {left_out}. Plot: {plot}. Too short to say how fast, so it is written to no file.
"""
