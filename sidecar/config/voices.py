"""Voices: who speaks in conversations, and with what."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from sidecar.config.group import Group
from sidecar.interfaces.voice import MOST_STEPS


class Voices(Group):
    """The settings of it."""

    voice_engine: Literal[
        "auto", "none", "vibevoice", "moonshine", "system", "espeak", "speech", "scripted"
    ] = Field(
        "auto",
        description=(
            "Engine that speaks in conversations, in a process of its own: 'auto' takes what is "
            "here, 'none' leaves answers to be read; 'vibevoice' needs a GPU to keep up, and a "
            "checkpoint ('vibevoice-asr pull vibevoice-1.5b'); 'moonshine' has the voices that "
            "'vibevoice-asr pull voice' brought, 'system' those of macOS and Windows, "
            "'espeak' a robot's in a hundred languages (pip install 'vibevoice-asr[espeak]'); "
            "'speech' has a server speak, to which the answers go ('auto' never does that); "
            "'scripted' says tones (for the developers of pages)."
        ),
    )
    voice_path: Path | None = Field(
        None,
        description=(
            "Folder of a checkpoint of VibeVoice that speaks, or of a Hugging Face cache that has "
            "one; if unset, the cache that 'vibevoice-asr pull' fills."
        ),
    )
    voice_steps: int = Field(
        0,
        ge=0,
        le=MOST_STEPS,
        description=(
            "Steps of diffusion in which VibeVoice makes each 133 ms of what it says: fewer are "
            "quicker and rougher. 0 takes ten, and five where a machine is too slow for ten."
        ),
    )
    voices_dir: Path | None = Field(
        None,
        description=(
            "Folder of the voices that 'pull voice' brings; in the user's data folder if unset."
        ),
    )
    voices_url: str = Field(
        "",
        description=(
            "Server that 'pull voice' brings them from; that of the makers of moonshine-voice if "
            "unset."
        ),
    )
    speech_url: str = Field(
        "",
        description="Server with OpenAI's /v1/audio/speech, for the voice_engine 'speech'.",
    )
    speech_model: str | None = Field(None, description="Its model; 'tts-1' if unset.")
    speech_key: SecretStr | None = Field(
        None, description="Key that is sent to it as 'Authorization: Bearer'. No flag."
    )
    speech_key_file: Path | None = Field(
        None, description="File with that key, which nobody else may read (0600)."
    )
