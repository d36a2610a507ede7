"""``dryapi completion SHELL``, and what options complete to besides their names."""

import sys

import click
from click.shell_completion import CompletionItem, get_completion_class

from dryapi_async.operations import ALL

SHELLS = ("bash", "zsh", "fish")


def complete_files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete a file's or folder's path."""
    return [CompletionItem(incomplete, type="file")]


def complete_folders(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete a folder's path."""
    return [CompletionItem(incomplete, type="dir")]


def complete_operations(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the slug of an operation that makes a job or an answer."""
    slugs = (cls.endpoint.slug for cls in ALL if cls.endpoint.price)
    return [CompletionItem(slug) for slug in slugs if slug.startswith(incomplete)]


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> None:
    """Print the script that lets a shell complete commands, options and paths.

    bash: eval "$(dryapi completion bash)" in ~/.bashrc, zsh: the same with zsh in ~/.zshrc after compinit,
    fish: dryapi completion fish > ~/.config/fish/completions/dryapi.fish
    """
    maker = get_completion_class(shell)
    if maker is None:
        raise click.UsageError(f"this click can't complete in {shell}")
    sys.stdout.write(maker(ctx.find_root().command, {}, "dryapi", "_DRYAPI_COMPLETE").source() + "\n")
