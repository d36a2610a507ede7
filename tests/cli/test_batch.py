"""`dryapi batch`: a manifest's operations, each paid for once, and what can be seen of it."""

import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Picture

from dryapi_async.simulator import Fault, Simulator
from tests.cli.batches import FOX, end_batch, read_outcomes, run_batch, start_batch, states_of, write_foxes
from tests.conftest import make_sim, seen, sha256, until

pytestmark = pytest.mark.processes


def with_simulator(test: Callable[[Simulator], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with make_sim(**{"duration": 0.1, "limit_headers": False, **options}) as sim:
            await test(sim)

    asyncio.run(main())


def results_in(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir() if one.suffix in {".png", ".json", ".txt"})


def test_a_manifest_is_done_and_the_same_command_does_nothing_more(tmp_path: Path) -> None:
    Picture.new("RGB", (320, 256), "teal").save(tmp_path / "a.png")
    night = {"op": "img2img", "prompt": "<script>", "model": "QwenImageEdit_Plus_NF4", "steps": 20, "seed": 1, "image": "a.png"}
    lines = [FOX | {"seed": 1}, night | {"key": "a night/1"}, {"op": "prompt/image", "prompt": "a fox", "key": "words"}]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, lines)))

    async def main(sim: Simulator) -> None:
        done = await run_batch(sim, tmp_path, "--out", "new/{odd}", "--prices")
        folder = tmp_path / "new" / "{odd}"
        assert done.status == 0, done.err
        assert done.out.startswith("3 saved of 3, $0.")
        assert sorted(done.err.splitlines()) == ["00001 saved 00001.png", "a night/1 saved a night_1.png", "words saved words.json"]
        assert results_in(folder) == ["00001.png", "a night_1.png", "words.json"]
        assert "fox" in json.loads((folder / "words.json").read_text())["prompt"]
        told = read_outcomes(folder)["a night/1"]
        assert (told["line"], told["op"], told["state"], told["path"], told["error"]) == (2, "img2img", "saved", "a night_1.png", None)
        assert told["ticket"].startswith("img2img:")
        assert float(told["price"]) > 0
        assert told["seconds"] > 0
        page = (folder / "index.html").read_text()
        assert page.count('"state":"saved"') == 3
        assert '"prompt":"<script>"' not in page
        before = (folder / "outcomes.jsonl").read_bytes()

        requests = len(sim.requests)
        again = await run_batch(sim, tmp_path, "--out", "new/{odd}")
        assert (again.status, again.err) == (0, "")
        assert again.out.startswith("3 saved of 3: ")
        assert len(sim.requests) == requests, "nothing is asked for where nothing is to be done"
        assert ((folder / "outcomes.jsonl").read_bytes(), (folder / "index.html").read_text()) == (before, page)

        kept = sha256(folder / "00001.png")
        (folder / "00001.png").unlink()
        with (folder / "outcomes.jsonl").open("a") as log:
            log.write('{"key": "torn", "sta')
        fetched = await run_batch(sim, tmp_path, "--out", "new/{odd}")
        assert fetched.status == 0, fetched.err
        assert (sha256(folder / "00001.png"), len(read_outcomes(folder))) == (kept, 3)
        assert sim.jobs_billed == 3, "what is missing costs nothing to fetch again"

    with_simulator(main)


def test_p01_ten_mistakes_are_ten_lines_and_nothing_is_sent(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    night = {"op": "img2img", "prompt": "x", "model": "Q", "steps": 20, "seed": 1}
    lines: list[Any] = [
        FOX | {"seed": 1, "key": "fox"},
        "{not json",
        [1],
        FOX | {"op": "txt2imgs", "seed": 1},
        FOX | {"seed": 1, "promt": "x"},
        FOX,
        FOX | {"seed": "one"},
        night | {"image": "missing.png"},
        night | {"image": "empty.png"},
        FOX | {"seed": 1, "key": "fox"},
        FOX | {"seed": 1, "key": "FOX"},
    ]
    (tmp_path / "jobs.jsonl").write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))

    async def main(sim: Simulator) -> None:
        for words in (("--out", "out"), ("--check",)):
            done = await run_batch(sim, tmp_path, *words)
            assert (done.status, done.out) == (2, "")
            *told, last = done.err.splitlines()
            assert [line.split(":")[:2] for line in told] == [["jobs.jsonl", str(number)] for number in range(2, 12)]
            reasons = (
                "JSON",
                "a list",
                "'txt2img'?",
                "'prompt'?",
                "seed",
                "an int",
                "No such file",
                "is empty",
                "'fox' is that",
                "'FOX' makes",
            )
            assert all(reason in line for reason, line in zip(reasons, told, strict=True)), done.err
            assert last == "nothing was sent: 10 lines are to be mended first"
        assert not sim.requests
        assert not (tmp_path / "out").exists()
        write_foxes(tmp_path / "many.jsonl", 130, width="x")
        many = await run_batch(sim, tmp_path, "--out", "out", manifest="many.jsonl")
        assert (many.status, many.err.splitlines()[100]) == (2, "and 30 more")

    with_simulator(main)


def test_a_changed_line_under_an_old_key_is_refused(tmp_path: Path) -> None:
    Picture.new("RGB", (320, 256), "teal").save(tmp_path / "a.png")
    night = {"op": "img2img", "prompt": "x", "model": "QwenImageEdit_Plus_NF4", "steps": 20, "seed": 1, "image": "a.png"}
    (tmp_path / "jobs.jsonl").write_text(f"{json.dumps(FOX | {'seed': 1})}\n{json.dumps(night)}\n")

    async def main(sim: Simulator) -> None:
        assert (await run_batch(sim, tmp_path, "--out", "out")).status == 0
        (tmp_path / "jobs.jsonl").write_text(f"{json.dumps(FOX | {'seed': 2})}\n{json.dumps(night)}\n")
        Picture.new("RGB", (321, 256), "teal").save(tmp_path / "a.png")
        done = await run_batch(sim, tmp_path, "--out", "out")
        assert done.status == 2
        first, second, _ = done.err.splitlines()
        assert first.startswith("jobs.jsonl:1: key '00001' was another request in an earlier run")
        assert second.startswith("jobs.jsonl:2: key '00002' was another request")
        assert sim.jobs_billed == 2

    with_simulator(main)


def test_p01_unknown_and_failed_ones_are_paid_for_again_only_at_the_users_word(tmp_path: Path) -> None:
    write_foxes(tmp_path / "jobs.jsonl", 6)

    async def main(sim: Simulator) -> None:
        sim.script("txt2img", Fault.reset("after_body"), Fault.job_error(), Fault.status(422, {"message": "no"}))
        done = await run_batch(sim, tmp_path, "--out", "out", "--at-once", "1")
        assert done.status == 3
        assert states_of(tmp_path / "out") == {"saved": 3, "unknown": 1, "failed": 1, "refused": 1}
        assert "line 1: 00001" in done.err
        assert "00003 refused ValidationError: " in done.err
        page = (tmp_path / "out" / "index.html").read_text()
        assert [page.count(f'"state":"{state}"') for state in ("saved", "failed", "unknown")] == [3, 2, 1]

        again = await run_batch(sim, tmp_path, "--out", "out")
        assert again.status == 3
        assert "line 1: 00001" in again.err
        assert states_of(tmp_path / "out") == {"saved": 4, "unknown": 1, "failed": 1}, "what was refused is sent again"
        assert sim.jobs_billed == 6, "the one whose answer was lost had been accepted"

        retried = await run_batch(sim, tmp_path, "--out", "out", "--retry-failed")
        assert (retried.status, states_of(tmp_path / "out")) == (3, {"saved": 5, "unknown": 1})
        assert sim.jobs_billed == 7
        resubmitted = await run_batch(sim, tmp_path, "--out", "out", "--resubmit-unknown")
        assert (resubmitted.status, states_of(tmp_path / "out")) == (0, {"saved": 6})
        assert sim.jobs_billed == 8
        last = await run_batch(sim, tmp_path, "--out", "out", "--resubmit-unknown", "--retry-failed")
        assert (last.status, sim.jobs_billed) == (0, 8)

    with_simulator(main)


def test_a_budget_stops_before_it_is_passed_and_the_rest_comes_later(tmp_path: Path) -> None:
    write_foxes(tmp_path / "jobs.jsonl", 8)

    async def main(sim: Simulator) -> None:
        checked = await run_batch(sim, tmp_path, "--check")
        assert checked.status == 0, checked.err
        total = float(checked.out.partition("$")[2].split()[0])
        assert sim.jobs_billed == 0
        done = await run_batch(sim, tmp_path, "--out", "out", "--budget", f"{total / 2:.10f}")
        assert done.status == 1
        assert done.out.startswith("4 saved, 1 stopped, 3 not done of 8, $0.")
        assert "stopped BudgetExceededError: " in done.err
        assert sim.jobs_billed == 4
        rest = await run_batch(sim, tmp_path, "--out", "out")
        assert (rest.status, sim.jobs_billed) == (0, 8)

    with_simulator(main)


def test_where_prices_cant_be_had_the_batch_goes_on(tmp_path: Path) -> None:
    write_foxes(tmp_path / "jobs.jsonl", 3)

    async def main(sim: Simulator) -> None:
        sim.script("txt2img/price-calculation", Fault.status(403, {"message": "no"}), probability=1.0)
        sim.script("models", Fault.status(403, {"message": "no"}), probability=1.0)
        sim.script("balance", Fault.status(403, {"message": "no"}), probability=1.0)
        done = await run_batch(sim, tmp_path, "--out", "out", "--prices")
        assert done.status == 0, done.err
        assert {said["price"] for said in read_outcomes(tmp_path / "out").values()} == {None}

    with_simulator(main)


def test_check_tells_what_the_models_dont_take(tmp_path: Path) -> None:
    Picture.new("RGB", (320, 256), "teal").save(tmp_path / "a.png")
    rmbg = {"op": "img-rmbg", "model": "Ben2", "image": "a.png"}
    lines = [FOX | {"seed": 1}, FOX | {"seed": 1, "width": 100_000}, FOX | {"seed": 1, "model": "Nope"}, rmbg]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, lines)))

    async def main(sim: Simulator) -> None:
        done = await run_batch(sim, tmp_path, "--check")
        assert done.status == 1
        assert [line.split(": ")[0] for line in done.err.splitlines()[:2]] == ["jobs.jsonl:2", "jobs.jsonl:3"]
        assert "prices can't be had" not in done.err, "what doesn't fit isn't priced: the service would refuse that, too"
        assert done.out.startswith("2 of 4 lines fit their models; $")
        assert {one.operation for one in sim.requests} == {"models", "txt2img/price-calculation", "img-rmbg/price-calculation"}
        assert not any(one.files for one in sim.requests), "nothing is uploaded"
        assert not (tmp_path / "out").exists()

    with_simulator(main)


def test_ctrl_c_once_ends_what_is_under_way(tmp_path: Path) -> None:
    write_foxes(tmp_path / "jobs.jsonl", 40)

    async def main(sim: Simulator) -> None:
        process = await start_batch(sim, tmp_path, "--out", "out", "--at-once", "4")
        await until(lambda: len(seen(sim, "txt2img")) >= 4)
        process.send_signal(signal.SIGINT)
        done = await end_batch(process)
        assert done.status == 130
        assert "nothing more is sent; waiting for 4 under way" in done.err
        assert 4 <= sim.jobs_billed <= 8
        assert len(results_in(tmp_path / "out")) == sim.jobs_billed
        assert "not done of 40" in done.out
        assert "the same command goes on where this one stopped" in done.err
        rest = await run_batch(sim, tmp_path, "--out", "out")
        assert (rest.status, sim.jobs_billed, len(results_in(tmp_path / "out"))) == (0, 40, 40)

    with_simulator(main, duration=1.0)


@pytest.mark.parametrize(("number", "times", "status"), [(signal.SIGINT, 2, 130), (signal.SIGTERM, 1, 143)])
def test_ctrl_c_twice_and_sigterm_leave_the_jobs_to_the_service(tmp_path: Path, number: signal.Signals, times: int, status: int) -> None:
    write_foxes(tmp_path / "jobs.jsonl", 8)

    async def main(sim: Simulator) -> None:
        process = await start_batch(sim, tmp_path, "--out", "out", "--at-once", "4")
        await until(lambda: sim.jobs_billed >= 4)
        await asyncio.sleep(0.5)
        began = time.monotonic()
        for _ in range(times):
            process.send_signal(number)
            await asyncio.sleep(0.3)
        done = await end_batch(process)
        assert done.status == status, done.err
        assert "Traceback" not in done.err
        assert time.monotonic() - began < 60, "it doesn't wait for jobs of ten minutes"
        assert (sim.jobs_billed, results_in(tmp_path / "out")) == (4, [])
        for request_id in list(sim.jobs):
            sim.finish(request_id)
        sim.board.duration = 0.1
        rest = await run_batch(sim, tmp_path, "--out", "out")
        assert (rest.status, sim.jobs_billed, len(results_in(tmp_path / "out"))) == (0, 8, 8), rest.err

    with_simulator(main, duration=600.0)


def test_wrong_usage_is_one_line(tmp_path: Path) -> None:
    write_foxes(tmp_path / "jobs.jsonl", 1)
    (tmp_path / "jobs.txt").write_text("x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("my own page")

    async def main(sim: Simulator) -> None:
        for words, manifest, said in (
            ((), "jobs.jsonl", "Missing option '--out'"),
            (("--out", "out"), "jobs.txt", "a manifest is named"),
            (("--out", "out"), "nope.jsonl", "does not exist"),
            (("--out", "out", "--budget", "much"), "jobs.jsonl", "no amount of US dollars"),
            (("--out", "out", "--op", "txt2imgs"), "jobs.jsonl", "did you mean 'txt2img'"),
            (("--out", "out", "--at-once", "0"), "jobs.jsonl", "0 is not in the range"),
            (("--out", "jobs.jsonl"), "jobs.jsonl", "is no folder"),
            (("--out", "mine"), "jobs.jsonl", "no contact sheet"),
            (("--out", "out", "--journal", "nowhere/jobs.db"), "jobs.jsonl", "doesn't exist"),
        ):
            done = await run_batch(sim, tmp_path, *words, manifest=manifest)
            assert (done.status, done.out, done.err.count("\n")) == (2, "", 1), done.err
            assert said in done.err
        assert not sim.requests

    with_simulator(main)
