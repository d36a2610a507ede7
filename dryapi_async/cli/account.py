"""``dryapi models`` and ``dryapi balance``."""

import sys
from typing import Any

import attrs
import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dryapi_async import Client, Model
from dryapi_async.cli.completion import complete_operations
from dryapi_async.cli.screen import Screen, give, run_client


@click.command()
@click.option(
    "--type", "kind", default=None, shell_complete=complete_operations, help="Only models that serve one operation, such as img2img."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def models(*, kind: str | None, as_json: bool) -> None:
    """List the models that the account may use. It costs nothing."""

    async def main(client: Client, _: Screen) -> None:
        found = await client.models(kind)
        if as_json:
            give([attrs.asdict(model) for model in found], as_json=True, text="")
        else:
            Console(file=sys.stdout, highlight=False).print(_table(found))

    run_client(main, quiet=True)


def _table(found: tuple[Model, ...]) -> Table:
    table = Table("model", "name", "serves", "limits", box=None, pad_edge=False)
    for model in found:
        limits: dict[str, Any] = {name: value for name, value in model.limits.items() if name.startswith("max_")}
        told = ", ".join(f"{name.removeprefix('max_')} {value}" for name, value in limits.items())
        table.add_row(*(escape(text) for text in (model.slug, model.name, ", ".join(model.types), told)))
    return table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def balance(*, as_json: bool) -> None:
    """Show what the account has, in US dollars. It costs nothing."""

    async def main(client: Client, _: Screen) -> None:
        found = await client.balance()
        give({"balance": str(found.amount), "currency": "USD"}, as_json=as_json, text=f"${found.amount}")

    run_client(main, quiet=True)
