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
"""The models of OpenAI's that transcribe (`AudioModel` of its SDK)."""
LIVE_ALIASES = ("gpt-live-transcribe", "gpt-realtime-whisper")
"""Those that transcribe live and nothing else (`AudioTranscription` of its SDK)."""
DIARIZING_MODEL = "gpt-4o-transcribe-diarize"
"""The one that tells who speaks."""
REALTIME_MODEL = "gpt-realtime"
"""The one that clients of the Realtime API look for in `GET /v1/models`."""
SERVICE_NAME = "vibevoice-asr"
_SIZE = r"(?:tiny|base|small|medium|large(?:-v[123])?|(?:large-v3-)?turbo)(?:[.-]en)?"
_CLIENT_DEFAULTS = re.compile(
    rf"{SERVICE_NAME}|(?:distil-)?{_SIZE}|(?:[\w.-]{{1,64}}/)?(?:faster-)?(?:distil-)?whisper-{_SIZE}[\w.-]{{0,64}}"
    r"|gpt-4o(?:-mini)?-transcribe[\w.-]{0,64}",
    re.ASCII,
)
"""Names that clients send unless they are told otherwise: of Whisper's models, here and at other
servers (`Systran/faster-whisper-large-v3`), and of later versions of OpenAI's."""


def model_names(spec: EngineSpec) -> dict[str, Precision]:
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
    found = model_names(spec).get(name)
    if found is None:
        raise errors.ModelNotFound(
            hint=f"The loaded model is '{spec.name}'; GET /v1/models lists all its names."
        )
    return found


def listed_models(spec: EngineSpec, *, strict: bool) -> list[str]:
    """The names of `GET /v1/models`. ``strict``: the setting `openai_strict`."""
    others = () if strict else (*LIVE_ALIASES, REALTIME_MODEL)
    return [*model_names(spec), *others]


def chosen_precision(spec: EngineSpec, name: str, *, strict: bool) -> Precision:
    """The precision that a model's name asks for, which may be what a client has as its default.

    Raises:
        errors.FieldMissing, errors.ModelNotFound: as `precision_of`; where it is not ``strict``,
            only for a name that is no model's which transcribes.
    """
    if strict or name in model_names(spec):
        return precision_of(spec, name)
    known = not name or name in (*LIVE_ALIASES, REALTIME_MODEL)
    if known or _CLIENT_DEFAULTS.fullmatch(name):
        return Precision.AUTO
    return precision_of(spec, name)


def model_warnings(spec: EngineSpec, name: str) -> tuple[str, ...]:
    """A sentence for a client that names a model which is not what answers."""
    if name.partition(":")[0] in ("", spec.name, SERVICE_NAME):
        return ()
    return (f"The model '{name}' is not loaded here; '{spec.name}' answered.",)
