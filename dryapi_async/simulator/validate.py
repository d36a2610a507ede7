"""Validate requests as the service does: Laravel's rules and words, a 422 with every finding."""

from __future__ import annotations

import json
import math
import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attrs import Factory, define

from dryapi_async.simulator.contract import FILE_KINDS, Field, Operation
from dryapi_async.simulator.models import SimModel
from dryapi_async.simulator.received import ReceivedFile
from dryapi_async.simulator.shapes import is_list, is_object
from dryapi_async.simulator.sniff import KINDS, sniff

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dryapi_async.simulator.receive import Form

WEBHOOK_MOST = 2048
AUDIO_MOST = 20_971_520
_NAMES = {
    "image": "jpg, jpeg, png, gif, bmp, webp",
    "audio": "aac, mp3, ogg, wav, webm, flac, m4a",
    "video": "mp4, mpeg, mov, avi, wmv, ogg",
}
_INTEGER = re.compile(r"[+-]?\d{1,19}")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
# What a model's limits are called, where that differs from the field.
_LIMIT_NAMES = {"inference_steps": "steps", "guidance_scale": "guidance"}
_LIMITED = (
    "width",
    "height",
    "steps",
    "guidance",
    "frames",
    "fps",
    "duration",
    "bpm",
    "speed",
    "inference_steps",
    "guidance_scale",
    "scale",
)
# Measures of what was uploaded, not of what is made.
_MEASURING = frozenset({"img-rmbg", "img-upscale", "img2txt", "vid-rmbg", "vid-upscale"})
_TEXTS_MOST, _TEXT_CHARACTERS_MOST = 2048, 8192 * 8
_TOPIC_MOST, _LANG_MOST = 500, 4


@define
class Checked:
    """A valid request: values by field, files by field, the model."""

    values: dict[str, Any] = Factory(dict[str, Any])
    files: dict[str, list[ReceivedFile]] = Factory(dict[str, "list[ReceivedFile]"])
    model: SimModel | None = None


class UnfitError(ValueError):
    """A value that isn't taken; the text says what it must be."""


class _Findings(dict[str, list[str]]):
    def __init__(self, max_upload: int) -> None:
        super().__init__()
        self.max_upload = max_upload

    def add(self, field: str, message: str) -> None:
        self.setdefault(field, []).append(message)


def spell(name: str) -> str:
    """Write a field's name as Laravel's messages do."""
    return name.replace("_", " ")


def validate(row: Operation, form: Form, models: Sequence[SimModel], *, max_upload: int) -> tuple[Checked, dict[str, list[str]]]:
    """Check a request against its row; gives what is valid and the findings by field (none: the request is taken)."""
    found = _Findings(max_upload)
    checked = Checked()
    for field in row.fields.values():
        if field.kind in FILE_KINDS:
            _check_files(row, field, form, checked, found)
        else:
            _check_value(field, form, checked, found)
    _check_groups(row, checked, found)
    if "model" in row.fields:
        checked.model = _check_model(row, checked, models, found)
    if checked.model is not None and row.slug not in _MEASURING and row.job_slug not in _MEASURING:
        _check_limits(checked, checked.model, found)
    _check_rest(row, checked, found)
    return checked, found


def _check_files(row: Operation, field: Field, form: Form, checked: Checked, found: _Findings) -> None:
    files = [file for file in form.files if file.field.removesuffix("[]") == field.name]
    listed = [file.field.endswith("[]") for file in files]
    name = spell(field.name)
    if not files:
        if form.fields.get(field.name) not in (None, ""):  # a list has no hash
            found.add(field.name, f"The {name} field must be {'an array' if field.kind == 'images' else 'a file'}.")
        elif field.required:
            found.add(field.name, f"The {name} field is required.")
    elif field.kind == "images" and not all(listed):
        found.add(field.name, f"The {name} field must be an array.")
    elif field.kind != "images" and any(listed):
        found.add(field.name, f"The {name} field must be a file.")
    else:
        # Of several parts with one name the last one counts, as in PHP.
        checked.files[field.name] = files if field.kind == "images" else files[-1:]
        for index, file in enumerate(checked.files[field.name]):
            _check_file(row, field, file, f"{field.name}.{index}" if field.kind == "images" else field.name, found)


def _check_file(row: Operation, field: Field, file: ReceivedFile, key: str, found: _Findings) -> None:
    kind = "image" if field.kind == "images" else field.kind
    allowed: set[str] = {*KINDS[kind], *(["svg"] if row.slug.startswith("prompt/") else [])}
    if sniff(file.head) not in allowed:
        if kind == "image":
            found.add(key, f"The {spell(key)} field must be an image.")
        found.add(key, f"The {spell(key)} field must be a file of type: {_NAMES[kind]}.")
    most = max(found.max_upload, AUDIO_MOST if row.slug == "aud2video" and field.name == "audio" else 0)
    if file.size > most:
        found.add(key, f"The {spell(key)} field must not be greater than {most // 1024} kilobytes.")


def _check_value(field: Field, form: Form, checked: Checked, found: _Findings) -> None:
    name = spell(field.name)
    value = form.fields.get(field.name)
    if value == "":  # the service turns empty strings into null
        value = None
    if value is None:
        if field.required and not (field.nullable and field.name in form.fields):
            word = "must be present" if field.nullable else "is required"
            found.add(field.name, f"The {name} field {word}.")
        elif not field.nullable and field.name in form.fields:
            found.add(field.name, f"The {name} field {'is required' if field.required else _expectation(field)}.")
        return
    try:
        checked.values[field.name] = _convert(field, value, found, typed=form.typed)
    except UnfitError as refused:
        found.add(field.name, f"The {name} field {refused}.")


def _expectation(field: Field) -> str:
    words = {"int": "must be an integer", "num": "must be a number", "bool": "must be true or false", "loras": "must be an array"}
    return words.get(field.kind, "must be a string")


def _convert(field: Field, value: Any, found: _Findings, *, typed: bool) -> Any:
    """Give the value in its Python type; an UnfitError says what it must be."""
    if field.kind in {"int", "num", "bool"}:
        return _CONVERTERS[field.kind](field, value, typed=typed)
    if field.kind == "loras":
        return _read_loras(value, found)
    if field.kind == "text" and is_list(value):
        return _read_texts(value)
    if not isinstance(value, str):
        raise UnfitError(_expectation(field))
    if field.kind == "enum" and value not in field.words:
        raise UnfitError("is invalid: one of " + ", ".join(field.words))
    if len(value) < field.least:
        raise UnfitError(f"must be at least {field.least} characters")
    if field.kind == "webhook":
        _check_webhook(value)
    return value


def _read_integer(field: Field, value: Any, *, typed: bool) -> int:
    del typed
    if isinstance(value, bool):
        raise UnfitError(_expectation(field))
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    raise UnfitError(_expectation(field))


def _read_number(field: Field, value: Any, *, typed: bool) -> float:
    del typed
    if isinstance(value, bool):
        raise UnfitError(_expectation(field))
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, int | float) and math.isfinite(value):
        return value
    raise UnfitError(_expectation(field))


def _read_boolean(field: Field, value: Any, *, typed: bool) -> bool:
    if value in (1, "1") or (not typed and value == "true"):
        return True
    if value in (0, "0") or (not typed and value == "false"):
        return False
    raise UnfitError(_expectation(field))


_CONVERTERS = {"int": _read_integer, "num": _read_number, "bool": _read_boolean}


def _read_loras(value: Any, found: _Findings) -> list[dict[str, Any]]:
    if isinstance(value, str):  # one JSON part, as the service's MCP server sends it
        try:
            value = json.loads(value)
        except ValueError:
            raise UnfitError("must be an array") from None
    if not is_list(value):
        raise UnfitError("must be an array")
    read: list[dict[str, Any]] = []
    for index, row in enumerate(value):
        lora = row if is_object(row) else dict[str, Any]()
        name, weight = lora.get("name"), lora.get("weight")
        if not isinstance(name, str) or not name:
            found.add(f"loras.{index}.name", f"The loras.{index}.name field is required.")
        try:
            number = _read_number(Field("weight", "num", "*", nullable=False), weight, typed=False)
            if number < 0:
                found.add(f"loras.{index}.weight", f"The loras.{index}.weight field must be at least 0.")
        except ValueError:
            word = "is required" if weight is None else "must be a number"
            found.add(f"loras.{index}.weight", f"The loras.{index}.weight field {word}.")
        else:
            read.append({"name": str(name), "weight": number})
    return read


def _read_texts(value: list[Any]) -> list[str]:
    if not value:
        raise UnfitError("is required")
    if len(value) > _TEXTS_MOST:
        raise UnfitError(f"must not have more than {_TEXTS_MOST} items")
    if not all(isinstance(item, str) for item in value):
        raise UnfitError("must be a string or a list of strings")
    if any(len(item) > _TEXT_CHARACTERS_MOST for item in value):
        raise UnfitError("is too long: at most 8192 tokens an item")
    return value


def _check_webhook(value: str) -> None:
    if len(value) > WEBHOOK_MOST:
        raise UnfitError(f"must not be greater than {WEBHOOK_MOST} characters")
    try:
        parts = urlsplit(value)
        host = parts.hostname
    except ValueError:
        raise UnfitError("must be a valid URL") from None
    if not host or parts.scheme not in {"http", "https"}:
        raise UnfitError("must be a valid URL")
    if parts.scheme == "http" and not _is_loopback(host):
        raise UnfitError("must be a valid HTTPS URL")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_groups(row: Operation, checked: Checked, found: _Findings) -> None:
    if not row.either:
        return
    there = {name for name in checked.values if checked.values[name] is not None} | set(checked.files)
    first, second = row.either
    if row.slug == "img2img":
        if {"image", "images"} <= there:
            found.add("image", "The image field prohibits images from being present.")
        elif not there & {"image", "images"} and not found.keys() & {"image", "images"}:
            found.add("image", "The image field is required when images is not present.")
            found.add("images", "The images field is required when image is not present.")
        return
    if set(first) <= there or set(second) <= there:
        return
    touched = there & set(second)
    for name in second if touched else first:
        if name not in there and name not in found:
            other = " / ".join(first if touched else second)
            found.add(name, f"The {spell(name)} field is required when {other} is not present.")


def _check_model(row: Operation, checked: Checked, models: Sequence[SimModel], found: _Findings) -> SimModel | None:
    slug = checked.values.get("model")
    if slug is None:
        return None
    model = next((each for each in models if each.slug == slug), None)
    if model is None:
        found.add("model", "The selected model does not exist.")
    elif row.model_type not in model.types:
        found.add("model", f"The selected model does not support {row.title}.")
    else:
        return model
    return None


def _check_limits(checked: Checked, model: SimModel, found: _Findings) -> None:
    for name in _LIMITED:
        value = checked.values.get(name)
        if value is None:
            continue
        limit = _LIMIT_NAMES.get(name, name)
        least, most = model.limits.get(f"min_{limit}"), model.limits.get(f"max_{limit}")
        if (least is not None and value < least) or (most is not None and value > most):
            found.add(name, f"The {spell(name)} field must be between {least} and {most}.")
        step = model.limits.get("resolution_step")
        if name in {"width", "height"} and step and value % step:
            found.add(name, f"The {spell(name)} field must be a multiple of {step}.")
    images, most_images = len(checked.files.get("images", ())), model.limits.get("max_input_images", 1)
    if images > most_images:
        found.add("images", f"The images field must not have more than {most_images} items.")
    known = {name for _, name in model.loras}
    for index, lora in enumerate(checked.values.get("loras") or ()):
        if f"loras.{index}.name" not in found and lora["name"] not in known:
            found.add(f"loras.{index}.name", f"The selected loras.{index}.name is invalid.")
    text = checked.values.get("text")
    if text is not None and len(text) > model.limits.get("max_text", math.inf):
        found.add("text", f"The text field must not be greater than {model.limits['max_text']} characters.")


def _check_rest(row: Operation, checked: Checked, found: _Findings) -> None:
    values = checked.values
    if row.slug == "txt2audio":
        if values.get("mode") == "voice_clone" and "ref_audio" not in checked.files:
            found.add("ref_audio", "The ref audio field is required when mode is voice_clone.")
        if values.get("mode") == "voice_design" and not values.get("instruct"):
            found.add("instruct", "The instruct field is required when mode is voice_design.")
    if values.get("timesignature") not in {None, 2, 3, 4, 6}:
        found.add("timesignature", "The selected timesignature is invalid.")
    for name in ("width", "height", "duration_seconds", "count_text", "duration"):
        if name in values and values[name] <= 0 and name not in found:
            found.add(name, f"The {spell(name)} field must be greater than 0.")
    if row.action in {"sample", "price"} and row.slug.startswith("prompts/"):
        if len(values.get("topic") or "") > _TOPIC_MOST:
            found.add("topic", f"The topic field must not be greater than {_TOPIC_MOST} characters.")
        if len(values.get("lang_code") or "") > _LANG_MOST:
            found.add("lang_code", f"The lang code field must not be greater than {_LANG_MOST} characters.")
