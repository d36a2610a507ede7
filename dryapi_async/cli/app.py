"""``dryapi`` and its subcommands; each is loaded when it is used."""

import logging
import sys
from importlib import import_module
from io import TextIOWrapper

import click

from dryapi_async.cli.screen import INTERRUPTED, one_line
from dryapi_async.cli.suggestions import SuggestingGroup, describe_usage
from dryapi_async.version import __version__

COMMANDS = {
    "demo": ("dryapi_async.cli.demo", "demo"),
    "run": ("dryapi_async.cli.run", "run"),
    "price": ("dryapi_async.cli.run", "price"),
    "batch": ("dryapi_async.cli.batch", "batch"),
    "wait": ("dryapi_async.cli.jobs", "wait"),
    "status": ("dryapi_async.cli.jobs", "status"),
    "models": ("dryapi_async.cli.account", "models"),
    "balance": ("dryapi_async.cli.account", "balance"),
    "simulate": ("dryapi_async.cli.simulate", "simulate"),
    "completion": ("dryapi_async.cli.completion", "completion"),
}


class LazyGroup(SuggestingGroup):
    """A group whose commands are imported when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """Name the commands, in the order of a first use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's signature
        """Load a command."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dryapi")
@click.option("-v", "--verbose", is_flag=True, help="Log what is done to stderr.")
def dryapi(*, verbose: bool) -> None:
    """Submit paid jobs to dryAPI / deAPI, follow them, and save what they make.

    The key comes from DRYAPI_API_KEY, the host from DRYAPI_BASE_URL. Begin with `dryapi demo`: it needs neither.

    Exit status: 0 done, 1 failed, 2 wrong usage, 3 maybe paid for and nobody knows (batch), 130 after Ctrl-C, 143 after SIGTERM. The last
    two stop only the waiting: jobs that are paid for go on, and their tickets are printed, or are in the batch's journal.
    """
    if verbose:
        logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(name)s %(message)s")
        logging.getLogger("asyncio").setLevel(logging.WARNING)


_ASKED_FOR_HELP: tuple[type[click.UsageError], ...] = (
    (click.exceptions.NoArgsIsHelpError,) if hasattr(click.exceptions, "NoArgsIsHelpError") else ()
)
"""What click from 8.2 on raises for a group that is given no command; before, it prints the help by itself."""


def _end(sentence: str) -> str:
    return sentence if sentence.endswith(("?", ".")) else f"{sentence}."


def start() -> int:
    """Run the command with the process's arguments, and give its exit status; wrong usage is one line, too."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A name that the terminal's encoding can't show must not end a command whose job is paid for.
            stream.reconfigure(errors="backslashreplace")
    try:
        status: object = dryapi.main(prog_name="dryapi", standalone_mode=False)
    except _ASKED_FOR_HELP as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        command = "dryapi" if context is None else context.command_path
        sys.stderr.write(f"error: {_end(one_line(describe_usage(error)))} See {command} --help\n")
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return status if isinstance(status, int) else 0
