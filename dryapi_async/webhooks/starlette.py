"""A ready-made endpoint for Starlette and FastAPI."""

from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from dryapi_async.webhooks.answers import Receiver, answer


def endpoint(client: Receiver) -> Callable[[Request], Awaitable[Response]]:
    """Make an endpoint that hands deliveries to a client.

    It goes to a route: ``Route("/hook", endpoint(client), methods=["POST"])``.
    In FastAPI: ``app.add_api_route("/hook", endpoint(client), methods=["POST"])``. With ``/hook/{key}`` and
    ``webhook_url="https://.../hook/{key}"`` a webhook also tells the job of a submit whose answer was lost.
    """

    async def receive(request: Request) -> Response:
        try:
            given = await answer(client, request.headers, request.stream(), key=request.path_params.get("key"))
        except ClientDisconnect:  # nobody reads the answer
            return Response(status_code=400)
        return PlainTextResponse(given.text, given.status) if given.text else Response(status_code=given.status)

    return receive
