# ruff: noqa: FAST003  the dependency `find` takes photo_id
"""The application: routes for a page, an upload, its news, its picture, and the service's webhooks."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.requests import ClientDisconnect

from dryapi_async.webhooks.starlette import endpoint
from examples.fastapi_app.answers import NO_STORE, PAGE, SAFE, event_of, show
from examples.fastapi_app.studio import Studio
from examples.fastapi_app.table import Photo
from examples.fastapi_app.uploads import RefusedError

router = APIRouter()


def get_studio(request: Request) -> Studio:
    studio: Studio = request.app.state.studio
    return studio


TheStudio = Annotated[Studio, Depends(get_studio)]


async def find(photo_id: str, studio: TheStudio) -> Photo:
    if (photo := await studio.find(photo_id)) is None:
        raise HTTPException(404, "There is no such photo.")
    return photo


Found = Annotated[Photo, Depends(find)]


def check_origin(request: Request) -> None:
    """Refuse what another site's page sends: it would spend our money."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise HTTPException(403, "Only this site's own page may send photos.")


def check_kind(request: Request) -> None:
    """Refuse what says itself that it is no picture. Plain forms can't send such a type, so an older browser asks us first, too."""
    if not request.headers.get("content-type", "").startswith("image/"):
        raise HTTPException(415, "Send the picture itself, with its type.")


@router.get("/")
async def start() -> FileResponse:
    return FileResponse(PAGE / "page.html", headers=SAFE)


@router.post("/photos", dependencies=[Depends(check_origin), Depends(check_kind)])
async def send(request: Request, prompt: Annotated[str, Query(min_length=1, max_length=1000)], studio: TheStudio) -> Response:
    try:
        photo = await studio.receive(prompt, request.stream())
    except RefusedError as error:
        raise HTTPException(error.status, str(error)) from None
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it
    return JSONResponse(show(photo), 201, {"Location": f"/photos/{photo.id}"})


@router.get("/photos/{photo_id}", dependencies=[Depends(find)])
async def page() -> FileResponse:
    return FileResponse(PAGE / "page.html", headers=SAFE)


@router.get("/photos/{photo_id}/events")
async def events(photo: Found, studio: TheStudio) -> StreamingResponse:
    return StreamingResponse(tell(studio, photo), media_type="text/event-stream", headers=NO_STORE)


async def tell(studio: Studio, photo: Photo) -> AsyncGenerator[str]:
    """Write a photo's news as server-sent events; a browser that loses the worker asks the next one."""
    yield "retry: 1000\n\n"
    async with aclosing(studio.watch(photo)) as news:
        async for now in news:
            yield event_of(now)


@router.get("/photos/{photo_id}/original")
async def original(photo: Found, studio: TheStudio) -> FileResponse:
    return FileResponse(studio.original(photo.id), media_type=photo.kind, headers=SAFE)


@router.get("/photos/{photo_id}/picture")
async def picture(photo: Found, studio: TheStudio) -> FileResponse:
    if (path := await studio.picture(photo)) is None:
        raise HTTPException(404, "There is no picture yet.")
    return FileResponse(path, media_type="image/png", headers=SAFE)


def create_app() -> FastAPI:
    """Make the application. Nothing is opened before it starts: it may be made first and forked then."""
    studio = Studio.from_environment()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with studio:  # one client for the application's life
            yield

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    app.state.studio = studio
    app.mount("/page", StaticFiles(directory=PAGE))
    app.add_api_route("/hook/{key}", endpoint(studio.client), methods=["POST"])
    app.include_router(router)
    return app
