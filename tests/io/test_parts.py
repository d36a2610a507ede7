"""What killed processes left half-written is swept away; what living ones write stays."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dryapi_async.io.parts import Part, part_name, sweep
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, REPOSITORY, files_in, make_client

WRITES = """
import sys
from pathlib import Path
from dryapi_async.io.parts import Part

part = Part(Path(sys.argv[1]))
file = open(part.path, "xb", opener=part.open)
file.write(b"half of it")
file.flush()
if sys.argv[2] == "closed":
    file.close()  # about to be renamed
print(part.path, flush=True)
sys.stdin.read()
part.rename(Path(sys.argv[1], "whole"))
"""


def begin(folder: Path, *, closed: bool) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES, str(folder), "closed" if closed else "open"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


@pytest.mark.processes
@pytest.mark.parametrize("closed", [False, True], ids=["being written", "about to be renamed"])
def test_what_a_living_process_writes_stays(tmp_path: Path, *, closed: bool) -> None:
    with begin(tmp_path, closed=closed) as process:
        assert sweep(tmp_path) == []
        process.communicate("go on", timeout=20)
        assert process.returncode == 0
    assert files_in(tmp_path) == ["whole"]


@pytest.mark.processes
def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    with begin(tmp_path, closed=False) as process:
        (left,) = tmp_path.iterdir()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)
    assert sweep(tmp_path) == [left]
    assert files_in(tmp_path) == []


def test_only_our_own_names_are_swept(tmp_path: Path) -> None:
    kept = [
        "fox.png",
        ".dryapi-1.part",
        "dryapi-0123456789abcdef.part",
        ".dryapi-0123456789abcdeF.part",
        ".dryapi-0123456789abcdef.part.png",
    ]
    for name in (*kept, part_name()):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / part_name()).mkdir()
    (tmp_path / part_name()).symlink_to(tmp_path / "fox.png")
    assert len(sweep(tmp_path)) == 1
    assert set(kept) < set(files_in(tmp_path))


def test_a_part_is_gone_where_its_name_is_taken_by_a_folder(tmp_path: Path) -> None:
    part = Part(tmp_path)
    with open(part.path, "xb", opener=part.open):
        pass
    (tmp_path / "fox").mkdir()
    with pytest.raises(OSError, match="fox"):
        part.rename(tmp_path / "fox")
    assert files_in(tmp_path) == ["fox"]


@pytest.mark.anyio
async def test_a_download_that_is_under_way_isnt_swept(sim: Simulator, tmp_path: Path) -> None:
    async with make_client(sim) as client:
        image = await client.call(FOX).result()
        sim.script("storage", Fault.trickle(100))
        swept: list[Path] = []

        def look(_: object) -> None:
            swept.extend(sweep(tmp_path))

        async with make_client(sim, on_event=look) as looking:
            job = looking.job(f"txt2img:{image.request_id}")
            path = await job.save(tmp_path / "fox.png")
        assert (swept, files_in(tmp_path)) == ([], [path.name])
