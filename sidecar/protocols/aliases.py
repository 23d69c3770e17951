"""The names of models: OpenAI's, each of which stands for what is loaded, and our own. Pure.

Our own are the engine's name, as `/health` has it, and with a colon behind it a precision that the
engine has here (``vibevoice:int8``). What is not loaded has no name.
"""

from __future__ import annotations

from typing import Any

from sidecar import errors
from sidecar.interfaces.engine import EngineSpec, Precision

ALIASES = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-4o-transcribe-diarize",
)
"""The models of OpenAI's that transcribe (`AudioModel` of its SDK)."""
LIVE_ALIASES = ("gpt-live-transcribe", "gpt-realtime-whisper")
"""Those that transcribe live and nothing else (`AudioTranscription` of its SDK)."""
DIARIZING = "gpt-4o-transcribe-diarize"
"""The one that tells who speaks."""


def names(spec: EngineSpec) -> dict[str, Precision]:
    """Every name that counts, our own first, and the precision that it asks for."""
    own = {spec.name: Precision.AUTO}
    if len(spec.precisions) > 1:
        own |= {f"{spec.name}:{precision}": precision for precision in spec.precisions}
    return own | dict.fromkeys(ALIASES, Precision.AUTO)


def precision_of(spec: EngineSpec, name: str) -> Precision:
    """The precision that a model's name asks for.

    Raises:
        errors.FieldMissing: there is no name.
        errors.ModelNotFound: it is none of ours.
    """
    if not name:
        raise errors.FieldMissing(
            "The field 'model' is missing.", hint=f"Send '{spec.name}', or one of OpenAI's names."
        )
    found = names(spec).get(name)
    if found is None:
        raise errors.ModelNotFound(
            hint=f"What is loaded here is '{spec.name}'; GET /v1/models lists all its names."
        )
    return found


def model_body(spec: EngineSpec, name: str, created: int) -> dict[str, Any]:
    """A model as OpenAI has it; ``created`` (seconds since 1970) is when the service was started.

    Raises:
        errors.ModelNotFound: there is none of this name.
    """
    precision = precision_of(spec, name)
    body = {"id": name, "object": "model", "created": created, "owned_by": "vibevoice-asr"}
    return body | {
        "engine": spec.name,
        "precision": precision.value,
        "alias_of": spec.name if name in ALIASES else None,
    }
