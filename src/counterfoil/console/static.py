"""`/ops/static`: styles and scripts, all of them ours to serve; a browser keeps each for as long as it is the same."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from litestar import Request, Response, get
from litestar.params import FromPath

from counterfoil.api.auth import UNGUARDED
from counterfoil.errors import RequestError

PATH = "/ops/static"
FOLDER = Path(__file__).parent / "static"

FOR_EVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is sent; its version is of its content."""

    content: bytes
    version: str
    media_type: str


@get(PATH + "/{name:str}", opt={UNGUARDED: True}, include_in_schema=False)
async def static_file(name: FromPath[str], request: Request[Any, Any, Any]) -> Response[bytes]:
    """A file; under the address of its version it never changes."""
    path = files().get(name)
    if path is None:
        raise RequestError(404, "there is no such file")
    file = load(path)
    tag = f'"{file.version}"'
    headers = {
        "Cache-Control": FOR_EVER if request.query_params.get("v") == file.version else ASK_AGAIN,
        "ETag": tag,
        "Vary": "Accept-Encoding",
    }
    if request.headers.get("if-none-match") == tag:
        return Response(b"", status_code=304, headers=headers, media_type=file.media_type)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(await asyncio.to_thread(packed, path), headers=headers, media_type=file.media_type)
    return Response(file.content, headers=headers, media_type=file.media_type)


def static_address(name: str) -> str:
    """Where the present version of a file is."""
    return f"{PATH}/{name}?v={load(files()[name]).version}"


@cache
def files() -> dict[str, Path]:
    """Every file that is served, by name."""
    return {path.name: path for path in sorted(FOLDER.rglob("*")) if path.suffix in MEDIA_TYPES}


@cache
def load(path: Path) -> File:
    """A file, read once."""
    content = path.read_bytes()
    version = hashlib.sha256(content).hexdigest()[:16]
    return File(content, version, MEDIA_TYPES[path.suffix])


@cache
def packed(path: Path) -> bytes:
    """A file's content under gzip, packed once."""
    return gzip.compress(load(path).content, mtime=0)
