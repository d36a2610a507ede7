"""The command as its users see it: processes, exit statuses, what stands on stdout and stderr."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest
from PIL import Image as Picture

from dryapi_async.__main__ import main
from tests.cli.conftest import Command, clean_environment

pytestmark = pytest.mark.processes

IMG2IMG = ("run", "img2img", "--prompt", "night", "--model", "QwenImageEdit_Plus_NF4", "--steps", "20", "--seed", "1")
TXT2IMG = (
    "run",
    "txt2img",
    "--prompt",
    "a [bold]fox[/]",
    "--model",
    "Flux1schnell",
    "--width",
    "512",
    "--height",
    "384",
    "--seed",
    "7",
    "--steps",
    "4",
)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "fox.png"
    Picture.new("RGB", (320, 256), "teal").save(path)
    return path


def one_line(text: str) -> str:
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    assert "\x1b" not in text
    return text


def test_run_saves_a_picture_of_the_size_asked_for(command: Command, tmp_path: Path) -> None:
    done = command(*TXT2IMG, "--out", "fox.webp", FORCE_COLOR="1")
    assert (done.returncode, done.stdout) == (0, "fox.webp\n"), done.stderr
    with Picture.open(tmp_path / "fox.webp") as drawn:
        assert (drawn.size, drawn.format) == ((512, 384), "WEBP")
    assert "\x1b" not in done.stderr
    assert "submitted: txt2img:" in done.stderr


def test_run_for_machines_then_status_and_wait(command: Command, picture: Path, tmp_path: Path) -> None:
    done = command(*IMG2IMG, "--image", picture.name, "--out", ".", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert Path(told["path"]).stem == told["request_id"]
    assert done.stderr == ""
    status = command("status", told["ticket"], "--json")
    assert json.loads(status.stdout)["state"] == "done"
    both = command("-v", "status", "txt2img:00000000-0000-0000-0000-000000000000", told["ticket"])
    assert (both.returncode, both.stdout) == (1, f"{told['ticket']} done 100 %\n"), "one that fails doesn't hide the other"
    assert "NotFoundError: " in both.stderr
    assert "Attempt(request='GET request-status'" in both.stderr
    waited = command("wait", told["ticket"], "--out", "later")
    assert waited.returncode == 0
    assert (tmp_path / "later" / f"{told['request_id']}.png").stat().st_size > 100


def test_several_pictures_are_all_sent_and_folders_are_made(command: Command, picture: Path, tmp_path: Path) -> None:
    done = command(*IMG2IMG, "--image", picture.name, "--image", picture.name, "--out", "new/folder/")
    assert done.returncode == 0, done.stderr
    (made,) = (tmp_path / "new" / "folder").iterdir()
    assert done.stdout == f"{made.relative_to(tmp_path)}\n"
    refused = command(*IMG2IMG, *["--image", picture.name] * 5, "--out", ".")
    assert "ValidationError: " in refused.stderr, "the simulator's model takes four, and counts them"


@pytest.mark.parametrize(
    ("words", "environment", "said", "status"),
    [
        ((*IMG2IMG, "--image", "nope.png", "--out", "x.png"), {}, "SourceError: nope.png can't be read: No such file", 1),
        ((*IMG2IMG, "--image", "words.png", "--out", "x.png"), {}, "SourceError: words.png is no image", 1),
        (
            (*IMG2IMG, "--image", "fox.png", "--images", "fox.png", "--out", "x.png"),
            {},
            "InputError: Img2Img takes exactly one of image and images",
            1,
        ),
        ((*IMG2IMG, "--out", "x.png"), {}, "InputError: Img2Img takes exactly one of image and images, and got neither", 1),
        ((*IMG2IMG, "--image", "fox.png", "--out", "x.png"), {"DRYAPI_API_KEY": "8|wrong"}, "AuthenticationError: ", 1),
        ((*IMG2IMG, "--image", "fox.png", "--out", "x.png"), {"DRYAPI_API_KEY": ""}, "ConfigurationError: No API key", 2),
        (("run", "img-upscale", "--image", "fox.png", "--model", "Nope", "--out", "x.png"), {}, "ValidationError: ", 1),
        ((*IMG2IMG, "--image", "fox.png", "--out", "x.png"), {"DRYAPI_BASE_URL": "http://127.0.0.1:9"}, "ConnectError: ", 1),
        (("wait", "nonsense", "--out", "."), {}, "InputError: 'nonsense' is no ticket", 1),
        (("status", "txt2img:00000000-0000-0000-0000-000000000000"), {}, "NotFoundError: ", 1),
    ],
)
def test_what_goes_wrong_is_one_line(  # noqa: PLR0917  a table has these columns
    words: tuple[str, ...],
    environment: dict[str, str],
    said: str,
    status: int,
    service: dict[str, str],
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (picture.parent / "words.png").write_text("these are words")
    before = sorted(picture.parent.iterdir())
    monkeypatch.chdir(picture.parent)
    for name, value in (service | environment).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["dryapi", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert (ended.value.code, told.out) == (status, "")
    assert one_line(told.err).startswith(said)
    assert "wrong" not in told.err
    assert sorted(picture.parent.iterdir()) == before


def test_an_error_is_no_traceback(command: Command) -> None:
    done = command(*IMG2IMG, "--image", "nope.png", "--out", "x.png")
    assert done.returncode == 1
    assert one_line(done.stderr).startswith("SourceError: nope.png can't be read")


def test_help_comes_from_the_classes(command: Command) -> None:
    done = command("run", "img2img", "--help")
    assert done.returncode == 0
    assert "--negative-prompt" in done.stdout
    assert "Inference steps." in done.stdout
    assert "vid-rmbg" in command("run", "--help").stdout
    assert command("run", "img_rmbg", "--help").returncode == 0


def test_prices_balance_and_models(command: Command, picture: Path) -> None:
    assert command("price", *TXT2IMG[1:]).stdout.startswith("$0.")
    by_size = command("price", "img-upscale", "--model", "RealESRGAN_x4plus", "--width", "320", "--height", "256", "--json")
    assert by_size.returncode == 0, by_size.stderr
    by_file = command("price", "img-upscale", "--model", "RealESRGAN_x4plus", "--image", str(picture), "--json")
    assert json.loads(by_file.stdout) == json.loads(by_size.stdout)
    assert float(json.loads(command("balance", "--json").stdout)["balance"]) > 0
    listed = json.loads(command("models", "--type", "img_upscale", "--json").stdout)
    assert [model["slug"] for model in listed] == ["RealESRGAN_x4plus"]
    assert "Flux1schnell" in command("models").stdout


def test_a_prompt_tool_prints_its_answer(command: Command) -> None:
    done = command("run", "prompt_image", "--prompt", "a fox")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


SLOW = """
import asyncio, sys
from dryapi_async.simulator import Fault, Simulator
async def main():
    async with Simulator(key="7|key", pictures=False, duration=1.0) as simulator:
        fault = Fault.hang() if "never" in sys.argv else Fault.delay(1.5)
        simulator.script(lambda it: it.operation == "txt2img" and print("received", flush=True) is None, fault)
        print(simulator.url, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
"""A service that answers its first submit late or never, and whose jobs take a while."""


@contextmanager
def slow_service(*words: str) -> Iterator[tuple[dict[str, str], TextIO]]:
    with subprocess.Popen([sys.executable, "-c", SLOW, *words], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        yield clean_environment(DRYAPI_BASE_URL=running.stdout.readline().strip(), DRYAPI_API_KEY="7|key"), running.stdout
        running.terminate()


@contextmanager
def started(
    words: tuple[str, ...], environment: dict[str, str], folder: Path, *, verbose: bool = True
) -> Iterator[tuple[subprocess.Popen[str], TextIO]]:
    """Start the command as a shell does, where Ctrl-C reaches it even if this process ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        command = [sys.executable, "-m", "dryapi_async", *(["-v"] if verbose else []), *words]
        running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder)
    finally:
        signal.signal(signal.SIGINT, before)
    with running:
        assert running.stderr is not None
        yield running, running.stderr
        if running.poll() is None:
            running.kill()


def wait_for(words: str, lines: TextIO) -> str:
    return next(line for line in lines if words in line)


ENDS = pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
ON_ITS_WAY = "a submit is on its way: waiting for its answer (Ctrl-C again gives it up)\n"


@ENDS
def test_an_end_while_a_submit_is_on_its_way_prints_its_ticket_and_nothing_raw(tmp_path: Path, number: int, status: int) -> None:
    words = (*TXT2IMG, "--out", "x.png")
    with slow_service() as (environment, told), started(words, environment, tmp_path, verbose=False) as (running, lines):
        wait_for("received", told)
        running.send_signal(number)
        rest = lines.read()
        assert running.wait(20) == status
    assert rest.startswith(f"{ON_ITS_WAY}paid for, and not saved yet; go on with\n")
    assert re.fullmatch(r"  dryapi wait txt2img:[0-9a-f-]{36} --out x\.png\n", rest.partition("go on with\n")[2]), rest
    assert not list(tmp_path.iterdir())


@ENDS
def test_an_end_given_up_says_in_one_line_that_the_fate_is_unknown(tmp_path: Path, number: int, status: int) -> None:
    words = (*TXT2IMG, "--out", "x.png")
    with slow_service("never") as (environment, told), started(words, environment, tmp_path, verbose=False) as (running, lines):
        wait_for("received", told)
        running.send_signal(number)
        assert lines.readline() == ON_ITS_WAY
        begun = time.monotonic()
        running.send_signal(number)
        rest = lines.read()
        assert running.wait(20) == status
        assert time.monotonic() - begun < 15, "nobody waits for the answer any more"
    assert one_line(rest).startswith("SubmissionUnknownError: POST txt2img was sent and its answer was lost")
    assert "may have been accepted and billed" in rest


def test_sigterm_while_a_job_runs_prints_its_ticket(tmp_path: Path) -> None:
    words = (*TXT2IMG, "--out", "x.png")
    with slow_service() as (environment, _), started(words, environment, tmp_path, verbose=False) as (running, lines):
        ticket = wait_for("submitted: ", lines).split()[-1]
        running.terminate()
        rest = lines.read()
        assert running.wait(20) == 143
    assert f"dryapi wait {ticket} --out x.png" in rest
    assert "Traceback" not in rest
    assert not list(tmp_path.iterdir())


def test_the_help_says_what_the_exit_status_means(command: Command) -> None:
    said = " ".join(command("--help").stdout.split())
    assert "0 done, 1 failed, 2 wrong usage, 3" in said
    assert "130 after Ctrl-C, 143 after SIGTERM" in said


def test_ctrl_c_while_a_submit_is_on_its_way_prints_its_ticket(tmp_path: Path) -> None:
    with slow_service() as (environment, told), started((*TXT2IMG, "--out", "x.png"), environment, tmp_path) as (running, lines):
        wait_for("received", told)
        running.send_signal(signal.SIGINT)
        rest = lines.read()
        assert running.wait(20) == 130
    assert "submitted: " not in rest
    assert "waiting for its answer (Ctrl-C again gives it up)" in rest
    assert re.search(r"dryapi wait txt2img:[0-9a-f-]{36} --out x\.png", rest)
    assert "Traceback" not in rest
    assert not list(tmp_path.iterdir())


def test_a_result_that_cant_be_written_leaves_its_ticket(tmp_path: Path) -> None:
    with slow_service() as (environment, _), started((*TXT2IMG, "--out", "later/x.png"), environment, tmp_path) as (running, lines):
        ticket = wait_for("submitted: ", lines).split()[-1]
        (tmp_path / "later").rmdir()
        (tmp_path / "later").write_text("in the way")
        rest = lines.read()
        assert running.wait(20) == 1
    assert "error: later: File exists\n" in rest
    assert f"dryapi wait {ticket} --out .\n" in rest
    assert "Traceback" not in rest


def test_ctrl_c_prints_the_ticket_of_what_goes_on(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "dryapi_async", "simulate", "--speed", "0.001"], stdout=subprocess.PIPE, text=True
    ) as service:
        assert service.stdout is not None
        environment = clean_environment(DRYAPI_BASE_URL=service.stdout.readline().strip(), DRYAPI_API_KEY="1|simulator-key")
        words = [sys.executable, "-m", "dryapi_async", *TXT2IMG, "--out", "x.png"]
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as running:
            assert running.stderr is not None
            submitted = running.stderr.readline()
            running.send_signal(signal.SIGINT)
            rest = running.stderr.read()
            assert running.wait(20) == 130
        service.terminate()
        assert service.wait(10) == 0
    ticket = submitted.split()[-1]
    assert f"dryapi wait {ticket} --out x.png" in rest
    assert "Traceback" not in rest
    assert not list(tmp_path.iterdir())


def test_demo_makes_two_pictures_of_the_sizes_asked_for(tmp_path: Path) -> None:
    noise = tmp_path / "noise.jpg"
    Picture.frombytes("RGB", (3430, 2290), os.urandom(3430 * 2290 * 3)).save(noise, quality=95)
    assert 8_000_000 < noise.stat().st_size < 10_485_760
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "dryapi_async", "demo", "--image", str(noise), "--out", "made"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
        env=clean_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < 30
    sizes: dict[str, tuple[int, int]] = {}
    for path in (tmp_path / "made").iterdir():
        with Picture.open(path) as picture:
            sizes[path.name] = picture.size
    assert sizes == {"fox.png": (768, 512), "night.png": (1024, 680)}
    told = done.stdout
    assert f"({noise.stat().st_size:,} bytes" in told
    assert f"SHA-256 {hashlib.sha256(noise.read_bytes()).hexdigest()}" in told
    length = int(re.search(r"Content-Length ([0-9]+)", told)[1])  # type: ignore[index]
    assert noise.stat().st_size < length < noise.stat().st_size + 2000
    assert "no Transfer-Encoding" in told
