"""The contact sheet's file: it grows by appending, is whole at each moment, and two processes may write to it."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from fcntl import LOCK_EX, LOCK_UN, flock
from pathlib import Path

import pytest

from dryapi_async.sheet import Sheet
from dryapi_async.sheet.sheet import MARK, MOST_HEAD_BYTES, SIGNATURE, describe, link_to, make_head, read_states
from dryapi_async.simulator.blobs import tiny_png

from .sheets import NASTY, keys_of, make_entry, read_lines

WRITER = """
import sys
from dryapi_async.sheet import Entry, Sheet
sheet = Sheet(sys.argv[1])
for index in range(int(sys.argv[3])):
    sheet.add(Entry(index=index, key=f"{sys.argv[2]}-{index}", operation="txt2img", state="saved", prompt="x" * (index % 9000)))
    sheet.write()
    print(index, flush=True)
"""


def write(path: Path, *indexes: int) -> None:
    sheet = Sheet(path)
    for index in indexes:
        sheet.add(make_entry(index))
    sheet.write()


def start_writer(path: Path, name: str, count: int) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), name, str(count)], stdout=subprocess.PIPE, text=True)


def test_entries_are_lines_and_a_second_run_appends(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    write(path, 0, 1)
    before = path.read_bytes()
    write(path, 2)
    assert path.read_bytes().startswith(before), "what is there isn't written anew"
    assert keys_of(path) == ["key-0", "key-1", "key-2"]
    assert before.startswith(SIGNATURE)


def test_all_that_is_known_is_told(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    (tmp_path / "fox.png").write_bytes(tiny_png("a fox"))
    (tmp_path / "before.png").write_bytes(tiny_png("a fox before"))
    sheet = Sheet(path)
    told = {"prompt": "a fox", "model": "Flux1schnell", "seed": 2**63, "seconds": 1.5, "price": "0.0021", "error": "none really"}
    sheet.add(make_entry(3, **told, file="fox.png", source=tmp_path / "before.png"))
    sheet.write()
    (line,) = read_lines(path)
    assert line.pop("thumbnail")
    assert line == {
        "index": 3, "key": "key-3", "operation": "txt2img", "state": "saved", **told, "seed": str(2**63),
        "file": "fox.png", "source": "before.png", "kind": "picture", "bytes": len(tiny_png("a fox")), "pixels": line["pixels"],
    }  # fmt: skip


def test_text_can_be_no_markup_and_no_line(tmp_path: Path) -> None:
    line = describe(make_entry(0, prompt=NASTY + "\n\t\r", key=NASTY, error=NASTY, model=NASTY, seconds=float("nan")), tmp_path)
    assert line.count(b"\n") == 1
    assert line.count(b"\t") == 1
    assert not set(b"<>&\r\x00") & set(line)
    assert line.isascii()
    path = tmp_path / "index.html"
    sheet = Sheet(path, title="</title><script>")
    sheet.add(make_entry(0, prompt=NASTY))
    sheet.write()
    assert read_lines(path)[0]["prompt"] == NASTY
    assert b"</title><script>" not in path.read_bytes()


def test_the_page_allows_its_own_script_and_no_network() -> None:
    head = make_head("a title")
    assert len(head) < MOST_HEAD_BYTES / 2
    assert head.count(MARK) == 1
    assert b"default-src 'none'" in head
    assert head.count(b"'sha256-") == 2
    assert b"unsafe-inline" not in head
    assert b"http://" not in head.replace(b"http://www.w3.org/2000/svg", b"")
    assert b"https://" not in head
    assert b"@" + b"TITLE@" not in head


def test_a_line_cut_anywhere_is_cut_off_by_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    write(path, 0)
    short = path.stat().st_size
    write(path, 1)
    whole = path.read_bytes()
    for size in range(short, len(whole)):
        path.write_bytes(whole[:size])
        write(path, 2)
        assert keys_of(path) == ["key-0", "key-2"], size


def test_a_head_cut_anywhere_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    head = make_head("dryAPI results")
    for size in [*range(len(SIGNATURE) + 3), *range(200, len(head), 997), len(head) - 1]:
        path.write_bytes(head[:size])
        write(path, 0)
        assert path.read_bytes().startswith(head)
        assert keys_of(path) == ["key-0"], size


def test_another_programs_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    path.write_text("<!DOCTYPE html>\n<title>my own page</title>")
    sheet = Sheet(path)
    sheet.add(make_entry(0))
    with pytest.raises(FileExistsError, match="no contact sheet"):
        sheet.write()
    assert path.read_text() == "<!DOCTYPE html>\n<title>my own page</title>"
    path.unlink()
    sheet.write()
    assert keys_of(path) == ["key-0"], "what was queued stays queued"


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    write(path, 0)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sheet = Sheet(path)
    sheet.add(make_entry(1, prompt="x" * 9000))
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 4000, old[1]))
    try:
        with pytest.raises(OSError, match="large"):
            sheet.write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)
    assert keys_of(path) == ["key-0"]
    sheet.write()
    assert keys_of(path) == ["key-0", "key-1"]


@pytest.mark.parametrize(
    ("file", "link"),
    [
        ("a.png", "a.png"),
        ("deep/er/a.png", "deep/er/a.png"),
        ("100% #1? 'x' \"y\" a:b&c.png", "100%25%20%231%3F%20%27x%27%20%22y%22%20a%3Ab%26c.png"),
        ("füchse.png", "f%C3%BCchse.png"),
        (os.fsdecode(b"\xff.png"), "%FF.png"),
        ("./b/../a.png", "a.png"),
        ("../photos/a.png", "../photos/a.png"),
    ],
)
def test_links_are_relative_and_escaped(tmp_path: Path, file: str, link: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    assert link_to(file, folder) == link
    assert link_to(folder / file, folder) == link


def test_links_out_of_the_folder_follow_the_real_folders(tmp_path: Path) -> None:
    (tmp_path / "disk" / "out").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "out")
    assert link_to(tmp_path / "a.png", tmp_path / "out") == "../../a.png"
    assert link_to(tmp_path / "out" / "a.png", tmp_path / "out") == "a.png"
    assert link_to("../a.png", tmp_path / "out") == "../a.png", "as the system opens it: beside the real folder"


def test_states_are_read_back_and_the_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    sheet = Sheet(path)
    sheet.add(make_entry(0, state="failed", error="no"))
    sheet.add(make_entry(1, state="unknown"))
    sheet.add(make_entry(0))
    sheet.write()
    with path.open("ab") as file:
        file.write(b'\t{"key":"torn","state":"sa')
    assert read_states(path) == {"key-0": "saved", "key-1": "unknown"}


@pytest.mark.anyio
async def test_put_writes_as_the_batch_goes(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    async with Sheet(path) as sheet:
        await sheet.put(make_entry(0))
        await sheet.flush()
        assert keys_of(path) == ["key-0"]
        for index in range(1, 700):
            await sheet.put(make_entry(index))
        assert await sheet.states() == {f"key-{index}": "saved" for index in range(700)}
        await sheet.put(make_entry(700))
    assert keys_of(path) == [f"key-{index}" for index in range(701)]


@pytest.mark.anyio
async def test_what_comes_as_the_writer_ends_is_written_too(tmp_path: Path) -> None:
    sheet = Sheet(tmp_path / "index.html")
    await sheet.put(make_entry(0))
    # The thread ends while the loop can't hear of it.
    while sheet._written < 1:
        time.sleep(0.001)  # noqa: ASYNC251  this is what keeps the loop from it
    time.sleep(0.05)  # noqa: ASYNC251  the same
    for index in range(1, 2000):
        sheet.add(make_entry(index))
    await sheet.flush()
    assert keys_of(tmp_path / "index.html") == [f"key-{index}" for index in range(2000)]
    await sheet.close()


@pytest.mark.anyio
async def test_an_empty_sheet_is_a_page(tmp_path: Path) -> None:
    async with Sheet(tmp_path / "index.html"):
        pass
    assert read_lines(tmp_path / "index.html") == []


@pytest.mark.anyio
async def test_a_sheet_that_cant_be_written_says_so_and_goes_on_later(tmp_path: Path) -> None:
    path = tmp_path / "later" / "index.html"
    sheet = Sheet(path)
    await sheet.put(make_entry(0))
    with pytest.raises(FileNotFoundError):
        await sheet.flush()
    path.parent.mkdir()
    await sheet.put(make_entry(1))
    await sheet.close()
    assert keys_of(path) == ["key-0", "key-1"]


@pytest.mark.anyio
async def test_a_cancelled_put_loses_nothing(tmp_path: Path) -> None:
    sheet = Sheet(tmp_path / "index.html")

    async def put_many() -> None:
        for index in range(2000):
            await sheet.put(make_entry(index))

    task = asyncio.create_task(put_many())
    while not (tmp_path / "index.html").exists():  # noqa: ASYNC110  the thread tells nobody of its first write
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await sheet.close()
    keys = keys_of(tmp_path / "index.html")
    assert keys == [f"key-{index}" for index in range(len(keys))]
    assert keys


def test_one_sheet_serves_one_loop_after_another(tmp_path: Path) -> None:
    sheet = Sheet(tmp_path / "index.html")
    for index in range(3):
        asyncio.run(sheet.put(make_entry(index)))
    asyncio.run(sheet.close())
    assert keys_of(tmp_path / "index.html") == ["key-0", "key-1", "key-2"]


@pytest.mark.processes
def test_the_loop_never_waits_for_pictures(tmp_path: Path) -> None:
    from dryapi_async.simulator.pictures import draw_prompt, encode  # noqa: PLC0415  Pillow draws

    (tmp_path / "large.png").write_bytes(encode(draw_prompt("a large one", 2048, 2048, 1), "png"))

    async def run() -> float:
        worst = 0.0
        async with Sheet(tmp_path / "index.html") as sheet:
            for index in range(8):
                await sheet.put(make_entry(index, file="large.png"))
            writing = asyncio.create_task(sheet.flush())
            while not writing.done():
                began = time.perf_counter()
                await asyncio.sleep(0.005)
                worst = max(worst, time.perf_counter() - began)
        return worst

    began = time.perf_counter()
    slip = asyncio.run(run())
    took = time.perf_counter() - began
    assert slip < 0.5, f"{slip:.3f} s of {took:.3f}"  # the promise is 0.1
    assert took > slip * 2


@pytest.mark.processes
def test_writing_is_linear_and_keeps_nothing(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    sheet = Sheet(path)

    def seconds_for(count: int) -> float:
        began = time.perf_counter()
        for index in range(count):
            sheet.add(make_entry(index, prompt="p" * 500))
            sheet.write()
        return time.perf_counter() - began

    seconds_for(200)
    tracemalloc.start()
    first = seconds_for(1000)
    seconds_for(4000)
    grown, _ = tracemalloc.get_traced_memory()
    last = seconds_for(1000)
    tracemalloc.stop()
    assert grown < 200_000
    assert last < first * 5
    assert len(read_lines(path)) == 6200


@pytest.mark.processes
def test_a_killed_writer_leaves_a_page_and_the_next_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    seen: list[int] = []
    for life in range(5):
        with start_writer(path, f"life{life}", 100_000) as process:
            assert process.stdout is not None
            told = [process.stdout.readline() for _ in range(5 + 7 * life)]
            process.send_signal(signal.SIGKILL)
            told += process.stdout.readlines()
        seen.append(len([line for line in told if line.endswith("\n")]))
    write(path, 0)
    keys = set(keys_of(path))
    assert keys >= {f"life{life}-{index}" for life, count in enumerate(seen) for index in range(count)}


@pytest.mark.processes
def test_a_line_that_is_being_written_isnt_cut(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    write(path, 0)
    line = describe(make_entry(1), tmp_path)
    with path.open("ab", buffering=0) as file:
        flock(file, LOCK_EX)
        file.write(line[:20])
        with start_writer(path, "other", 1) as other:
            time.sleep(0.7)
            file.write(line[20:])
            flock(file, LOCK_UN)
            other.wait(30)
    assert keys_of(path) == ["key-0", "key-1", "other-0"]


@pytest.mark.processes
def test_two_processes_write_to_one_sheet(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    writers = [start_writer(path, name, 400) for name in "ab"]
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    assert sorted(keys_of(path)) == sorted(f"{name}-{index}" for name in "ab" for index in range(400))
