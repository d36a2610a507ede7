"""Waiting on a budget: how late the end of a job is seen, and how many jobs a minute get through, beside other SDKs' schedules."""

import os
import tempfile
from collections.abc import Sequence
from math import inf
from pathlib import Path
from statistics import median
from typing import Final

from attrs import evolve, field, frozen

from benchmarks import machine, plots, rules
from benchmarks.crowd import Load, Policy, Seen, run_real, run_virtual
from benchmarks.figures import Figure, Goal, misses, spread
from benchmarks.options import Options
from benchmarks.plots import Group, Panel
from benchmarks.report import Section
from benchmarks.subjects.waits import BACKOFF, HALF_SECOND, SCHEDULES, TENTH_SECOND, Ours

PLOT: Final = "watch.png"
RULE_SEEDS: Final = 10
OURS: Final = Ours()
MUST: Final = "must be"
AIM: Final = "aim"
FIGURES: Final = {"jobs a minute": 1, "mean delay, s": 3, "reads a job": 2, "429s": 0, "jobs lost": 0}
"""Each figure and its digits."""


@frozen(kw_only=True)
class Row:
    """One load, who is measured under it, and what is wanted of ours."""

    name: str
    load: Load
    others: tuple[Policy, ...] = ()
    goals: dict[str, tuple[Goal, ...]]
    """Of figures, by their names."""
    real: bool = False
    """Whether it runs on the real clock, too."""


@frozen(kw_only=True)
class Taken:
    """What one row gave: for each policy its runs."""

    row: Row
    virtual: dict[str, list[Seen]] = field(factory=dict[str, list[Seen]])
    real: dict[str, list[Seen]] = field(factory=dict[str, list[Seen]])


NEVER: Final = {"429s": (Goal(MUST, "<=", 0),), "jobs lost": (Goal(MUST, "<=", 0),)}
WATCH: Final = Row(
    name="watch",
    load=Load(jobs=500, at_once=64, median=4.0, reads=(300, 6.0)),
    others=SCHEDULES,
    goals={
        "mean delay, s": (Goal(MUST, "<=", 0.68), Goal(AIM, "<=", 0.55)),
        "reads a job": (Goal(MUST, "<=", 5.5), Goal(AIM, "<=", 5.0)),
        **NEVER,
    },
    real=True,
)
SHARED: Final = Row(
    name="shared budget",
    load=Load(jobs=600, at_once=200, median=20.0, shared=(300, 60.0)),
    others=SCHEDULES,
    goals={
        "jobs a minute": (Goal(MUST, ">=", 85), Goal(AIM, ">=", 103)),
        "mean delay, s": (Goal(MUST, "<=", 10), Goal(AIM, "<=", 8)),
        **NEVER,
    },
)
SHARED_PUSH: Final = Row(
    name="shared budget, push",
    load=Load(jobs=3000, at_once=200, median=20.0, shared=(300, 60.0), push=True),
    goals={"jobs a minute": (Goal(MUST, ">=", 240), Goal(AIM, ">=", 270)), **NEVER},
)
PUSH: Final = Row(
    name="push, images",
    load=Load(jobs=500, at_once=64, median=4.0, reads=(300, 6.0), push=True),
    goals={
        "mean delay, s": (Goal(MUST, "<=", 0.2), Goal(AIM, "<=", 0.05)),
        "reads a job": (Goal(MUST, "<=", 0.2), Goal(AIM, "<=", 0)),
        **NEVER,
    },
    real=True,
)
ROWS: Final = (WATCH, SHARED, SHARED_PUSH, PUSH)


def run(options: Options) -> Section:
    """Run the benchmark; draw its plot beside the results where matplotlib is installed."""
    os.environ.pop("DRYAPI_CLIENT_ID", None)  # it would turn push on in every row
    rows = tuple(map(_shorten, ROWS)) if options.smoke else ROWS
    taken = [take(row, options) for row in rows]
    outcomes = rules.compare(seeds=1, jobs=60) if options.smoke else rules.compare(seeds=RULE_SEEDS)
    if options.smoke:
        with tempfile.TemporaryDirectory() as folder:
            drawn = draw(taken, outcomes, Path(folder, PLOT))
        return Section(name="watch", text=_write_smoke(taken, drawn=drawn))
    drawn = draw(taken, outcomes, options.output.with_name(PLOT))
    return Section(name="watch", text=_write(taken, outcomes, options, drawn=drawn))


def _shorten(row: Row) -> Row:
    """Make a load that takes a moment."""
    return evolve(row, load=evolve(row.load, jobs=20, at_once=10, median=row.load.median / 20))


def take(row: Row, options: Options) -> Taken:
    """Run one row: ours with a seed for each repetition, the others with the first; on the real clock each once."""
    taken = Taken(row=row)
    taken.virtual[OURS.name] = [run_virtual(row.load, OURS, seed=seed) for seed in range(1, options.repetitions + 1)]
    for policy in row.others:
        taken.virtual[policy.name] = [run_virtual(row.load, policy, seed=1)]
    for policy in (OURS, *row.others) if row.real else ():
        taken.real[policy.name] = [run_real(row.load, policy, seed=1)]
    return taken


def figure_values(runs: Sequence[Seen]) -> dict[str, tuple[float, ...]]:
    """Give the values of each figure, run by run."""
    return {
        "jobs a minute": tuple(seen.jobs_a_minute for seen in runs),
        "mean delay, s": tuple(seen.mean_delay for seen in runs),
        "reads a job": tuple(seen.reads_a_job for seen in runs),
        "429s": tuple(float(seen.refused) for seen in runs),
        "jobs lost": tuple(float(seen.lost) for seen in runs),
    }


def judge(row: Row, runs: Sequence[Seen], clock: str) -> list[Figure]:
    """Make the figures of ours that have goals."""
    values = figure_values(runs)
    return [
        Figure(name=f"{row.name}, {clock}: {name}", digits=FIGURES[name], ours=values[name], raw=(), judged="ours", goals=goals)
        for name, goals in row.goals.items()
    ]


def _figures(taken: Sequence[Taken]) -> list[Figure]:
    found: list[Figure] = []
    for one in taken:
        found += judge(one.row, one.virtual[OURS.name], "virtual time")
        found += judge(one.row, one.real[OURS.name], "real clock") if one.real else []
    return found


def write_goals(figures: Sequence[Figure]) -> str:
    """Write figures and their goals as a Markdown table."""
    head = "| figure | ours | goals |\n|---|---|---|\n"
    cells = (
        (one.name, show(one.ours, one.digits), "<br>".join(f"{goal}: {goal.judge(one.judged_values)}" for goal in one.goals))
        for one in figures
    )
    return head + "\n".join(f"| {' | '.join(row)} |" for row in cells)


def write_policies(taken: Taken) -> str:
    """Write all policies of a row as a Markdown table."""
    head = f"| policy | {' | '.join(FIGURES)} |\n|---|{'---|' * len(FIGURES)}\n"
    lines = [
        f"| {name}{clock} | {' | '.join(show(figure_values(seen)[figure], digits) for figure, digits in FIGURES.items())} |"
        for runs, clock in ((taken.virtual, ""), (taken.real, ", real clock"))
        for name, seen in runs.items()
    ]
    return f"**{taken.row.name}**: {taken.row.load.describe()}.\n\n{head}" + "\n".join(lines)


def show(values: Sequence[float], digits: int) -> str:
    """Write a median with its spread, or the value where they are all the same."""
    return spread(values, digits) if len(set(values)) > 1 else f"{values[0]:,.{digits}f}"


def draw(taken: Sequence[Taken], outcomes: Sequence[rules.Outcome], target: Path) -> bool:
    """Draw the two rows that have several policies; False where matplotlib isn't installed."""
    if not plots.can_draw():
        return False
    rows = {one.row.name: one for one in taken}
    plots.draw([_panel_watch(rows[WATCH.name]), _panel_shared(rows[SHARED.name], outcomes)], target)
    return True


def _points(runs: dict[str, list[Seen]], x: str) -> dict[str, tuple[float, float, str]]:
    values = {name: figure_values(seen) for name, seen in runs.items()}
    return {name: (median(found[x]), median(found["mean delay, s"]), name) for name, found in values.items()}


def _panel_watch(taken: Taken) -> Panel:
    virtual, real = _points(taken.virtual, "reads a job"), _points(taken.real, "reads a job")
    return Panel(
        title="watch: 64 at once, 50 status reads a second",
        x_label="status reads a job",
        y_label="mean delay, s",
        groups=(
            Group(name="ours", points=(virtual[OURS.name],)),
            Group(name="published schedules", points=tuple(virtual[one.name] for one in SCHEDULES)),
            Group(name="on the real clock", points=tuple((x, y, "") for x, y, _ in real.values()), marker="x"),
        ),
        box=(-inf, -inf, 5.5, 0.68),
    )


def _panel_shared(taken: Taken, outcomes: Sequence[rules.Outcome]) -> Panel:
    virtual = _points(taken.virtual, "jobs a minute")
    found = {one.name: (one.jobs_a_minute, one.mean_delay) for one in outcomes}

    def line(start: str, end: str = "") -> tuple[tuple[float, float, str], ...]:
        return tuple(
            (*spot, "") for name, spot in sorted(found.items(), key=lambda one: one[1]) if name.startswith(start) and name.endswith(end)
        )

    return Panel(
        title="shared budget: 200 in flight, 300 requests a minute in all",
        x_label="jobs a minute",
        y_label="mean delay, s",
        groups=(
            Group(name="ours", points=(virtual[OURS.name],)),
            Group(name="published schedules", points=tuple(virtual[one.name] for one in SCHEDULES)),
            Group(name="simulated: longest unread", points=line("longest unread"), marker=".", joined=True),
            Group(name="simulated: index", points=line("index", "s; no guess"), marker=".", joined=True),
            Group(name="simulated: mean, then longest unread", points=line("60 % of the mean", "no guess"), marker="s"),
            Group(name="simulated: in proportion", points=line("in proportion"), marker="."),
        ),
        box=(85, -inf, inf, 10),
        y_top=50.0,
    )


def _write(taken: Sequence[Taken], outcomes: list[rules.Outcome], options: Options, *, drawn: bool) -> str:
    """Write the section."""
    figures = _figures(taken)
    missed = "".join(f"\n* {miss}." for miss in misses(figures)) or " none."
    picture = f"![Mean delay of each policy]({PLOT})\n" if drawn else "(No plot: matplotlib isn't installed.)\n"
    policies = "\n\n".join(map(write_policies, taken))
    return f"""Delay is from the moment a job ended at the service (the simulator knows) to the moment its waiter was awake. Client and
service run in one process over real sockets, on a clock that jumps (exact; ours with {options.repetitions} seeds: the median, least to
greatest; the others with one seed), and where it says so on the real one, once. *Ours* is `await client.txt2img(...)`, then
`await job.result()`.

{write_goals(figures)}

Goals that aren't met:{missed}

{picture}
{policies}

* {BACKOFF.name}, {HALF_SECOND.name}, {TENTH_SECOND.name}: the published schedules of comparable SDKs, as plain loops over
  raw aiohttp, one for each job. They wait out the Retry-After of a 429 and send the same again, and never give up.
* Reads a job count refused ones, too; 429s are of submits and reads. Jobs a minute include a run's beginning and its tail.
* With push one job is finished first, uncounted, so that the socket is up: what was submitted before that is read once each.

**Rules for the shared budget**, simulated without sockets (`benchmarks/rules.py`; {rules.JOBS} jobs, mean of {RULE_SEEDS} seeds; a guess
is what a rule believes of the median before the first job, and 20 s is right). Why the client has the rule it has:
`docs/decisions/2026-11-21-which-job-to-read-next.md`.

{rules.table(outcomes)}

* {machine.today()}, `{options.command}`. {machine.describe()}.
"""


def _write_smoke(taken: Sequence[Taken], *, drawn: bool) -> str:
    """Write what a smoke run says: that it works."""
    seen = "; ".join(
        f"{one.row.name}, {name}: {len(run.delays)} of {run.jobs} jobs ended, {run.reads} reads, {run.refused} 429s"
        for one in taken
        for runs in (one.virtual, one.real)
        for name, (run, *_) in runs.items()
    )
    plot = "drawn" if drawn else "matplotlib is missing"
    return f"It works; too short to say how well, so it is written to no file. {seen}. Plot: {plot}.\n"
