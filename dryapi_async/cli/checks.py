"""``dryapi batch --check``: every line against the models' limits, and what all of them would cost."""

import asyncio
import sys
from collections.abc import Sequence
from decimal import Decimal

import click

from dryapi_async import Client
from dryapi_async.cli.board import give_line
from dryapi_async.cli.manifest import Line
from dryapi_async.cli.prices import Prices
from dryapi_async.cli.screen import FAILED, one_line
from dryapi_async.cli.words import say_in_shell
from dryapi_async.operations.base import JobOperation

_TURN = 100
"""Lines between two turns of the loop, so that Ctrl-C is heard."""


async def check_lines(client: Client, name: str, lines: Sequence[Line]) -> None:
    """Tell each line that the service would refuse, and the price of all. Nothing is submitted or uploaded.

    Raises:
        DryAPIError: The models can't be read.
    """
    prices, total, unpriced, refused = Prices(client), Decimal(0), 0, 0
    for number, line in enumerate(lines):
        if not number % _TURN:
            await asyncio.sleep(0)
        if isinstance(line.operation, JobOperation) and (problems := await client.check(line.operation)):
            refused += 1
            sys.stderr.write(f"{one_line(f'{name}:{line.number}: ' + '; '.join(problems))}\n")
            # The service would refuse to price it, too, for the same reasons.
            continue
        price = await prices.ask(line.operation)
        if price is None:
            unpriced += 1
        else:
            total += price
    if prices.problem:
        sys.stderr.write(f"prices can't be had: {one_line(say_in_shell(prices.problem))}\n")
    elif unpriced:
        sys.stderr.write(f"{unpriced:,} of the lines can be priced only by uploading their files, and aren't in the sum\n")
    whole = "for those" if refused else "in all"
    money = f"${total} {whole}" if not unpriced else f"${total} or more" if total else "no price is known"
    give_line(f"{len(lines) - refused:,} of {len(lines):,} lines fit their models{f'; {money}' if refused < len(lines) else ''}")
    if refused:
        raise click.exceptions.Exit(FAILED)
