"""What the library says in Python's words is said in a shell's."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from yarl import URL

from dryapi_async import Client, DryAPIError, Img2Img, JobTimeoutError, Model
from dryapi_async.cli.account import lay_out
from dryapi_async.cli.app import start
from dryapi_async.cli.flags import field_help, without_marks
from dryapi_async.cli.targets import Target
from dryapi_async.cli.words import describe, say_in_shell
from dryapi_async.errors import PollingFailedError
from dryapi_async.io.proxies import Proxies
from dryapi_async.operations import ALL
from dryapi_async.protocol.replies import read_error
from tests.cli.conftest import Command

TICKET = "txt2img:1dd2d9c3-73ec-4912-8a64-6b1a76f6e4da"
PYTHON = ("Client(", "client.", "job.", "File(", "=...)", "=[", ".price(", "base_url")


def raised(call: Callable[[], object]) -> str:
    with pytest.raises(DryAPIError) as caught:
        call()
    return describe(caught.value)


def test_a_shell_is_told_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRYAPI_API_KEY", raising=False)
    no_key = raised(Client)
    assert no_key == "ConfigurationError: No API key: export DRYAPI_API_KEY=...; to try without one: `dryapi demo`."
    neither = raised(lambda: Img2Img(prompt="x", model="m", steps=1, seed=1))
    assert neither.endswith("got neither: give --image FILE, repeated for several.")
    refusal = read_error(422, {}, b'{"errors": {"model": ["no such model"]}}', request="POST txt2img", now=0.0)
    assert "`dryapi models --type txt2img` has the slugs" in describe(refusal)
    missing = read_error(404, {}, b"{}", request="GET request-status", now=0.0)
    assert "DRYAPI_BASE_URL" in describe(missing)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    socks = raised(lambda: Proxies(None).find(URL("https://api.example")))
    assert socks.endswith("Unset it, or name that host in NO_PROXY.")
    for said in (no_key, neither, describe(refusal), describe(missing), socks):
        assert not any(word in said for word in PYTHON), said


def test_a_wait_that_ended_says_how_to_wait_again() -> None:
    late = f"Job {TICKET} isn't done after 0.090731 s (pending, 0 reads). It goes on and is paid for: wait again, or keep the ticket."
    said = describe(JobTimeoutError(late, request_id="1", ticket=TICKET))
    assert "isn't done after 0.1 s (" in said
    assert said.endswith(f"is paid for: `dryapi wait {TICKET} --out DIR` waits again.")
    assert say_in_shell("after 0.000012 s") == "after 1e-05 s"
    assert say_in_shell("after 900 s") == "after 900 s"
    poll = f"Job {TICKET} couldn't be read. It goes on and is paid for: wait again later, or keep the ticket."
    assert describe(PollingFailedError(poll, request_id="1", ticket=TICKET, failures=3, cause="x")).endswith("waits again later.")


def test_what_the_system_refuses_is_told_without_its_number(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        (tmp_path / "nope").open()
    assert describe(caught.value) == f"error: {tmp_path / 'nope'}: No such file or directory"


@pytest.mark.parametrize("cls", [cls for cls in ALL if cls.endpoint.price], ids=lambda cls: str(cls.__name__))
def test_no_help_speaks_python(cls: type) -> None:
    for text in (without_marks(cls.__doc__), *field_help(cls).values()):
        assert not any(word in text for word in (*PYTHON, "bytes,")), text


def test_slugs_are_never_cut() -> None:
    models = (Model(slug="Ltx2_19B_Dist_FP8", name="LTX"), Model(slug="Ltx2_19B_Dist_FP16_and_more", name="LTX 2", types=("txt2video",)))
    for width in (None, 10, 40, 60, 200):
        lines = lay_out(models, width)
        assert [line.split()[0] for line in lines[1:]] == [model.slug for model in models]
        assert width is None or all(len(line) <= max(width, 27) for line in lines)
    assert lay_out(models, None) == lay_out(models, 200)
    assert lay_out(models, 34)[2] == "Ltx2_19B_Dist_FP16_and_more  LTX 2"


def test_a_type_that_nothing_serves_is_a_slip(command: Command) -> None:
    done = command("models", "--type", "img3img")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no operation 'img3img', did you mean 'img2img'?")
    slugs = [model["slug"] for model in json.loads(command("models", "--json").stdout)]
    narrow = command("models", COLUMNS="40").stdout.splitlines()
    assert [line.split()[0] for line in narrow] == ["model", *slugs], "piped, a line is as long as it is"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "txt2imag"), "error: No such command 'txt2imag', did you mean 'txt2img'? See dryapi run --help\n"),
        (("run", "img_rmgb"), "error: No such command 'img_rmgb', did you mean 'img_rmbg'? See dryapi run --help\n"),
        (("statsu",), "error: No such command 'statsu', did you mean 'status'? See dryapi --help\n"),
        (("xyzzy",), "error: No such command 'xyzzy'. See dryapi --help\n"),
        (("run", "txt2img", "--promt", "x"), "error: No such option '--promt', did you mean '--prompt'? See dryapi run txt2img --help\n"),
        (("--versoin",), "error: No such option '--versoin', did you mean '--version'? See dryapi --help\n"),
    ],
)
def test_what_was_meant_is_offered(
    words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["dryapi", *words])
    assert start() == 2
    assert capsys.readouterr() == ("", said)


def test_a_port_that_is_taken_is_named(service: dict[str, str], command: Command) -> None:
    port = service["DRYAPI_BASE_URL"].rpartition(":")[2]
    done = command("simulate", "--port", port)
    assert (done.returncode, done.stderr) == (1, f"error: port {port} is taken: choose another --port\n")


def test_a_hint_keeps_the_name_that_was_wanted() -> None:
    assert Target(Path("a b/c.png"), is_folder=False).spell_for_wait() == "'a b/c.png'"
    assert Target(Path("a b/c.png"), is_folder=False).spell_folder() == "'a b'"
    assert Target(Path("a/c"), is_folder=False).spell_for_wait() == "a", "without an ending it would be a folder's name"
    assert Target(Path("pictures"), is_folder=True).spell_for_wait() == "pictures"
