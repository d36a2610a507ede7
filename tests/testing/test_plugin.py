"""The pytest plugin as a user has it: in a folder of its own, under anyio, under pytest-asyncio, and without either."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from ..docs.pages import DOCS, ROOT

pytestmark = pytest.mark.processes
PAGE = (DOCS / "testing.md").read_text()
README = (ROOT / "README.md").read_text()
EXAMPLES = [
    pytest.param(block, id=name)
    for name, text in (("docs", PAGE), ("readme", README))
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    if "dryapi_simulator" in block
]
"""The whole test files that are shown."""
FURTHER = "\n\n".join(re.findall(r"^```py\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
"""What the page adds to its first file."""
OFFLINE = """
import sys

def allow(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        host = args[1][0] if event == "socket.connect" and isinstance(args[1], tuple) else args[0]
        if event == "socket.connect" and not isinstance(args[1], tuple):
            return
        assert host in ("127.0.0.1", "::1", "localhost", None), f"not offline: {host}"

sys.addaudithook(allow)
import pytest
status = pytest.main(sys.argv[1:])
print("heavy:", [name for name in HEAVY if name in sys.modules])
sys.exit(status)
"""
HEAVY = ["aiohttp", "dryapi_async.client", "dryapi_async.simulator", "dryapi_async.testing.clock"]
HAS_PYTEST_ASYNCIO = find_spec("pytest_asyncio") is not None
needs_pytest_asyncio = pytest.mark.skipif(not HAS_PYTEST_ASYNCIO, reason="pytest-asyncio isn't installed")


def run_pytest(folder: Path, text: str, *options: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a user's only test file, with every warning an error and no way out of the machine; give pytest's status and words."""
    (folder / "test_drawing.py").write_text(text)
    # What pytest-asyncio warns of where nothing is said; unknown where it isn't installed.
    quiet = ["-o", "asyncio_default_fixture_loop_scope=function"] if HAS_PYTEST_ASYNCIO and "no:asyncio" not in options else []
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", f"HEAVY = {HEAVY}\n{OFFLINE}", "-q", "-rA", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--strict-markers", "-o", "filterwarnings=error", *quiet, *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ.get("PATH", ""), **(environment or {})},
    )
    return done.returncode, done.stdout + done.stderr


def outcomes(said: str) -> dict[str, str]:
    """Read what became of each test."""
    return {
        name: word for word, name in re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED) \S*?test_drawing\.py::([\w\[\]:]+)", said, re.MULTILINE)
    }


@pytest.mark.parametrize("example", EXAMPLES)
def test_p41_the_example_runs_offline_within_a_second(example: str, tmp_path: Path) -> None:
    status, said = run_pytest(tmp_path, example, "--junitxml=report.xml", "-o", "junit_duration_report=total")
    assert status == 0, said
    (case,) = ET.parse(tmp_path / "report.xml").iter("testcase")  # noqa: S314  it is our own
    assert float(case.attrib["time"]) < 1


@pytest.mark.parametrize("example", EXAMPLES)
def test_p41_the_example_fails_when_a_submit_is_doubled(example: str, tmp_path: Path) -> None:
    doubled, count = re.subn(r"^( +)(return )?await call\.save", r"\1await client.call(call.operation)\n\g<0>", example, flags=re.MULTILINE)
    assert count == 1
    status, said = run_pytest(tmp_path, doubled)
    assert status == 1, said
    if example in PAGE:
        (shown,) = re.findall(r"^```text\n(E   assert.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
        for line in shown.splitlines():
            assert re.search(re.escape(line).replace(r"\ ", " +").replace("…", r"\w+") + "\n", said), f"{line}\n\n{said}"


def test_the_other_tests_of_the_page_pass(tmp_path: Path) -> None:
    (first,) = (example.values[0] for example in EXAMPLES if example.id == "docs")
    assert isinstance(first, str)
    status, said = run_pytest(tmp_path, f"{first}\n\n{FURTHER}")
    assert (status, len(outcomes(said))) == (0, FURTHER.count("def test_") + 1), said


def test_it_costs_nothing_where_it_isnt_used(tmp_path: Path) -> None:
    said = run_pytest(tmp_path, "import sys\ndef test_it(): assert 'dryapi_async.testing.plugin' in sys.modules")[1]
    assert outcomes(said) == {"test_it": "PASSED"}
    assert "heavy: []" in said
    # The list can fail: a test that uses it has all of them.
    said = run_pytest(tmp_path, "def test_it(dryapi_simulator): pass")[1]
    assert f"heavy: {HEAVY}" in said


ASYNC_TESTS = """
import asyncio, time
import pytest
from dryapi_async import Client
from dryapi_async.simulator import Fault, Simulator

FOX = {"prompt": "a fox", "model": "Flux1schnell", "width": 256, "height": 256, "steps": 4, "seed": 7}

left = []

FIXTURE
async def waiting(dryapi_simulator):
    assert (await asyncio.wait_for(Client().balance(), 5)).amount
    yield asyncio.get_running_loop()

MARK
async def test_saves(dryapi_client, dryapi_simulator, tmp_path):
    await dryapi_client.txt2img(**FOX).save(tmp_path / "fox.png")
    assert type(dryapi_simulator) is Simulator
    assert dryapi_simulator.jobs_billed == 1
    assert asyncio.get_running_loop().time() > 10  # the machine's

MARK
async def test_is_a_new_one_each_time(dryapi_simulator):
    assert dryapi_simulator.jobs_billed == 0
    assert len(dryapi_simulator.requests) == 0

MARK
async def test_own_client(dryapi_simulator):
    async with Client() as client:
        await client.txt2img(**FOX).result()
    assert dryapi_simulator.jobs_billed == 1

MARK
async def test_leaves_a_submit_on_the_wire(dryapi_client, dryapi_simulator):
    dryapi_simulator.script("txt2img", Fault.hang())
    task = asyncio.create_task(dryapi_client.txt2img(**FOX).result())
    while not dryapi_simulator.requests:
        await asyncio.sleep(0)
    task.cancel()
    left.append(time.monotonic())

MARK
async def test_waits_for_none_that_is_left(dryapi_client):
    assert time.monotonic() - left[0] < 20  # the client alone would listen for 30 s

@pytest.mark.dryapi_simulator(fail=0.5, duration=1.5, balance=7)
class TestOptions:
    MARK
    @pytest.mark.dryapi_simulator(fail=0.25)
    @pytest.mark.dryapi_client(max_in_flight=3)
    async def test_of_class_and_test(self, dryapi_client, dryapi_simulator):
        board = dryapi_simulator.board
        assert (board.fail, board.duration, dryapi_simulator.balance) == (0.25, 1.5, 7)
        assert dryapi_client.settings.max_in_flight == 3

    MARK
    @pytest.mark.dryapi_simulator("basic")
    async def test_by_name_only(self, dryapi_simulator): ...

MARK
@pytest.mark.dryapi_jumping_clock
@pytest.mark.dryapi_simulator(duration=600)
async def test_jumps(dryapi_client, dryapi_simulator, tmp_path):
    await dryapi_client.txt2img(**FOX).save(tmp_path / "fox.png")
    assert 600 <= asyncio.get_running_loop().time() < 1000
    assert len(dryapi_simulator.requests) < 300

MARK
async def test_jumps_no_more(dryapi_client, tmp_path):
    await dryapi_client.txt2img(**FOX).save(tmp_path / "fox.png")
    assert asyncio.get_running_loop().time() > 1000

MARK
async def test_with_a_fixture_of_its_own(waiting, dryapi_client):
    assert waiting is asyncio.get_running_loop()
    await dryapi_client.balance()
"""
EXPECTED = {
    "test_saves": "PASSED",
    "test_is_a_new_one_each_time": "PASSED",
    "test_own_client": "PASSED",
    "test_leaves_a_submit_on_the_wire": "PASSED",
    "test_waits_for_none_that_is_left": "PASSED",
    "TestOptions::test_of_class_and_test": "PASSED",
    "TestOptions::test_by_name_only": "ERROR",
    "test_jumps": "PASSED",
    "test_jumps_no_more": "PASSED",
    "test_with_a_fixture_of_its_own": "PASSED",
}


def write_tests(mark: str, fixture: str) -> str:
    return ASYNC_TESTS.replace("MARK", mark).replace("FIXTURE", fixture)


@pytest.mark.parametrize("options", [[], pytest.param(["-p", "no:asyncio"], id="alone")])
def test_under_anyio(options: list[str], tmp_path: Path) -> None:
    said = run_pytest(tmp_path, write_tests("@pytest.mark.anyio", "@pytest.fixture"), *options)[1]
    found = outcomes(said)
    assert {name.partition("[")[0]: word for name, word in found.items()} == EXPECTED, said
    assert not re.search("SKIPPED|trio", said), "trio runs where it is installed"
    assert "takes options by name" in said


@needs_pytest_asyncio
@pytest.mark.parametrize("mode", ["strict", "auto"])
@pytest.mark.parametrize("scope", ["function", "module"])
def test_under_pytest_asyncio(mode: str, scope: str, tmp_path: Path) -> None:
    fixture = f'import pytest_asyncio\n@pytest_asyncio.fixture(loop_scope="{scope}")' if mode == "strict" else "@pytest.fixture"
    mark = f'@pytest.mark.asyncio(loop_scope="{scope}")' if mode == "strict" else ""
    loops = (
        ["-o", f"asyncio_default_test_loop_scope={scope}", "-o", f"asyncio_default_fixture_loop_scope={scope}"] if mode == "auto" else []
    )
    said = run_pytest(tmp_path, write_tests(mark, fixture), f"--asyncio-mode={mode}", *loops)[1]
    assert {name.partition("[")[0]: word for name, word in outcomes(said).items()} == EXPECTED, said


@needs_pytest_asyncio
def test_two_that_would_run_a_test_are_told(tmp_path: Path) -> None:
    text = "import pytest\n@pytest.mark.anyio\nasync def test_it(dryapi_client): ..."
    said = run_pytest(tmp_path, text, "--asyncio-mode=auto")[1]
    assert "ERROR" in outcomes(said).values()
    assert "set asyncio_mode = strict" in said


SYNC_TESTS = """
import asyncio, os, subprocess, sys
import pytest
from dryapi_async import Client
from dryapi_async.testing import ThreadedSimulator

FOX = {"prompt": "a fox", "model": "Flux1schnell", "width": 256, "height": 256, "steps": 4, "seed": 7}
NAMES = ("DRYAPI_API_KEY", "DRYAPI_BASE_URL", "DRYAPI_LIMITS", "DRYAPI_WEBHOOK_SECRET", "no_proxy")

def read():
    return [os.environ.get(name) for name in NAMES]

def test_the_environment_is_the_simulators(dryapi_simulator, dryapi_client):
    sim = dryapi_simulator
    assert read() == [sim.key, sim.url, None, "whsec_simulator", "example.org,127.0.0.1"]
    code = "import asyncio, dryapi_async; print(asyncio.run(dryapi_async.Client().balance()).amount)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "100000"

def test_the_environment_is_as_it_was():
    assert read() == ["mine", None, "basic", None, "example.org"]

def test_one_client_in_one_run_after_another(dryapi_simulator, dryapi_client, tmp_path):
    assert type(dryapi_simulator) is ThreadedSimulator
    async def draw():
        await dryapi_client.txt2img(**FOX).save(tmp_path / "fox.png")
    asyncio.run(draw())
    asyncio.run(draw())
    assert dryapi_simulator.jobs_billed == 2

def test_one_that_is_never_used(dryapi_client): ...

@pytest.mark.dryapi_jumping_clock
def test_no_loop_to_jump(dryapi_simulator): ...

async def test_run_by_nobody(dryapi_client): ...
"""


def test_plain_tests_have_a_simulator_in_a_thread(tmp_path: Path) -> None:
    environment = {"DRYAPI_API_KEY": "mine", "DRYAPI_LIMITS": "basic", "http_proxy": "http://127.0.0.1:1", "no_proxy": "example.org"}
    said = run_pytest(tmp_path, SYNC_TESTS, environment=environment)[1]
    found = outcomes(said)
    assert [name for name, word in found.items() if word == "ERROR"] == ["test_no_loop_to_jump", "test_run_by_nobody"], said
    assert list(found.values()).count("PASSED") == 4, said
    assert "needs an async test" in said
    wanted = "This async test has no runner: mark it @pytest.mark.anyio, or pip install pytest-asyncio and mark it @pytest.mark.asyncio."
    assert f"\n{wanted}\n" in said


WRONG_OPTIONS = """
import pytest

@pytest.mark.anyio
@pytest.mark.dryapi_simulator(tier="gold")
async def test_tier(dryapi_simulator): ...

@pytest.mark.dryapi_simulator(durations=3)
def test_durations(dryapi_simulator): ...

@pytest.mark.dryapi_simulator(tear="basic")
def test_no_such_option(dryapi_simulator): ...

@pytest.mark.dryapi_client(max_in_flight="many")
def test_client(dryapi_client): ...
"""


def test_wrong_options_fail_a_test_in_a_line(tmp_path: Path) -> None:
    said = run_pytest(tmp_path, WRONG_OPTIONS)[1]
    assert sorted(outcomes(said).values()) == ["ERROR"] * 4, said
    errors = re.findall(r"^_+ ERROR at setup of \w+\S* _+\n(.*?)(?=^[_=]{3})", said, re.DOTALL | re.MULTILINE)
    assert [error.count("\n") for error in errors] == [1] * 4, said
    tier, durations, option, client = errors
    assert tier == "@pytest.mark.dryapi_simulator: unknown tier 'gold': known are 'basic', 'none', 'premium'\n"
    assert "durations takes {operation: (median seconds, sigma)}" in durations
    assert "unexpected keyword argument 'tear'" in option
    assert client.startswith("@pytest.mark.dryapi_client: max_in_flight")


UNMET = """
from dryapi_async.simulator import Fault

def script(sim):
    sim.script("txt2img", Fault.rate_limited())
    sim.script("storage", Fault.reset(), Fault.hang(), times=2)
    sim.script("*", Fault.reset(), times=1).remove()

def test_fails(dryapi_simulator):
    script(dryapi_simulator)
    assert dryapi_simulator.jobs_billed == 1

def test_passes(dryapi_simulator):
    script(dryapi_simulator)
"""


def test_a_failed_test_says_which_faults_were_never_met(tmp_path: Path) -> None:
    said = run_pytest(tmp_path, UNMET)[1]
    assert outcomes(said) == {"test_fails": "FAILED", "test_passes": "PASSED"}
    assert "1 scripted fault of txt2img was never met\n4 scripted faults of storage were never met\n" in said
    assert said.count("never met") == 2


REASONS = """
import json
import pytest
from dryapi_async import JobFailedError
from dryapi_async.simulator import Fault

FOX = {"prompt": "a fox", "model": "Flux1schnell", "width": 256, "height": 256, "steps": 4, "seed": 7}

@pytest.mark.anyio
@pytest.mark.dryapi_simulator(webhook_url="http://127.0.0.1:9/")
@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("told", [False, True])
async def test_it(dryapi_client, dryapi_simulator, told, by_hand):
    sim = dryapi_simulator
    if told:
        sim.variants("status-error-fields")
    if by_hand:
        sim.hold()
        job = await dryapi_client.txt2img(**FOX)
        sim.fail(job.id, "OOM", "no memory")
    else:
        sim.script("txt2img", Fault.job_error("OOM", "no memory"))
        job = await dryapi_client.txt2img(**FOX)
    with pytest.raises(JobFailedError, match="OOM: no memory" if told else "the service gives no reason") as caught:
        await job.result()
    assert (caught.value.code, caught.value.reason) == (("OOM", "no memory") if told else (None, None))
    (failed,) = [json.loads(one.body)["data"] for one in sim.webhooks.deliveries if one.event == "job.failed"]
    assert (failed["error_code"], failed["error_message"]) == ("OOM", "no memory")
"""


def test_who_is_told_why_a_job_failed_is_as_the_page_says(tmp_path: Path) -> None:
    status, said = run_pytest(tmp_path, REASONS)
    assert status == 0, said
    assert "4 passed" in said


def test_it_can_be_left_out(tmp_path: Path) -> None:
    said = run_pytest(tmp_path, "def test_it(dryapi_client): ...", "-p", "no:dryapi_async")[1]
    assert "fixture 'dryapi_client' not found" in said
