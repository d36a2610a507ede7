"""Goals of waiting on a budget, in virtual time, where every count and delay is exact; and that each policy is what its name says."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import plots, report, watch
from benchmarks.crowd import OPERATION, Load, Policy, Seen, run_virtual
from benchmarks.figures import Goal
from benchmarks.options import Options
from benchmarks.rules import LongestUnread, Outcome, Proportional, simulate
from benchmarks.subjects.waits import BACKOFF, HALF_SECOND, SCHEDULES, TENTH_SECOND, Ours, Schedule
from benchmarks.watch import Row, Taken
from dryapi_async.simulator import Received, Simulator
from dryapi_async.testing import JumpingLoop

HOME = Path(__file__).parents[2]
SMALL = Load(jobs=30, at_once=10, median=4.0, reads=(300, 6.0))


@pytest.mark.parametrize("row", watch.ROWS, ids=lambda row: row.name)
def test_what_must_be_reached_is(row: Row) -> None:
    seen = run_virtual(row.load, watch.OURS, seed=1)
    for figure in watch.judge(row, [seen], "virtual time"):
        for goal in figure.goals:
            assert goal.word != watch.MUST or goal.holds(figure.ours[0]), f"{figure.name} is {figure.ours[0]:.3g}: {goal}"


@pytest.mark.parametrize("policy", SCHEDULES, ids=lambda policy: policy.name)
def test_no_published_schedule_sees_ends_sooner_on_the_same_budget(policy: Policy) -> None:
    load = Load(jobs=200, at_once=64, median=4.0, reads=(300, 6.0))
    ours, other = run_virtual(load, watch.OURS, seed=1), run_virtual(load, policy, seed=1)
    assert (ours.lost, ours.refused, other.lost) == (0, 0, 0)
    assert ours.mean_delay < other.mean_delay


def test_virtual_runs_are_exact() -> None:
    first, second = (run_virtual(SMALL, watch.OURS, seed=3) for _ in range(2))
    assert first == second
    assert run_virtual(SMALL, watch.OURS, seed=4) != first


def test_delays_are_from_the_end_at_the_service_to_the_waking_waiter() -> None:
    # Jobs of exactly 1.05 s read every half second: seen at 1.5 s.
    seen = run_virtual(Load(jobs=4, at_once=2, median=1.05, sigma=0.0), HALF_SECOND, seed=1)
    assert seen.delays == pytest.approx([0.45] * 4)
    assert (seen.seconds, seen.reads, seen.jobs_a_minute) == (pytest.approx(3.0), 12, pytest.approx(80))


@pytest.mark.parametrize(
    ("policy", "moments"),
    [
        (BACKOFF, [1, 2.5, 4.75, 8.125, 13.1875, 20.78125, 30.78125, 40.78125]),
        (HALF_SECOND, [0.5 * count for count in range(1, 82)]),
        (TENTH_SECOND, [0.1 * count for count in range(1, 402)]),
    ],
    ids=lambda one: one.name if isinstance(one, Schedule) else "",
)
def test_schedules_read_when_their_names_say(policy: Schedule, moments: list[float]) -> None:
    reads = asyncio_run(policy, Load(jobs=1, at_once=1, median=40.05, sigma=0.0))
    assert [one.started for one in reads] == pytest.approx(moments)


def test_schedules_wait_out_a_refusal_and_send_the_same_again() -> None:
    # Two reads per 7 s: those at 1 s and 2.5 s are answered, the next waits for the window that opened with the first.
    reads = asyncio_run(BACKOFF, Load(jobs=1, at_once=1, median=7.0, sigma=0.0, reads=(2, 7.0)))
    assert [(one.started, one.status) for one in reads] == [(1, 200), (2.5, 200), (4.75, 429), (8.75, 200)]


def asyncio_run(policy: Policy, load: Load) -> list[Received]:
    """Finish one job, and give its reads."""

    async def work() -> list[Received]:
        durations = {OPERATION: (load.median, load.sigma)}
        limits = None if load.reads is None else {"status": load.reads}
        async with Simulator(pictures=False, durations=durations, limits=limits) as sim, policy.open(sim, load) as finish:
            assert await finish() in sim.jobs
            return [one for one in sim.requests if one.operation == "request-status"]

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(work())


def test_what_never_ends_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.crowd.PATIENCE", 3.0)
    seen = run_virtual(Load(jobs=5, at_once=2, median=2.0, sigma=0.0), Ours(), seed=1)
    assert (seen.lost, len(seen.delays), seen.seconds) == (3, 2, pytest.approx(3.0))


def seen_of(delay: float) -> Seen:
    return Seen(jobs=2, seconds=60.0, delays=(delay, delay), reads=4, refused=0)


def taken_of(row: Row, delay: float) -> Taken:
    names = [watch.OURS.name, *(one.name for one in SCHEDULES)]
    runs = {name: [seen_of(delay)] for name in names}
    return Taken(row=row, virtual=runs, real=runs if row.real else {})


def test_a_goal_that_is_missed_is_said() -> None:
    figures = {one.name: one for one in watch.judge(watch.WATCH, [seen_of(0.6)], "virtual time")}
    text = watch.write_goals(list(figures.values()))
    assert f"{Goal('must be', '<=', 0.68)}: met<br>{Goal('aim', '<=', 0.55)}: **not met**" in text
    assert "| watch, virtual time: 429s | 0 |" in text


def test_a_table_has_every_policy_on_both_clocks() -> None:
    text = watch.write_policies(taken_of(watch.WATCH, 0.6))
    assert [line.split("|")[1].strip() for line in text.splitlines()[4:]] == [
        *(name + clock for clock in ("", ", real clock") for name in ["ours", *(one.name for one in SCHEDULES)])
    ]
    assert "| ours | 2.0 | 0.600 | 2.00 | 0 | 0 |" in text


def test_rules_on_one_pot_share_it_as_they_say() -> None:
    # Reads that are always due take what they may: 60 % of 300 leaves 120 submits a minute, less the beginning and the tail.
    unread = simulate(LongestUnread(0.6), seed=1)
    greedy = simulate(LongestUnread(0.8), seed=1)
    assert 90 < unread[0] < 120
    assert greedy[0] < 65
    assert greedy[1] < unread[1]
    assert unread == simulate(LongestUnread(0.6), seed=1)
    assert simulate(Proportional(), seed=1)[0] < 65


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    outcomes = [Outcome(name="longest unread, reads take 60 %", jobs_a_minute=100, mean_delay=9, reads_a_job=2)]
    taken = [taken_of(watch.WATCH, 0.6), taken_of(watch.SHARED, 50.0)]
    assert watch.draw(taken, outcomes, tmp_path / "watch.png")
    assert (tmp_path / "watch.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_there_is_no_plot_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "can_draw", lambda: False)
    assert not watch.draw([], [], tmp_path / "watch.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.processes
def test_a_smoke_run_works_and_writes_no_file() -> None:
    before = {path: path.read_bytes() for path in (report.RESULTS, report.RESULTS.with_name(watch.PLOT)) if path.exists()}
    command = [sys.executable, "-m", "benchmarks", "watch", "--smoke"]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("20 of 20 jobs ended") == 2 * (len(SCHEDULES) + 1) + (len(SCHEDULES) + 1) + 1 + 2
    assert {path: path.read_bytes() for path in before} == before


def test_matplotlib_is_imported_when_a_plot_is_drawn_and_not_before() -> None:
    code = "import sys, benchmarks.watch; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=HOME, timeout=60, check=False).returncode == 0


def test_ours_runs_once_a_seed_and_others_once() -> None:
    row = Row(name="small", load=SMALL, others=(BACKOFF,), goals={})
    options = Options(command="", repetitions=2, smoke=False, check=False, cold=False, output=Path("results.md"))
    taken = watch.take(row, options)
    assert {name: len(runs) for name, runs in taken.virtual.items()} == {"ours": 2, BACKOFF.name: 1}
    assert taken.real == {}
