"""Draw result pictures with Pillow, which is imported only when one is drawn. All are stand-ins for what a model would make."""

# ruff: noqa: PLC0415 - Pillow is an extra: only who draws imports it
from __future__ import annotations

import colorsys
import io
import math
import random
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

_NIGHT = (18, 28, 74)
_GREY = (120, 120, 130)
_VIDEO_SIDE = 320
_VIDEO_FRAMES = 8
_FACTOR = 4


def encode(image: Image.Image, kind: str) -> bytes:
    """Encode as png, jpg or webp, quickly rather than small."""
    out = io.BytesIO()
    if kind == "jpg":
        image.convert("RGB").save(out, "JPEG", quality=85)
    elif kind == "webp":
        image.save(out, "WEBP", quality=80, method=0)
    else:
        image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def convert(data: bytes, kind: str) -> bytes:
    """Encode an encoded picture anew."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return encode(image, kind)


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if image.size == size:
        return image
    return image.resize(size, 2)  # pyright: ignore[reportUnknownMemberType] - Pillow names a numpy type here; 2 is bilinear


def draw_prompt(prompt: str, width: int, height: int, seed: int) -> Image.Image:
    """Draw a prompt: a seeded colourful scene with its words across."""
    from PIL import Image, ImageDraw, ImageOps

    rng = random.Random(f"{seed} {prompt}")
    hue = rng.random()
    ramp = _resize(Image.linear_gradient("L"), (width, height))
    image = ImageOps.colorize(ramp, _colour(hue, 0.55, 0.95), _colour(hue + 0.12, 0.8, 0.35))
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(9):
        radius = rng.uniform(0.05, 0.3) * min(width, height)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        red, green, blue = _colour(hue + rng.uniform(0.3, 0.7), 0.7, 0.9)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(red, green, blue, rng.randrange(60, 140)))
    write_words(draw, prompt, width, height, height * 0.5)
    return image


def _colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return int(red * 255), int(green * 255), int(blue * 255)


def write_words(draw: ImageDraw.ImageDraw, words: str, width: int, height: int, middle: float) -> None:
    """Write words across a picture, wrapped, white with a dark edge, as large as fits."""
    from PIL import ImageFont

    size = max(9, min(width, height) // 10)
    lines = textwrap.wrap(words, max(6, int(width * 1.8 / size)))[:6] or ["(no prompt)"]
    font = ImageFont.load_default(size)
    top = max(0.0, min(middle - len(lines) * size * 0.6, height - len(lines) * size * 1.2))
    for index, line in enumerate(lines):
        x = max(2.0, (width - draw.textlength(line, font=font)) / 2)
        draw.text(
            (x, top + index * size * 1.2), line, font=font, fill=(255, 255, 255), stroke_width=max(1, size // 14), stroke_fill=(20, 20, 30)
        )


def open_picture(path: str | None, fallback: tuple[int, int]) -> Image.Image:
    """Open an upload as RGB; a grey sheet where it isn't there or is only a picture by its first bytes."""
    from PIL import Image

    if path is not None:
        try:
            with Image.open(path) as image:
                image.draft("RGB", fallback)
                return image.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            pass  # judged by its first bytes only, as the service does: a worker makes of it what it can
    return Image.new("RGB", fallback, _GREY)


def edit_picture(path: str | None, prompt: str, size: tuple[int, int]) -> Image.Image:
    """Turn an uploaded picture to night and write the prompt below: visibly the same, visibly changed."""
    from PIL import Image, ImageDraw

    image = Image.blend(_resize(open_picture(path, size), size), Image.new("RGB", size, _NIGHT), 0.55)
    draw = ImageDraw.Draw(image)
    radius = min(size) * 0.07
    x, y = size[0] * 0.82, size[1] * 0.16
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(245, 240, 205))
    write_words(draw, prompt, *size, size[1] * 0.85)
    return image


def upscale_picture(path: str | None, size: tuple[int, int]) -> Image.Image:
    """Enlarge an upload four times."""
    image = open_picture(path, size)
    return _resize(image, (image.width * _FACTOR, image.height * _FACTOR))


def cut_out(path: str | None, size: tuple[int, int]) -> Image.Image:
    """Keep an ellipse in the middle, all around transparent."""
    from PIL import Image, ImageDraw

    image = open_picture(path, size)
    mask = Image.new("L", image.size, 0)
    width, height = image.size
    ImageDraw.Draw(mask).ellipse((width * 0.1, height * 0.1, width * 0.9, height * 0.9), fill=255)
    image.putalpha(mask)
    return image


def animate(path: str | None, prompt: str, size: tuple[int, int], seed: int, fps: int) -> bytes:
    """Make a short animated GIF, at most 320 pixels wide: the stand-in for every video."""
    from PIL import Image, ImageDraw

    shrink = min(1.0, _VIDEO_SIDE / max(size))
    width, height = max(16, int(size[0] * shrink)), max(16, int(size[1] * shrink))
    still = edit_picture(path, prompt, (width, height)) if path else draw_prompt(prompt, width, height, seed)
    base = still.quantize(64, method=Image.Quantize.FASTOCTREE)
    frames: list[Image.Image] = []
    for index in range(_VIDEO_FRAMES):
        frame = base.copy()
        angle = index / _VIDEO_FRAMES * math.tau
        x, y, radius = width * (0.5 + 0.35 * math.cos(angle)), height * (0.5 + 0.35 * math.sin(angle)), min(width, height) * 0.06
        ImageDraw.Draw(frame).ellipse((x - radius, y - radius, x + radius, y + radius), fill=index * 7 % 64)
        frames.append(frame)
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=max(20, 1000 // max(fps, 1)), loop=0)
    return out.getvalue()
