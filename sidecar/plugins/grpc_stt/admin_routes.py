"""Routes of /admin, as the replaced gRPC server has them: load and unload models.

The service has one engine for recordings and one for live audio, each with one model at a time. A
loaded model replaces the one before (docs/operations.md).
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from sidecar import errors
from sidecar.api.http import error_responses, openapi
from sidecar.api.http.request_headers import identity_of
from sidecar.api.http.responses import json_response
from sidecar.api.http.upload import read_json
from sidecar.auth.identity import AuthMethod, Scope
from sidecar.errors import ErrorKind
from sidecar.interfaces.engine_interface import AUTO, Precision
from sidecar.interfaces.request_options import parse_number, parse_text
from sidecar.plugins.grpc_stt import yaml_config
from sidecar.plugins.grpc_stt.errors import AdminOff
from sidecar.service.facade import Service
from sidecar.workers.model_registry import ModelLoadRequest

MAX_NAME_CHARACTERS = 100
DRAIN_S, MAX_DRAIN_S = 30.0, 3600
"""Drain timeout of an unload request: default and maximum."""
_LOAD_FIELDS: dict[str, Any] = {
    "model_id": openapi.text(maxLength=MAX_NAME_CHARACTERS),
    "model_path": openapi.text(),
    "model_size": openapi.text(),
    "device": openapi.text(),
    "compute_type": openapi.text(),
    "language": openapi.text(),
}
LOAD: dict[str, Any] = openapi.request_body(
    openapi.object_schema(_LOAD_FIELDS, ["model_id"]),
    example={"model_id": "other", "model_path": "/models/whisper-small"},
)
UNLOAD: dict[str, Any] = openapi.parameters(
    openapi.query("model_id", openapi.text()) | {"required": True},
    openapi.query("drain_timeout_sec", openapi.number(0, MAX_DRAIN_S)),
)
ADMIN_OFF = ("ERR4001", 501, "Admin API not enabled")
WRONG_TOKEN = ("ERR4004", 401, "Invalid or missing admin token")
ADMIN_ERRORS: Mapping[str, tuple[str, int, str]] = {
    AdminOff.code: ADMIN_OFF,
    errors.ModelLoaded.code: ("ERR4002", 409, "Model is already loaded"),
    errors.ModelNotFound.code: ("ERR4003", 400, "Model not found or is default"),
    errors.ModelUnsuited.code: ("ERR4003", 400, ""),
    errors.TokenMissing.code: WRONG_TOKEN,
    errors.TokenInvalid.code: WRONG_TOKEN,
    errors.ScopeMissing.code: WRONG_TOKEN,
    errors.ModelPathForbidden.code: ("ERR4005", 403, "model_path is not allowed"),
    errors.RateLimited.code: ("ERR4007", 429, ""),
    errors.PeerNotAllowed.code: ("ERR4008", 403, ""),
    errors.HostNotAllowed.code: ("ERR4008", 403, ""),
    errors.OriginNotAllowed.code: ("ERR4008", 403, ""),
}
"""Number, status and message by error code; "": the message of the error."""
_UNKNOWN = (errors.TokenMissing, errors.TokenInvalid)
PATH = "/admin/"
PRECISIONS: Mapping[str, Precision] = {
    **{name: Precision(value) for name, value in yaml_config.PRECISIONS.items()},
    **{one.value: one for one in Precision},
}
"""Precisions by the names of CTranslate2 and of this service."""


class AdminRefusal(BaseModel):
    """Refusal of an admin request, with the status codes of the server that this API is compatible
    with; `error` is the error code of all protocols."""

    code: str = Field(examples=["ERR4003"])
    message: str = Field(examples=["Model not found or is default"])
    error: str = Field(examples=["model_not_found"])
    detail: str
    hint: str


class AdminLoading(BaseModel):
    """Load in progress; `/admin/list_models` reports its result."""

    status: str = Field(examples=["loading_started"])
    message: str
    ignored: list[str] = Field(description="Fields that are ignored here.")


class AdminUnloaded(BaseModel):
    """Unloaded, or (202) to be unloaded after the running job."""

    status: str = Field(examples=["unloaded"], description="unloaded or unloading.")
    model_id: str


class AdminModel(BaseModel):
    """A loaded model and its engine."""

    id: str = Field(examples=["default"])
    role: str = Field(examples=["files"], description="files or live.")
    engine: str
    precision: str
    state: str = Field(examples=["ready"])


class AdminModelList(BaseModel):
    """Models that are loaded, being loaded, or failed."""

    models: list[str] = Field(examples=[["default"]])
    details: list[AdminModel]
    loading: list[str] = Field(description="Models that are being loaded.")
    failed: dict[str, str] = Field(
        description="Error code of the last model that could not be loaded, by its name."
    )


def install_error_format(*, on: bool) -> error_responses.ErrorRenderer:
    """Return the error format of this API. If the API is off, that is reported before
    authentication."""

    def say(error: errors.SidecarError) -> Response:
        if not on and isinstance(error, _UNKNOWN):
            error = AdminOff()
        kind = error.kind
        malformed = kind in (ErrorKind.MALFORMED, ErrorKind.UNPROCESSABLE, ErrorKind.UNSUPPORTED)
        other = ("ERR1010", 400, "") if malformed else ("ERR3001", error_responses.STATUS[kind], "")
        number, status, message = ADMIN_ERRORS.get(error.code, other)
        fields = {"error": error.code, "code": number, "message": message or error.detail}
        return error_responses.problem_of_protocol(error, status, "application/json", fields)

    return say


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": AdminRefusal} for status in (400, 401, 403, 409, ADMIN_OFF[1])
}


def build_router(service: Service) -> APIRouter:
    """Return the routes of /admin."""
    router = openapi.Routes(responses=ERROR_RESPONSES)

    @router.post(f"{PATH}load_model", response_model=AdminLoading, openapi_extra=LOAD)
    async def load_model(request: Request) -> Response:
        """Load a model."""
        _require_admin(request, service)
        values = await read_json(request)
        load_request = load_request_of(values, service.fleet.files.device)
        await service.models.load(load_request)
        message = f"Model '{load_request.model_id}' is being loaded."
        ignored = [name for name in ("language",) if values.get(name)]
        return json_response({"status": "loading_started", "message": message, "ignored": ignored})

    @router.post(
        f"{PATH}unload_model",
        response_model=AdminUnloaded,
        responses={202: {"model": AdminUnloaded}},
        openapi_extra=UNLOAD,
    )
    async def unload_model(request: Request) -> Response:
        """Unload a model: back to the one of the start."""
        _require_admin(request, service)
        model_id = request.query_params.get("model_id", "")
        given = request.query_params.get("drain_timeout_sec")
        timeout_s = parse_number("drain_timeout_sec", given, 0, MAX_DRAIN_S)
        going = service.models.unload(model_id)
        done, _ = await asyncio.wait({going}, timeout=DRAIN_S if timeout_s is None else timeout_s)
        gone = bool(done) and model_id not in service.models.names
        if done and not gone:
            raise errors.ModelLoadFailed(
                "The model that the service was started with could not be loaded again."
            )
        status = "unloaded" if gone else "unloading"
        return json_response({"status": status, "model_id": model_id}, 200 if gone else 202)

    @router.get(f"{PATH}list_models", response_model=AdminModelList)
    async def list_models(request: Request) -> Response:
        """List the loaded models."""
        _require_admin(request, service)
        details = [
            {
                "id": one.model.name,
                "role": str(role),
                "engine": one.spec.name,
                "precision": one.precision.value,
                "state": one.state.value,
            }
            for role, one in service.fleet.recognizers.items()
        ]
        return json_response(
            {
                "models": service.models.names,
                "details": details,
                "loading": service.models.loading_names,
                "failed": service.models.failed,
            }
        )

    return router


def load_request_of(values: Mapping[str, Any], device: str) -> ModelLoadRequest:
    """Return the model that a request asks to load on a ``device``. Pure.

    Raises:
        errors.FieldMissing, errors.FieldInvalid: a field is missing, malformed or not supported
            here.
    """
    model_id = _text(values, "model_id")
    if not model_id:
        raise errors.FieldMissing("The field 'model_id' is missing.")
    if len(model_id) > MAX_NAME_CHARACTERS:
        raise errors.FieldInvalid(
            f"The field 'model_id' may have at most {MAX_NAME_CHARACTERS} characters."
        )
    if (_text(values, "device") or AUTO) not in (AUTO, device):
        raise errors.FieldInvalid(
            f"Engines of this service run on '{device}'; the field 'device' cannot change that.",
            hint="Omit 'device'; the setting of that name chooses the device.",
        )
    kind = _text(values, "compute_type").lower() or AUTO
    if kind not in PRECISIONS:
        raise errors.FieldInvalid(
            f"The field 'compute_type' is invalid: '{kind[:40]}'.",
            hint=f"It is one of {', '.join(PRECISIONS)}.",
        )
    path = _text(values, "model_path")
    size = "" if path else _text(values, "model_size")
    return ModelLoadRequest(model_id, Path(path) if path else None, size, PRECISIONS[kind])


def _require_admin(request: Request, service: Service) -> None:
    identity = identity_of(request)
    if not service.settings.admin or identity.proof is AuthMethod.PLACE:
        raise AdminOff()
    identity.demand(Scope.ADMIN)


def _text(values: Mapping[str, Any], name: str) -> str:
    text = parse_text(name, values.get(name))
    if "\0" in text:
        raise errors.FieldInvalid(f"The field '{name}' is not a string.")
    return text.strip()
