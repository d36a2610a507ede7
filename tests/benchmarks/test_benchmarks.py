"""That the instrument works and can say no; how fast anything is, is none of a test's business."""

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from benchmarks import meter, report, upload
from benchmarks.figures import Figure, Goal, misses
from benchmarks.processes import ChildError, run_child, start_server
from benchmarks.report import Section
from benchmarks.server import Connection, digest_file

HOME = Path(__file__).parents[2]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("upload", "the SHA-256 of each of 8 files that the server got is the file's on disk"),
        ("memory", "It works: 200 jobs"),
        ("download", "It works over plain http: 8 downloads of 1 MiB to disk, 4 at once, each whole."),
        ("import", "It works: bare Python "),
        ("instructions", "Not counted: it needs valgrind, and minutes."),
        ("long-run", "It works: 200 jobs submitted, waited for and saved; left behind: nothing."),
    ],
)
def test_a_smoke_run_works_and_writes_no_file(name: str, said: str) -> None:
    before = report.RESULTS.read_bytes() if report.RESULTS.exists() else None
    command = [sys.executable, "-m", "benchmarks", name, "--smoke"]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    assert (report.RESULTS.read_bytes() if report.RESULTS.exists() else None) == before


def test_the_check_sees_one_wrong_byte(tmp_path: Path) -> None:
    load = upload.Load(uploads=3, at_once=2, file_bytes=300_000)
    with upload.make_files(load) as files:
        digests = files.digests()
        changed = bytearray(files.paths[1].read_bytes())
        changed[200_000] ^= 1
        files.paths[1].write_bytes(changed)
        with start_server(digests=True) as server:
            work = {
                "url": server.url,
                "paths": [str(path) for path in files.paths],
                "warm_up": str(files.warm_up),
                "uploads": 3,
                "at_once": 2,
            }
            for subject in upload.SUBJECTS:
                ids = run_child("upload", subject=subject, **work)["ids"]
                assert ids == [digests[0], hashlib.sha256(changed).hexdigest(), digests[0]]
                with pytest.raises(upload.DigestError, match=r"\[1\]"):
                    upload.verify(subject, ids, digests)


def test_a_child_that_fails_is_told() -> None:
    with pytest.raises(ChildError, match="exit status 1"):
        run_child("rate", port=1, body_bytes=1, bodies=1, requests=1)


@pytest.mark.anyio
async def test_the_meter_sees_a_stall_cpu_and_memory() -> None:
    async def work() -> None:
        await asyncio.sleep(0.02)
        block = bytearray(os.urandom(32 * 2**20))
        until = time.perf_counter() + 0.08
        while time.perf_counter() < until:
            pass
        del block
        await asyncio.sleep(0.02)

    if meter._CLEAR.exists():
        earlier_peak = bytearray(os.urandom(64 * 2**20))
        del earlier_peak
    reading = await meter.measure(work())
    assert reading.stall_seconds > 0.07
    assert reading.cpu_seconds > 0.02
    assert reading.seconds > 0.12
    assert reading.rss_growth_bytes > 30 * 2**20


def figure(ours: Iterable[float], goal: Goal) -> Figure:
    values = tuple(ours)
    return Figure(name="stall", digits=1, ours=values, raw=(10.0,) * len(values), judged="ours", goals=(goal,))


@pytest.mark.parametrize(
    ("values", "goal", "said", "listed"),
    [
        ((1, 2, 3), Goal("promise", "<=", 3), "met", []),
        ((1, 2, 9), Goal("promise", "<=", 3), "met by the median, **not by 1 of 3**", ["but not by 1 of 3 repetitions: the worst is 9"]),
        ((1, 8, 9), Goal("promise", "<=", 3), "**not met** (1 of 3 repetitions do)", ["promise <= 3 is not met, the median is 8"]),
        ((1, 8, 9), Goal("aim", ">=", 8.5), "**not met** (1 of 3 repetitions do)", ["aim >= 8.5 is not met, the median is 8"]),
    ],
)
def test_goals_are_judged(values: tuple[float, ...], goal: Goal, said: str, listed: list[str]) -> None:
    made = figure(values, goal)
    assert made.row().endswith(f"| ours {goal}: {said} |")
    found = misses([made])
    assert len(found) == len(listed)
    assert all(words in line for words, line in zip(listed, found, strict=True))


def test_ratios_are_taken_within_each_repetition() -> None:
    made = Figure(name="MiB/s", digits=0, ours=(1.0, 30.0, 4.0), raw=(2.0, 10.0, 4.0), judged="ratio", goals=(Goal("aim", ">=", 1),))
    assert made.ratios == (0.5, 3.0, 1.0)
    assert "| 1.00 (0.50 to 3.00) |" in made.row()


def test_a_section_replaces_its_like_and_leaves_the_others() -> None:
    first = report.merge("", [Section(name="upload", text="old"), Section(name="import", text="kept")])
    merged = report.merge(first, [Section(name="upload", text="new")])
    assert merged == report.merge(merged, [])
    assert merged.endswith("\n## upload\n\nnew\n\n## import\n\nkept\n")


class Wire(asyncio.Transport):
    """What the server wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self.written += b"<closed>"


def feed(data: bytes, step: int, *, digests: bool = False) -> bytes:
    wire, connection = Wire(), Connection(iter(range(1, 9)), digests=digests)
    connection.connection_made(wire)
    for start in range(0, len(data), step):
        piece = data[start : start + step]
        connection.get_buffer(-1)[: len(piece)] = piece
        connection.buffer_updated(len(piece))
    return wire.written


FORM = (
    b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nab\r\n\r\nc\r\n--x--\r\n'
)
POST = (
    b"POST /api/v1/client/img2img HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x\r\ncontent-length: %d\r\n\r\n" % len(FORM)
    + FORM
)
STATUS = b"GET /api/v1/client/request-status/1 HTTP/1.1\r\nHost: here\r\n\r\n"


@pytest.mark.parametrize("step", [1, 7, 100, 10_000])
def test_the_server_takes_requests_in_any_pieces(step: int) -> None:
    written = feed(POST + STATUS + POST + b"GET /elsewhere HTTP/1.1\r\n\r\n", step)
    assert written.count(b"HTTP/1.1 200 OK") == 3
    assert [written.count(b'"request_id": "0000000%d-' % number) for number in (1, 2, 3)] == [1, 1, 0]
    assert b'"status": "done"' in written
    assert b'"http://here/results/1/result.png?X-Amz-' in written
    assert written.endswith(b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")


@pytest.mark.parametrize("step", [1, 10_000])
def test_the_server_digests_the_file_of_each_form(step: int) -> None:
    written = feed(POST + POST.replace(b"\r\n\r\nc", b"\r\n\r\nd"), step, digests=True)
    first, second = (hashlib.sha256(content).hexdigest().encode() for content in (b"ab\r\n\r\nc", b"ab\r\n\r\nd"))
    assert 0 < written.find(first) < written.find(second)
    assert digest_file(POST[: POST.index(b"\r\n\r\n")], b"no form") == ""


def test_the_server_wants_a_length() -> None:
    written = feed(b"POST /api/v1/client/img2img HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 10_000)
    assert written.startswith(b"HTTP/1.1 411 ")
    assert written.endswith(b"<closed>")
