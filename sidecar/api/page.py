"""Page at / and its API /v1/page.

All other data comes from the public API.

The page is the same for all users and has no data, so it needs no token; its requests do, if the
service requires one.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel, BeforeValidator, Field
from starlette import types
from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.routing import Match, Route

from sidecar import errors
from sidecar.api.http import openapi
from sidecar.api.http.auth_gate import sent_token
from sidecar.api.http.openapi import (
    OPTIONS,
    PROBLEMS,
    RenderedBody,
    flag,
    object_schema,
    parameters,
    query,
    request_body,
)
from sidecar.api.http.request_headers import accepts, identity_of
from sidecar.api.http.responses import NO_STORE, json_response
from sidecar.api.http.upload import read_json
from sidecar.audio.sample_recording import find_sample
from sidecar.auth.authentication import CODE_LIFETIME_S, OneTimeCodes
from sidecar.auth.identity import ANONYMOUS, HOST, AuthMethod, Identity, Scope
from sidecar.concurrency import ThreadLimiter
from sidecar.interfaces.request_fields import followed_options
from sidecar.interfaces.request_options import parse_flag
from sidecar.observability.logs import default_data_folder
from sidecar.service.facade import Service
from sidecar.service.system_checks import CheckState, check_environment
from sidecar.storage.invitations import INVITATION_LIFETIME_S, INVITATIONS, Invitations
from sidecar.version import __version__

FOLDER = Path(__file__).parent / "static"
CLIENT = "client"
"""Folder of the JavaScript client, below `FOLDER` in a wheel and in an executable."""
CHECKOUT_CLIENT = Path(__file__).parents[2] / "clients/js/src"
"""The same folder in a checkout (setup.py)."""
ASSETS = "/page"
"""Path of all files; a digest of them all follows, so the content at a URL never changes."""
FRONT = "index.html"
LAZY_ASSETS = "conversation/"
"""Prefix of assets that are loaded on demand."""
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_BASE, _MODULES = b"{{base}}", b"{{modules}}"
_COMMENT = re.compile(rb"^[ \t]*/\*\*.*?\*/", re.MULTILINE | re.DOTALL)
"""Comment that begins a line of a script. Within templates there are none (test_page.py)."""


@dataclass(frozen=True, slots=True)
class PageFile:
    """File of the page, plain and compressed."""

    body: bytes
    compressed: bytes
    media_type: str

    @classmethod
    def of(cls, name: str, body: bytes) -> PageFile:
        """Return the file ``name`` with the content ``body``, of a script without the comments, for
        which there are empty lines."""
        if name.endswith(".js"):
            body = _COMMENT.sub(lambda comment: b"\n" * comment[0].count(b"\n"), body)
        return cls(body, gzip.compress(body, 9, mtime=0), MEDIA_TYPES[Path(name).suffix])


class PageFiles:
    """Files of the page, read at the first request: a service without page users does not load
    them."""

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def get(self, digest: str, name: str) -> PageFile | None:
        """Return a file by digest and name; `None` if there is none, or the digest is of another
        build."""
        return self._all.get(name) if digest == self.digest else None

    @cached_property
    def front(self) -> PageFile:
        """Return the HTML page, with the digest of the files. It has the browser load all modules
        at once instead of one after the other."""
        base = f"{ASSETS}/{self.digest}"
        names = [
            name for name in self._all if name.endswith(".js") and not name.startswith(LAZY_ASSETS)
        ]
        links = "\n".join(f'    <link rel="modulepreload" href="{base}/{name}">' for name in names)
        body = (FOLDER / FRONT).read_bytes()
        return PageFile.of(
            FRONT, body.replace(_BASE, base.encode()).replace(_MODULES, links.encode())
        )

    @cached_property
    def digest(self) -> str:
        """Return the digest of all files and their names."""
        hashed = hashlib.sha256((FOLDER / FRONT).read_bytes())
        for name, file in self._all.items():
            hashed.update(f"{name}\0{len(file.body)}\0".encode() + file.body)
        return hashed.hexdigest()[:16]

    @cached_property
    def _all(self) -> Mapping[str, PageFile]:
        paths = {
            path.relative_to(FOLDER).as_posix(): path
            for path in FOLDER.rglob("*")
            if path.suffix in MEDIA_TYPES and path.name != FRONT
        }
        if not (FOLDER / CLIENT).is_dir():
            paths |= {f"{CLIENT}/{path.name}": path for path in CHECKOUT_CLIENT.glob("*.js")}
        return {name: PageFile.of(name, path.read_bytes()) for name, path in sorted(paths.items())}


PATH = "/"
SESSIONS = "/v1/page/sessions"
"""Path that exchanges the code of a link for its token."""
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Policy: own resources only, nothing inline, no strings as markup, no framing by other pages."""
STRICT: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
IMMUTABLE_CACHE = "public, max-age=31536000, immutable"


def is_public_page(scope: types.Scope) -> bool:
    """Return whether an HTTP request is for public content: the page, its files, or the exchange of
    a code for a token."""
    path = scope["path"]
    if path == SESSIONS:
        return bool(scope["method"] == "POST")
    reads = scope["method"] in ("GET", "HEAD")
    return reads and (path.startswith(f"{ASSETS}/") or (path == PATH and wants_page(scope)))


def wants_page(scope: types.Scope) -> bool:
    """Return whether a request accepts HTML by name, as browsers do; `*/*` comes from programs."""
    return accepts(Headers(scope=scope), "text/html")


class _PageRoute(Route):
    """Route that exists only for requests that accept HTML."""

    def matches(self, scope: types.Scope) -> tuple[Match, types.Scope]:
        match, child_scope = super().matches(scope)
        if match is not Match.NONE and not wants_page(scope):
            return Match.NONE, {}
        return match, child_scope


def install_page(app: FastAPI) -> None:
    """Serve the page and its files; its route is placed before all others."""
    files, reading = PageFiles(), ThreadLimiter("page", 1)

    async def front(request: Request) -> Response:
        page = await reading.run(lambda: files.front)
        headers = {"Cache-Control": "no-cache", "Vary": "Accept, Accept-Encoding", **STRICT}
        return _answer(request, page, headers, f'"{files.digest}"')

    async def asset(request: Request) -> Response:
        digest, name = request.path_params["digest"], request.path_params["name"]
        file = await reading.run(files.get, digest, name)
        if file is None:
            raise errors.NotFound()
        headers = {"Cache-Control": IMMUTABLE_CACHE, "Vary": "Accept-Encoding", **STRICT}
        return _answer(request, file, headers)

    app.router.routes.insert(0, _PageRoute(PATH, front, methods=["GET"]))
    app.router.routes.append(Route(ASSETS + "/{digest}/{name:path}", asset, methods=["GET"]))


def _answer(request: Request, file: PageFile, fixed: Mapping[str, str], tag: str = "") -> Response:
    headers = dict(fixed) | ({"ETag": tag} if tag else {})
    if tag and tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    coded = "gzip" in request.headers.get("accept-encoding", "")
    if coded:
        headers["Content-Encoding"] = "gzip"
    body = file.compressed if coded else file.body
    return Response(body, media_type=file.media_type, headers=headers)


_SIGNED_IN_AS = Field(
    None, description="Subject of a signed token; missing otherwise.", examples=["anna"]
)


class PageLink(BaseModel):
    """Link that opens the page once, with the token of the request that created it."""

    path: str = Field(examples=["/#open=9s2…"], description="Path of the link.")
    expires_in: float = Field(examples=[120.0], description="Seconds.")
    signed_in_as: str | None = _SIGNED_IN_AS


class PageSession(BaseModel):
    """Session that the code of a link opens."""

    token: str
    signed_in_as: str | None = _SIGNED_IN_AS


_StateName = BeforeValidator(lambda state: state.name.lower())


class PageFinding(RenderedBody):
    """Finding: a broken or misconfigured feature, and its remedy."""

    topic: str = Field(examples=["uploads"])
    state: Annotated[Literal["warning", "bad"], _StateName]
    text: str
    remedy: str


class PageEngine(RenderedBody):
    """Engine that transcribes."""

    name: str = Field(examples=["moonshine"])
    title: str
    precisions: list[str] = Field(description="Precisions of the engine, its default first.")
    languages: list[str] = Field(description="Languages of the engine; empty if it supports any.")
    diarizes: bool
    steerable: bool = Field(description="True if it supports hotwords and a prompt.")
    hotwords: bool = Field(description="True if it supports hotwords without a prompt.")
    counted: bool = Field(description="True if it supports the number of speakers.")
    words: bool = Field(description="True if word times are no more work.")
    planned: bool = Field(description="True if its memory is planned: see /v1/estimate.")


class PageInfo(BaseModel):
    """Facts that the page needs beside those of the other APIs."""

    version: str
    engine: PageEngine
    options: dict[str, Any] = Field(
        description="Schemas of the options of a recording that the engine follows, by name."
    )
    may_reload: bool
    may_pull: bool = Field(description="True if the caller may download models.")
    keeps_seconds: float | None = Field(
        description="Retention of a result from its end, or from its owner's last access; null: "
        "until it is deleted."
    )
    keeps_jobs: bool = Field(description="True if jobs persist across restarts.")
    keeps_recordings: bool = Field(description="True if recordings of finished jobs are kept.")
    people: bool = Field(description="True if speakers can be enrolled: /v1/people.")
    people_consent: bool = Field(
        description="True if the first enrolment needs 'consent': nobody was asked yet."
    )
    longest_audio_seconds: float
    owner: str = Field(
        description="Opaque id of the owner, which separates the copies of several owners in one "
        "browser."
    )
    inherits: str | None = Field(
        description="Owner whose copies are this owner's, too: of the time without a token, for a "
        "client with the service's own; else null."
    )
    sample: bool = Field(description="True if there is a recording to try: /v1/page/sample.")
    findings: list[PageFinding] = Field(
        description="Findings, only for clients on this machine: they name folders of it."
    )
    signed_in_as: str | None = _SIGNED_IN_AS


SESSION: dict[str, Any] = request_body(
    object_schema({"word": openapi.text("Of the link.")}, ["word"]), example={"word": "9s2…"}
)
INVITATION = parameters(
    query("invitation", flag(default=False), "True for a link that works for a day, not minutes.")
)
SAMPLE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"audio/wav": {"schema": {"type": "string", "format": "binary"}}}}
}
OPEN_FRAGMENT = "/#open="
"""Prefix of the code in a link: browsers do not send the text after a '#', so it is in no log."""


def build_router(service: Service) -> APIRouter:
    """Return the routes of /v1/page."""
    router = openapi.Routes(responses=PROBLEMS, dependencies=openapi.CHECKS)
    handover, check_threads = OneTimeCodes[dict[str, str]](), ThreadLimiter("findings", 1)
    data_folder = default_data_folder(service.settings.data_dir)
    invitations = Invitations(data_folder and data_folder / INVITATIONS)
    file_threads = ThreadLimiter("invitations", 1)

    @router.post(
        "/v1/page/links", status_code=201, response_model=PageLink, openapi_extra=INVITATION
    )
    async def link(request: Request) -> Response:
        """Create a link that opens the page once with the token of this request."""
        identity, path, expires_in = identity_of(request), "/", CODE_LIFETIME_S
        signed_in_as = _signed_in_as(identity)
        invites = parse_flag("invitation", request.query_params.get("invitation"), default=False)
        if token := sent_token(request):
            opened = {"token": token, **signed_in_as}
            if invites:
                code = await file_threads.run(invitations.give, opened, identity.owner)
                expires_in = INVITATION_LIFETIME_S
            else:
                code = handover.give(opened, identity.owner)
            path = f"{OPEN_FRAGMENT}{code}"
        body = {"path": path, "expires_in": expires_in, **signed_in_as}
        return json_response(body, 201, NO_STORE)

    @router.post(SESSIONS, response_model=PageSession, openapi_extra=SESSION)
    async def session(request: Request) -> Response:
        """Exchange the code of a link for its token; the code works once."""
        word = (await read_json(request, declared=True)).get("word")
        if not isinstance(word, str):
            raise errors.FieldMissing("The field 'word' is missing.")
        try:
            opened = handover.take(word)
        except errors.LinkInvalid:
            opened = await file_threads.run(invitations.take, word)
        return json_response(opened, headers=NO_STORE)

    @router.get("/v1/page/about", response_model=PageInfo)
    async def about(request: Request) -> Response:
        """Capabilities of the engine, and findings."""
        identity = identity_of(request)
        found: list[dict[str, Any]] = []
        if Scope.AUDIO_PATH in identity.scopes:
            checks = await check_threads.run(lambda: [*check_environment(service.settings)])
            found = [PageFinding.render(one) for one in checks if one.state >= CheckState.WARNING]
        settings, speakers = service.settings, service.enrolled_speakers
        asks = speakers.needs_consent and Scope.AUDIO_PATH in identity.scopes
        body: dict[str, Any] = {
            "version": __version__,
            "engine": PageEngine.render(service.spec),
            "options": {name: OPTIONS[name] for name in followed_options(service.spec)},
            "may_reload": Scope.RELOAD in identity.scopes,
            "may_pull": Scope.ADMIN in identity.scopes,
            "keeps_seconds": None if settings.retention_s == math.inf else settings.retention_s,
            "keeps_jobs": settings.keeps_jobs,
            "keeps_recordings": settings.keeps_jobs and settings.keep_recordings_mb > 0,
            "people": speakers.on or asks,
            "people_consent": asks,
            "longest_audio_seconds": settings.max_audio_hours * 3600,
            "owner": _owner_key(identity),
            "inherits": _owner_key(ANONYMOUS) if identity == HOST else None,
            "sample": find_sample() is not None,
            "findings": found,
            **_signed_in_as(identity),
        }
        return json_response(body, headers=NO_STORE)

    @router.get("/v1/page/sample", response_class=FileResponse, responses=SAMPLE)
    async def sample() -> Response:
        """Return a recording to try the service with: two speakers, 28 seconds of English."""
        if (path := find_sample()) is None:
            raise errors.AudioPathNotFound("The sample recording is not installed.")
        return FileResponse(path, media_type="audio/wav", headers=NO_STORE)

    return router


def _owner_key(identity: Identity) -> str:
    return hashlib.sha256(identity.owner.encode()).hexdigest()[:32]


def _signed_in_as(identity: Identity) -> dict[str, str]:
    """Return the subject of the client's signed token, for the page to show; nothing without
    one."""
    return {"signed_in_as": identity.subject} if identity.proof is AuthMethod.JWT else {}
