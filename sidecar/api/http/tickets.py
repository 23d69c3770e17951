"""Tickets of live connections: words that count once, for pages, whose WebSockets have no headers.

Unlike a key in an address, a ticket that ends up in somebody's log is worth nothing any more.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from sidecar.api.http.bodies import json_response
from sidecar.api.http.caller import caller_of
from sidecar.api.http.handshake import NOBODY, Grant
from sidecar.api.http.schemas import PROBLEMS
from sidecar.auth.handover import LASTS_S, Handover


class Ticket(BaseModel):
    """One ticket."""

    ticket: str = Field(description="For the address of a WebSocket: `?ticket=`. Counts once.")
    expires_in: float = Field(description="Seconds.")


def build_router(tickets: Handover[Grant]) -> APIRouter:
    """The one route."""
    router = APIRouter()

    @router.post(
        "/v1/live/ticket",
        summary="A ticket that opens one live connection with the token of this request",
        status_code=201,
        response_model=Ticket,
        responses=PROBLEMS,
    )
    async def ticket(request: Request) -> Response:
        _, _, token = request.headers.get("authorization", "").partition(" ")
        word = tickets.give(Grant(token.strip() or NOBODY), caller_of(request).owner)
        body = {"ticket": word, "expires_in": LASTS_S}
        return json_response(body, 201, {"Cache-Control": "no-store"})

    return router
