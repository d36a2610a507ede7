"""That downloads, imports and the long run are measured, and that the instrument sees what it is for."""

from pathlib import Path

import pytest

from benchmarks import download, imports, long_run
from benchmarks.files import start_storage
from benchmarks.processes import ChildError, run_child, start_server

HOME = Path(__file__).parents[2]


def test_a_download_that_is_another_file_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    load = download.Load(downloads=2, at_once=2, file_bytes=300_000)
    with start_storage(file_bytes=load.file_bytes) as storage:
        download.verify(load, storage, None)
        monkeypatch.setattr(download, "make_content", bytes)
        with pytest.raises(ChildError, match="ours: of 2 files on disk 2 differ"):
            download.verify(load, storage, None)


def test_a_program_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "STARTS", (imports.Start("a slip", "import nothing_of_that_name", "sys"),))
    with pytest.raises(ChildError, match="nothing_of_that_name"):
        imports.measure(names=["a slip"], repetitions=1)


def test_a_program_says_itself_how_long_its_imports_take(monkeypatch: pytest.MonkeyPatch) -> None:
    ((aiohttp, client, made),) = imports.measure_inside(repetitions=1)
    assert min(aiohttp, client) > 1
    assert client < made
    monkeypatch.setattr(imports, "CLOCK", "import orjson")
    with pytest.raises(ChildError, match="import of orjson halted"):
        imports.measure_inside(repetitions=1)


def test_what_stays_is_named() -> None:
    before = long_run.Held(sockets=2, files=4, tasks=1, threads=1)
    after = long_run.Held(sockets=5, files=4, tasks=3, threads=1)
    assert long_run.describe_left(before, after, [".dryapi-1.part"]) == "3 sockets, 2 tasks, .dryapi-1.part"
    assert long_run.describe_left(before, before, []) == "nothing"


def test_growth_is_counted_from_the_end_of_the_warm_up() -> None:
    load = long_run.Load(cycles=400, warm_up=100, sample=100, at_once=1)
    samples = [[0, 10e6], [100, 50e6], [200, 53e6], [300, 49e6], [400, 51e6]]
    assert long_run.measure_growth(samples, load) == (3.0, 1.0)


def test_p13_memory_stays_flat_and_nothing_is_left() -> None:
    """A tenth of the benchmark: what is kept of a job, 1 KB or more, would be over 3 MB here."""
    load = long_run.Load(cycles=4000, warm_up=1000, sample=250, at_once=32)
    with start_server() as server:
        said = run_child(
            "long_run:work", url=server.url, cycles=load.cycles, warm_up=load.warm_up, sample=load.sample, at_once=load.at_once
        )
    most, end = long_run.measure_growth(said["samples"], load)
    assert end < 2.5
    assert most < 5
    assert (said["before"], said["strays"]) == (said["after"], [])
