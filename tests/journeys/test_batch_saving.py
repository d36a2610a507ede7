"""Results of a batch on disk: each whole, each at a path of its own, none outside of its folder."""

import asyncio
import math
import os
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from dryapi_async import Client, Img2Txt, InputError, Outcome, Txt2Audio, Txt2Embedding
from dryapi_async.simulator import Fault, Simulator

from ..conftest import FOX, PNG, files_in, make_client
from .batches import collect, errors, fox, foxes

pytestmark = pytest.mark.anyio


async def test_results_are_saved_as_they_come(sim: Simulator, client: Client, tmp_path: Path) -> None:
    outcomes = await collect(client.batch(foxes(12), save=f"{tmp_path}/new/folder/{{index:05}}-{{seed}}{{suffix}}", ordered=True))
    assert errors(outcomes) == []
    assert [outcome.path for outcome in outcomes] == [tmp_path / f"new/folder/{index:05}-{index}.png" for index in range(12)]
    assert all(outcome.path and outcome.path.read_bytes().startswith(b"\x89PNG") for outcome in outcomes)
    assert len(files_in(tmp_path / "new" / "folder")) == 12


async def test_each_kind_is_saved_as_its_own_save_does(sim: Simulator, client: Client, tmp_path: Path) -> None:
    operations: list[Any] = [
        FOX,
        Img2Txt(image=PNG, model="Nanonets_Ocr_S_F16"),
        Txt2Embedding(input=["a", "b"], model="Bge_M3_FP16"),
        Txt2Audio(text="a fox", model="Kokoro", lang="en-us", speed=1, format="mp3", sample_rate=24000, voice="af_sky"),
    ]
    outcomes = await collect(client.batch(operations, save=tmp_path / "{request_id}{suffix}", ordered=True))
    assert errors(outcomes) == []
    assert [outcome.path and (outcome.path.stem, outcome.path.suffix) for outcome in outcomes] == [
        # The sound is a WAV whatever was asked for: the ending is the file's own.
        (outcome.job and outcome.job.id, ending)
        for outcome, ending in zip(outcomes, [".png", ".txt", ".json", ".wav"], strict=True)
    ]


async def test_a_suffix_of_ones_own_takes_that_format(sim: Simulator, client: Client, tmp_path: Path) -> None:
    (outcome,) = await collect(client.batch([FOX], save=tmp_path / "{index}.webp"))
    assert outcome.path == tmp_path / "0.webp"
    assert outcome.path.read_bytes()[8:12] == b"WEBP"


KEYS = [
    "../../x",
    "a/b",
    "a_b",
    "",
    "..",
    ".",
    "/etc/passwd",
    "~root",
    "k" * 300,
    "k" * 301,
    "ü" * 300,
    "twice",
    "twice",
    "Twice",
    "twice~12",
    "a\0b",
    "a\nb",
    "\udcff\ud800",
    "\u202egnp.exe",
    ".hidden",
    "C:\\con",
    "{index}",
    "{0.__class__}",
    "-rf",
    "  ",
    "x.webp",
    "*",
]


@pytest.mark.parametrize("template", ["{key}{suffix}", "{key}/{key}{suffix}", "{key}.jpg", "{key}"])
async def test_no_key_leaves_the_folder_and_no_two_results_share_a_path(
    sim: Simulator, client: Client, tmp_path: Path, template: str
) -> None:
    folder = tmp_path / "in" / "out"
    outcomes = await collect(client.batch([(key, fox(seed)) for seed, key in enumerate(KEYS)], save=folder / template))
    assert errors(outcomes) == []
    paths = [outcome.path for outcome in outcomes if outcome.path]
    assert len(set(paths)) == len(KEYS)
    assert all(path.resolve().is_relative_to(folder) and path.is_file() for path in paths)
    there = [path for name in files_in(tmp_path) if (path := tmp_path / name).is_file()]
    assert len(there) == len(KEYS)
    assert all(folder in path.parents for path in there)
    assert all(one.isprintable() for path in paths for one in path.name)
    assert not any(part.startswith(".") for path in paths for part in path.relative_to(folder).parts)


@pytest.mark.parametrize("seconds", [0.0, 5.0])
async def test_all_of_one_key_have_files_of_their_own(sim: Simulator, client: Client, tmp_path: Path, seconds: float) -> None:
    # Saved one after another, and at the same time.
    sim.script("storage", Fault.delay(seconds), times=math.inf)
    outcomes = await collect(client.batch([("same", fox(seed)) for seed in range(200)], save=tmp_path / "{key}{suffix}"))
    assert errors(outcomes) == []
    assert len({outcome.path for outcome in outcomes}) == len(files_in(tmp_path)) == 200
    assert sum(outcome.path == tmp_path / "same.png" for outcome in outcomes) == 1


async def test_files_of_an_earlier_run_are_replaced(sim: Simulator, client: Client, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(b"old")
        os.utime(tmp_path / f"{name}.png", (1e9, 1e9))
    await collect(client.batch([("a", fox(1)), ("b", fox(2))], save=tmp_path / "{key}{suffix}"))
    assert files_in(tmp_path) == ["a.png", "b.png"]
    assert all((tmp_path / name).read_bytes() != b"old" for name in files_in(tmp_path))


async def test_a_function_says_where(sim: Simulator, client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    def where(outcome: Outcome[Any]) -> str | Path:
        assert outcome.error is None
        assert outcome.result is not None
        assert outcome.job is not None
        return [tmp_path / "same.png", str(tmp_path / "same.png"), folder, tmp_path / "more" / "x.png"][outcome.index]

    outcomes = await collect(client.batch(foxes(4), save=where, ordered=True))
    assert errors(outcomes) == []
    taken = {outcome.path for outcome in outcomes[:2]}
    assert tmp_path / "same.png" in taken
    assert len(taken & {tmp_path / "same~0.png", tmp_path / "same~1.png"}) == 1
    assert outcomes[2].path == folder / f"{outcomes[2].job.id if outcomes[2].job else ''}.png"
    assert outcomes[3].path == tmp_path / "more" / "x.png"


@pytest.mark.parametrize("given", [7, "", "a\0b", None])
async def test_what_a_function_gives_wrong_is_the_outcomes_error(sim: Simulator, client: Client, given: Any) -> None:
    (outcome,) = await collect(client.batch([FOX], save=lambda outcome: given))
    assert isinstance(outcome.error, InputError)
    assert outcome.result is not None


async def test_a_function_that_raises_is_the_outcomes_error(sim: Simulator, client: Client) -> None:
    def where(outcome: Outcome[Any]) -> str:
        raise KeyError(outcome.key)

    outcomes = await collect(client.batch(foxes(3), save=where))
    assert errors(outcomes) == ["KeyError"] * 3
    assert all(outcome.result is not None and outcome.job is not None for outcome in outcomes)


async def test_a_save_that_fails_keeps_the_result(sim: Simulator, client: Client, tmp_path: Path) -> None:
    sim.script("storage", Fault.status(404), times=2)
    (tmp_path / "sub").write_bytes(b"a file where a folder should be")
    keys = ["x", "sub"]
    outcomes = await collect(
        client.batch([(key, fox(seed)) for seed, key in enumerate(keys)], save=tmp_path / "{key}/{index}{suffix}", ordered=True)
    )
    assert errors(outcomes) == ["LinkExpiredError", "FileExistsError"]
    assert files_in(tmp_path) == ["sub", "x"]
    for outcome in outcomes:
        assert outcome.path is None
        assert outcome.job is not None
        assert outcome.result is not None
        assert (await outcome.result.save(tmp_path)).is_file()


async def test_a_full_disk_ends_it(sim: Simulator, client: Client) -> None:
    """/dev/full is no folder, so a small file system's part is played by the error that the system gives."""
    full = OSError(28, "No space left on device")

    def where(outcome: Outcome[Any]) -> str:
        raise full

    async with client.batch(foxes(1_000), at_once=4, save=where) as batch:
        outcomes = [outcome async for outcome in batch]
    assert batch.stopped_by is not None
    assert set(errors(outcomes)) == {"OSError"}
    assert len(outcomes) <= 8


async def test_a_folder_that_cannot_be_written_is_told_before_anything_is_sent(sim: Simulator, client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for template in ("file/{index}", "file/more/{index}"):
        with pytest.raises(OSError, match="file"):
            await collect(client.batch([FOX], save=tmp_path / template))
    assert not sim.requests
    assert files_in(tmp_path) == ["file"]


async def test_the_current_folder_is_a_folder_too(sim: Simulator, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcomes = await collect(client.batch([fox(1), evolve(fox(2), seed=-1)], save="{index:03}_{seed:3d}{suffix}"))
    assert errors(outcomes) == []
    assert files_in(tmp_path) == ["000_  1.png", "001_ -1.png"]


async def test_cancelled_while_it_saves_it_leaves_no_part(sim: Simulator, tmp_path: Path) -> None:
    sim.script("storage", Fault.hang("payload"), times=math.inf)
    async with make_client(sim) as client, client.batch(foxes(10), at_once=4, save=tmp_path / "{index}{suffix}") as batch:
        waiting = asyncio.ensure_future(anext(batch))
        await asyncio.sleep(10)
        assert any(name.endswith(".part") for name in files_in(tmp_path))
        waiting.cancel()
    assert files_in(tmp_path) == []
    assert len(batch.unfinished) == 4
