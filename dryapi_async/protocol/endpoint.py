"""Where an operation lives on the wire: path, method, kind of body, lane, price."""

from typing import Final, Literal

from attrs import frozen

from dryapi_async.values import Value

CLIENT_PATH: Final = "/api/v1/client"
"""Where v1 serves its operations, below the base URL."""

BodyKind = Literal["json", "multipart", "query", "none"]
CallKind = Literal["read", "price", "prompt", "submit"]
"""``submit`` makes a job and ``prompt`` is billed as well: both are sent at most once. ``read`` and ``price`` cost nothing."""

STATUS_LANE: Final = "status"
PRICES_LANE: Final = "prices"
WHISPER_LANE: Final = "whisper"
FREE_LANE: Final = "free"
"""Balance and models: the limits page calls them unlimited."""


@frozen(kw_only=True, eq=False, repr=False)
class Price(Value):
    """How the price of an operation is asked: a projection of the same request.

    ``fields`` are those of the request that the price operation takes, or None for all but the ones about delivery. ``measures`` are
    numbers that may stand in for the fields in ``replaces``, so that nothing is uploaded to learn a price.
    """

    body: BodyKind
    fields: frozenset[str] | None = None
    measures: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()


@frozen(kw_only=True, eq=False, repr=False)
class Endpoint(Value):
    """One row of the service's API. ``slug`` is the path after ``/client/``."""

    slug: str
    kind: CallKind
    body: BodyKind
    lane: str
    method: Literal["GET", "POST"] = "POST"
    price: Price | None = None
    path_field: str | None = None
    """The field that is the path's last part, if one is."""

    @property
    def path(self) -> str:
        """The path below the base URL."""
        return f"{CLIENT_PATH}/{self.slug}"


DELIVERY_FIELDS: Final = frozenset({"webhook_url", "return_result_in_response"})
"""Fields that say how the result comes, not what it is: no price operation takes them."""


def prompt_tool(slug: str, *, body: BodyKind, method: Literal["GET", "POST"] = "POST") -> Endpoint:
    """Describe a tool that is billed and answers at once; its price takes the same fields."""
    return Endpoint(slug=slug, kind="prompt", body=body, lane=slug, method=method, price=Price(body=body))


def reading(slug: str, *, lane: str, path_field: str | None = None) -> Endpoint:
    """Describe an operation that only reads."""
    return Endpoint(slug=slug, kind="read", body="query", lane=lane, method="GET", path_field=path_field)


def job(slug: str, *, body: BodyKind, price: Price, lane: str | None = None) -> Endpoint:
    """Describe an operation that makes a paid job. Its lane is its own unless the service shares one."""
    return Endpoint(slug=slug, kind="submit", body=body, lane=lane or slug, price=price)
