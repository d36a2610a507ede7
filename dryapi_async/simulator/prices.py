"""What things cost here: exact decimals, from the fields alone. The rates are this simulator's own, the shapes the service's."""

from __future__ import annotations

from decimal import Context, Decimal
from typing import TYPE_CHECKING

from dryapi_async.simulator.shapes import is_list
from dryapi_async.simulator.sniff import measure

if TYPE_CHECKING:
    from dryapi_async.simulator.contract import Operation
    from dryapi_async.simulator.validate import Checked

_STEP = Decimal("0.00000001")
# Wide enough for any number that a request can carry.
_WIDE = Context(prec=400)
_MEGAPIXEL = Decimal(1_000_000)
_SIDE, _STEPS, _FRAMES, _SECONDS = 1024, 20, 97, 60
# What a file is taken to last where only its bytes are known.
_BYTES_A_SECOND = 16_000


def _number(checked: Checked, name: str, default: float) -> Decimal:
    value = checked.values.get(name)
    return Decimal(str(default if value is None else value))


def _megapixels(checked: Checked) -> Decimal:
    width, height = checked.values.get("width"), checked.values.get("height")
    if width is None or height is None:
        measured = next((size for files in checked.files.values() for file in files if (size := measure(file.head))), None)
        width, height = measured or (_SIDE, _SIDE)
    return Decimal(width) * Decimal(height) / _MEGAPIXEL


def _seconds(checked: Checked, name: str) -> Decimal:
    if name in checked.values:
        return _number(checked, name, _SECONDS)
    sizes = sum(file.size for files in checked.files.values() for file in files)
    return Decimal(sizes) / _BYTES_A_SECOND if sizes else Decimal(_SECONDS)


def _characters(checked: Checked, name: str) -> int:
    value = checked.values.get(name)
    return sum(map(len, value)) if is_list(value) else len(value or "")


def price(row: Operation, checked: Checked) -> Decimal:
    """Price a valid request; above zero, rounded to eight places."""
    return max(_rate(row, checked).quantize(_STEP, context=_WIDE), _STEP).normalize(_WIDE)


_PER_MEGAPIXEL = {"cutout": Decimal("0.0009"), "upscale": Decimal("0.0016"), "ocr": Decimal("0.0012")}
_PROMPT = Decimal("0.00012345")


def _rate(row: Operation, checked: Checked) -> Decimal:
    rate = _PROMPT
    match row.result:
        case "image":
            # An edit costs the same whatever size it comes in: its price form has no measures.
            pixels = Decimal(1) if row.job_slug == "img2img" else _megapixels(checked)
            rate = Decimal("0.0004") * pixels * _number(checked, "steps", 4)
        case "cutout" | "upscale" | "ocr":
            rate = _PER_MEGAPIXEL[row.result] * _megapixels(checked)
        case "video" if row.job_slug.startswith("vid-"):
            rate = Decimal("0.0021") * _megapixels(checked)
        case "video":
            rate = Decimal("0.00003") * _megapixels(checked) * _number(checked, "steps", _STEPS) * _number(checked, "frames", _FRAMES)
        case "speech":
            count = _number(checked, "count_text", 0) if "count_text" in checked.values else Decimal(_characters(checked, "text"))
            rate = Decimal("0.000004") * count
        case "music":
            rate = Decimal("0.00002") * _number(checked, "duration", 30) * _number(checked, "inference_steps", 8)
        case "transcript":
            rate = Decimal("0.00002") * _seconds(checked, "duration_seconds")
        case "embedding":
            rate = Decimal("0.00000002") * _characters(checked, "input")
        case "":
            pass
    return rate


def write_price(value: Decimal) -> str:
    """Write a price as a JSON number, digit by digit."""
    return format(value, "f")
