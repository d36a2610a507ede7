"""The command as its users see it: processes, exit statuses, what stands on stdout and stderr."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image as Picture

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
    done = command(*TXT2IMG, "--out", "fox.webp")
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
    waited = command("wait", told["ticket"], "--out", "later")
    assert waited.returncode == 0
    assert (tmp_path / "later" / f"{told['request_id']}.png").stat().st_size > 100


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
        ((*IMG2IMG, "--image", "fox.png", "--out", "nowhere/x.png"), {}, "FileNotFoundError: ", 1),
        ((*IMG2IMG, "--image", "fox.png", "--out", "x.png"), {"DRYAPI_BASE_URL": "http://127.0.0.1:9"}, "ConnectError: ", 1),
        (("wait", "nonsense", "--out", "."), {}, "InputError: 'nonsense' is no ticket", 1),
        (("status", "txt2img:00000000-0000-0000-0000-000000000000"), {}, "NotFoundError: ", 1),
    ],
)
def test_what_goes_wrong_is_one_line(  # noqa: PLR0917  a table has these columns
    words: tuple[str, ...], environment: dict[str, str], said: str, status: int, command: Command, picture: Path, tmp_path: Path
) -> None:
    (tmp_path / "words.png").write_text("these are words")
    before = sorted(tmp_path.iterdir())
    done = command(*words, **environment)
    assert done.returncode == status
    assert done.stdout == ""
    last = one_line(done.stderr[done.stderr.rstrip("\n").rfind("\n") + 1 :])
    assert last.startswith(said)
    assert "wrong" not in last
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_flag_is_named(command: Command) -> None:
    done = command("run", "txt2img", "--prompt", "p", "--out", "x.png")
    assert done.returncode == 2
    assert "--model" in done.stderr


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
    assert f"dryapi wait {ticket} --out ." in rest
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
    assert sizes == {"fox.png": (768, 512), "night.png": (1024, 704)}
    told = done.stdout.splitlines()[0]
    assert f"({noise.stat().st_size:,} bytes" in told
    assert f"SHA-256 {hashlib.sha256(noise.read_bytes()).hexdigest()}" in told
    length = int(re.search(r"Content-Length ([0-9]+)", told)[1])  # type: ignore[index]
    assert noise.stat().st_size < length < noise.stat().st_size + 2000
    assert "no Transfer-Encoding" in told
