"""A ready-made handler for aiohttp.web."""

from collections.abc import AsyncGenerator, Awaitable, Callable

from aiohttp import web

from dryapi_async.webhooks.answers import Receiver, answer


def handler(client: Receiver) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Make a handler that hands deliveries to a client.

    It goes to a route: ``app.router.add_post("/hook", handler(client))``. With ``/hook/{key}`` and
    ``webhook_url="https://.../hook/{key}"`` a webhook also tells the job of a submit whose answer was lost.
    """

    async def receive(request: web.Request) -> web.Response:
        try:
            given = await answer(client, request.headers, _read(request), key=request.match_info.get("key"))
        except web.RequestPayloadError:  # a broken body, or the sender went away in the middle
            return web.Response(status=400)
        return web.Response(status=given.status, text=given.text or None)

    return receive


async def _read(request: web.Request) -> AsyncGenerator[bytes, None]:
    if request.content.at_eof():
        yield await request.read()  # empty, or a middleware read it already, and the request remembers
    try:
        async for chunk in request.content.iter_any():
            yield chunk
    except ConnectionResetError as error:  # told apart from one that the receiver's own connections raise
        raise web.RequestPayloadError from error
