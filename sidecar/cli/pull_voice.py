"""`vibevoice-asr pull voice`: bring one that speaks, check it, say which there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sidecar import engines, errors
from sidecar.checkpoints.pulled import Pulled, PulledVoice
from sidecar.cli.pull import shown
from sidecar.cli.said import INTERRUPTED, complain, say
from sidecar.config.settings import Settings, load_settings
from sidecar.tts import moonshine
from sidecar.tts.voice_selection import voices_folder

VOICE = "voice"


def run(name: str, language: str, to: Path | None, *, listed: bool) -> int:
    """Bring the voice to ``to`` or the folder of the settings, and print that; or list voices.

    The exit code.
    """
    try:
        settings = load_settings()
        folder = to.expanduser().absolute() if to is not None else voices_folder(settings)
        if engines.missing(moonshine.SPEC):
            raise errors.EngineUnavailable("moonshine-voice, which speaks, is not installed.")
        if listed:
            _list(folder, language)
        else:
            print(_bring(name, language, folder, settings))
    except errors.SidecarError as error:
        return complain(error)
    except KeyboardInterrupt:
        say("Stopped. The same command goes on where it was.")
        return INTERRUPTED
    return 0


def wanted(name: str, language: str) -> PulledVoice:
    """The voice that is meant by a name and a language, of which either may be '', and its files.

    Raises:
        errors.VoiceUnknown: there is none.
        errors.ModelLoadFailed: the library that knows does not load.
    """
    from sidecar.tts import catalogue, moonshine_tts_library

    named = catalogue.choose(moonshine_tts_library.catalogue(), name, language)
    if not named.name:
        named = replace(
            named, name=catalogue.own_choice(moonshine_tts_library.needs(named.language))
        )
    files = moonshine_tts_library.needs(named.language, named.name)
    return PulledVoice(named.name, named.language, tuple(files))


def _bring(name: str, language: str, folder: Path, settings: Settings) -> Path:
    from sidecar.checkpoints.voice_download import pull
    from sidecar.tts import moonshine_tts_library

    voice = wanted(name, language)
    with shown() as meter:
        pulled = pull(folder, settings.voices_url or moonshine_tts_library.server(), voice, meter)
    unchecked = [key for key in voice.files if pulled.files[key].checked == "size"]
    checked = "checked" if not unchecked else "the server knows no checksums: sizes were checked"
    say(f"{voice.name} speaks {voice.language} ({checked}).")
    return folder


def _list(folder: Path, language: str) -> None:
    """Language and voice, a line each; those that are here are marked."""
    from sidecar.tts import catalogue, moonshine_tts_library

    there = moonshine_tts_library.catalogue()
    here = {(voice.language, voice.name) for voice in Pulled.read(folder).whole()}
    tags = [catalogue.choose(there, "", language).language] if language else sorted(there)
    for tag in tags:
        for name in there[tag]:
            print(f"{tag:8} {name}{'  (here)' if (tag, name) in here else ''}")
