"""Texts become vectors."""

from collections.abc import Sequence
from typing import ClassVar

from attrs import frozen

from dryapi_async.operations.base import JobOperation
from dryapi_async.operations.results import Embedding
from dryapi_async.protocol.endpoint import Endpoint, Price, job


@frozen(kw_only=True, eq=False, repr=False)
class Txt2Embedding(JobOperation[Embedding]):
    """Make a vector of each text, in the texts' order."""

    endpoint: ClassVar[Endpoint] = job("txt2embedding", body="json", price=Price(body="json"))
    result_type: ClassVar[type[Embedding]] = Embedding

    input: str | Sequence[str]
    """One text, or up to 2,048; at most 8,192 tokens each and 300,000 together."""
    model: str
    """The model's slug, such as ``Bge_M3_FP16``."""
    return_result_in_response: bool | None = None
    """Have the status carry the result itself, beside the link."""
    webhook_url: str | None = None
    """Where news about the job is sent: https, at most 2048 characters. Overrides the client's and the account's."""
