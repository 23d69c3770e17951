"""Selection of the TTS engine and voice."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sidecar import errors
from sidecar.checkpoints import installed_checkpoints
from sidecar.checkpoints.checkpoint import Checkpoint
from sidecar.checkpoints.installed_checkpoints import Pulled
from sidecar.config import remote_server
from sidecar.config.settings import Settings
from sidecar.engines import missing
from sidecar.engines.engine_selection import VIBEVOICE, Choice, remedy, torch_has_cuda
from sidecar.gpu_memory.gpu_devices import gpu_memory
from sidecar.gpu_memory.memory_footprint import ModelShape
from sidecar.gpu_memory.tts_memory import VoiceShape, fits_beside
from sidecar.interfaces.engine_interface import AUTO, EngineSpec, Upstream, VoiceSpec
from sidecar.tts import espeak_tts, moonshine_tts, openai_tts, spec_of, system_tts, vibevoice_tts
from sidecar.version import is_frozen

NONE = "none"
INSTALL = "pip install 'vibevoice-asr[espeak]'"
"""How the one voice gets here that the base does not bring."""
PULL = "vibevoice-asr pull voice"
"""How those of 'moonshine' do."""


def choose_voice(
    settings: Settings, hearing: Choice[EngineSpec] | None = None
) -> tuple[Choice[VoiceSpec] | None, str]:
    """The engine that speaks, and why it is that one; None where none does, and answers are read.

    ``hearing``: the engine for files, with which it shares the GPU.

    Raises:
        errors.EngineUnavailable: the engine that was named cannot run here.
        errors.BadCheckpoint: its weights are not usable.
        errors.SettingsInvalid: the server that it needs is not said, or wrongly.
    """
    wanted = settings.voice_engine
    if wanted == NONE:
        return None, "as set"
    if wanted == AUTO:
        return _by_itself(settings, hearing)
    spec = spec_of(wanted)
    if lacking := missing(spec):
        raise errors.EngineUnavailable(
            f"The voice '{wanted}' needs packages that are not installed: {', '.join(lacking)}.",
            hint=remedy(VIBEVOICE) if spec is vibevoice_tts.SPEC else _way_to_espeak(),
        )
    if spec is vibevoice_tts.SPEC:
        slow = "" if _quick(settings) else "; slow, without a GPU that torch can use"
        return _vibevoice(
            installed_checkpoints.find_vibevoice_tts(settings.voice_path), f"as set{slow}"
        )
    if spec is system_tts.SPEC and not system_tts.is_there():
        raise errors.EngineUnavailable(
            "This system has no voices of its own; macOS and Windows have.",
            hint=_way_to_espeak(),
        )
    if spec is moonshine_tts.SPEC:
        return _pulled(settings, "as set"), "as set"
    server = _server(settings) if spec is openai_tts.SPEC else None
    return Choice(spec, "as set", upstream=server), "as set"


def voices_folder(settings: Settings) -> Path:
    """Where the voices are that were pulled."""
    if settings.voices_dir is not None:
        return settings.voices_dir.expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("vibevoice-asr", appauthor=False)) / "voices"


def _pulled(settings: Settings, reason: str) -> Choice[VoiceSpec]:
    """The voices that were pulled.

    Raises:
        errors.EngineUnavailable: none is whole.
    """
    pulled = Pulled.read(voices_folder(settings))
    if not pulled.whole():
        raise errors.EngineUnavailable(
            f"There is no voice for 'moonshine' in {pulled.folder}.", hint=f"Run: {PULL}"
        )
    size = pulled.largest_bytes(moonshine_tts.MOST)
    return Choice(moonshine_tts.SPEC, reason, folder=pulled.folder, folder_bytes=size)


def _by_itself(
    settings: Settings, hearing: Choice[EngineSpec] | None
) -> tuple[Choice[VoiceSpec] | None, str]:
    checkpoint = _keeps_up(settings)
    if checkpoint is None:
        return _light(settings)
    found, reason = _light(settings)
    if not _has_room(checkpoint, hearing):
        return found, f"{reason} (the GPU has no room for VibeVoice that speaks)"
    if found is not None and not installed_checkpoints.voice_samples(checkpoint.folder):
        folder = checkpoint.folder / installed_checkpoints.VOICES_FOLDER
        return found, f"{reason} (VibeVoice wants a recording of a voice in {folder})"
    return _vibevoice(checkpoint, "a GPU and its checkpoint are here")


def _vibevoice(checkpoint: Checkpoint, reason: str) -> tuple[Choice[VoiceSpec], str]:
    if not installed_checkpoints.voice_samples(checkpoint.folder):
        folder = checkpoint.folder / installed_checkpoints.VOICES_FOLDER
        reason += f"; without a recording of a voice in {folder} each sentence has another voice"
    return Choice(vibevoice_tts.SPEC, reason, checkpoint), reason


def _light(settings: Settings) -> tuple[Choice[VoiceSpec] | None, str]:
    """The best of those that need no GPU."""
    if not missing(moonshine_tts.SPEC):
        with contextlib.suppress(errors.EngineUnavailable):
            reason = "a voice was pulled"
            return _pulled(settings, reason), reason
    if system_tts.is_there():
        return Choice(system_tts.SPEC, ""), "this system has it"
    if not missing(espeak_tts.SPEC):
        return Choice(espeak_tts.SPEC, ""), "it is installed"
    return None, f"this system has none of its own. For one: {PULL}. {_way_to_espeak()}"


def way_to_better(settings: Settings, chosen: Choice[VoiceSpec] | None) -> str:
    """The command that brings a better voice than the one that `auto` has ``chosen``; '' where this
    machine has no use for one, or the settings name another."""
    if settings.voice_engine != AUTO or (chosen and chosen.spec is vibevoice_tts.SPEC):
        return ""
    if not missing(vibevoice_tts.SPEC) and _quick(settings):
        try:
            installed_checkpoints.find_vibevoice_tts(settings.voice_path)
        except errors.BadCheckpoint:
            return installed_checkpoints.VIBEVOICE_TTS_COMMAND
    robot = chosen is not None and chosen.spec is espeak_tts.SPEC
    return PULL if robot and not missing(moonshine_tts.SPEC) else ""


def _keeps_up(settings: Settings) -> Checkpoint | None:
    """VibeVoice, where it speaks as fast as people do; that is not asked where it cannot be.

    Raises:
        errors.BadCheckpoint: the settings name a folder that is no good.
    """
    if settings.voice_path is None and (missing(vibevoice_tts.SPEC) or not _quick(settings)):
        return None
    try:
        checkpoint = installed_checkpoints.find_vibevoice_tts(settings.voice_path)
    except errors.BadCheckpoint:
        if settings.voice_path is not None:
            raise
        return None
    return checkpoint if not missing(vibevoice_tts.SPEC) and _quick(settings) else None


def _quick(settings: Settings) -> bool:
    return settings.device != "cpu" and torch_has_cuda() and gpu_memory() is not None


def _has_room(checkpoint: Checkpoint, hearing: Choice[EngineSpec] | None) -> bool:
    """Whether it fits beside the engine that hears, if that is on the GPU, too."""
    gpu = gpu_memory()
    if gpu is None:
        return False
    heard = None
    if hearing is not None and hearing.checkpoint is not None and hearing.spec.planned:
        heard = ModelShape.from_config(hearing.checkpoint.config)
    return fits_beside(VoiceShape.from_config(checkpoint.config), heard, gpu.free_bytes)


def _way_to_espeak() -> str:
    if is_frozen():
        return f"No build has the voice 'espeak'; with Python: {INSTALL}"
    return f"For the voice 'espeak': {INSTALL}"


def _server(settings: Settings) -> Upstream:
    key = remote_server.key(settings.speech_key, settings.speech_key_file, "speech")
    url = remote_server.address(settings.speech_url, "speech_url")
    return Upstream((url,), (key,), model=settings.speech_model)
