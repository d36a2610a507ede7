"""The models that the simulated service offers: every slug named in the service's document, with limits wide enough for its examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import Factory, frozen

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# The words of the document's filter, where they differ from what the live service reports.
DOCUMENT_WORDS = {
    "img-upscale": "img_upscale",
    "img-rmbg": "img_rmbg",
    "vid-upscale": "vid_upscale",
    "vid-rmbg": "vid_rmbg",
    "video2text": "vid2txt",
    "audio2text": "aud2txt",
    "video_file2text": "videofile2txt",
    "audio_file2text": "audiofile2txt",
}
_PAGED_DEFAULT, _PAGED_MOST = 25, 50


@frozen
class SimModel:
    """One model: its slug, the live service's words for what it does, limits, features, defaults."""

    slug: str
    name: str
    types: tuple[str, ...]
    limits: dict[str, Any] = Factory(dict[str, Any])
    features: dict[str, Any] = Factory(dict[str, Any])
    defaults: dict[str, Any] = Factory(dict[str, Any])
    loras: tuple[tuple[str, str], ...] = ()
    languages: tuple[dict[str, Any], ...] = ()


def _sizes(least: int, most: int, step: int, **more: Any) -> dict[str, Any]:
    return {"min_width": least, "max_width": most, "min_height": least, "max_height": most, "resolution_step": step, **more}


def _features(**flags: bool) -> dict[str, Any]:
    return {f"supports_{name}": value for name, value in flags.items()}


_FRAMES = {
    "min_steps": 1,
    "max_steps": 50,
    "min_guidance": 0,
    "max_guidance": 20,
    "min_frames": 9,
    "max_frames": 257,
    "min_fps": 1,
    "max_fps": 60,
}
_VOICES = (
    {
        "name": "English (US)",
        "slug": "en-us",
        "voices": [{"name": "Sky", "slug": "af_sky", "gender": "female"}, {"name": "Adam", "slug": "am_adam", "gender": "male"}],
    },
    {"name": "Spanish", "slug": "es", "voices": [{"name": "Dora", "slug": "ef_dora", "gender": None}]},
)
_SPEECH_LIMITS = {"min_text": 1, "max_text": 10_000, "min_speed": 0.25, "max_speed": 4, "output_formats": ["mp3", "wav", "flac", "ogg"]}
_SPEECH_DEFAULTS = {"speed": 1, "format": "flac", "sample_rate": 24_000, "voice": "af_sky", "lang": "en-us"}
_WHISPER = ("video2text", "audio2text", "video_file2text", "audio_file2text")


def _speech(slug: str, name: str) -> SimModel:
    return SimModel(slug, name, ("txt2audio",), _SPEECH_LIMITS, _features(custom_voice=True), _SPEECH_DEFAULTS, languages=_VOICES)


def _video(slug: str, name: str, types: tuple[str, ...], fps: int) -> SimModel:
    limits = _sizes(64, 2048, 16, **_FRAMES)
    features = _features(guidance=True, steps=True, last_frame=True, negative_prompt=True)
    defaults = {"width": 512, "height": 512, "steps": 20, "guidance": 7.5, "frames": 97, "fps": fps}
    return SimModel(slug, name, types, limits, features, defaults)


def _stock_films_and_sounds() -> list[SimModel]:
    return [
        _video("Ltxv_13B_0_9_8_Distilled_FP8", "LTX-Video 13B", ("txt2video", "img2video"), 30),
        _video("Ltx2_19B_Dist_FP8", "LTX-2 19B", ("txt2video", "img2video", "aud2video"), 24),
        _video("Ltx2_3_19B_Dist_INT8", "LTX-2.3 19B", ("txt2video", "img2video", "aud2video"), 24),
        _speech("Kokoro", "Kokoro"),
        _speech("Chatterbox", "Chatterbox"),
        _speech("Qwen3_TTS_12Hz_1_7B_CustomVoice", "Qwen3 TTS"),
        _speech("Qwen3_TTS_12Hz_1_7B_Base", "Qwen3 TTS voice clone"),
        _speech("Qwen3_TTS_12Hz_1_7B_VoiceDesign", "Qwen3 TTS voice design"),
        SimModel(
            "ACE-Step-v1.5-turbo",
            "ACE-Step 1.5 turbo",
            ("txt2music",),
            {
                "min_duration": 10,
                "max_duration": 600,
                "min_bpm": 30,
                "max_bpm": 300,
                "min_steps": 1,
                "max_steps": 100,
                "min_guidance": 0,
                "max_guidance": 20,
            },
            _features(lyrics=True),
            {"duration": 30, "steps": 8, "guidance": 1, "format": "mp3"},
        ),
    ]


def _stock_readers() -> list[SimModel]:
    """Make the models that read, measure or mend what they are given."""
    return [
        SimModel(
            "WhisperLargeV3", "Whisper large v3", _WHISPER, {"max_video_duration_seconds": 36_000, "timestamp_levels": ["segment", "word"]}
        ),
        SimModel(
            "WhisperLargeV3Ct2",
            "Whisper large v3 (CTranslate2)",
            _WHISPER,
            {"max_video_duration_seconds": 36_000},
            _features(diarization=False),
        ),
        SimModel("Nanonets_Ocr_S_F16", "Nanonets OCR", ("img2txt",)),
        SimModel("Bge_M3_FP16", "BGE-M3", ("txt2embedding",), {"max_input_tokens": 8192, "max_total_tokens": 300_000}),
        SimModel("Ben2", "BEN2", ("img-rmbg",)),
        SimModel("RMBG-1.4", "RMBG 1.4", ("img-rmbg", "vid-rmbg")),
        SimModel(
            "RealESRGAN_x4plus", "Real-ESRGAN x4", ("img-upscale", "vid-upscale"), {"min_scale": 1, "max_scale": 16}, {}, {"scale": 4}
        ),
    ]


def stock_models() -> list[SimModel]:
    """Make the list the simulator starts with; change it freely through ``Simulator.models``."""
    image = _sizes(64, 2048, 8, min_steps=1, max_steps=150, min_guidance=0, max_guidance=30)
    edit = _sizes(64, 2048, 8, min_steps=1, max_steps=150, min_guidance=0, max_guidance=30, max_input_images=4)
    size = {"width": 512, "height": 512}
    styles = (("Style", "style_lora"), ("Detail", "detail_lora"))
    plain = _features(guidance=True, steps=True, negative_prompt=True, lora=True, custom_output_size=True)
    return [
        SimModel("Flux1schnell", "FLUX.1 schnell", ("txt2img",), image, plain, {**size, "steps": 4, "guidance": 3.5}, styles),
        SimModel("ZImageTurbo_INT8", "Z-Image Turbo", ("txt2img",), image, plain, {**size, "steps": 8, "guidance": 0}, styles),
        SimModel("Flux_2_Klein_4B_BF16", "FLUX.2 Klein", ("txt2img", "img2img"), edit, plain, {**size, "steps": 4, "guidance": 1}, styles),
        SimModel(
            "QwenImageEdit_Plus_NF4", "Qwen Image Edit Plus", ("img2img",), edit, plain, {**size, "steps": 20, "guidance": 7.5}, styles
        ),
        *_stock_films_and_sounds(),
        *_stock_readers(),
    ]


def _spell(word: str, variants: Collection[str]) -> str:
    return word if "models-live-words" in variants else DOCUMENT_WORDS.get(word, word)


def _describe(model: SimModel, variants: Collection[str]) -> dict[str, Any]:
    words = [_spell(word, variants) for word in model.types]
    parts = {"limits": model.limits, "features": model.features, "defaults": model.defaults}
    info: Any = {name: _as_text(values) if "models-strings" in variants else values for name, values in parts.items()}
    if "models-info-empty" in variants:
        info = []
    elif "models-info-null" in variants:
        info = None
    row: dict[str, Any] = {
        "name": model.name,
        "slug": model.slug,
        "inference_types": words if "models-types-list" in variants else {word: {} for word in words},
        "info": info,
        "loras": [{"display_name": shown, "name": name} for shown, name in model.loras] or None,
        "languages": list(model.languages) or None,
    }
    if "models-extra" in variants:
        row |= {"tags": ["popular"], "status": "standard_model", "quality": 3}
    if "models-dry-src" in variants:
        del row["name"]
        row |= {"id": model.slug, "model": model.slug, "categories": words, "parameter_keys": sorted(model.defaults)}
    return row


def _as_text(values: dict[str, Any]) -> dict[str, Any]:
    def text(value: Any) -> Any:
        if isinstance(value, bool):
            return "1" if value else "0"
        return str(value) if isinstance(value, int | float) else value

    return {name: text(value) for name, value in values.items()}


def _integer(text: str | None, default: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and int(text) > 0 else default


def list_models(models: Iterable[SimModel], query: dict[str, str], variants: Collection[str], url: str) -> dict[str, Any]:
    """Answer ``GET models``: filtered and paged, in the shape asked for by the variants."""
    live = "models-live-words" in variants
    rows = list(models)
    if words := query.get("filter[inference_types]"):
        asked = set(words.split(","))
        rows = [row for row in rows if asked & ({_spell(word, variants) for word in row.types} | (set() if live else set(row.types)))]
    paged = "models-paged" in variants
    # Checked on the live service: `limit` is what works there, clamped; per_page is ignored.
    size = min(_integer(query.get("limit"), _PAGED_DEFAULT), _PAGED_MOST) if paged else _integer(query.get("per_page"), 15)
    page = _integer(query.get("page"), 1)
    data = [_describe(row, variants) for row in rows[(page - 1) * size : page * size]]
    if "models-nested" in variants:
        return {"data": {"data": data}}
    if "models-dry-src" in variants:
        pages = max(1, -(-len(rows) // size))
        meta = {
            "page": page,
            "per_page": size,
            "count": len(data),
            "total": len(rows),
            "total_pages": pages,
            "generated_at": "2026-03-31T00:00:00Z",
        }
        return {"data": data, "count": len(data), "total": len(rows), "meta": meta}
    return {"data": data, **_page_links(page, size, len(rows), url)} if paged else {"data": data}


def _page_links(page: int, size: int, total: int, url: str) -> dict[str, Any]:
    last = max(1, -(-total // size))
    start = (page - 1) * size
    shown = min(total, page * size) - start

    def link(number: int) -> str:
        return f"{url}?page={number}"

    return {
        "links": {
            "first": link(1),
            "last": link(last),
            "prev": link(page - 1) if page > 1 else None,
            "next": link(page + 1) if page < last else None,
        },
        "meta": {
            "current_page": page,
            "from": start + 1 if shown > 0 else None,
            "last_page": last,
            "path": url,
            "per_page": size,
            "to": start + shown if shown > 0 else None,
            "total": total,
        },
    }
