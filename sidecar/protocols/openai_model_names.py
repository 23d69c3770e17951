"""Model names of OpenAI protocols: aliases, names that clients send by default, `/v1/models`."""

from __future__ import annotations

import re

from sidecar import errors
from sidecar.interfaces.engine_interface import EngineSpec, Precision

ALIASES = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-4o-transcribe-diarize",
)
"""OpenAI's transcription models (`AudioModel` of its SDK)."""
LIVE_ALIASES = ("gpt-live-transcribe", "gpt-realtime-whisper")
"""OpenAI's models that only transcribe live (`AudioTranscription` of its SDK)."""
DIARIZING_MODEL = "gpt-4o-transcribe-diarize"
"""OpenAI's model with diarization."""
REALTIME_MODEL = "gpt-realtime"
"""Model that clients of the Realtime API expect in `GET /v1/models`."""
SERVICE_NAME = "vibevoice-asr"
_SIZE = r"(?:tiny|base|small|medium|large(?:-v[123])?|(?:large-v3-)?turbo)(?:[.-]en)?"
_CLIENT_DEFAULTS = re.compile(
    rf"{SERVICE_NAME}|(?:distil-)?{_SIZE}|(?:[\w.-]{{1,64}}/)?(?:faster-)?(?:distil-)?whisper-{_SIZE}[\w.-]{{0,64}}"
    r"|gpt-4o(?:-mini)?-transcribe[\w.-]{0,64}",
    re.ASCII,
)
"""Model names that clients send by default: Whisper's models, in this service and in other servers
(`Systran/faster-whisper-large-v3`), and later versions of OpenAI's."""


def model_names(spec: EngineSpec) -> dict[str, Precision]:
    """Return all valid names, the engine's own first, with the precision that each requests."""
    own = {spec.name: Precision.AUTO}
    if len(spec.precisions) > 1:
        own |= {f"{spec.name}:{precision}": precision for precision in spec.precisions}
    return own | dict.fromkeys(ALIASES, Precision.AUTO)


def precision_of(spec: EngineSpec, name: str) -> Precision:
    """Return the precision that a model name requests.

    Raises:
        errors.FieldMissing: the name is empty.
        errors.ModelNotFound: the name is unknown.
    """
    if not name:
        raise errors.FieldMissing(
            "The field 'model' is missing.", hint=f"Send '{spec.name}', or one of OpenAI's names."
        )
    found = model_names(spec).get(name)
    if found is None:
        raise errors.ModelNotFound(
            hint=f"The loaded model is '{spec.name}'; GET /v1/models lists all its names."
        )
    return found


def listed_models(spec: EngineSpec, *, strict: bool) -> list[str]:
    """Return the names for `GET /v1/models`. ``strict``: the setting `openai_strict`."""
    others = () if strict else (*LIVE_ALIASES, REALTIME_MODEL)
    return [*model_names(spec), *others]


def chosen_precision(spec: EngineSpec, name: str, *, strict: bool) -> Precision:
    """Return the precision that a model name requests; the name may be a default of common clients.

    Raises:
        errors.FieldMissing, errors.ModelNotFound: as `precision_of`; if not ``strict``, only for a
            name that belongs to no transcription model.
    """
    if strict or name in model_names(spec):
        return precision_of(spec, name)
    known = not name or name in (*LIVE_ALIASES, REALTIME_MODEL)
    if known or _CLIENT_DEFAULTS.fullmatch(name):
        return Precision.AUTO
    return precision_of(spec, name)


def model_warnings(spec: EngineSpec, name: str) -> tuple[str, ...]:
    """Return a warning if a client names a model other than the one that answers."""
    if name.partition(":")[0] in ("", spec.name, SERVICE_NAME):
        return ()
    return (f"The model '{name}' is not loaded here; '{spec.name}' answered.",)
