"""The page at `/` and its files. Whoever does not ask for HTML has what was at `/` before.

The page is the same for everybody and holds nothing of anybody, so it is given to whoever may
come at all; what it shows it asks for with a token, where one is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from fastapi import FastAPI, Request, Response
from starlette.datastructures import Headers
from starlette.routing import Match, Route
from starlette.types import Scope

from sidecar import errors
from sidecar.api.files import ASSETS, File, Files
from sidecar.threads import Threads

T = TypeVar("T")
PATH = "/"
SESSIONS = "/v1/page/sessions"
"""Where the word of a link is exchanged for its token."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing from elsewhere, nothing inline, no text that becomes markup, and no page around it."""
STRICT: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
LASTING = "public, max-age=31536000, immutable"


def is_open(scope: Scope) -> bool:
    """Whether a request is for what everybody gets: the page, its files, or a token for a word."""
    if scope["type"] != "http":
        return False
    path = scope["path"]
    if path == SESSIONS:
        return bool(scope["method"] == "POST")
    reads = scope["method"] in ("GET", "HEAD")
    return reads and (path.startswith(f"{ASSETS}/") or (path == PATH and wants_page(scope)))


def wants_page(scope: Scope) -> bool:
    """Whether a request asks for HTML by name, as browsers do; `*/*` is a program's."""
    accepts = ",".join(Headers(scope=scope).getlist("accept")).lower()
    kinds = [part.partition(";")[0].strip() for part in accepts.split(",")]
    return "text/html" in kinds


class _Front(Route):
    """A route that is there for who wants a page; for others it is not."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and not wants_page(scope):
            return Match.NONE, {}
        return super().matches(scope)


def install(app: FastAPI) -> None:
    """Serve the page and its files; after this no route is in front of it."""
    files, reading = Files(), Threads("page", 1)

    async def have(which: Callable[[], T]) -> T:
        return which() if files.ready else await reading.run(which)

    async def front(request: Request) -> Response:
        page = await have(lambda: files.front)
        said = {"Cache-Control": "no-cache", "Vary": "Accept, Accept-Encoding", **STRICT}
        return _answer(request, page, said, f'"{files.digest}"')

    async def asset(request: Request) -> Response:
        digest, name = request.path_params["digest"], request.path_params["name"]
        file = await have(lambda: files.get(digest, name))
        if file is None:
            raise errors.NotFound()
        said = {"Cache-Control": LASTING, "Vary": "Accept-Encoding", **STRICT}
        return _answer(request, file, said)

    app.router.routes.insert(0, _Front(PATH, front, methods=["GET"]))
    app.router.routes.append(Route(ASSETS + "/{digest}/{name:path}", asset, methods=["GET"]))


def _answer(request: Request, file: File, said: Mapping[str, str], tag: str = "") -> Response:
    headers = dict(said) | ({"ETag": tag} if tag else {})
    if tag and tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    coded = "gzip" in request.headers.get("accept-encoding", "")
    if coded:
        headers["Content-Encoding"] = "gzip"
    body = file.compressed if coded else file.body
    return Response(body, media_type=file.media_type, headers=headers)
