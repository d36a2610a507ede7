"""What the account has and may use: balance, models; and the status of a job."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Final

from attrs import field, frozen

from dryapi_async.errors import InputError, ResponseError
from dryapi_async.operations.base import InstantOperation, Reader
from dryapi_async.protocol.endpoint import FREE_LANE, STATUS_LANE, Endpoint, reading
from dryapi_async.protocol.replies import read_money
from dryapi_async.protocol.status import Update, excerpt, read_text, read_update, unwrap
from dryapi_async.protocol.untyped import is_list, is_object
from dryapi_async.protocol.wire import WIRE_NAME
from dryapi_async.values import Value


@frozen(kw_only=True, eq=False, repr=False)
class Balance(Value):
    """What the account has, in US dollars, exact. A job needs about $0.49 at least."""

    amount: Decimal
    extra: Mapping[str, Any] = field(factory=dict[str, Any], repr=False)


def read_balance(body: object) -> Balance:
    """Read a balance, in ``data`` or on top."""
    amount = read_money(body, "balance")
    inner = unwrap(body)
    return Balance(amount=amount, extra={key: value for key, value in inner.items() if key != "balance"} if is_object(inner) else {})


@frozen(kw_only=True, eq=False, repr=False)
class Model(Value):
    """One model that the account may use.

    ``slug`` is what a request's ``model`` takes, ``types`` the operations it serves, in the service's words. ``limits``, ``features`` and
    ``defaults`` have the service's keys, with numbers as numbers and booleans as booleans. ``loras`` are names for `Lora`, ``languages``
    what a speech model speaks, as the service lists them. ``extra`` has the keys this package doesn't know.
    """

    slug: str
    name: str
    types: tuple[str, ...] = ()
    limits: Mapping[str, Any] = field(factory=dict[str, Any], repr=False)
    features: Mapping[str, Any] = field(factory=dict[str, Any], repr=False)
    defaults: Mapping[str, Any] = field(factory=dict[str, Any], repr=False)
    loras: tuple[str, ...] = field(default=(), repr=False)
    languages: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    extra: Mapping[str, Any] = field(factory=dict[str, Any], repr=False)

    def serves(self, word: str) -> bool:
        """Say whether the model serves an operation, in any of the words seen for it (``img-upscale``, ``img_upscale``, ``video2text``)."""
        wanted = normalise_type(word)
        return any(normalise_type(one) == wanted for one in self.types)


@frozen(kw_only=True, eq=False, repr=False)
class ModelPage(Value):
    """One page of the models."""

    models: tuple[Model, ...]
    page: int | None
    """Which page came, or None where the service doesn't say."""
    last_page: int | None


_KNOWN: Final = frozenset({"slug", "name", "inference_types", "info", "loras", "languages"})
_SAME: Final = {"video2txt": "vid2txt", "audio2txt": "aud2txt", "audio2video": "aud2video"}


def normalise_type(word: str) -> str:
    """Reduce the words for an operation to one: the service's documents and its live answers spell them differently."""
    reduced = word.strip().lower().translate({ord(sign): None for sign in "-_ /"}).replace("text", "txt")
    return _SAME.get(reduced, reduced)


def read_models(body: object) -> ModelPage:
    """Read a page of models in any of its wrappers.

    Raises:
        ResponseError: There is no list.
    """
    rows = unwrap(unwrap(body))
    if not is_list(rows):
        raise ResponseError(
            f"The answer has no list of models; check base_url, or try again later. It begins: {excerpt(body)}", excerpt=excerpt(body)
        )
    models = tuple(model for row in rows if is_object(row) and (model := _read_model(row)) is not None)
    meta = _find_meta(body)
    page = _read_count(meta.get("current_page", meta.get("page")))
    last = _read_count(meta.get("last_page", meta.get("total_pages")))
    return ModelPage(models=models, page=page, last_page=last)


def _find_meta(body: object) -> Mapping[str, Any]:
    """Find the paging beside the list, or in the wrapper around it."""
    for place in (body, body.get("data") if is_object(body) else None):
        meta = place.get("meta") if is_object(place) else None
        if is_object(meta):
            return meta
    return {}


def _read_count(value: object) -> int | None:
    number = _tidy(value)
    return int(number) if isinstance(number, int | float) and not isinstance(number, bool) else None


def _read_model(row: Mapping[str, Any]) -> Model | None:
    slug = read_text(row.get("slug")) or read_text(row.get("model")) or read_text(row.get("id"))
    if slug is None:
        return None
    info = row.get("info")
    parts: dict[str, dict[str, Any]] = {}
    for name in ("limits", "features", "defaults"):
        given = info.get(name) if is_object(info) else None
        parts[name] = {key: _tidy(value) for key, value in given.items()} if is_object(given) else {}
    types, loras, languages = row.get("inference_types"), row.get("loras"), row.get("languages")
    return Model(
        slug=slug,
        name=read_text(row.get("name")) or slug,
        types=tuple(str(one) for one in types) if is_list(types) or is_object(types) else (),
        limits=parts["limits"],
        features={key: _truth(value) for key, value in parts["features"].items()},
        defaults=parts["defaults"],
        loras=tuple(str(one["name"]) for one in loras if is_object(one) and one.get("name")) if is_list(loras) else (),
        languages=tuple(one for one in languages if is_object(one)) if is_list(languages) else (),
        extra={key: value for key, value in row.items() if key not in _KNOWN},
    )


def _tidy(value: object) -> Any:
    """Make numbers of numeric texts: the service's values aren't reliably typed."""
    if isinstance(value, Decimal):
        value = str(value)
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(value.lower(), value)


def _truth(value: object) -> Any:
    return bool(value) if value in (0, 1) else value


@frozen(kw_only=True, eq=False, repr=False)
class ReadBalance(InstantOperation[Balance]):
    """Read what the account has. Free and unlimited."""

    endpoint: ClassVar[Endpoint] = reading("balance", lane=FREE_LANE)
    read_answer: ClassVar[Reader] = staticmethod(read_balance)


@frozen(kw_only=True, eq=False, repr=False)
class ListModels(InstantOperation[ModelPage]):
    """Read one page of the models that the account may use. Free; ``client.models()`` reads them all."""

    endpoint: ClassVar[Endpoint] = reading("models", lane=FREE_LANE)
    read_answer: ClassVar[Reader] = staticmethod(read_models)

    page: int | None = None
    """From 1."""
    per_page: int | None = None
    """Models a page, in the word of the service's document; the live service listens to ``limit``."""
    limit: int | None = None
    """Models a page, at most 50, in the live service's word."""
    inference_types: Sequence[str] = field(default=(), metadata={WIRE_NAME: "filter[inference_types]"})
    """Only models of these types. A word that the service doesn't know gives an empty list, not an error."""


@frozen(kw_only=True, eq=False, repr=False)
class ReadStatus(InstantOperation[Update]):
    """Read a job's status. Basic accounts may do so 50 times a minute and 200 times a day, for all jobs together."""

    endpoint: ClassVar[Endpoint] = reading("request-status", lane=STATUS_LANE, path_field="request_id")
    read_answer: ClassVar[Reader] = staticmethod(read_update)

    request_id: str
    """The service's id of the job."""

    def check(self) -> None:
        """Refuse what is no id: it would ask another address."""
        if not self.request_id:
            raise InputError("ReadStatus: request_id is empty: give the service's id of a job.")
