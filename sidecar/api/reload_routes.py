"""Route of /reload-model: the engine at another precision."""

from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from sidecar import errors
from sidecar.api.http import openapi
from sidecar.api.http.request_headers import identity_of
from sidecar.api.http.responses import json_response
from sidecar.api.http.upload import read_json
from sidecar.interfaces.engine_interface import Precision
from sidecar.interfaces.request_options import field_missing, parse_flag
from sidecar.service.facade import Service


class ReloadAnswer(BaseModel):
    """Result of a reload."""

    status: Literal["success"]
    message: str = Field(examples=["Model reloaded with precision: int8"])


RELOAD_BODY: dict[str, Any] = openapi.request_body(
    openapi.object_schema({"precision": openapi.choice(Precision)}, ["precision"]),
    example={"precision": "int8"},
)


def build_router(service: Service) -> APIRouter:
    """Return the route that loads the engine at another precision."""
    router = openapi.Routes(responses=openapi.PROBLEMS)

    @router.post("/reload-model", response_model=ReloadAnswer, openapi_extra=RELOAD_BODY)
    async def reload_model(request: Request) -> Response:
        """Reload the engine at another precision."""
        values = await read_json(request, declared=True)
        if "precision" not in values:
            raise field_missing("precision", values)
        if not isinstance(values["precision"], str):
            raise errors.FieldInvalid("The field 'precision' is not a string.")
        now = parse_flag("now", request.query_params.get("now"), default=False)
        precision = await service.reload(identity_of(request), values["precision"], now=now)
        return json_response(
            {"status": "success", "message": f"Model reloaded with precision: {precision}"}
        )

    return router
