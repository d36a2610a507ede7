"""The command says that it waits for the account's limit, and then goes on."""

import asyncio
import sys
from pathlib import Path

import pytest
from PIL import Image as Picture

from tests.cli.conftest import clean_environment
from tests.conftest import make_sim

pytestmark = pytest.mark.processes

WORDS = ("run", "img2img", "--prompt", "night", "--model", "QwenImageEdit_Plus_NF4", "--steps", "20", "--seed", "1", "--image", "fox.png")


def test_p07_the_second_within_the_window_waits_and_says_so(tmp_path: Path) -> None:
    Picture.new("RGB", (320, 256), "teal").save(tmp_path / "fox.png")

    async def run(url: str, key: str, name: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "dryapi_async", *WORDS, "--out", name),
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            cwd=tmp_path,
            env=clean_environment(DRYAPI_BASE_URL=url, DRYAPI_API_KEY=key),
        )
        _, told = await process.communicate()
        return process.returncode, told.decode()

    async def main() -> None:
        async with make_sim(limits={"img2img": (1, 5.0)}, duration=0.1) as sim:
            first, second = await run(sim.url, sim.key, "1.png"), await run(sim.url, sim.key, "2.png")
            assert (first[0], second[0]) == (0, 0), first[1] + second[1]
            assert "limit is reached" not in first[1]
            assert "the img2img limit is reached: waiting" in second[1]
            assert sim.jobs_billed == 2
            assert [one.status for one in sim.requests if one.operation == "img2img"] == [200, 429, 200]

    asyncio.run(main())
