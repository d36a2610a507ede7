"""What was meant by a command or an option that there isn't."""

import click

from dryapi_async.cli.words import suggest


class SuggestingGroup(click.Group):
    """A group that offers the nearest of its commands for a name that is none."""

    def other_names(self) -> list[str]:
        """Name what is taken for a command beside those that are listed."""
        return []

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first word names.

        Raises:
            UsageError: There is none.
        """
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            near = suggest(name, [*self.list_commands(ctx), *self.other_names()])
            raise click.UsageError(f"No such command {name!r}{near}", ctx)
        return super().resolve_command(ctx, args)


def describe_usage(error: click.ClickException) -> str:
    """Say what is wrong with the usage; of an option that there isn't, which one is nearest."""
    if not isinstance(error, click.NoSuchOption):
        return error.format_message()
    known = (
        [] if error.ctx is None else [flag for one in error.ctx.command.get_params(error.ctx) for flag in (*one.opts, *one.secondary_opts)]
    )
    return f"No such option {error.option_name!r}{suggest(error.option_name, known)}"
