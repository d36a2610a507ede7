"""What the page is told, and under which headers."""

import json
from pathlib import Path
from typing import Final

from examples.fastapi_app.table import Photo

PAGE: Final = Path(__file__).parent / "page"
SAFE: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the page's address is the key to its picture
    "X-Content-Type-Options": "nosniff",
}
NO_STORE: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def show(photo: Photo) -> dict[str, object]:
    """Give what the page needs of a photo."""
    return {
        "id": photo.id,
        "prompt": photo.prompt,
        "state": photo.state,
        "progress": round(photo.progress, 1),
        "preview": photo.preview if photo.state in {"processing", "saving"} else None,
        "error": photo.error,
    }


def event_of(photo: Photo) -> str:
    """Write a photo's news as a server-sent event."""
    return f"data: {json.dumps(show(photo))}\n\n"
