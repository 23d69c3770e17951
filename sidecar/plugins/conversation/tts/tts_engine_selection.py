"""Selection of the TTS engine by the settings, installed packages and downloaded voices."""

import contextlib
import os
from importlib.util import find_spec
from pathlib import Path

from sidecar import engines, errors
from sidecar.config import secret_settings
from sidecar.config.settings import Settings, data_folder
from sidecar.engines.engine_selection import EngineChoice, install_hint
from sidecar.installation import install_command, is_build_without_voices, voice_hint
from sidecar.interfaces.engine_interface import AUTO, TtsSpec, UpstreamOptions
from sidecar.plugins.conversation.settings import ConversationSettings
from sidecar.plugins.conversation.tts import (
    espeak_tts,
    moonshine_tts,
    openai_tts,
    system_tts,
    tts_spec,
)
from sidecar.plugins.conversation.tts.installed_voices import PulledVoices

NO_VOICE = "none"
"""Value of the setting `voice_engine` that disables TTS."""
PULL_COMMAND = "vibevoice-asr pull voice"
"""Command that downloads a voice of the engine 'moonshine'."""


def choose_tts_engine(settings: Settings) -> tuple[EngineChoice[TtsSpec] | None, str]:
    """Return the TTS engine and the reason for the choice; `None` if there is no TTS.

    Raises:
        errors.EngineUnavailable: the engine that the settings name cannot run here.
        errors.SettingsInvalid: the settings of its server are missing or invalid.
    """
    group = ConversationSettings.of(settings)
    name = group.voice_engine
    if name == NO_VOICE:
        return None, "as set"
    if name == AUTO:
        return _choose_auto(settings)
    spec = tts_spec(name)
    if missing := missing_packages(spec):
        hint = _espeak_hint() if spec is espeak_tts.SPEC else install_hint(spec.name)
        if spec is moonshine_tts.SPEC and is_build_without_voices():
            hint = voice_hint()
        raise errors.EngineUnavailable(
            f"The voice '{name}' needs packages that are not installed: {', '.join(missing)}.",
            hint=hint,
        )
    if spec is system_tts.SPEC and not system_tts.is_system_tts_available():
        raise errors.EngineUnavailable(
            "This operating system has no TTS voices; macOS and Windows have.", hint=_espeak_hint()
        )
    if spec is moonshine_tts.SPEC:
        return _pulled(settings, "as set"), "as set"
    server = None
    if spec is openai_tts.SPEC:
        key = secret_settings.parse_key(group.speech_key, "speech")
        url = secret_settings.parse_server_url(group.speech_url, "speech_url")
        server = UpstreamOptions((url,), (key,), model=group.speech_model)
    return EngineChoice(spec, "as set", upstream=server), "as set"


def missing_packages(spec: TtsSpec) -> list[str]:
    """Return the packages that a TTS engine needs and this installation lacks. A folder without
    code is none: an executable without voices has the models of `moonshine_voice` alone."""
    return engines.missing_packages(spec) or [
        package
        for package in spec.requires
        if (found := find_spec(package)) is not None and found.origin is None
    ]


def voices_folder(settings: Settings) -> Path:
    """Return the folder of downloaded voices."""
    return data_folder(settings, "voices")


def pulled_voices(settings: Settings) -> PulledVoices:
    """Return the downloaded voices; none for a user without a home folder."""
    try:
        folder = voices_folder(settings)
    except errors.SettingsInvalid:
        folder = Path(os.devnull)
    return PulledVoices.read(folder)


def _pulled(settings: Settings, reason: str) -> EngineChoice[TtsSpec]:
    """Return the choice of 'moonshine' with the downloaded voices.

    Raises:
        errors.EngineUnavailable: no voice is complete.
    """
    pulled = pulled_voices(settings)
    if not pulled.complete():
        raise errors.EngineUnavailable(
            f"There is no voice for 'moonshine' in {pulled.folder}.", hint=f"Run: {PULL_COMMAND}"
        )
    size = pulled.largest_bytes(moonshine_tts.MAX_LOADED_VOICES)
    return EngineChoice(moonshine_tts.SPEC, reason, folder=pulled.folder, folder_bytes=size)


def _choose_auto(settings: Settings) -> tuple[EngineChoice[TtsSpec] | None, str]:
    """Return the best engine that is here."""
    if not missing_packages(moonshine_tts.SPEC):
        with contextlib.suppress(errors.EngineUnavailable):
            reason = "a voice was pulled"
            return _pulled(settings, reason), reason
    if system_tts.is_system_tts_available():
        return EngineChoice(system_tts.SPEC, ""), "this system has it"
    if not missing_packages(espeak_tts.SPEC):
        return EngineChoice(espeak_tts.SPEC, ""), "it is installed"
    return None, f"no TTS engine is installed. {voice_hint()} {_espeak_hint()}"


def better_voice_hint(settings: Settings, chosen: EngineChoice[TtsSpec] | None) -> str:
    """Return the command that downloads a better voice than the one that `auto` has ``chosen``.

    Return '' if there is none for this machine, or if the settings name an engine.
    """
    auto = ConversationSettings.of(settings).voice_engine == AUTO
    espeak = auto and chosen and chosen.spec is espeak_tts.SPEC
    return PULL_COMMAND if espeak and not missing_packages(moonshine_tts.SPEC) else ""


def _espeak_hint() -> str:
    return f"For the voice 'espeak': {install_command('espeak')}"
