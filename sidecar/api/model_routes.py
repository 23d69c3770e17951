"""Routes of models: /v1/models (list, download as server-sent events, deletion), /reload-model.

The list is OpenAI's, too (`plugins/openai`), whose names are in `data`; here the models of this
machine are in `models`, for clients with the scope `admin`. Errors of POST and DELETE are problems
also where that plugin is on (`DIALECTS`), those of GET are OpenAI's then.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from sidecar import errors
from sidecar.api.http import openapi, responses
from sidecar.api.http.error_responses import ErrorDialects, problem
from sidecar.api.http.model_list import LocalModel, models_field
from sidecar.api.http.request_headers import identity_of
from sidecar.api.http.upload import read_json
from sidecar.checkpoints.checkpoint import is_revision
from sidecar.checkpoints.pull_events import DONE
from sidecar.interfaces.engine_interface import Precision
from sidecar.interfaces.request_options import field_missing, parse_flag, parse_text
from sidecar.service.facade import Service
from sidecar.service.local_models import ModelDownload

PATH = "/v1/models"
PULL = f"{PATH}/pull"
DIALECTS: ErrorDialects = {f"POST {PULL}": problem, f"DELETE {PATH}/": problem}


class LocalModelList(BaseModel):
    """Models of this machine, where no plugin lists names of its own."""

    object: Literal["list"]
    data: list[dict[str, Any]] = Field(description="OpenAI's names: none.")
    models: list[LocalModel] = Field(default=[], description="For the scope 'admin'.")


PULL_BODY: dict[str, Any] = openapi.request_body(
    openapi.object_schema(
        {
            "name": openapi.text("As in the list, or OWNER/NAME.", maxLength=200),
            "revision": openapi.text("Branch, tag or commit.", maxLength=200),
        },
        ["name"],
    ),
    example={"name": "whisper:small"},
)
PULLED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events: progress (bytes_done, bytes_total), notice (message); then done "
        "(name, commit) or failed (error). A client that hangs up ends the download; the next pull "
        "resumes it.",
        "content": openapi.content(
            responses.SSE_MEDIA_TYPE,
            schema=openapi.object_schema({"event": openapi.text(), "data": openapi.text()}),
        ),
    }
}


def build_list_router(service: Service) -> APIRouter:
    """Return the route of the list alone, for a service without OpenAI's."""
    router = openapi.Routes(responses=openapi.PROBLEMS, dependencies=openapi.CHECKS)

    @router.get(PATH, response_model=LocalModelList)
    async def listed(request: Request) -> Response:
        """List the models of this machine."""
        models = await models_field(service, identity_of(request))
        body = LocalModelList(object="list", data=[], **models)
        return responses.json_response(body.model_dump(exclude_unset=True))

    return router


def build_router(service: Service) -> APIRouter:
    """Return the routes that change what is installed."""
    router = openapi.Routes(responses=openapi.PROBLEMS, dependencies=openapi.CHECKS)

    @router.post(PULL, responses=PULLED, openapi_extra=PULL_BODY)
    async def pull(request: Request) -> Response:
        """Download a model, or check it; its progress as server-sent events."""
        values = await read_json(request, declared=True)
        if "name" not in values:
            raise field_missing("name", values)
        name = parse_text("name", values["name"], 200)
        revision = parse_text("revision", values.get("revision"), 200)
        if revision and not is_revision(revision):
            raise errors.FieldInvalid("The field 'revision' is no branch, tag or commit.")
        download = await service.local_models.pull(identity_of(request), name, revision)
        return responses.EventStreamResponse(_frames(download), download.stop)

    @router.delete(PATH + "/{model:path}", status_code=204)
    async def delete(request: Request, model: str) -> Response:
        """Delete a downloaded model."""
        await service.local_models.delete(identity_of(request), model)
        return Response(status_code=204)

    return router


async def _frames(download: ModelDownload) -> AsyncGenerator[bytes, None]:
    async with aclosing(download.events(responses.SSE_KEEP_ALIVE_S)) as events:
        async for event in events:
            if event is None:
                yield responses.SSE_KEEP_ALIVE
                continue
            kind = event.pop("event")
            if kind == DONE:
                del event["folder"]  # where it lies here is no business of a client
            yield responses.sse_frame(event, kind)


class ReloadAnswer(BaseModel):
    """Result of a reload."""

    status: Literal["success"]
    message: str = Field(examples=["Model reloaded with precision: int8"])


RELOAD_BODY: dict[str, Any] = openapi.request_body(
    {
        **openapi.object_schema(
            {
                "precision": openapi.choice(Precision),
                "model": openapi.text("Installed model, as in the list.", maxLength=200),
            }
        ),
        "anyOf": [{"required": ["precision"]}, {"required": ["model"]}],
    },
    example={"precision": "int8"},
)


def build_reload_router(service: Service) -> APIRouter:
    """Return the route that loads the engine at another precision."""
    router = openapi.Routes(responses=openapi.PROBLEMS)

    @router.post("/reload-model", response_model=ReloadAnswer, openapi_extra=RELOAD_BODY)
    async def reload_model(request: Request) -> Response:
        """Reload the engine at another precision, or load another installed model for recordings.
        A model waits for the running job, also with `now`."""
        values = await read_json(request, declared=True)
        model = parse_text("model", values.get("model"), 200)
        if not model and "precision" not in values:
            raise field_missing("precision", values)
        wanted = values.get("precision", Precision.AUTO)
        if not isinstance(wanted, str):
            raise errors.FieldInvalid("The field 'precision' is not a string.")
        identity = identity_of(request)
        now = parse_flag("now", request.query_params.get("now"), default=False)
        if model:
            used = await service.use_model(identity, model, wanted)
            message = f"Model {model} loaded with precision: {used}"
            if (live := service.live.spec) is not None:
                message += f"; live audio stays with the engine {live.name}"
        else:
            used = await service.reload(identity, wanted, now=now)
            message = f"Model reloaded with precision: {used}"
        return responses.json_response({"status": "success", "message": message})

    return router
