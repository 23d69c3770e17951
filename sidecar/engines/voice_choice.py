"""Which engine speaks, and why: what is here, the best first, and never a server unasked."""

from __future__ import annotations

from pathlib import Path

from sidecar import errors, servers
from sidecar.checkpoints.pulled import Pulled
from sidecar.engines import missing
from sidecar.engines.choice import Choice
from sidecar.engines.speaking import endpoint, espeak, moonshine, spec_of, system
from sidecar.settings import Settings
from sidecar.speech.engine import AUTO, Upstream
from sidecar.speech.voice import VoiceSpec
from sidecar.version import is_frozen

NONE = "none"
INSTALL = "pip install 'vibevoice-asr[espeak]'"
"""How the one voice gets here that the base does not bring."""
PULL = "vibevoice-asr pull voice"
"""How those of 'moonshine' do."""


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
        return _by_itself(settings)
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
    folder = _pulled(settings) if spec is moonshine.SPEC else None
    if spec is moonshine.SPEC and folder is None:
        raise errors.EngineUnavailable(
            f"There is no voice for 'moonshine' in {voices_folder(settings)}.", hint=f"Run: {PULL}"
        )
    server = _server(settings) if spec is endpoint.SPEC else None
    return Choice(spec, "as set", upstream=server, folder=folder), "as set"


def voices_folder(settings: Settings) -> Path:
    """Where the voices are that were pulled."""
    if settings.voices_dir is not None:
        return settings.voices_dir.expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("vibevoice-asr", appauthor=False)) / "voices"


def _pulled(settings: Settings) -> Path | None:
    """The folder of voices, if one is there that is whole."""
    folder = voices_folder(settings)
    return folder if Pulled.read(folder).whole() else None


def _by_itself(settings: Settings) -> tuple[Choice[VoiceSpec] | None, str]:
    if not missing(moonshine.SPEC) and (folder := _pulled(settings)) is not None:
        return Choice(moonshine.SPEC, "", folder=folder), "a voice was pulled"
    if system.is_there():
        return Choice(system.SPEC, ""), "this system has it"
    if not missing(espeak.SPEC):
        return Choice(espeak.SPEC, ""), "it is installed"
    return None, f"this system has none of its own. For one: {PULL}. {_way_to_espeak()}"


def _way_to_espeak() -> str:
    if is_frozen():
        return f"No build has the voice 'espeak'; with Python: {INSTALL}"
    return f"For the voice 'espeak': {INSTALL}"


def _server(settings: Settings) -> Upstream:
    key = servers.key(settings.speech_key, settings.speech_key_file, "speech")
    url = servers.address(settings.speech_url, "speech_url")
    return Upstream((url,), (key,), model=settings.speech_model)
