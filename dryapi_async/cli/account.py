"""``dryapi models`` and ``dryapi balance``."""

import sys
from shutil import get_terminal_size
from typing import Any

import attrs
import click
from rich.cells import cell_len, set_cell_size

from dryapi_async import Client, Model
from dryapi_async.cli.cells import find_operation, suggest_operation
from dryapi_async.cli.completion import complete_operations
from dryapi_async.cli.screen import Screen, give, is_terminal, one_line, run_client

_GAP = "  "


@click.command()
@click.option(
    "--type", "kind", default=None, shell_complete=complete_operations, help="Only models that serve one operation, such as img2img."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def models(*, kind: str | None, as_json: bool) -> None:
    """List the models that the account may use. It costs nothing."""

    async def main(client: Client, _: Screen) -> None:
        found = await client.models(kind)
        if kind is not None and not found and find_operation(kind) is None:
            # Only now: the service may serve more than this version knows.
            raise click.UsageError(f"no operation {kind!r}{suggest_operation(kind)}", click.get_current_context(silent=True))
        if as_json:
            give([attrs.asdict(model) for model in found], as_json=True, text="")
        else:
            width = get_terminal_size().columns if is_terminal(sys.stdout) else None
            give(None, as_json=False, text="\n".join(lay_out(found, width)))

    run_client(main, quiet=True)


def lay_out(found: tuple[Model, ...], width: int | None) -> list[str]:
    """Lay out a line a model. Slugs are copied, so they are never cut: where there isn't the room, the last columns are left out."""
    rows = [("model", "name", "serves", "limits"), *map(_describe, found)]
    widths = [max(cell_len(row[column]) for row in rows) for column in range(len(rows[0]))]
    shown = len(widths)
    while width is not None and shown > 1 and sum(widths[:shown]) + len(_GAP) * (shown - 1) > width:
        shown -= 1
    return [_GAP.join(set_cell_size(row[column], widths[column]) for column in range(shown)).rstrip() for row in rows]


def _describe(model: Model) -> tuple[str, str, str, str]:
    limits: dict[str, Any] = {name: value for name, value in model.limits.items() if name.startswith("max_")}
    told = ", ".join(f"{name.removeprefix('max_')} {value}" for name, value in limits.items())
    return one_line(model.slug), one_line(model.name), one_line(", ".join(model.types)), one_line(told)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def balance(*, as_json: bool) -> None:
    """Show what the account has, in US dollars. It costs nothing."""

    async def main(client: Client, _: Screen) -> None:
        found = await client.balance()
        give({"balance": str(found.amount), "currency": "USD"}, as_json=as_json, text=f"${found.amount}")

    run_client(main, quiet=True)
