"""Which engine speaks, and why."""

from __future__ import annotations

from sidecar import errors
from sidecar.engines import missing
from sidecar.engines.choice import Choice
from sidecar.engines.speaking import spec_of
from sidecar.settings import Settings
from sidecar.speech.engine import AUTO
from sidecar.speech.voice import VoiceSpec

NONE = "none"


def choose_voice(settings: Settings) -> tuple[Choice[VoiceSpec] | None, str]:
    """The engine that speaks, and why it is that one; None where none does, and conversations are
    read.

    Raises:
        errors.EngineUnavailable: the engine that was named cannot run here.
    """
    wanted = settings.voice_engine
    if wanted == NONE:
        return None, "as set"
    if wanted == AUTO:
        return None, "there is none on this machine"
    spec = spec_of(wanted)
    if lacking := missing(spec):
        raise errors.EngineUnavailable(
            f"The voice '{wanted}' needs packages that are not installed: {', '.join(lacking)}.",
            hint=f"pip install 'vibevoice-asr[{wanted}]'",
        )
    return Choice(spec, "as set"), "as set"
