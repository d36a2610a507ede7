"""The simulator's table and answers, held against the service's own document; the second half by a client that isn't ours."""

import asyncio
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from dryapi_async.simulator import Simulator
from dryapi_async.simulator.contract import FILE_KINDS, OPERATIONS, Field
from dryapi_async.testing import hold_clock

from .conftest import FILES, OPENAPI, TXT2IMG, open_talk

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not OPENAPI.exists(), reason=f"the service's document isn't at {OPENAPI} (DRYAPI_OPENAPI)"),
]
PREFIX = "/api/v1/client/"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(OPENAPI.read_text())
    return loaded


def operations(document: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    found = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            found[path.removeprefix(PREFIX).removesuffix("/{request_id}")] = (method.upper(), operation)
    return found


def forms(operation: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Give an operation's content type and its one or two schemas."""
    content = operation.get("requestBody", {}).get("content", {})
    for kind, body in content.items():
        return kind, body["schema"].get("oneOf", [body["schema"]])
    return "", []


def describe(schema: dict[str, Any]) -> tuple[str, tuple[str, ...], int]:
    if "oneOf" in schema:
        return "text", (), 0
    if schema.get("type") == "array":
        return ("images" if schema["items"].get("format") == "binary" else "loras"), (), 0
    if schema.get("format") == "binary":
        return "file", (), 0
    kind = {"string": "str", "integer": "int", "number": "num", "boolean": "bool"}[schema["type"]]
    kind = "enum" if "enum" in schema else "webhook" if schema.get("format") == "uri" else kind
    return kind, tuple(schema.get("enum", ())), schema.get("minLength", 0)


def test_every_operation_with_its_method_and_body(document: dict[str, Any]) -> None:
    found = operations(document)
    assert len(OPERATIONS) == 47
    assert set(found) == set(OPERATIONS)
    bodies = {"application/json": "json", "multipart/form-data": "form", "": "none"}
    for slug, (method, operation) in found.items():
        row = OPERATIONS[slug]
        assert (row.method, row.body) == (method, bodies[forms(operation)[0]]), slug


def test_every_field_as_the_document_has_it(document: dict[str, Any]) -> None:
    checked = 0
    for slug, (_, operation) in operations(document).items():
        row = OPERATIONS[slug]
        schemas = forms(operation)[1]
        wanted: dict[str, tuple[Any, ...]] = {}
        for schema in schemas:
            for name, field in schema["properties"].items():
                required = name in schema.get("required", []) and all(name in other.get("required", []) for other in schemas)
                wanted[name.removesuffix("[]")] = (*describe(field), field.get("nullable", False), required)
        if row.method == "GET":
            query = [each for each in operation.get("parameters", []) if each.get("in") == "query" and "[" not in each["name"]]
            wanted = {each["name"]: (*describe(each["schema"]), each["schema"].get("nullable", False), each["required"]) for each in query}
        mine = {name: _as_document(field) for name, field in row.fields.items() if field.mark != "+"}
        assert mine == {name: (*_without_query_lengths(row.method, facts), facts[3], facts[4]) for name, facts in wanted.items()}, slug
        checked += len(mine)
    assert checked > 200


def _without_query_lengths(method: str, facts: tuple[Any, ...]) -> tuple[Any, ...]:
    del method
    return facts[:3]


def _as_document(field: Field) -> tuple[Any, ...]:
    kind = "images" if field.kind == "images" else "file" if field.kind in FILE_KINDS else field.kind
    return kind, field.words, field.least, field.nullable, field.required_by_document


def fill(schema: dict[str, Any], row_fields: dict[str, Field], *, files: bool) -> tuple[dict[str, Any], list[tuple[str, bytes, str, str]]]:
    """Fill a schema with the document's examples; files of the smallest kind that passes."""
    values: dict[str, Any] = {}
    parts: list[tuple[str, bytes, str, str]] = []
    for name, field in schema["properties"].items():
        kind = row_fields[name.removesuffix("[]")].kind
        if kind in FILE_KINDS:
            if files and name != "images[]":
                stock = FILES[kind]
                parts.append((name, stock[1], stock[0], stock[2]))
        elif "example" in field:
            values[name] = field["example"]
        elif field.get("type") == "array":
            values[name] = [{key: inner["example"] for key, inner in field["items"]["properties"].items()}]
        elif "oneOf" in field:
            values[name] = field["oneOf"][1]["example"]
        elif field.get("type") == "boolean":
            values[name] = True
        else:
            values[name] = None
    return values, parts


async def test_every_operation_filled_with_the_documents_examples_is_taken_and_priced(document: dict[str, Any]) -> None:
    tried = 0
    async with Simulator(speed=float("inf"), pictures=False) as sim, open_talk(sim) as talk:
        for slug, (method, operation) in operations(document).items():
            row = OPERATIONS[slug]
            if method == "GET":
                continue
            kind, schemas = forms(operation)
            for schema in schemas:
                values, parts = fill(schema, row.fields, files=True)
                before = sim.balance
                if kind == "application/json":
                    status, body = await talk.post(slug, values)
                else:
                    status, body = await talk.upload(slug, _as_form(values), parts)
                assert status == 200, (slug, body)
                _check_answer(slug, row.action, body)
                assert (sim.balance < before) == (row.action in {"job", "prompt"}), slug
                tried += 1
        for slug in ("prompts/samples", "prompts/samples/price-calculation"):
            status, body = await talk.get(slug + "?type=text2image&topic=cyberpunk%20cityscape%20at%20night&lang_code=en")
            assert status == 200
    assert tried == 49


def _as_form(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if name == "loras":
            flat |= {f"loras[{at}][{key}]": each for at, lora in enumerate(value) for key, each in lora.items()}
        elif value is not None:
            flat[name] = ("1" if value else "0") if isinstance(value, bool) else value
    return flat


def _check_answer(slug: str, action: str, body: Any) -> None:
    if action == "job":
        assert re.fullmatch(r"[0-9a-f-]{36}", body["data"]["request_id"]), slug
    elif action == "price":
        price = body["price"] if slug.startswith("prompt") else body["data"]["price"]
        assert price > 0, slug
    else:
        assert body["prompt"], slug


@pytest.mark.parametrize("slug", [slug for slug, row in OPERATIONS.items() if row.action == "job"])
async def test_a_price_is_what_is_deducted(document: dict[str, Any], slug: str) -> None:
    found = operations(document)
    async with Simulator(pictures=False) as sim, open_talk(sim) as talk:
        kind, schemas = forms(found[slug][1])
        values, parts = fill(schemas[0], OPERATIONS[slug].fields, files=True)
        price_fields = OPERATIONS[slug + "/price-calculation"].fields
        priced = {name: value for name, value in values.items() if name in price_fields}
        price_parts = [each for each in parts if each[0] in price_fields]
        before = sim.balance
        for each, given, files in [(slug, values, parts), (slug + "/price-calculation", priced, price_parts)]:
            sent = talk.post(each, given) if kind == "application/json" else talk.upload(each, _as_form(given), files)
            status, body = await sent
            assert status == 200, body
        assert float(before - sim.balance) == body["data"]["price"] > 0


@pytest.mark.parametrize(
    ("slug", "fields", "more"),
    [
        ("txt2img", TXT2IMG, {"width": 512}),
        ("txt2img", TXT2IMG, {"steps": 8}),
        ("txt2music", {"model": "ACE-Step-v1.5-turbo", "duration": 30, "inference_steps": 8}, {"inference_steps": 16}),
        ("txt2music", {"model": "ACE-Step-v1.5-turbo", "duration": 30, "inference_steps": 8}, {"duration": 60}),
        ("aud2txt", {"duration_seconds": 60, "include_ts": True, "model": "WhisperLargeV3"}, {"duration_seconds": 120}),
        ("txt2embedding", {"input": "a" * 50, "model": "Bge_M3_FP16"}, {"input": ["a" * 50, "b" * 50]}),
    ],
)
async def test_more_work_costs_more(slug: str, fields: dict[str, Any], more: dict[str, Any]) -> None:
    async with Simulator() as sim, open_talk(sim) as talk:
        prices = [(await talk.post(slug + "/price-calculation", each))[1]["data"]["price"] for each in (fields, {**fields, **more})]
        assert prices[1] == pytest.approx(2 * prices[0], abs=2e-8)  # rounded to eight places


# What the document says otherwise than the simulator answers by default, and what a black-box client can't know: (path, change, reason).
ALLOWED_EVERYWHERE = ("401", "403", "404", "413", "429")
CHECKS = "not_a_server_error,response_schema_conformance,content_type_conformance,status_code_conformance"


def adapt(document: dict[str, Any], request_id: str) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(document))
    for methods in copy["paths"].values():
        for operation in methods.values():
            for status in ALLOWED_EVERYWHERE:
                operation["responses"].setdefault(status, {"description": "allowed everywhere"})
    price = copy["paths"][PREFIX + "audiofile2txt/price-calculation"]["post"]["responses"]
    # The document declares the job resource here by mistake; the service answers a price.
    price["200"] = copy["paths"][PREFIX + "videofile2txt/price-calculation"]["post"]["responses"]["200"]
    # A status read needs a job that exists.
    status = copy["paths"][PREFIX + "request-status/{request_id}"]["get"]
    next(each for each in status["parameters"] if each.get("in") == "path")["schema"]["example"] = request_id
    return copy


@pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="schemathesis isn't installed (the extra `ci`)")
async def test_schemathesis_finds_nothing(document: dict[str, Any], tmp_path: Path) -> None:
    async with Simulator(speed=float("inf"), pictures=False, keep_files=False, seed=1) as sim, open_talk(sim) as talk:
        adapted = tmp_path / "openapi.json"
        adapted.write_text(json.dumps(adapt(document, await talk.submit())))
        sim.requests.clear()
        status, output = await _run_schemathesis(adapted, sim, tmp_path)
        assert status == 0, output
        assert "Tested: 47" in output, output
        seen = {(each.operation, each.status) for each in sim.requests}
    answered = {operation for operation, status in seen if status == 200}
    # A random file is no film and no sound: those operations are filled with files by the test above.
    needing_files = {
        slug
        for slug, row in OPERATIONS.items()
        if any(field.required and field.kind in {"audio", "video"} for field in row.fields.values())
    }
    assert set(OPERATIONS) - answered <= needing_files
    assert {status for _, status in seen} >= {200, 401, 422}


async def _run_schemathesis(schema: Path, sim: Simulator, folder: Path) -> tuple[int, str]:
    words = ["run", str(schema), "--url", sim.url, "--phases", "examples,coverage", "--checks", CHECKS, "--generation-deterministic"]
    command = [sys.executable, "-m", "schemathesis.cli", *words, "-H", f"Authorization: Bearer {sim.key}", "--no-color"]
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    try:
        # It lives in real time, and takes half a minute of it on a quiet machine.
        with hold_clock():
            output, _ = await asyncio.wait_for(process.communicate(), 600)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    return process.returncode or 0, output.decode("utf-8", "replace")
