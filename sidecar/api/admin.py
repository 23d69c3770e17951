"""`/admin/…`: models are loaded, listed and let go, by who has a token with the scope for that.

The service has one engine for recordings and one for live audio, each with one model at a time:
what is loaded takes the place of the one that was there (docs/operations.md).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from sidecar import errors
from sidecar.api import models
from sidecar.api.dialect import OFF
from sidecar.api.http.bodies import json_response
from sidecar.api.http.caller import caller_of
from sidecar.api.http.upload import read_json
from sidecar.auth.identity import Proof, Scope
from sidecar.interfaces.engine import AUTO, Precision
from sidecar.service import Service
from sidecar.workers.models import LONGEST_NAME, Wish

PATH = "/admin/"
DRAIN_S = 30.0
"""How long who lets a model go waits for that, unless it says something else."""
PRECISIONS: Mapping[str, Precision] = {
    "default": Precision.AUTO,
    "auto": Precision.AUTO,
    "int8": Precision.INT8,
    "int8_float16": Precision.INT8,
    "int8_bfloat16": Precision.INT8,
    "int8_float32": Precision.INT8,
    "float16": Precision.FP16,
    "bfloat16": Precision.BF16,
    "float32": Precision.FP32,
    **{one.value: one for one in Precision},
}
"""By the names of CTranslate2, and ours."""
REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": models.Refused} for status in (400, 401, 403, 409, OFF[1])
}


def build_router(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter()

    @router.post(
        f"{PATH}load_model",
        summary="Begin to load a model",
        response_model=models.Loading,
        responses=REFUSED,
        openapi_extra=models.LOAD,
    )
    async def load_model(request: Request) -> Response:
        _admit(request, service)
        values = await read_json(request, service.settings)
        wish = wish_of(values, "cuda" if service.fleet.files.on_gpu else "cpu")
        await service.models.load(wish)
        message = f"Model '{wish.model_id}' is being loaded."
        ignored = [name for name in ("language",) if values.get(name)]
        return json_response({"status": "loading_started", "message": message, "ignored": ignored})

    @router.post(
        f"{PATH}unload_model",
        summary="Go back to the model of the start",
        response_model=models.Unloaded,
        responses={202: {"model": models.Unloaded}, **REFUSED},
        openapi_extra=models.UNLOAD,
    )
    async def unload_model(request: Request) -> Response:
        _admit(request, service)
        model_id = request.query_params.get("model_id", "")
        timeout_s = _seconds(request.query_params.get("drain_timeout_sec"))
        going = service.models.unload(model_id)
        done, _ = await asyncio.wait({going}, timeout=timeout_s)
        gone = bool(done) and model_id not in service.models.names
        if done and not gone:
            raise errors.ModelLoadFailed("The model of the start does not load any more.")
        status = "unloaded" if gone else "unloading"
        return json_response({"status": status, "model_id": model_id}, 200 if gone else 202)

    @router.get(
        f"{PATH}list_models",
        summary="The models that are there",
        response_model=models.Models,
        responses=REFUSED,
    )
    async def list_models(request: Request) -> Response:
        _admit(request, service)
        return json_response(_listed(service))

    return router


def wish_of(values: Mapping[str, Any], device: str) -> Wish:
    """What a client wants loaded, where engines run on a ``device``. Pure.

    Raises:
        errors.FieldMissing, errors.FieldInvalid: it means nothing, or nothing here.
    """
    model_id = _text(values, "model_id")
    if not model_id:
        raise errors.FieldMissing("The field 'model_id' is missing.")
    if len(model_id) > LONGEST_NAME:
        raise errors.FieldInvalid(f"A 'model_id' has {LONGEST_NAME} characters at most.")
    if (_text(values, "device") or AUTO) not in (AUTO, device):
        raise errors.FieldInvalid(
            f"Engines run on '{device}' here, and the field 'device' cannot change that.",
            hint="Leave 'device' out; the setting of that name says where they run.",
        )
    kind = _text(values, "compute_type").lower() or AUTO
    if kind not in PRECISIONS:
        raise errors.FieldInvalid(
            f"The field 'compute_type' is not possible: '{kind[:40]}'.",
            hint=f"It is one of {', '.join(PRECISIONS)}.",
        )
    path = _text(values, "model_path")
    size = "" if path else _text(values, "model_size")
    return Wish(model_id, Path(path) if path else None, size, PRECISIONS[kind])


def _admit(request: Request, service: Service) -> None:
    caller = caller_of(request)
    if not service.settings.admin or caller.proof is Proof.PLACE:
        raise errors.AdminOff()
    caller.demand(Scope.ADMIN)


def _listed(service: Service) -> dict[str, Any]:
    by_role, engines = service.models.by_role, service.fleet.standing()
    return {
        "models": service.models.names,
        "details": [
            {
                "id": by_role[role],
                "role": role.value,
                "engine": one.engine,
                "precision": one.precision,
                "state": one.state.value,
            }
            for role, one in engines.items()
            if role in by_role  # a voice has none that could be told to change
        ],
        "loading": service.models.coming,
        "failed": service.models.failed,
    }


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise errors.FieldInvalid(f"The field '{name}' is not a text.")
    return value.strip()


def _seconds(given: str | None) -> float:
    try:
        seconds = DRAIN_S if given is None else float(given)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= 3600:
        raise errors.FieldInvalid("The field 'drain_timeout_sec' is not possible: 0 to 3600.")
    return seconds
