"""``dryapi batch MANIFEST --out DIR``."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click

from dryapi_async import Client
from dryapi_async.cli.board import Board, give_line
from dryapi_async.cli.cells import find_operation, suggest_operation
from dryapi_async.cli.checks import check_lines
from dryapi_async.cli.completion import complete_folders, complete_operations
from dryapi_async.cli.flags import timeout_option
from dryapi_async.cli.inputs import find_file_problems
from dryapi_async.cli.manifest import FORMS, Line, Problem, read_manifest
from dryapi_async.cli.screen import FAILED, INTERRUPTED, UNUSABLE, Screen, fail, one_line, run_client
from dryapi_async.cli.targets import Target, read_target
from dryapi_async.cli.work import Options, Work

UNKNOWN = 3
_MOST_TOLD = 100
"""Problems that are told one by one."""
_MOST_LISTED = 20


def _read_budget(_: click.Context, __: click.Parameter, value: str | None) -> Decimal | None:
    if value is None:
        return None
    try:
        amount = Decimal(value.removeprefix("$"))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise click.BadParameter(f"{value!r} is no amount of US dollars, such as 5.00.")
    return amount


def _read_out(ctx: click.Context, param: click.Parameter, value: str | None) -> Target | None:
    return None if value is None else read_target(folder=True)(ctx, param, value)


def _read_operation(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and find_operation(value) is None:
        raise click.BadParameter(f"there is no operation {value!r}{suggest_operation(value)}")
    return value


@click.command()
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out",
    callback=_read_out,
    shell_complete=complete_folders,
    default=None,
    metavar="DIR",
    help="The folder for the results; made if need be.  [required]",
)
@click.option(
    "--op",
    callback=_read_operation,
    shell_complete=complete_operations,
    default=None,
    metavar="OP",
    help="The operation of lines that name none.",
)
@click.option("--at-once", type=click.IntRange(1), default=16, show_default=True, metavar="N", help="Lines under way at a time.")
@click.option("--journal", type=click.Path(dir_okay=False, path_type=Path), default=None, help="[default: DIR/journal.db]")
@click.option(
    "--budget", callback=_read_budget, default=None, metavar="USD", help="Stop before the next line would pass it; asks for prices."
)
@click.option("--prices", is_flag=True, help="Ask for prices, to show what is spent.")
@click.option("--check", is_flag=True, help="Only check every line against the models' limits, and tell the total price.")
@click.option("--no-sheet", is_flag=True, help="Write no contact sheet (DIR/index.html).")
@click.option("--resubmit-unknown", is_flag=True, help="Send again what may have been paid for: its answer was lost.")
@click.option("--retry-failed", is_flag=True, help="Send again what was paid for, and failed.")
@click.option("--quiet", is_flag=True, help="Show only what must not be missed.")
def batch(
    *,
    manifest: Path,
    out: Target | None,
    op: str | None,
    at_once: int,
    journal: Path | None,
    budget: Decimal | None,
    prices: bool,
    check: bool,
    no_sheet: bool,
    resubmit_unknown: bool,
    retry_failed: bool,
    quiet: bool,
    timeout: float,
) -> None:
    """Run the operations of a file, one a line, and save what they make. It costs money.

    The file is JSON lines, such as {"op": "txt2img", "prompt": "a fox", "key": "fox", ...}, or CSV or TSV under a header of field names.
    Every line is checked before anything is sent. Results are DIR/KEY.png and so on; outcomes.jsonl and index.html lie beside them.

    The same command again goes on where it stopped, and pays for nothing twice. Ctrl-C once ends what is under way and sends nothing more,
    twice stops at once. Exit status: 0 all saved, 1 some aren't, 2 the file is wrong, 3 some may have been paid for and nobody knows.
    """
    if out is None and not check:
        raise click.UsageError("Missing option '--out'")
    lines = _read(manifest, op)
    if check or out is None:
        run_client(lambda client, _: check_lines(client, manifest.name, lines), quiet=True)
        return
    options = Options(
        folder=out.path,
        at_once=at_once,
        timeout=timeout,
        budget=budget,
        prices=prices or budget is not None,
        sheet=not no_sheet,
        again=("unknown",) * resubmit_unknown + ("failed",) * retry_failed,
    )
    out.prove()
    board = Board(len(lines), quiet=quiet)
    main = _make_main(board, manifest, lines, options, quiet=quiet)
    run_client(main, screen=board, journal=journal or out.path / "journal.db")


batch.params.append(timeout_option("Seconds for each line, submit and wait together."))


def _read(manifest: Path, op: str | None) -> list[Line]:
    """Read and check the manifest, or end with what is wrong in it."""
    form = FORMS.get(manifest.suffix.lower())
    if form is None:
        raise click.UsageError(f"{manifest}: a manifest is named {', '.join(sorted(FORMS))}")
    try:
        content = manifest.read_bytes()
    except OSError as error:
        fail(error)
    found = read_manifest(content, form, manifest.parent, op=op)
    problems = sorted(found.problems + find_file_problems(found.lines), key=lambda problem: problem.number)
    _refuse(manifest, problems)
    return found.lines


def _refuse(manifest: Path, problems: Sequence[Problem]) -> None:
    """End with all that is wrong in a manifest, a line each."""
    if not problems:
        return
    told = [f"{manifest}:{problem.number}: {problem.reason}" for problem in problems[:_MOST_TOLD]]
    if len(problems) > _MOST_TOLD:
        told.append(f"and {len(problems) - _MOST_TOLD:,} more")
    told.append(f"nothing was sent: {len(problems):,} {'line is' if len(problems) == 1 else 'lines are'} to be mended first")
    sys.stderr.write("".join(f"{one_line(line)}\n" for line in told))
    sys.exit(UNUSABLE)


def _make_main(
    board: Board, manifest: Path, lines: list[Line], options: Options, *, quiet: bool
) -> Callable[[Client, Screen], Awaitable[None]]:
    async def main(client: Client, _: Screen) -> None:
        work = Work(client, board, lines, options)
        told: list[int] = []
        _listen(work, board, told)
        changed = await work.find_changed()
        if changed:
            board.__exit__(None, None, None)
            _refuse(manifest, changed)
        await work.run()
        board.__exit__(None, None, None)
        _tell_end(board, lines, work, options, quiet=quiet)
        status = _find_status(work, len(lines), interrupted=bool(told))
        if status:
            raise click.exceptions.Exit(status)

    return main


def _listen(work: Work, board: Board, told: list[int]) -> None:
    """Have Ctrl-C end the batch in three steps: send nothing more, wait for nothing more, end at once."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def interrupt() -> None:
        told.append(signal.SIGINT)
        if len(told) == 1:
            work.stop()
            board.warn(f"nothing more is sent; waiting for {board.running} under way (Ctrl-C again leaves them to the service)")
        elif len(told) == 2 and task is not None:  # noqa: PLR2004  the second
            board.warn("stopped; what is paid for goes on at the service, and the same command goes on with it")
            task.cancel()
        else:
            raise SystemExit(INTERRUPTED)

    # What a shell lets a command in the background ignore stays ignored.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGINT, interrupt)


def _tell_end(board: Board, lines: Sequence[Line], work: Work, options: Options, *, quiet: bool) -> None:
    unknown = [line for line in lines if work.states.get(line.key) == "unknown"]
    if unknown:
        board.warn("These may have been paid for, and nobody knows: look at the dashboard; --resubmit-unknown sends them again.")
        for line in unknown[:_MOST_LISTED]:
            board.warn(f"  line {line.number}: {line.key}")
        if len(unknown) > _MOST_LISTED:
            board.warn(f"  and {len(unknown) - _MOST_LISTED:,} more, in outcomes.jsonl")
    failed = sum(state == "failed" for state in work.states.values())
    if failed and not quiet:
        board.warn(f"{failed:,} failed and {'is' if failed == 1 else 'are'} paid for: --retry-failed pays for them once more.")
    if not quiet and (len(work.states) < len(lines) or "stopped" in work.states.values()):
        board.warn("the same command goes on where this one stopped")
    if not quiet:
        sheet = options.folder / "index.html"
        give_line(f"{board.sum_up()}: {sheet if options.sheet else options.folder}")


def _find_status(work: Work, total: int, *, interrupted: bool) -> int:
    states: Any = work.states.values()
    if len(states) == total and all(state == "saved" for state in states):
        return 0
    if interrupted:
        return INTERRUPTED
    return UNKNOWN if "unknown" in states else FAILED
