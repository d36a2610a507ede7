"""``dryapi run OP`` and ``dryapi price OP``."""

import asyncio
import time
from math import isfinite
from typing import Any, cast

import attrs
import click

from dryapi_async import Client
from dryapi_async.cli.completion import complete_files
from dryapi_async.cli.flags import RequestClass, find_class, make_request, method_name, options_for, timeout_option, without_marks
from dryapi_async.cli.screen import Screen, fail, give, run_client
from dryapi_async.cli.suggestions import SuggestingGroup
from dryapi_async.cli.targets import Target, read_target
from dryapi_async.errors import InputError
from dryapi_async.operations import ALL
from dryapi_async.operations.base import InstantOperation, JobOperation, Operation


class OperationGroup(SuggestingGroup):
    """A command for each billed operation, made from its class."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """Name the operations by their slugs."""
        return [cls.endpoint.slug for cls in ALL if cls.endpoint.price]

    def other_names(self) -> list[str]:
        """Name the operations by their methods."""
        return [method_name(cls) for cls in ALL if cls.endpoint.price]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's signature
        """Make an operation's command; its slug and its method's name are both taken."""
        cls = find_class(cmd_name)
        if cls is None:
            return None
        return _price_command(cls) if self.name == "price" else _run_command(cls)


@click.group(cls=OperationGroup)
def run() -> None:
    """Run one operation and save what it makes. It costs money."""


@click.group(cls=OperationGroup)
def price() -> None:
    """Ask what an operation would cost. It costs nothing."""


_MEASURE = "measure_"
_JSON = click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON object.")


def _run_command(cls: RequestClass) -> click.Command:
    options = options_for(cls)
    if issubclass(cls, JobOperation):
        options += [
            click.Option(
                ["--out"],
                required=True,
                callback=read_target(),
                shell_complete=complete_files,
                metavar="PATH",
                help="The file to write, or a folder (one that exists, or NAME/).",
            ),
            timeout_option("Seconds to wait for the job."),
        ]
    return click.Command(cls.endpoint.slug, params=[*options, _JSON], callback=_runner(cls), help=without_marks(cls.__doc__))


def _runner(cls: RequestClass) -> Any:
    def callback(*, as_json: bool, out: Target | None = None, timeout: float | None = None, **values: Any) -> None:
        try:
            request = make_request(cls, values)
        except InputError as error:
            fail(error)
        if isinstance(request, JobOperation) and out is not None and timeout is not None:
            out.check_kind(request.result_type, getattr(request, "format", None))
            run_client(lambda client, screen: _job(client, screen, request, out, timeout, as_json=as_json), quiet=as_json)
        else:
            run_client(lambda client, _: _answer(client, cast("InstantOperation[Any]", request), as_json=as_json), quiet=as_json)

    return callback


async def _answer(client: Client, request: InstantOperation[Any], *, as_json: bool) -> None:
    answer: Any = await client.call(request)
    told = attrs.asdict(answer)
    give(told, as_json=as_json, text=str(answer.prompt))


async def _job(client: Client, screen: Screen, request: JobOperation[Any], out: Target, timeout: float, *, as_json: bool) -> None:
    out.prove()
    screen.wanted = out
    loop, begun = asyncio.get_running_loop(), time.monotonic()
    deadline = loop.time() + timeout
    job = await client.call(request, timeout=timeout)
    screen.follow(job)
    screen.say(f"submitted: {job.ticket}")
    result = await job.result(timeout=max(deadline - loop.time(), 0))
    path = await result.save(out.prepare())
    screen.done(job)
    told = {"ticket": job.ticket, "request_id": job.id, "path": str(path), "seconds": round(time.monotonic() - begun, 3)}
    give(told, as_json=as_json, text=str(path))


def _price_command(cls: RequestClass) -> click.Command:
    described = cls.endpoint.price
    measures = described.measures if described else ()
    options = options_for(cls, optional=described.replaces if described else ())
    options += [
        click.Option(
            [f"--{name.replace('_', '-')}", _MEASURE + name],
            type=float,
            callback=_check_measure,
            help="In place of the file or text: uploads nothing.",
        )
        for name in measures
    ]
    return click.Command(
        cls.endpoint.slug, params=[*options, _JSON], callback=_pricer(cls), help=f"Ask for the price of {method_name(cls)}."
    )


def _check_measure(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    """Refuse what nothing can measure: ``float`` takes nan and inf, too."""
    if value is not None and not (isfinite(value) and value > 0):
        raise click.BadParameter(f"{value:g} is no finite number over 0.")
    return value


def _pricer(cls: RequestClass) -> Any:
    def callback(*, as_json: bool, **values: Any) -> None:
        measures = {
            name.removeprefix("measure_"): value for name, value in values.items() if name.startswith("measure_") and value is not None
        }
        fields = {name: value for name, value in values.items() if not name.startswith("measure_")}
        try:
            request = make_request(cls, fields, measures=measures)
        except InputError as error:
            fail(error)
        run_client(lambda client, _: _ask_price(client, request, measures, as_json=as_json), quiet=as_json)

    return callback


async def _ask_price(client: Client, request: Operation[Any], measures: dict[str, float], *, as_json: bool) -> None:
    call = client.call(cast("JobOperation[Any]", request))
    amount = await call.price(**{name: int(one) if one == int(one) else one for name, one in measures.items()})
    give({"price": str(amount), "currency": "USD"}, as_json=as_json, text=f"${amount}")
