"""What tests of `dryapi batch` share: a manifest of foxes, the command as a process, and what it left behind."""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from attrs import frozen

from dryapi_async.simulator import Simulator
from tests.cli.conftest import clean_environment
from tests.conftest import REPOSITORY

FOX: dict[str, Any] = {"op": "txt2img", "prompt": "a fox", "model": "Flux1schnell", "width": 256, "height": 192, "steps": 4}


@frozen
class Ended:
    """A run of the command that has ended."""

    status: int | None
    out: str
    err: str


def write_foxes(path: Path, number: int, **more: Any) -> None:
    path.write_text("".join(json.dumps(FOX | {"seed": seed} | more) + "\n" for seed in range(number)))


async def start_batch(sim: Simulator, folder: Path, *words: str, manifest: str = "jobs.jsonl") -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "dryapi_async", "batch", manifest, *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=clean_environment(DRYAPI_BASE_URL=sim.url, DRYAPI_API_KEY=sim.key, PYTHONPATH=str(REPOSITORY)),
    )


async def end_batch(process: asyncio.subprocess.Process, seconds: float | None = None) -> Ended:
    """Wait for a run's end, or kill it with -9 after so many seconds."""
    talk = asyncio.ensure_future(process.communicate())
    done, _ = await asyncio.wait([talk], timeout=seconds)
    if not done:
        process.kill()
    out, err = await talk
    return Ended(process.returncode, out.decode(), err.decode())


async def run_batch(sim: Simulator, folder: Path, *words: str, manifest: str = "jobs.jsonl") -> Ended:
    return await end_batch(await start_batch(sim, folder, *words, manifest=manifest))


def read_outcomes(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the last outcome of each key."""
    return {said["key"]: said for said in map(json.loads, (folder / "outcomes.jsonl").read_text().splitlines())}


def states_of(folder: Path) -> Counter[str]:
    return Counter(said["state"] for said in read_outcomes(folder).values())
