"""What kind of server answers: by what it says at /health and /v1/models. Pure."""

from __future__ import annotations

import json
from typing import Any

from sidecar import errors
from sidecar.transcripts.local_voices import FIELD, FORM
from sidecar.upstream.dialect import Dialect
from sidecar.upstream.openai import OpenAi
from sidecar.upstream.sidecar_dialect import Sidecar
from sidecar.upstream.trouble import Step, Trouble
from sidecar.upstream.vllm import Vllm

HEALTH, MODELS = "/health", "/v1/models"
OURS = "upstream"
"""The name of this engine: a server that has it sends recordings on."""
VIBEVOICE = "vibevoice"
RATES = {VIBEVOICE: 24_000}
USUAL_RATE = 16_000
"""Hz, at which all engines hear but VibeVoice-ASR."""


def sidecar_of(health: bytes) -> Sidecar | None:
    """Another vibevoice-asr, if that is one's /health.

    Raises:
        Trouble: it has others hear itself: who heard could not be said, and it might be us.
    """
    body = _loads(health)
    if not isinstance(body, dict) or not {"contract", "engine", "engine_state"} <= body.keys():
        return None
    engine = body["engine"]
    if engine == OURS:
        raise _refused("The upstream has the engine 'upstream' itself.")
    return Sidecar(RATES.get(engine, USUAL_RATE), voices=body.get(FIELD) == FORM)


def model_of(models: bytes, wanted: str | None) -> str | None:
    """The model to ask for: ``wanted``, or the first that there is; None where none is listed."""
    listed = _listed(models)
    return wanted or next((str(one["id"]) for one in listed if one.get("id")), None)


def dialect_of(kind: str, models: bytes, wanted: str | None) -> Dialect:
    """The dialect of a server that is no vibevoice-asr.

    ``kind``: 'openai', 'vllm', or 'auto' for what its list of models looks like.

    Raises:
        Trouble: there is nothing to go by.
    """
    model = model_of(models, wanted)
    if model is None:
        raise _refused(
            "The upstream lists no models.",
            "Name one with VIBEVOICE_UPSTREAM_MODEL, and the server's kind with "
            "VIBEVOICE_UPSTREAM_DIALECT.",
        )
    if kind == "auto":
        names = [one.get(key) for one in _listed(models) for key in ("id", "root")]
        ours = [name for name in names if wanted in (None, name)] if wanted else names
        shown = " ".join(str(name) for name in ours or [model])
        kind = "vllm" if VIBEVOICE in shown.lower() else "openai"
    return Vllm(model) if kind == "vllm" else OpenAi(model)


def unknown() -> Trouble:
    """Neither a /health nor a list of models that anybody knows."""
    return _refused("The upstream does not say what it is.", "Set VIBEVOICE_UPSTREAM_DIALECT.")


def _refused(detail: str, hint: str | None = None) -> Trouble:
    return Trouble(Step.ELSEWHERE, errors.UpstreamRefused(detail, hint=hint), sent=False)


def _listed(models: bytes) -> list[dict[str, Any]]:
    body = _loads(models)
    listed = body.get("data") if isinstance(body, dict) else None
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _loads(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
