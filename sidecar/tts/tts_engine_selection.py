"""Selection of the TTS engine by the settings, installed packages, checkpoints and the GPU."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sidecar import errors
from sidecar.checkpoints import installed_checkpoints
from sidecar.checkpoints.checkpoint import ModelCheckpoint
from sidecar.checkpoints.installed_voices import PulledVoices
from sidecar.config import remote_server
from sidecar.config.settings import Settings, data_folder
from sidecar.engines import missing_packages
from sidecar.engines.engine_selection import EngineChoice, install_hint, torch_has_cuda
from sidecar.gpu_memory.gpu_devices import read_gpu_memory
from sidecar.gpu_memory.memory_footprint import ModelShape
from sidecar.installation import install_command
from sidecar.interfaces.engine_interface import AUTO, EngineSpec, TtsSpec, UpstreamOptions
from sidecar.tts import espeak_tts, moonshine_tts, openai_tts, system_tts, tts_spec, vibevoice_tts
from sidecar.tts.vibevoice_tts_memory import TtsModelShape, fits_beside_asr

NO_VOICE = "none"
"""Value of the setting `voice_engine` that disables TTS."""
PULL_COMMAND = "vibevoice-asr pull voice"
"""Command that downloads a voice of the engine 'moonshine'."""
NO_TTS_ENGINE_HINT = f"Install one with {PULL_COMMAND}, then restart the service."
"""Hint if no TTS engine is installed."""


def choose_tts_engine(
    settings: Settings, hearing: EngineChoice[EngineSpec] | None = None
) -> tuple[EngineChoice[TtsSpec] | None, str]:
    """Return the TTS engine and the reason for the choice; `None` if there is no TTS.

    ``hearing``: the ASR engine for files, which shares the GPU with it.

    Raises:
        errors.EngineUnavailable: the engine that the settings name cannot run here.
        errors.BadCheckpoint: its weights are not usable.
        errors.SettingsInvalid: the settings of its server are missing or invalid.
    """
    wanted = settings.voice_engine
    if wanted == NO_VOICE:
        return None, "as set"
    if wanted == AUTO:
        return _choose_auto(settings, hearing)
    spec = tts_spec(wanted)
    if lacking := missing_packages(spec):
        raise errors.EngineUnavailable(
            f"The voice '{wanted}' needs packages that are not installed: {', '.join(lacking)}.",
            hint=_espeak_hint() if spec is espeak_tts.SPEC else install_hint(spec.name),
        )
    if spec is vibevoice_tts.SPEC:
        slow = "" if _has_cuda_gpu(settings) else "; slow, without a GPU that torch can use"
        checkpoint = installed_checkpoints.find_vibevoice_tts(settings.voice_path)
        return _vibevoice(checkpoint, f"as set{slow}")
    if spec is system_tts.SPEC and not system_tts.is_system_tts_available():
        raise errors.EngineUnavailable(
            "This operating system has no TTS voices; macOS and Windows have.",
            hint=_espeak_hint(),
        )
    if spec is moonshine_tts.SPEC:
        return _pulled(settings, "as set"), "as set"
    server = _server_choice(settings) if spec is openai_tts.SPEC else None
    return EngineChoice(spec, "as set", upstream=server), "as set"


def voices_folder(settings: Settings) -> Path:
    """Return the folder of downloaded voices."""
    return data_folder(settings, "voices")


def _pulled(settings: Settings, reason: str) -> EngineChoice[TtsSpec]:
    """Return the choice of 'moonshine' with the downloaded voices.

    Raises:
        errors.EngineUnavailable: no voice is complete.
    """
    pulled = PulledVoices.read(voices_folder(settings))
    if not pulled.whole():
        raise errors.EngineUnavailable(
            f"There is no voice for 'moonshine' in {pulled.folder}.", hint=f"Run: {PULL_COMMAND}"
        )
    size = pulled.largest_bytes(moonshine_tts.MAX_LOADED_VOICES)
    return EngineChoice(moonshine_tts.SPEC, reason, folder=pulled.folder, folder_bytes=size)


def _choose_auto(
    settings: Settings, hearing: EngineChoice[EngineSpec] | None
) -> tuple[EngineChoice[TtsSpec] | None, str]:
    checkpoint = _choose_vibevoice_if_fast(settings)
    if checkpoint is None:
        return _choose_cpu_voice(settings)
    found, reason = _choose_cpu_voice(settings)
    if not _fits_in_gpu_memory(checkpoint, hearing):
        return found, f"{reason} (VibeVoice TTS does not fit on the GPU)"
    if found is not None and not installed_checkpoints.voice_samples(checkpoint.folder):
        folder = checkpoint.folder / installed_checkpoints.VOICES_FOLDER
        return found, f"{reason} (VibeVoice wants a recording of a voice in {folder})"
    return _vibevoice(checkpoint, "a GPU and its checkpoint are here")


def _vibevoice(checkpoint: ModelCheckpoint, reason: str) -> tuple[EngineChoice[TtsSpec], str]:
    if not installed_checkpoints.voice_samples(checkpoint.folder):
        folder = checkpoint.folder / installed_checkpoints.VOICES_FOLDER
        reason += f"; without a recording of a voice in {folder} each sentence has another voice"
    return EngineChoice(vibevoice_tts.SPEC, reason, checkpoint), reason


def _choose_cpu_voice(settings: Settings) -> tuple[EngineChoice[TtsSpec] | None, str]:
    """Return the best engine that needs no GPU."""
    if not missing_packages(moonshine_tts.SPEC):
        with contextlib.suppress(errors.EngineUnavailable):
            reason = "a voice was pulled"
            return _pulled(settings, reason), reason
    if system_tts.is_system_tts_available():
        return EngineChoice(system_tts.SPEC, ""), "this system has it"
    if not missing_packages(espeak_tts.SPEC):
        return EngineChoice(espeak_tts.SPEC, ""), "it is installed"
    return None, f"no TTS engine is installed. {NO_TTS_ENGINE_HINT} {_espeak_hint()}"


def better_voice_hint(settings: Settings, chosen: EngineChoice[TtsSpec] | None) -> str:
    """Return the command that downloads a better voice than the one that `auto` has ``chosen``.

    Return '' if there is none for this machine, or if the settings name an engine.
    """
    if settings.voice_engine != AUTO or (chosen and chosen.spec is vibevoice_tts.SPEC):
        return ""
    if not missing_packages(vibevoice_tts.SPEC) and _has_cuda_gpu(settings):
        try:
            installed_checkpoints.find_vibevoice_tts(settings.voice_path)
        except errors.BadCheckpoint:
            return installed_checkpoints.VIBEVOICE_TTS_COMMAND
    robot = chosen is not None and chosen.spec is espeak_tts.SPEC
    return PULL_COMMAND if robot and not missing_packages(moonshine_tts.SPEC) else ""


def _choose_vibevoice_if_fast(settings: Settings) -> ModelCheckpoint | None:
    """Return the checkpoint of VibeVoice TTS if a CUDA GPU can run it, else `None`.

    Raises:
        errors.BadCheckpoint: the folder that the settings name is not usable.
    """
    can_run = not missing_packages(vibevoice_tts.SPEC) and _has_cuda_gpu(settings)
    if settings.voice_path is None and not can_run:
        return None
    try:
        checkpoint = installed_checkpoints.find_vibevoice_tts(settings.voice_path)
    except errors.BadCheckpoint:
        if settings.voice_path is not None:
            raise
        return None
    return checkpoint if can_run else None


def _has_cuda_gpu(settings: Settings) -> bool:
    return settings.device != "cpu" and torch_has_cuda() and read_gpu_memory() is not None


def _fits_in_gpu_memory(
    checkpoint: ModelCheckpoint, hearing: EngineChoice[EngineSpec] | None
) -> bool:
    """Return whether VibeVoice TTS fits on the GPU, beside the ASR engine if that uses it too."""
    gpu = read_gpu_memory()
    if gpu is None:
        return False
    heard = None
    if hearing is not None and hearing.checkpoint is not None and hearing.spec.planned:
        heard = ModelShape.from_config(hearing.checkpoint.config)
    return fits_beside_asr(TtsModelShape.from_config(checkpoint.config), heard, gpu.free_bytes)


def _espeak_hint() -> str:
    return f"For the voice 'espeak': {install_command('espeak')}"


def _server_choice(settings: Settings) -> UpstreamOptions:
    key = remote_server.parse_key(settings.speech_key, "speech")
    url = remote_server.parse_server_url(settings.speech_url, "speech_url")
    return UpstreamOptions((url,), (key,), model=settings.speech_model)
