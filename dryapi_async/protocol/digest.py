"""What a request is, as one number: the same request has the same digest in every process."""

import hashlib
import json
from collections.abc import Sequence

from dryapi_async.protocol.multipart import SizedFile
from dryapi_async.protocol.wire import TextPart, WireCall


def digest_request(call: WireCall, files: Sequence[SizedFile] = ()) -> str:
    """Give the SHA-256 (hex) of a request: its operation, its fields, and of each file its name, type, size and first bytes.

    Whole files aren't read for it: it is there to find a request again, not to prove a file.
    """
    texts = [(part.name, part.text) for part in call.parts or () if isinstance(part, TextPart)]
    described = [(one.name, one.filename, one.content_type, one.size, one.head.hex()) for one in files]
    digest = hashlib.sha256(json.dumps([call.method, call.path, call.query, texts, described]).encode())
    digest.update(call.content or b"")
    return digest.hexdigest()
