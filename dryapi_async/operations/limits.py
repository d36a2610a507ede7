"""What a model's own limits say about a request, before anything is uploaded. It only tells: the service judges."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from dryapi_async.config import is_finite_number
from dryapi_async.operations.account import Model
from dryapi_async.protocol.untyped import is_list, is_object, is_sequence
from dryapi_async.protocol.wire import FILE_KIND

_MEGABYTE: Final = 1024 * 1024
LARGEST: Final[Mapping[str, int]] = {"image": 10 * _MEGABYTE, "audio": 20 * _MEGABYTE, "video": 50 * _MEGABYTE}
"""Bytes of one file, the most that any of the service's documents allows."""

_MOST_COMPARED: Final = 100
"""Characters: no slug is as long, and comparing takes the square of them."""

_RANGES: Final[Mapping[str, str]] = {
    # field: what min_ and max_ are said of
    "width": "width",
    "height": "height",
    "steps": "steps",
    "inference_steps": "steps",
    "guidance": "guidance",
    "guidance_scale": "guidance",
    "frames": "frames",
    "fps": "fps",
    "duration": "duration",
    "speed": "speed",
    "bpm": "bpm",
    "scale": "scale",
}
_FEATURES: Final[Mapping[str, tuple[str, ...]]] = {
    # feature that a model may lack: fields that need it
    "supports_guidance": ("guidance",),
    "supports_steps": ("steps",),
    "supports_negative_prompt": ("negative_prompt",),
    "supports_last_frame": ("last_frame_image",),
    "supports_lora": ("loras",),
    "supports_custom_output_size": ("width", "height"),
}


def find_problems(request: Any, slug: str, models: tuple[Model, ...]) -> tuple[str, ...]:
    """List what the service would refuse in a request, by its model's limits; empty where nothing is known against it."""
    fields: dict[str, Any] = {one.name: getattr(request, one.name) for one in attrs.fields(request.__class__)}
    wanted = fields.get("model")
    if wanted is None:
        return ()
    model = next((one for one in models if one.slug == wanted), None)
    if model is None:
        return (f"model: {wanted!r} isn't among the {len(models)} models of this account{_suggest(str(wanted), models)}",)
    return tuple(_find(fields, slug, model))


def _suggest(slug: str, models: tuple[Model, ...]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  wanted only for a slip, and the package is imported for less

    near = get_close_matches(slug[:_MOST_COMPARED], [model.slug for model in models], 1)
    return f": did you mean {near[0]!r}?" if near else ""


def _find(fields: Mapping[str, Any], slug: str, model: Model) -> Iterator[str]:
    if model.types and not model.serves(slug):
        yield f"model: {model.slug} serves {', '.join(model.types)}, not {slug}"
    for name, measure in _RANGES.items():
        if is_finite_number(fields.get(name)):
            yield from _check_range(name, fields[name], model.limits.get(f"min_{measure}"), model.limits.get(f"max_{measure}"))
    yield from _check_steps(fields, model.limits.get("resolution_step"))
    yield from _check_features(fields, model)
    yield from _check_counts(fields, model)
    yield from _check_words(fields, model)


def _check_range(name: str, value: float, least: Any, most: Any) -> Iterator[str]:
    if is_finite_number(least) and value < least:
        yield f"{name}: {value:g} is below the model's {least:g}"
    if is_finite_number(most) and value > most:
        yield f"{name}: {value:g} is over the model's {most:g}"


def _check_steps(fields: Mapping[str, Any], step: Any) -> Iterator[str]:
    for name in ("width", "height"):
        value = fields.get(name)
        if is_finite_number(value) and is_finite_number(step) and step > 0 and value % step:
            yield f"{name}: {value} is no multiple of the model's {step:g}"


def _check_features(fields: Mapping[str, Any], model: Model) -> Iterator[str]:
    for feature, names in _FEATURES.items():
        if model.features.get(feature) is False:
            yield from (f"{name}: the model doesn't support it ({feature})" for name in names if fields.get(name))


def _check_counts(fields: Mapping[str, Any], model: Model) -> Iterator[str]:
    images, most = fields.get("images"), model.limits.get("max_input_images", 1)
    if is_sequence(images) and is_finite_number(most) and len(images) > most:
        yield f"images: {len(images)} pictures are over the model's {most:g}"
    text = fields.get("text")
    if isinstance(text, str):
        yield from _check_range("text", len(text), model.limits.get("min_text"), model.limits.get("max_text"))


def _check_words(fields: Mapping[str, Any], model: Model) -> Iterator[str]:
    if model.loras:
        yield from (f"loras: the model has no {lora.name!r}" for lora in fields.get("loras") or () if lora.name not in model.loras)
    formats, wanted = model.limits.get("output_formats"), fields.get("format")
    if is_list(formats) and wanted is not None and wanted not in formats:
        yield f"format: the model makes {', '.join(map(str, formats))}, not {wanted}"
    languages, lang = {one.get("slug") for one in model.languages if is_object(one)}, fields.get("lang")
    if languages and lang is not None and lang not in languages:
        yield f"lang: the model speaks {', '.join(sorted(map(str, languages)))}, not {lang}"


def file_fields(request: Any) -> Iterator[tuple[str, str, Any]]:
    """Give each file of a request: its field, its kind, its source."""
    for one in attrs.fields(request.__class__):
        if FILE_KIND in one.metadata:
            value = getattr(request, one.name)
            for source in value if is_sequence(value) else () if value is None else (value,):
                yield one.name, one.metadata[FILE_KIND], source


def check_size(name: str, kind: str, label: str, size: int) -> Iterator[str]:
    """Say where a file is over what the service's documents allow."""
    if size > LARGEST[kind]:
        yield f"{name}: {label} has {size:,} bytes, over the {LARGEST[kind]:,} that the service's documents allow for {kind}"
