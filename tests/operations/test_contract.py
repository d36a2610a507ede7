"""Our 25 classes against the service's own document: 47 operations, and each deliberate difference with its reason."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import attrs
import pytest

from dryapi_async.operations import ALL, Lora
from dryapi_async.protocol.endpoint import CLIENT_PATH, DELIVERY_FIELDS
from dryapi_async.protocol.files import Source
from dryapi_async.protocol.wire import WIRE_NAME

DOCUMENT = Path(os.environ.get("DRYAPI_OPENAPI") or Path(__file__).parents[3] / "shared" / "api" / "openapi.json")
pytestmark = pytest.mark.skipif(not DOCUMENT.exists(), reason="the service's document isn't here (DRYAPI_OPENAPI names it)")

OPTIONAL_HERE = {
    # The schema asks for it, practice doesn't: refusing what the live service takes would be wrong.
    ("txt2img", "guidance"): "the document's own example leaves it out; models without supports_guidance want none",
    ("txt2img", "steps"): "optional in the official SDK; models without supports_steps want none",
    ("txt2video", "guidance"): "left out by the official SDK",
    ("txt2video", "steps"): "caller or model defaults decide",
    ("img2video", "guidance"): "left out by the official SDK",
    ("img2video", "steps"): "optional in the official SDK",
    ("txt2music", "lyrics"): "defaults to [Instrumental], the document's word for none",
}
REQUIRED_HERE = {
    # The schema doesn't ask for it, practice does.
    **{
        (f"prompt/{tool}", "prompt"): "no schema has a required list; nothing works without a prompt"
        for tool in ("image", "video", "speech")
    },
    ("prompt/image2image", "prompt"): "no schema has a required list; nothing works without a prompt",
    ("prompt/image2image", "image"): "needed in practice",
}
ADDED_HERE = {
    ("vid-upscale", "scale"): "the newer v1 takes it",
    ("models", "limit"): "the live service listens to it, and not to per_page",
}
PRICE_MEASURES_ADDED = {
    ("vid-upscale", "duration"): "the newer v1: without it the price comes back 0",
    ("vid2txt", "duration_seconds"): "the official SDK sends it in place of the address",
}


def load() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DOCUMENT.read_text())
    return found


def operation_of(path: str, method: str) -> dict[str, Any]:
    found: dict[str, Any] = load()["paths"][path][method.lower()]
    return found


def schemas_of(operation: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Find a body's kind and its schema, or its alternatives; a query counts as one schema."""
    content = operation.get("requestBody", {}).get("content", {})
    if content:
        (kind, media), *rest = content.items()
        assert not rest
        return {"application/json": "json", "multipart/form-data": "multipart"}[kind], media["schema"].get("oneOf", [media["schema"]])
    named = [one for one in operation.get("parameters", []) if one.get("in") == "query"]
    return "query", [
        {"properties": {one["name"]: one["schema"] for one in named}, "required": [one["name"] for one in named if one.get("required")]}
    ]


def wire_name(one: Any) -> str:
    return str(one.metadata.get(WIRE_NAME, one.name))


def fields_of(cls: Any) -> dict[str, Any]:
    return {wire_name(one): one for one in attrs.fields(cls) if one.name != cls.endpoint.path_field}


def wire_type(hint: Any) -> str:
    """Name the document's type of one of our annotations."""
    members = [one for one in get_args(hint) if one is not type(None)]
    if hint == Source or set(get_args(Source)) <= set(members):
        return "binary"
    if get_origin(hint) is Sequence:
        return f"array of {wire_type(get_args(hint)[0])}"
    if get_origin(hint) is Literal:
        return "string"
    if members:
        return " or ".join(wire_type(one) for one in members)
    return {str: "string", int: "integer", float: "number", bool: "boolean", Lora: "object"}[hint]


def document_type(schema: dict[str, Any]) -> str:
    if "oneOf" in schema:
        return " or ".join(document_type(one) for one in schema["oneOf"])
    if schema.get("format") == "binary":
        return "binary"
    if schema["type"] == "array":
        return f"array of {document_type(schema['items'])}"
    return str(schema["type"])


def test_every_operation_of_the_document_is_described_once() -> None:
    documented = {(path, method.upper()) for path, methods in load()["paths"].items() for method in methods}
    described: list[tuple[str, str]] = []
    for cls in ALL:
        endpoint = cls.endpoint
        path = endpoint.path + (f"/{{{endpoint.path_field}}}" if endpoint.path_field else "")
        described.append((path, endpoint.method))
        if endpoint.price is not None:
            described.append((f"{path}/price-calculation", endpoint.method))
    assert len(described) == len(set(described)) == 47
    assert set(described) == documented
    assert len(ALL) == 25


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.endpoint.slug)
def test_a_class_has_the_documents_fields(cls: Any) -> None:
    endpoint = cls.endpoint
    path = endpoint.path + (f"/{{{endpoint.path_field}}}" if endpoint.path_field else "")
    kind, (schema,) = schemas_of(operation_of(path, endpoint.method))
    assert endpoint.body == kind
    documented, ours, hints = schema["properties"], fields_of(cls), get_type_hints(cls)
    assert set(documented) | {name for slug, name in ADDED_HERE if slug == endpoint.slug} == set(ours)
    for name, one in documented.items():
        assert wire_type(hints[ours[name].name]) == document_type(one), name
        enum = one.get("enum")
        if enum:
            literal = next(arg for arg in (hints[ours[name].name], *get_args(hints[ours[name].name])) if get_origin(arg) is Literal)
            assert set(get_args(literal)) == set(enum)
    required = set(schema.get("required", ()))
    wanted = {name for name, one in ours.items() if one.default is attrs.NOTHING}
    optional = {name for slug, name in OPTIONAL_HERE if slug == endpoint.slug}
    extra = {name for slug, name in REQUIRED_HERE if slug == endpoint.slug}
    assert optional <= required, "a difference that is none"
    assert not extra & required, "a difference that is none"
    assert wanted == (required - optional) | extra


@pytest.mark.parametrize("cls", [cls for cls in ALL if cls.endpoint.price], ids=lambda cls: cls.endpoint.slug)
def test_a_price_is_the_documents_projection(cls: Any) -> None:
    endpoint, price = cls.endpoint, cls.endpoint.price
    kind, schemas = schemas_of(operation_of(f"{endpoint.path}/price-calculation", endpoint.method))
    assert price.body == kind
    documented = {name for schema in schemas for name in schema["properties"]}
    ours = set(fields_of(cls)) - DELIVERY_FIELDS
    if price.fields is not None:
        assert price.fields <= ours, "the projection names fields that aren't there"
        ours = set(price.fields)
    assert set(price.replaces) <= ours
    added = {name for slug, name in ADDED_HERE if slug == endpoint.slug}
    measures_added = {name for slug, name in PRICE_MEASURES_ADDED if slug == endpoint.slug}
    assert ours - added | set(price.measures) - measures_added == documented
    for schema in schemas:
        asked = set(schema.get("required", ()))
        sent = (
            ours
            if set(price.replaces) & set(schema["properties"]) or not price.measures
            else ours - set(price.replaces) | set(price.measures)
        )
        assert asked <= sent


def test_every_difference_is_about_something_that_exists() -> None:
    slugs = {cls.endpoint.slug: set(fields_of(cls)) for cls in ALL}
    for table in (OPTIONAL_HERE, REQUIRED_HERE, ADDED_HERE):
        for slug, name in table:
            assert name in slugs[slug]


def test_paths_start_where_v1_lives() -> None:
    assert all(cls.endpoint.path == f"{CLIENT_PATH}/{cls.endpoint.slug}" for cls in ALL)
