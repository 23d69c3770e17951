"""The page's own wire, `/v1/page`: how it comes by a token, and what is here and what is missing.

All else the page asks for at the addresses that everybody has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request, Response

from sidecar import __version__, errors
from sidecar.api import page_models
from sidecar.api.front import SESSIONS
from sidecar.api.http.bodies import json_response, media_type
from sidecar.api.http.caller import caller_of
from sidecar.api.http.schemas import PROBLEMS
from sidecar.api.http.upload import read_json
from sidecar.auth.handover import LASTS_S, Handover
from sidecar.auth.identity import Identity, Proof, Scope
from sidecar.service import Service, system_checks
from sidecar.threads import Threads

OPENS = "/#open="
"""Before the word of a link: what stands behind a '#' is sent to nobody and is in no log."""
UNREAD = {"Cache-Control": "no-store"}


def build_router(service: Service) -> APIRouter:
    """The routes of this wire."""
    router = APIRouter()
    handover, looking = Handover[dict[str, str]](), Threads("findings", 1)

    @router.post(
        "/v1/page/links",
        summary="A link that opens the page, once, with the token of this request",
        status_code=201,
        response_model=page_models.Link,
        responses=PROBLEMS,
    )
    async def link(request: Request) -> Response:
        _, _, token = request.headers.get("authorization", "").partition(" ")
        caller, path = caller_of(request), "/"
        if token := token.strip():
            opened = {"token": token, **_signed_in_as(caller)}
            path = f"{OPENS}{handover.give(opened, caller.owner)}"
        return json_response({"path": path, "expires_in": LASTS_S}, 201, UNREAD)

    @router.post(
        SESSIONS,
        summary="The token that a link stands for; the link is used up",
        response_model=page_models.Session,
        responses=PROBLEMS,
        openapi_extra={"requestBody": page_models.SESSION},
    )
    async def session(request: Request) -> Response:
        if media_type(request) != "application/json":
            raise errors.ContentTypeUnsupported(hint="Send application/json.")
        word = (await read_json(request, service.settings)).get("word")
        if not isinstance(word, str):
            raise errors.FieldMissing("The field 'word' is missing.")
        return json_response(handover.take(word), headers=UNREAD)

    @router.get(
        "/v1/page/about",
        summary="What the engine can do, and what is missing",
        response_model=page_models.About,
        responses=PROBLEMS,
    )
    async def about(request: Request) -> Response:
        caller = caller_of(request)
        found: list[dict[str, str]] = []
        if Scope.AUDIO_PATH in caller.scopes:
            found = await looking.run(lambda: list(_amiss(service)))
        settings, spec = service.settings, service.spec
        body: dict[str, Any] = {
            "version": __version__,
            "engine": {
                "name": spec.name,
                "title": spec.title,
                "precisions": [one.value for one in spec.precisions],
                "languages": list(spec.languages),
                "diarizes": spec.diarizes,
                "planned": spec.planned,
            },
            "may_reload": Scope.RELOAD in caller.scopes,
            "keeps_seconds": settings.job_retention,
            "keeps_jobs": settings.keeps_jobs,
            "keeps_recordings": settings.keeps_jobs and settings.keep_recordings_mb > 0,
            "people": settings.people,
            "longest_audio_seconds": settings.max_audio_hours * 3600,
            "findings": found,
            **_signed_in_as(caller),
        }
        return json_response(body, headers=UNREAD)

    return router


def _signed_in_as(caller: Identity) -> dict[str, str]:
    """Return the name in the caller's signed token, for the page to show; nothing without one."""
    return {"signed_in_as": caller.subject} if caller.proof is Proof.JWT else {}


def _amiss(service: Service) -> Iterator[dict[str, str]]:
    """What is not as it might be; what is good needs no words."""
    for finding in system_checks.around(service.settings):
        if finding.state is not system_checks.State.GOOD:
            yield {
                "topic": finding.topic,
                "state": finding.state.name.lower(),
                "text": finding.text,
                "remedy": finding.remedy,
            }
