"""The front door for web applications: verify a delivery, and hand it to a client.

`verify` and `answer` work in any framework. Ready-made handlers are in ``dryapi_async.webhooks.aiohttp`` and
``dryapi_async.webhooks.starlette`` (FastAPI, too); each imports its framework, so import the one that you use.
"""

from dryapi_async.protocol.signature import WINDOW_SECONDS, Headers, WebhookEvent, verify
from dryapi_async.webhooks.answers import MOST_BODY_BYTES, Answer, Receiver, answer

__all__ = ["MOST_BODY_BYTES", "WINDOW_SECONDS", "Answer", "Headers", "Receiver", "WebhookEvent", "answer", "verify"]
