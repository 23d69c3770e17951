"""What the demo's own server says besides, at the port that its page expects.

Beside `/stream`, `/status` and `/config`. At ours these addresses have more to say.
"""

from __future__ import annotations

from fastapi import APIRouter, Response

from sidecar.api.http.bodies import json_response
from sidecar.service import Service


def origins(page: int) -> frozenset[str]:
    """Where its page comes from, if it is served on this machine at port ``page``."""
    return frozenset(f"http://{name}:{page}" for name in ("localhost", "127.0.0.1", "[::1]"))


def build_router(service: Service) -> APIRouter:
    """The routes that it has besides."""
    router = APIRouter()

    @router.get("/")
    async def root() -> Response:
        return json_response({"message": "S2S Pipeline API", "status": "running"})

    @router.get("/health")
    async def health() -> Response:
        body = {
            "status": "ok",
            "pipeline_state": service.conversations.phase.value,
            "initialized": service.live.spec is not None,
        }
        return json_response(body)

    return router
