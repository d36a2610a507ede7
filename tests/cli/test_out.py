"""Where results go is settled before anything is paid for."""

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import pytest

from dryapi_async import Audio, Embedding, Image, Text, Transcript, Video
from dryapi_async.cli.targets import Target
from dryapi_async.simulator import Simulator
from tests.cli.batches import Ended, end_batch, run_batch, write_foxes
from tests.cli.conftest import clean_environment
from tests.conftest import REPOSITORY, make_sim

pytestmark = pytest.mark.processes

FOX = ("run", "txt2img", "--prompt", "fox", "--model", "Flux1schnell", "--width", "256", "--height", "192", "--seed", "7", "--steps", "4")
NOWHERE = "/proc/nope"
"""No folder can be made there, whoever asks, and its file system says so only when it is asked."""


async def start(sim: Simulator, folder: Path, *words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "dryapi_async", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=clean_environment(DRYAPI_BASE_URL=sim.url, DRYAPI_API_KEY=sim.key, PYTHONPATH=str(REPOSITORY)),
    )


async def run(sim: Simulator, folder: Path, *words: str) -> Ended:
    return await end_batch(await start(sim, folder, *words))


def names_in(folder: Path) -> list[str]:
    return [one.name for one in folder.iterdir()]


def with_simulator(test: Callable[[Simulator], Awaitable[None]], *, duration: float = 0.1) -> None:
    async def main() -> None:
        async with make_sim(duration=duration, limit_headers=False) as sim:
            await test(sim)

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_folder_that_cant_be_made_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    write_foxes(tmp_path / "jobs.jsonl", 1)

    async def main(sim: Simulator) -> None:
        for done in (
            await run(sim, tmp_path, *FOX, "--out", f"{NOWHERE}/a.png"),
            await run(sim, tmp_path, *FOX, "--out", f"{NOWHERE}/"),
            await run(sim, tmp_path, "wait", "txt2img:1", "--out", NOWHERE),
            await run_batch(sim, tmp_path, "--out", NOWHERE),
        ):
            assert (done.status, done.out) == (2, ""), done.err
            assert re.fullmatch(rf"error: --out: the folder {NOWHERE} can't be made \(.+\)\. Nothing was sent\. See dryapi.*\n", done.err)
        there = await run(sim, tmp_path, *FOX, "--out", "/proc/a.png")
        assert (there.status, there.out) == (2, ""), there.err
        assert there.err.startswith("error: --out: /proc can't be written to (")
        assert (sim.jobs_billed, len(sim.requests)) == (0, 0)

    with_simulator(main)


def test_a_name_that_the_result_cant_have_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    async def main(sim: Simulator) -> None:
        for name in ("a.gif", "a.mp4", "a.txt", "new/a.JSON"):
            done = await run(sim, tmp_path, *FOX, "--out", name)
            assert (done.status, done.out) == (2, ""), done.err
            assert f"{Path(name).name} would be mislabelled: a picture comes as .png, .jpg or .webp. Nothing was sent." in done.err
        assert (sim.jobs_billed, len(sim.requests), names_in(tmp_path)) == (0, 0, [])
        for name in ("a.jpg", "a.JPEG", "a.webp", "a.png", "a.v2", "a", "a.mp4/"):
            done = await run(sim, tmp_path, *FOX, "--out", name)
            assert done.status == 0, done.err
        assert sim.jobs_billed == 7

    with_simulator(main)


@pytest.mark.parametrize(
    ("result_type", "good", "bad"),
    [
        (Image, ["a.png", "a.jpe", "a.webp", "a.bin"], ["a.gif", "a.tiff", "a.mp3"]),
        (Video, ["a.mp4"], ["a.gif", "a.png", "a.webm"]),
        (Audio, ["a.mp3", "a.wav", "a.flac"], ["a.mp4", "a.txt"]),
        (Text, ["a.txt", "a.json", "a.md"], ["a.png"]),
        (Transcript, ["a.txt", "a.srt"], ["a.mp3"]),
        (Embedding, ["a.json"], ["a.png"]),
    ],
)
def test_each_result_has_its_names(result_type: type, good: list[str], bad: list[str]) -> None:
    for name in good:
        Target(Path(name), is_folder=False).check_kind(result_type)
    for name in bad:
        with pytest.raises(click.UsageError, match="mislabelled"):
            Target(Path(name), is_folder=False).check_kind(result_type)
        Target(Path(name), is_folder=True).check_kind(result_type)


def test_a_sound_is_called_what_it_was_asked_to_be() -> None:
    for name, asked in (("a.wav", "wav"), ("a.opus", "ogg"), ("a.bin", "mp3"), ("a.wav", "unheard"), ("a.wav", None)):
        Target(Path(name), is_folder=False).check_kind(Audio, asked)
    with pytest.raises(click.UsageError, match=r"a\.wav would be mislabelled: --format is mp3\. Nothing was sent\."):
        Target(Path("a.wav"), is_folder=False).check_kind(Audio, "mp3")
    Target(Path("a.txt"), is_folder=False).check_kind(Text, "json")


def test_the_command_refuses_a_sound_by_another_name_before_it_is_paid_for(tmp_path: Path) -> None:
    async def main(sim: Simulator) -> None:
        speech = ("run", "txt2audio", "--text", "Hello", "--model", "Kokoro", "--lang", "en-us", "--speed", "1", "--sample-rate", "24000")
        done = await run(sim, tmp_path, *speech, "--mode", "custom_voice", "--voice", "af_sky", "--format", "mp3", "--out", "a.wav")
        assert (done.status, "--format is mp3" in done.err, sim.jobs_billed) == (2, True, 0), done.err

    with_simulator(main)


def test_wait_takes_a_file_for_one_job_as_its_hint_says(tmp_path: Path) -> None:
    async def main(sim: Simulator) -> None:
        late = await run(sim, tmp_path, *FOX, "--out", "new/fox.png", "--timeout", "0.3")
        assert late.status == 1
        found = re.search(r"txt2img:[0-9a-f-]{36}", late.err)
        assert found is not None, late.err
        ticket = found[0]
        saved = await run(sim, tmp_path, "wait", ticket, "--out", "new/fox.png")
        assert (saved.status, saved.out) == (0, "new/fox.png\n"), saved.err
        assert (tmp_path / "new" / "fox.png").is_file()
        several = await run(sim, tmp_path, "wait", ticket, "txt2img:2", "--out", "fox.png")
        assert (several.status, "is one file, and there are 2 jobs" in several.err) == (2, True)
        film = await run(sim, tmp_path, "wait", ticket, "--out", "fox.mp4")
        assert (film.status, "mislabelled" in film.err) == (2, True)

    with_simulator(main, duration=3.0)
