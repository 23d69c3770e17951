"""Voices of the engine 'moonshine' for the commands `pull voice` and `list`."""

from pathlib import Path

from sidecar import errors
from sidecar.cli.output import print_error_line, print_text
from sidecar.cli.pull import progress_meter
from sidecar.config.settings import Settings
from sidecar.installation import is_build_without_voices, voice_hint
from sidecar.plugin import InstalledVoices, VoiceRequest
from sidecar.plugins import load_settings
from sidecar.plugins.conversation.tts import moonshine_tts
from sidecar.plugins.conversation.tts.installed_voices import PulledVoice, PulledVoices
from sidecar.plugins.conversation.tts.tts_engine_selection import (
    missing_packages,
    pulled_voices,
    voices_folder,
)
from sidecar.plugins.conversation.tts.voice_download import pull_voice


def pull(request: VoiceRequest) -> None:
    """Download the voice to the folder of the request or of the settings, and print that; or list
    voices."""
    folder = request.folder.absolute() if request.folder else None
    folder = folder or voices_folder(load_settings())
    if missing_packages(moonshine_tts.SPEC):
        hint = voice_hint() if is_build_without_voices() else None
        raise errors.EngineUnavailable(
            "The synthesizers of moonshine-voice are missing.", hint=hint
        )
    if request.listed:
        _list_voices(folder, request.language)
        return
    voice = find_voice(request.name, request.language)
    source = request.source or moonshine_tts.voice_server_url()
    with progress_meter() as meter:
        pulled = pull_voice(folder, source, voice, meter)
    unchecked = [key for key in voice.files if pulled.files[key].checked == "size"]
    checked = "checked" if not unchecked else "the server knows no checksums: sizes were checked"
    print_error_line(f"{voice.name} speaks {voice.language} ({checked}).")
    print_text(f"{folder}\n")


def find_voice(name: str, language: str) -> PulledVoice:
    """Return the voice with its files for a name and a language, either of which may be ''.

    Raises:
        errors.VoiceUnknown: there is no such voice.
        errors.ModelLoadFailed: the library with the catalogue does not load.
    """
    catalogue = moonshine_tts.voice_catalogue()
    name, tag = moonshine_tts.choose_moonshine_voice(catalogue, name, language)
    name = name or moonshine_tts.library_default_voice(moonshine_tts.voice_files(tag))
    return PulledVoice(name, tag, tuple(moonshine_tts.voice_files(tag, name)))


def installed(settings: Settings) -> InstalledVoices | None:
    """Return the downloaded voices; `None` without any."""
    stored = pulled_voices(settings)
    voices = stored.complete()
    names = ", ".join(f"{one.name} ({one.language})" for one in voices)
    size = stored.largest_bytes(len(voices))
    return InstalledVoices(names, size, stored.folder) if voices else None


def _list_voices(folder: Path, language: str) -> None:
    """Print language and voice, a line each; downloaded ones are marked."""
    catalogue = moonshine_tts.voice_catalogue()
    installed = {(voice.language, voice.name) for voice in PulledVoices.read(folder).complete()}
    tags = sorted(catalogue)
    if language:
        tags = [moonshine_tts.choose_moonshine_voice(catalogue, "", language)[1]]
    for tag in tags:
        for name in catalogue[tag]:
            print_text(f"{tag:8} {name}{'  (here)' if (tag, name) in installed else ''}\n")
