"""The documented live shapes that an answer can be switched to."""

from __future__ import annotations

VARIANTS: dict[str, str] = {
    "balance-data": "{data: {balance}}, as live",
    "balance-string": "the balance as text",
    "balance-both": "data.balance and balance at once, with extras",
    "price-string": "the price as text",
    "price-estimated": "{data: {estimated_price, currency}}",
    "price-top": "{price} without data, on every price operation",
    "price-data": "{data: {price}}, on every price operation",
    "price-request-id": "audiofile2txt's price answers a request_id, as the document declares it",
    "price-null": "a price of null",
    "price-zero": "vid-upscale's price is 0 where measures come without a duration",
    "limit-headers-few": "X-RateLimit-Limit, -Remaining and -Source only, no Retry-After",
    "webhook-live-words": "job_type in the live words (img-upscale) in webhooks",
    "models-nested": "{data: {data: [...]}}",
    "models-paged": "links and meta; pages by `limit` (25, at most 50), `per_page` ignored",
    "models-types-list": "inference_types as a list",
    "models-live-words": "the words that live models report (img-upscale, video2text), and a filter that takes only these",
    "models-strings": "numbers and booleans in info as text",
    "models-info-empty": "info is []",
    "models-info-null": "info is null",
    "models-extra": "tags, status, quality",
    "models-dry-src": "the dryAPI host's own list: no name, other paging",
    "request-id-number": "request_id as a number",
    "submit-extra": "more keys beside request_id",
    "submit-202": "202 in place of 200",
    "status-upper": "PENDING, PROCESSING, COMPLETED, FAILED",
    "status-words": "queued, in_progress, completed, failed",
    "status-in-progress": "in_progress in place of processing",
    "status-progress-string": "progress as decimal text",
    "status-no-progress": "no progress",
    "status-unwrapped": "no data around it",
    "status-extra": "metadata and price beside the six fields",
    "status-error-fields": "error_code, error_message, error_reason, retryable, refunded, failed_at on failures",
    "status-error-string": "error as text on failures",
    "status-error-object": "error as {code, message} on failures",
    "status-sparse": "keys without a value left out",
    "status-preview": "a base64 preview while processing",
    "alt-empty-list": "results_alt_formats is []",
    "alt-null": "results_alt_formats is null",
    "alt-partial": "the jpg link is null",
    "text-inline": "text results always inline, without a link",
    "text-link": "text results only as a link",
    "prompts-gone": "410 Gone for the ten prompt operations, as on deAPI",
    "prompts-data": "prompt answers inside data",
    "401-docs": "the documentation's envelope",
    "401-seed": "the envelope with [null] errors",
    "404-docs": "the documentation's envelope",
    "404-seed": "the envelope with [null] errors",
    "422-list": "errors as a list of field and messages",
    "422-null-entry": "errors is [null]",
    "422-missing": "no errors",
    "422-empty": "errors is []",
    "422-strings": "errors as a list of texts",
    "422-error-string": "error as text",
    "422-error-object": "error as an object",
    "402-balance": "402 with an error object where the balance is too small",
    "429-skills": "error and retry_after",
    "429-counts": "the counts, no message",
    "429-empty": "no body",
    "links-escaped": "signed queries with %2F that break when they are re-encoded",
}


def check_variants(names: tuple[str, ...]) -> frozenset[str]:
    """Give the set of names; a ValueError lists what is unknown."""
    unknown = sorted(set(names) - VARIANTS.keys())
    if unknown:
        raise ValueError(f"unknown variants {unknown}; known are {sorted(VARIANTS)}")
    return frozenset(names)
