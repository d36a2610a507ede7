"""What the prompt tools answer: fixed embroidery, the same for the same request."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dryapi_async.simulator.contract import Operation
    from dryapi_async.simulator.validate import Checked

_STYLES = {
    "prompt/image": "cinematic light, fine detail, balanced composition",
    "prompt/video": "slow camera movement, natural motion, film grain",
    "prompt/speech": "spoken warmly, at an even pace",
    "prompt/image2image": "keep the subject, change the mood",
}
_SAMPLES = {
    "text2image": (
        "a lighthouse above a sea of clouds",
        "a market in the rain at night",
        "a fox asleep in fresh snow",
        "a city made of books",
    ),
    "text2speech": ("Welcome aboard. The next stop is the harbour.", "Once upon a time there was a very patient client.", "Good evening."),
}


def enhance(row: Operation, checked: Checked) -> dict[str, Any]:
    """Answer an enhancement."""
    style = _STYLES[row.slug]
    body: dict[str, Any] = {"prompt": f"{checked.values['prompt']}, {style}"}
    if "negative_prompt" in row.fields:
        negative = checked.values.get("negative_prompt")
        body["negative_prompt"] = f"{negative}, low quality" if negative else None
    return body


def sample(checked: Checked) -> dict[str, Any]:
    """Answer a sample prompt."""
    kind, topic = checked.values["type"], checked.values.get("topic") or ""
    choices = _SAMPLES[kind]
    chosen = choices[hashlib.sha256(f"{kind} {topic}".encode("utf-8", "replace")).digest()[0] % len(choices)]
    return {"success": True, "data": {"type": kind, "prompt": f"{chosen}: {topic}" if topic else chosen}}
