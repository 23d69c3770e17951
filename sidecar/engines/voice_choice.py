"""Which engine speaks, and why: what is here, the best first, and never a server unasked."""

from __future__ import annotations

from sidecar import errors, servers
from sidecar.engines import missing
from sidecar.engines.choice import Choice
from sidecar.engines.speaking import endpoint, espeak, spec_of, system
from sidecar.settings import Settings
from sidecar.speech.engine import AUTO, Upstream
from sidecar.speech.voice import VoiceSpec
from sidecar.version import is_frozen

NONE = "none"
INSTALL = "pip install 'vibevoice-asr[espeak]'"
"""How the one voice gets here that the base does not bring."""


def choose_voice(settings: Settings) -> tuple[Choice[VoiceSpec] | None, str]:
    """The engine that speaks, and why it is that one; None where none does, and answers are read.

    Raises:
        errors.EngineUnavailable: the engine that was named cannot run here.
        errors.SettingsInvalid: the server that it needs is not said, or wrongly.
    """
    wanted = settings.voice_engine
    if wanted == NONE:
        return None, "as set"
    if wanted == AUTO:
        return _by_itself()
    spec = spec_of(wanted)
    if lacking := missing(spec):
        raise errors.EngineUnavailable(
            f"The voice '{wanted}' needs packages that are not installed: {', '.join(lacking)}.",
            hint=_way_to_espeak(),
        )
    if spec is system.SPEC and not system.is_there():
        raise errors.EngineUnavailable(
            "This system has no voices of its own; macOS and Windows have.",
            hint=_way_to_espeak(),
        )
    server = _server(settings) if spec is endpoint.SPEC else None
    return Choice(spec, "as set", upstream=server), "as set"


def _by_itself() -> tuple[Choice[VoiceSpec] | None, str]:
    if system.is_there():
        return Choice(system.SPEC, ""), "this system has it"
    if not missing(espeak.SPEC):
        return Choice(espeak.SPEC, ""), "it is installed"
    return None, f"this system has none of its own. {_way_to_espeak()}"


def _way_to_espeak() -> str:
    if is_frozen():
        return f"No build has the voice 'espeak'; with Python: {INSTALL}"
    return f"For the voice 'espeak': {INSTALL}"


def _server(settings: Settings) -> Upstream:
    key = servers.key(settings.speech_key, settings.speech_key_file, "speech")
    url = servers.address(settings.speech_url, "speech_url")
    return Upstream((url,), (key,), model=settings.speech_model)
