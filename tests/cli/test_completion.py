"""``dryapi completion``: what Tab makes of a line, in real shells on a terminal of their own."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import clean_environment

pytestmark = pytest.mark.processes

DRYAPI = Path(sys.executable).with_name("dryapi")
MOST_SECONDS = 60.0
PROMPT = "ready> "
WAYS = {
    # How a shell is started without anybody's own settings, and what a user writes into his.
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(dryapi completion bash)"; PS1="rea""dy> "'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -U compinit && compinit -u -D; eval "$(dryapi completion zsh)"; PS1="rea""dy> "'),
    "fish": (["fish", "--no-config", "-i"], 'dryapi completion fish | source; function fish_prompt; echo -n "rea""dy> "; end'),
}
ESCAPES = re.compile(r"\x1b(?:\[[0-9;?<=>]*[a-zA-Z]|\][^\x07\x1b]*(?:\x07|\x1b\\)|P[^\x1b]*\x1b\\|[()][A-Z0-9]|[=>78])")

LINES = {
    "a command": ("dryapi comp\t", "dryapi completion "),
    "an operation": ("dryapi run img2i\t", "dryapi run img2img "),
    "an option": ("dryapi run txt2img --neg\t", "dryapi run txt2img --negative-prompt "),
    "an option of batch": ("dryapi batch --resub\t", "dryapi batch --resubmit-unknown "),
    "a choice": ("dryapi simulate --tier prem\t", "dryapi simulate --tier premium "),
    "an operation's name": ("dryapi models --type img-upsc\t", "dryapi models --type img-upscale "),
    "a file": ("dryapi run img2img --image a-pho\t", "dryapi run img2img --image a-photo.png "),
    "a folder": ("dryapi wait txt2img:1 --out a-fol\t", "dryapi wait txt2img:1 --out a-folder/"),
    "a manifest": ("dryapi batch a-mani\t", "dryapi batch a-manifest.csv "),
}
THE_SAME_IN_ALL = ("an operation", "an option", "a file")


class Terminal:
    """A shell on a pseudo-terminal."""

    def __init__(self, master: int) -> None:
        self._master = master
        self.shown = ""

    def write(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> None:
        """Read until the screen has shown a text, from here on; terminals' escapes left out."""
        until = time.monotonic() + MOST_SECONDS
        raw = b""
        while text not in self.shown:
            left = until - time.monotonic()
            assert left > 0, f"{text!r} was never shown, but {self.shown!r}"
            if select.select([self._master], [], [], left)[0]:
                raw += os.read(self._master, 65_536)
                self._answer(raw)
                self.shown = ESCAPES.sub("", raw.decode(errors="replace"))
        self.shown = ""

    def _answer(self, raw: bytes) -> None:
        """Tell a shell that asks what its terminal is: fish waits for that."""
        if raw.endswith((b"\x1b[c", b"\x1b[0c")):
            os.write(self._master, b"\x1b[?62c")


@contextmanager
def open_shell(shell: str, folder: Path) -> Iterator[Terminal]:
    command, settings = WAYS[shell]
    environment = clean_environment(
        PATH=f"{DRYAPI.parent}:{os.environ['PATH']}", HOME=str(folder), TERM="xterm", COLUMNS="200", XDG_CONFIG_HOME=str(folder)
    )
    master, slave = pty.openpty()
    # fish wants the terminal to be the one of its session.
    running = subprocess.Popen(
        [str(shutil.which("setsid")), "--ctty", *command], stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment
    )
    os.close(slave)
    try:
        terminal = Terminal(master)
        terminal.write(settings + "\n")
        terminal.wait_for(PROMPT)
        yield terminal
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait(10)
        os.close(master)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a-photo.png").touch()
    (tmp_path / "a-manifest.csv").touch()
    (tmp_path / "a-folder").mkdir()
    return tmp_path


@pytest.mark.parametrize("shell", WAYS)
def test_tab_completes_commands_options_and_paths(shell: str, folder: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} isn't here")
    with open_shell(shell, folder) as terminal:
        # click makes the answers for all shells, so one of them is asked everything.
        for typed, completed in (LINES if shell == "bash" else {name: LINES[name] for name in THE_SAME_IN_ALL}).values():
            terminal.write(typed)
            terminal.wait_for(completed)
            terminal.write("\x15")  # Ctrl-U clears the line
            terminal.write("\n")
            terminal.wait_for(PROMPT)


def test_a_shell_that_isnt_known_is_refused_in_one_line(folder: Path) -> None:
    done = subprocess.run(
        [DRYAPI, "completion", "csh"], capture_output=True, text=True, env=clean_environment(), cwd=folder, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "'bash', 'zsh', 'fish'" in done.stderr
