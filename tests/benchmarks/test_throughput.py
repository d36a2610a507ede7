"""That the throughput benchmark works, counts and can say no; how fast anything is, is none of a test's business."""

import asyncio
import importlib.util
import json
import subprocess
import sys

import pytest
from attrs import evolve

from benchmarks import answers, jobs, pace, report, throughput
from benchmarks.options import Options
from benchmarks.processes import ChildError, Server, run_child, start_child, start_server
from benchmarks.throughput import OURS, OWN, PEERS, RAW, Load, Subject, Taken

from ..conftest import REPOSITORY

NAME = answers.name_job(7)
ORIGIN = "http://127.0.0.1:4000"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.processes
def test_a_smoke_run_works_and_writes_no_file() -> None:
    before = report.RESULTS.read_bytes()
    command = [sys.executable, "-m", "benchmarks", "throughput", "--smoke"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    ran = done.stdout.partition("It works: 60 jobs by each of ")[2].partition(";")[0].split(", ")
    assert ran == [subject.name for subject in (*OWN, *PEERS) if not subject.missing]
    assert ("over TLS: raw aiohttp, ours." in done.stdout) is bool(importlib.util.find_spec("trustme"))
    assert ("Plot: drawn" in done.stdout) is bool(importlib.util.find_spec("matplotlib"))
    assert report.RESULTS.read_bytes() == before


def drive(server: Server, subject: str, *, authority: str | None, without: tuple[str, ...] = ()) -> dict[str, float]:
    found: dict[str, float] = run_child(
        "jobs:drive", subject=subject, url=server.url, authority=authority, jobs=8, at_once=4, loop="asyncio", without=without
    )
    return found


@pytest.mark.parametrize("subject", ["ours", "raw_aiohttp"])
def test_a_child_brings_jobs_to_their_end_over_tls(subject: str) -> None:
    pytest.importorskip("trustme")
    with start_server(tls=True) as server:
        assert server.url.startswith("https://")
        seen = drive(server, subject, authority=server.authority)
        assert (seen["latencies"] >= 1, seen["work"]) == (True, 0.0)
        assert seen["rss_peak_bytes"] > seen["rss_growth_bytes"] >= 0
        with pytest.raises(ChildError, match=r"(?i)certificate"):
            drive(server, subject, authority=None)


def test_packages_can_be_taken_as_not_installed() -> None:
    with start_server() as server, pytest.raises(ChildError, match="import of aiohttp halted"):
        drive(server, "raw_aiohttp", authority=None, without=("aiohttp",))


def test_a_child_takes_turns_and_says_what_each_cost() -> None:
    with start_server() as server:
        load = Load(jobs=12, at_once=4, turns=3, rated=1)
        subjects = [RAW, evolve(OURS, name="once more")]
        readings = throughput.take_turns(load, subjects, server)
        assert set(readings) == {"raw aiohttp", "once more"}
        assert all(
            reading["us"] > 0 and reading["speed"] > 0 and min(reading[name] for name in ("spread", "spread_work", "spread_ends")) >= 1
            for reading in readings.values()
        )
        with throughput._start(RAW, load, server) as ask:
            assert [len(ask({"jobs": jobs})["latencies"]) for jobs in (5, 2)] == [5, 2]


def test_a_child_that_ends_or_hangs_is_told() -> None:
    with start_server() as server:
        work = {"subject": "raw_aiohttp", "url": server.url, "authority": None, "at_once": 2, "loop": "asyncio"}
        with pytest.raises(ChildError, match="import of aiohttp halted"), start_child("jobs:take_turns", **work, without=["aiohttp"]):
            pass
        with start_child("jobs:take_turns", **work, without=[]) as ask:
            with pytest.raises(ChildError, match="TypeError"):
                ask({"jobs": "no number"})
            with pytest.raises(ChildError, match="TypeError"):
                ask({"jobs": 2})
        with (
            pytest.raises(ChildError, match="ended before it answered"),
            start_child("jobs:take_turns", patience=0.001, **work, without=[]),
        ):
            pass


def test_turns_are_summed_up() -> None:
    turn = {"seconds": 1.0, "cpu_seconds": 0.5, "rss_growth_bytes": 3, "rss_peak_bytes": 30, "stall_seconds": 0.1}
    turns = [
        {**turn, "latencies": [1.0] * 98, "work": [], "ends": [4] * 90},
        {**turn, "rss_peak_bytes": 40, "stall_seconds": 0.01, "latencies": [5.0] * 2, "work": [1.0, 1.0], "ends": [6] * 10},
    ]
    summed = jobs.sum_up(turns)
    assert (summed["seconds"], summed["cpu_seconds"], summed["rss_peak_bytes"], summed["stall_seconds"]) == (2.0, 1.0, 40, 0.1)
    assert (summed["latencies"], summed["work"], summed["ends"]) == (5.0, 1.0, 1.5)


def test_who_is_overtaken_is_told_from_the_jobs_that_end_meanwhile() -> None:
    in_turn = [(0, 1), (0, 2), (1, 3), (2, 4), (3, 5)]
    assert jobs.count_ends(in_turn) == [1, 2, 2, 2, 2]
    overtaken = [(0, 1), (1, 2), (2, 3), (0, 4)]
    assert jobs.count_ends(overtaken) == [1, 1, 1, 4]


@pytest.mark.parametrize("tls", [False, True])
def test_the_server_says_its_own_rate(tls: bool) -> None:
    if tls:
        pytest.importorskip("trustme")
    with start_server(tls=tls) as server:
        assert run_child("jobs:rate", url=server.url, authority=server.authority, jobs=100)["jobs_per_second"] > 0


@pytest.mark.anyio
async def test_each_job_is_done_once_and_so_many_at_once() -> None:
    done: list[int] = []
    running = most = 0

    async def finish(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        done.append(number)
        return answers.RESULT_BYTES

    spans: list[tuple[float, float]] = []
    await jobs._finish_all(finish, 20, 4, spans)
    assert (sorted(done), most) == (list(range(20)), 4)
    assert len(spans) == 20
    assert min(end - begin for begin, end in spans) >= 0.001


@pytest.mark.anyio
async def test_a_turn_opens_what_was_closed_meanwhile_before_it_measures() -> None:
    opened: list[int] = []

    async def finish(number: int) -> int:
        opened.append(number)
        return answers.RESULT_BYTES

    turn = await jobs._take_turn(finish, 20, 4, paced=True)
    assert opened == [*range(4), *range(20)]
    assert len(turn["latencies"]) == len(turn["work"]) == 20


def test_what_a_processor_can_do_in_a_time_is_told_from_how_slow_it_is_then(monkeypatch: pytest.MonkeyPatch) -> None:
    # A piece takes 1 until 110, then 2: its beginning and its end.
    clock = iter([9, 10, 59, 60, 109, 110, 138, 140, 238, 240])
    monkeypatch.setattr(pace.time, "perf_counter", lambda: next(clock))
    seen = pace.Pace()
    for _ in range(4):
        seen.note()
    assert seen.measure([(10, 60), (60, 110), (140, 240), (20, 70), (190, 240), (110, 140)]) == pytest.approx([50, 50, 50, 50, 25, 20])


@pytest.mark.anyio
async def test_a_result_of_another_length_is_told() -> None:
    async def finish(number: int) -> int:
        return answers.RESULT_BYTES - (number == 3)

    with pytest.raises(ExceptionGroup) as told:
        await jobs._finish_all(finish, 5, 1, [])
    assert told.group_contains(AssertionError)


def ask(method: bytes, target: str) -> tuple[bytes, bytes]:
    head, _, content = answers.answer(method, target, ORIGIN, lambda: NAME).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(content)}".encode() in head
    return head.partition(b"\r\n")[0], content


def test_a_signed_link_is_the_jobs_own_and_must_not_be_encoded_anew() -> None:
    status = json.loads(ask(b"GET", f"/api/v1/client/request-status/{NAME}")[1])["data"]
    links = [status["result_url"], *status["results_alt_formats"].values()]
    assert len(set(links)) == 3
    for link in links:
        assert NAME in link
        assert link.startswith(ORIGIN)
        target = link.removeprefix(ORIGIN)
        assert ask(b"GET", target) == (b"HTTP/1.1 200 OK", answers.RESULT)
        assert ask(b"GET", target.replace("%2F", "/")) == (b"HTTP/1.1 404 Not Found", b"{}")
        assert ask(b"GET", target.partition("?")[0]) == (b"HTTP/1.1 404 Not Found", b"{}")


@pytest.mark.parametrize(
    ("submit", "reads", "file"),
    [
        ("/v1/videos", [f"/v1/videos/{NAME}"], f"/v1/videos/{NAME}/content"),
        ("/v1/predictions", [f"/v1/predictions/{NAME}"], f"/files/{NAME}.png"),
        (
            "/fal-ai/flux/schnell",
            [f"/fal-ai/flux/requests/{NAME}/status?logs=False", f"/fal-ai/flux/requests/{NAME}"],
            f"/files/{NAME}.png",
        ),
    ],
)
def test_the_server_answers_the_peers(submit: str, reads: list[str], file: str) -> None:
    job = json.loads(ask(b"POST", submit)[1])
    assert NAME in (job.get("id"), job.get("request_id"))
    said = [json.loads(ask(b"GET", read)[1]) for read in reads]
    assert said[0]["status"].lower() in {"completed", "succeeded"}
    assert job["status"] not in {"completed", "succeeded", "COMPLETED"}
    assert file.endswith("/content") or f"{ORIGIN}{file}" in json.dumps(said)
    assert ask(b"GET", file)[1] == answers.RESULT
    assert ask(b"POST", f"{submit}/elsewhere")[0] == b"HTTP/1.1 404 Not Found"


def read(us: float, speed: float = 100.0) -> dict[str, float]:
    return {"us": us, "speed": speed, "spread": 1.1, "spread_work": 1.0, "spread_ends": 1.0, "stall": 1.0, "rss": 40.0}


def test_ours_is_compared_with_raw_and_peers_with_ours_repetition_by_repetition() -> None:
    taken = Taken(
        server=Server(port=1, loop="asyncio", authority=None),
        readings={RAW.name: [read(100), read(200)], OURS.name: [read(120), read(300)], PEERS[0].name: [read(1200), read(1500)]},
    )
    figures = {figure.name: figure for figure in throughput.compare(taken)}
    assert figures["CPU us a job"].judged_values == (1.2, 1.5)
    assert figures["p99 / p50 of a job's latency"].judged_values == (1.1, 1.1)
    assert figures["the same by the work the processor could do meanwhile"].judged_values == (1.0, 1.0)
    assert len(figures) == 7  # nothing is said of `speed`, which didn't run
    (peer,) = throughput.compare_peers(taken)
    assert peer.judged_values == (10.0, 5.0)
    assert [str(goal) for goal in peer.goals] == ["must be >= 7"]


def test_who_isnt_installed_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Subject(name="nobody", module="nobody", needs=("json", "no_such_package"), settings="none")
    monkeypatch.setattr(throughput, "PEERS", (absent,))
    assert absent.missing == ["no_such_package"]
    assert "* Left out: nobody, for no_such_package isn't installed." in throughput._write_settings()


def test_a_server_that_may_be_the_bottleneck_is_said() -> None:
    readings = {RAW.name: [read(100, speed=1000.0)]}
    for rate, said in ((1500.0, True), (2500.0, False)):
        taken = Taken(server=Server(port=1, loop="asyncio", authority=None), readings=readings, rates=[rate])
        assert ("It may be the bottleneck" in throughput._write_servers(taken, None)) is said


@pytest.mark.parametrize(("tls", "smoke", "why"), [(False, False, "not asked for"), (True, False, ""), (False, True, "")])
def test_tls_is_measured_where_it_is_asked_for_and_in_a_smoke_run(tls: bool, smoke: bool, why: str) -> None:
    pytest.importorskip("trustme")
    options = Options(command="", repetitions=1, smoke=smoke, check=False, cold=False, output=report.RESULTS, tls=tls)
    assert throughput._why_no_tls(options).startswith(why)
    assert bool(throughput._why_no_tls(options)) is bool(why)
