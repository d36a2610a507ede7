"""P10, P9: a file that changes while it is sent, or between two attempts, is told, and nothing is billed."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dryapi_async import Job, SourceChangedError
from dryapi_async.events import BytesSent, RateLimited
from dryapi_async.simulator import Fault, Simulator

from ..conftest import PNG, edit, make_client, seen, sha256

pytestmark = pytest.mark.anyio

PICTURE = PNG + os.urandom(700_000)
"""Over two pieces long. What follows a PNG's end is ignored by every decoder."""


class Change:
    """A hook that changes a file once so many bytes of it are on their way."""

    def __init__(self, change: Callable[[], object], *, after: int = 300_000) -> None:
        self.change = change
        self.after = after
        self.done = False

    def __call__(self, event: object) -> None:
        if isinstance(event, BytesSent) and event.bytes_sent > self.after and not self.done:
            self.done = True
            self.change()


def rewrite(path: Path) -> None:
    with path.open("rb+") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"another picture")


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


CHANGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: os.truncate(path, 500_000),
    "emptied": lambda path: os.truncate(path, 0),
    "cut by a byte": lambda path: os.truncate(path, len(PICTURE) * 4 - 1),
    "grown": append,
    "rewritten in place": rewrite,
    "replaced in place": lambda path: path.write_bytes(bytes(len(PICTURE) * 4)),
}


def old_file(folder: Path) -> Path:
    """Make a file of some pieces that was at rest for an hour."""
    path = folder / "fox.png"
    path.write_bytes(PICTURE * 4)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path


@pytest.mark.parametrize("as_file", [False, True], ids=["path", "open file"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_p10_a_file_that_changes_while_it_is_sent_is_told_and_nothing_is_billed(
    sim: Simulator, tmp_path: Path, change: Callable[[Path], object], as_file: bool
) -> None:
    path = old_file(tmp_path)
    hook = Change(lambda: change(path))
    async with make_client(sim, on_event=hook) as client:
        with path.open("rb") as file:
            call = edit(client, image=file if as_file else path)
            with pytest.raises(
                SourceChangedError, match=r"fox\.png changed while it was sent .*Send it again once the file is at rest"
            ) as caught:
                await call
            with pytest.raises(SourceChangedError):
                await call
        assert caught.value.source.endswith("fox.png")
        await asyncio.sleep(1)
        assert hook.done
        assert len(seen(sim, "img2img")) == 1
        assert (sim.jobs_billed, sim.jobs) == (0, {})
        path.write_bytes(PICTURE)
        assert isinstance(await edit(client, image=path), Job)
    assert sim.jobs_billed == 1


REPLACEMENTS: dict[str, Callable[[Path], object]] = {
    "another file took its name": lambda path: os.replace(_write(path.with_suffix(".new"), bytes(9)), path),  # noqa: PTH105
    "deleted": lambda path: path.unlink(),
}


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("change", REPLACEMENTS.values(), ids=REPLACEMENTS)
async def test_p10_a_file_whose_name_goes_to_another_is_sent_whole_as_it_was(
    sim: Simulator, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    path = old_file(tmp_path)
    hook = Change(lambda: change(path))
    async with make_client(sim, on_event=hook) as client:
        assert isinstance(await edit(client, image=path), Job)
    assert hook.done
    assert seen(sim, "img2img")[0].files[0].sha256 == sha256(PICTURE * 4)


@pytest.mark.parametrize("as_file", [False, True], ids=["path", "open file"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_p09_a_file_that_changed_between_two_attempts_is_refused(
    sim: Simulator, tmp_path: Path, change: Callable[[Path], object], as_file: bool
) -> None:
    path = old_file(tmp_path)

    def hook(event: object) -> None:
        if isinstance(event, RateLimited):
            change(path)

    async with make_client(sim, on_event=hook) as client:
        sim.script("img2img", Fault.rate_limited(retry_after=2))
        with path.open("rb") as file, pytest.raises(SourceChangedError, match="changed since the first attempt"):
            await edit(client, image=file if as_file else path)
    assert (len(seen(sim, "img2img")), sim.jobs_billed) == (1, 0)
