"""The same application on aiohttp.web: the page, the table and what is done with a photo are the FastAPI example's."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Final

from aiohttp import web

from dryapi_async.webhooks.aiohttp import handler
from examples.fastapi_app.answers import NO_STORE, PAGE, SAFE, event_of, show
from examples.fastapi_app.studio import Studio
from examples.fastapi_app.table import Photo
from examples.fastapi_app.uploads import RefusedError

STUDIO: Final = web.AppKey("STUDIO", Studio)
LONGEST_PROMPT: Final = 1000
routes = web.RouteTableDef()


async def find(request: web.Request) -> Photo:
    if (photo := await request.app[STUDIO].find(request.match_info["photo_id"])) is None:
        raise web.HTTPNotFound(text="There is no such photo.")
    return photo


def refuse(status: int, text: str) -> web.Response:
    return web.json_response({"detail": text}, status=status)


@routes.get("/")
async def start(_: web.Request) -> web.FileResponse:
    return web.FileResponse(PAGE / "page.html", headers=SAFE)


@routes.post("/photos")
async def send(request: web.Request) -> web.Response:
    prompt = request.query.get("prompt", "")
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":  # another site's page would spend our money
        return refuse(403, "Only this site's own page may send photos.")
    if not request.content_type.startswith("image/"):  # a type that plain forms can't send
        return refuse(415, "Send the picture itself, with its type.")
    if not 0 < len(prompt) <= LONGEST_PROMPT:
        return refuse(422, f"Say what to make of it, in at most {LONGEST_PROMPT} characters.")
    try:
        photo = await request.app[STUDIO].receive(prompt, request.content.iter_any())
    except RefusedError as error:
        return refuse(error.status, str(error))
    return web.json_response(show(photo), status=201, headers={"Location": f"/photos/{photo.id}"})


@routes.get("/photos/{photo_id}")
async def page(request: web.Request) -> web.FileResponse:
    await find(request)
    return web.FileResponse(PAGE / "page.html", headers=SAFE)


@routes.get("/photos/{photo_id}/events")
async def events(request: web.Request) -> web.StreamResponse:
    photo = await find(request)
    response = web.StreamResponse(headers={**NO_STORE, "Content-Type": "text/event-stream"})
    await response.prepare(request)
    async with aclosing(request.app[STUDIO].watch(photo)) as news:
        with suppress(ConnectionResetError):  # the visitor left
            await response.write(b"retry: 1000\n\n")
            async for now in news:
                await response.write(event_of(now).encode())
    return response


@routes.get("/photos/{photo_id}/original")
async def original(request: web.Request) -> web.FileResponse:
    photo = await find(request)
    return web.FileResponse(request.app[STUDIO].original(photo.id), headers={**SAFE, "Content-Type": photo.kind})


@routes.get("/photos/{photo_id}/picture")
async def picture(request: web.Request) -> web.FileResponse:
    if (path := await request.app[STUDIO].picture(await find(request))) is None:
        raise web.HTTPNotFound(text="There is no picture yet.")
    return web.FileResponse(path, headers={**SAFE, "Content-Type": "image/png"})


async def open_studio(app: web.Application) -> AsyncGenerator[None]:
    async with app[STUDIO]:  # one client for the application's life
        yield


def create_app() -> web.Application:
    """Make the application. Nothing is opened before it starts: it may be made first and forked then."""
    app = web.Application()
    app[STUDIO] = Studio.from_environment()
    app.cleanup_ctx.append(open_studio)
    app.router.add_static("/page", PAGE)
    app.router.add_post("/hook/{key}", handler(app[STUDIO].client))
    app.add_routes(routes)
    return app
