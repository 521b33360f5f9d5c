"""The page for people, the documentation of the API, and the files of both."""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

_DIRECTORY = Path(str(files("cxr_serving.http") / "page"))

router = APIRouter(include_in_schema=False)
STATIC = StaticFiles(directory=_DIRECTORY, packages=[("fastapi_offline", "static")])


@router.get("/")
async def page() -> FileResponse:
    """The page."""
    return FileResponse(_DIRECTORY / "index.html")


@router.get("/docs")
async def docs() -> FileResponse:
    """Swagger UI from this service, so that no network is needed."""
    return FileResponse(_DIRECTORY / "docs.html")
