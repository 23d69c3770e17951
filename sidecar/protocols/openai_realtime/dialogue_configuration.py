"""How a conversation is to be held, as a client says it, and what that means. Pure.

Only what is there changes. How somebody is heard is said as for a transcription.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sidecar import errors
from sidecar.audio.g711 import RATE as TELEPHONE_RATE
from sidecar.conversation.llm.dialogue import NO_TOOLS, Tools
from sidecar.conversation.options import TalkOptions
from sidecar.interfaces.engine import EngineSpec
from sidecar.interfaces.live import LiveOptions
from sidecar.interfaces.options import parse_number, parse_word
from sidecar.interfaces.voice import SayOptions
from sidecar.protocols.openai_realtime import detection
from sidecar.protocols.openai_realtime.configuration import TALKS, USUAL_RATE, Configuration, Sound
from sidecar.protocols.openai_realtime.detection import Turning, turned
from sidecar.protocols.openai_realtime.tools import choice_view, tools_of, tools_view
from sidecar.protocols.openai_realtime.updates import object_of, with_sound, with_transcription

CONVERSING = ("gpt-realtime", "gpt-4o-realtime", "gpt-4o-mini-realtime", "gpt-audio")
"""How models of OpenAI's begin that answer: they stand for whoever does so here."""
VOICES = (
    *("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx"),
    *("sage", "shimmer", "verse"),
)
"""Voices of OpenAI's: they stand for the one that the service would choose itself, where an engine
has voices of its own."""
USUAL_VOICE = "default"
SLOWEST, FASTEST = 0.25, 1.5
LONGEST_INSTRUCTIONS = 16_384
"""Characters."""


@dataclass(frozen=True, slots=True)
class Manners:
    """All that a client can say of a conversation. ``model`` and ``voice`` are as it wrote them;
    ``turning`` is None where it ends turns itself. ``transcribes``: the person's words are told.
    ``aloud``: answers are spoken, if something here speaks (``speaks``). ``any_voice``: whoever
    speaks knows the names of voices, and nobody here does. ``sound`` goes out."""

    model: str
    instructions: str = ""
    heard: Configuration = field(default_factory=Configuration)
    transcribes: bool = True
    turning: Turning | None = field(default_factory=Turning)
    speaks: bool = True
    any_voice: bool = False
    aloud: bool = True
    tools: Tools = NO_TOOLS
    voice: str = USUAL_VOICE
    speed: float = 1.0
    sound: Sound = Sound.PCM

    @property
    def says(self) -> bool:
        """Whether answers are spoken."""
        return self.speaks and self.aloud

    @property
    def own_voice(self) -> str:
        """The voice of the engine's that is wanted, '' for the usual one."""
        usual = (USUAL_VOICE,) if self.any_voice else (USUAL_VOICE, *VOICES)
        return "" if self.voice in usual else self.voice

    def options(self, before: TalkOptions) -> TalkOptions:
        """The conversation's, which has had others."""
        changed = dataclasses.replace(
            before, instructions=self.instructions, voiced=self.says, tools=self.tools
        )
        return detection.options(changed, self.turning)

    def hearing(self, before: LiveOptions) -> LiveOptions:
        """How the person is heard."""
        return dataclasses.replace(
            before,
            language=self.heard.language if self.heard.said_language else before.language,
            prompt=self.heard.prompt,
            endpointing=(self.turning or Turning()).endpointing,
        )

    def manner(self, usual: SayOptions) -> SayOptions:
        """How answers are spoken."""
        rate = USUAL_RATE if self.sound is Sound.PCM else TELEPHONE_RATE
        voice = self.own_voice or usual.voice
        return dataclasses.replace(usual, voice=voice, speed=self.speed, rate=rate)

    @property
    def modalities(self) -> list[str]:
        """What answers are."""
        return ["audio" if self.says else "text"]

    @property
    def output_view(self) -> dict[str, Any]:
        """How answers sound."""
        sound: dict[str, Any] = {"type": self.sound.value}
        if self.sound is Sound.PCM:
            sound["rate"] = USUAL_RATE
        return {"format": sound, "voice": self.voice}

    def view(self, number: str, expires_at: int) -> dict[str, Any]:
        """The session as clients read it; ``expires_at`` in seconds since 1970."""
        return {
            "type": TALKS,
            "object": "realtime.session",
            "id": number,
            "model": self.model,
            "output_modalities": self.modalities,
            "instructions": self.instructions,
            "tools": tools_view(self.tools),
            "tool_choice": choice_view(self.tools),
            "max_output_tokens": "inf",
            "tracing": None,
            "truncation": "auto",
            "prompt": None,
            "expires_at": expires_at,
            "audio": {
                "input": {
                    "format": self.heard.format_view,
                    "transcription": self.heard.transcription_view if self.transcribes else None,
                    "noise_reduction": None,
                    "turn_detection": None if self.turning is None else self.turning.view(),
                },
                "output": {**self.output_view, "speed": self.speed},
            },
            "include": None,
        }


def stands_for_any(model: str) -> bool:
    """Whether that is a name for whoever answers here."""
    return model.startswith(CONVERSING)


def updated(before: Manners, session: object, spec: EngineSpec) -> Manners:
    """What a client's ``session`` makes of them; whether there is such a voice is not known here.

    Raises:
        errors.BadRequest, errors.NotFound: it means nothing, or nothing that is to be had here.
    """
    given = object_of("session", session)
    if given.get("type", TALKS) != TALKS:
        raise errors.FieldInvalid(
            f"'session.type' is not '{TALKS}'.",
            hint="A conversation stays one; transcriptions have an address of their own.",
        )
    after = dataclasses.replace(
        before,
        instructions=instructions_of(given, "session.instructions", before.instructions),
        aloud=aloud_of(given, "session.output_modalities", before.aloud),
        tools=tools_of(given, "session", before.tools),
    )
    audio = object_of("session.audio", given.get("audio") or {})
    after = _heard(after, object_of("session.audio.input", audio.get("input") or {}), spec)
    return _sounding(after, object_of("session.audio.output", audio.get("output") or {}))


def instructions_of(given: Mapping[str, Any], name: str, usual: str) -> str:
    """What the model is told before all else.

    Raises:
        errors.FieldInvalid: it is no text, or too long a one.
    """
    if "instructions" not in given:
        return usual
    found = parse_word(name, given["instructions"])
    if len(found) > LONGEST_INSTRUCTIONS:
        raise errors.FieldInvalid(f"'{name}' has more than {LONGEST_INSTRUCTIONS} characters.")
    return found


def aloud_of(given: Mapping[str, Any], name: str, usual: bool) -> bool:
    """Whether answers are to be spoken.

    Raises:
        errors.FieldInvalid: neither that nor the contrary is meant.
    """
    wanted = given.get("output_modalities")
    if wanted is None:
        return usual
    if wanted in (["audio"], ["text"]):
        return bool(wanted == ["audio"])
    raise errors.FieldInvalid(
        f"'{name}' has a value that is not possible.", hint='Use ["audio"] or ["text"].'
    )


def _heard(before: Manners, given: Mapping[str, Any], spec: EngineSpec) -> Manners:
    heard = before.heard
    after = before
    if (sound := given.get("format")) is not None:
        heard = with_sound(heard, object_of("session.audio.input.format", sound))
    if "transcription" in given:
        wish = given["transcription"]
        after = dataclasses.replace(after, transcribes=wish is not None)
        if wish is not None:
            fields = object_of("session.audio.input.transcription", wish)
            heard = with_transcription(heard, fields, spec)
    if "turn_detection" in given:
        turning = turned(after.turning, given["turn_detection"])
        after = dataclasses.replace(after, turning=turning)
    return dataclasses.replace(after, heard=heard)


def _sounding(before: Manners, given: Mapping[str, Any]) -> Manners:
    at = "session.audio.output"
    after = before
    if (sound := given.get("format")) is not None:
        wanted = with_sound(Configuration(), object_of(f"{at}.format", sound))
        if wanted.sound is Sound.PCM and wanted.rate != USUAL_RATE:
            raise errors.FieldInvalid(f"'{at}.format.rate' is not {USUAL_RATE}.")
        after = dataclasses.replace(after, sound=wanted.sound)
    voice = given.get("voice")
    if isinstance(voice, Mapping):
        voice = voice.get("id")
    if name := parse_word(f"{at}.voice", voice).strip():
        after = dataclasses.replace(after, voice=name)
    speed = parse_number(f"{at}.speed", given.get("speed"), SLOWEST, FASTEST)
    return after if speed is None else dataclasses.replace(after, speed=speed)
