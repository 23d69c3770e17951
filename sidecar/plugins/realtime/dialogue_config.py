"""Configuration of a conversation: turn detection, tools, voice. Pure.

Fields that are left out stay. The input fields are those of a transcription.

OpenAI's ``semantic_vad`` detects the end of a turn with a model that hears the audio. Here it is
`conversation.end_of_turn`, which uses the recognized words. ``server_vad`` is a pause in
milliseconds.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sidecar.audio.codecs import G711_RATE as TELEPHONE_RATE
from sidecar.errors import FieldInvalid
from sidecar.interfaces.engine_interface import EngineSpec, SynthesisOptions
from sidecar.interfaces.live_options import LiveOptions
from sidecar.interfaces.request_options import parse_choice, parse_flag, parse_number, parse_text
from sidecar.plugins.conversation.chat_completions import (
    NO_TOOLS,
    ToolChoice,
    ToolDefinition,
    ToolSet,
)
from sidecar.plugins.conversation.conversation_events import ConversationOptions, EndOfTurnDelays
from sidecar.plugins.conversation.speech_input import CONVERSATION_ENDPOINTING
from sidecar.plugins.openai.common import DEFAULT_VOICE, VOICES
from sidecar.plugins.realtime import session_config

SHORTEST_SILENCE_MS = round(1000 * CONVERSATION_ENDPOINTING.silence_s)
"""Minimum pause in milliseconds: a shorter silence is not perceived as a pause."""
_SCALE = {session_config.RealtimeEagerness.LOW: 2.0, session_config.RealtimeEagerness.HIGH: 0.7}
"""Factors on the end-of-turn delays, by eagerness."""

MAX_TOOLS = 128
MAX_TOOLS_CHARACTERS = 65_536
"""Maximum characters of all tools as JSON: an LLM reads them before each answer."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
FUNCTION = "function"
HINT = "Tools are functions of the client's: type, name, description and parameters."

DIALOGUE_MODELS = ("gpt-realtime", "gpt-4o-realtime", "gpt-4o-mini-realtime", "gpt-audio")
"""Prefixes of OpenAI's conversation models: aliases of the LLM here."""
DEFAULT_TRANSCRIPTION = session_config.RealtimeTranscriptionConfig(
    detection=session_config.RealtimeTurnDetection(session_config.RealtimeVadType.SEMANTIC)
)
"""Default recognition options."""
SLOWEST, FASTEST = 0.25, 1.5
LONGEST_INSTRUCTIONS = 16_384
"""Maximum characters of the instructions."""

_GA_NAMES = {
    "modalities": "output_modalities",
    "max_response_output_tokens": "max_output_tokens",
    "voice": "audio.output.voice",
    "speed": "audio.output.speed",
    "output_audio_format": "audio.output.format",
    "input_audio_format": "audio.input.format",
    "input_audio_transcription": "audio.input.transcription",
    "input_audio_noise_reduction": "audio.input.noise_reduction",
    "turn_detection": "audio.input.turn_detection",
}
"""Current names of the beta's fields."""


def _detection(
    detection: session_config.RealtimeTurnDetection, given: Mapping[str, Any]
) -> session_config.RealtimeTurnDetection:
    def field(name: str) -> tuple[str, Any]:
        return session_config.detection_field(given, name)

    kind = parse_choice(*field("type"), session_config.RealtimeVadType.SERVER)
    pauses = session_config.with_pauses(detection, given, 0)
    return replace(
        pauses,
        kind=kind,
        eagerness=parse_choice(*field("eagerness"), detection.eagerness),
        silence_ms=max(SHORTEST_SILENCE_MS, pauses.silence_ms),
        answers=parse_flag(*field("create_response"), default=detection.answers),
        interrupts=parse_flag(*field("interrupt_response"), default=detection.interrupts),
    )


def _end_of_turn_delays(detection: session_config.RealtimeTurnDetection) -> EndOfTurnDelays:
    """Return the delays after which a pause ends a turn."""
    if detection.kind is session_config.RealtimeVadType.SEMANTIC:
        return EndOfTurnDelays(scale=_SCALE.get(detection.eagerness, 1.0))
    pause_s = detection.silence_ms / 1000
    return EndOfTurnDelays(pause_s, pause_s, pause_s)


def parse_tools(given: Mapping[str, Any], at: str, tools: ToolSet) -> ToolSet:
    """Return the tools of a session or of a response, named ``at`` in errors; fields that are left
    out stay.

    Raises:
        errors.FieldInvalid: a tool is invalid, or not a function.
    """
    if given.get("tools") is not None:
        tools = replace(tools, all=_all(given["tools"], f"{at}.tools"))
    if given.get("tool_choice") is not None:
        tools = _chosen(tools, given["tool_choice"], f"{at}.tool_choice")
    if tools.named and tools.named not in {tool.name for tool in tools.all}:
        if given.get("tool_choice") is None:  # the chosen tool was removed
            return replace(tools, choice=ToolChoice.AUTO, named="")
        raise FieldInvalid(f"'{at}.tool_choice' names a tool that is not in the list of tools.")
    return tools


def tools_view(tools: ToolSet) -> list[dict[str, Any]]:
    """Return the tools as clients read them."""
    return [
        {
            "type": FUNCTION,
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
        }
        for tool in tools.all
    ]


def _all(given: object, at: str) -> tuple[ToolDefinition, ...]:
    if not isinstance(given, list) or len(given) > MAX_TOOLS:
        raise FieldInvalid(f"'{at}' is not a list of at most {MAX_TOOLS} tools.", hint=HINT)
    if len(json.dumps(given)) > MAX_TOOLS_CHARACTERS:
        raise FieldInvalid(f"'{at}' has more than {MAX_TOOLS_CHARACTERS} characters.")
    definitions = tuple(_one(session_config.require_object(at, tool), at) for tool in given)
    if len({tool.name for tool in definitions}) < len(definitions):
        raise FieldInvalid(f"'{at}' has two tools with the same name.")
    return definitions


def _one(given: Mapping[str, Any], at: str) -> ToolDefinition:
    if given.get("type") != FUNCTION:
        raise FieldInvalid(f"'{at}' has a tool that is not a function.", hint=HINT)
    name = parse_text(f"{at}.name", given.get("name"))
    if not _NAME.fullmatch(name):
        raise FieldInvalid(
            f"'{at}' has a tool without a valid name.",
            hint="Use 1 to 64 letters, digits, '_', '-' and '.'.",
        )
    parameters = given.get("parameters")
    if parameters is not None:
        parameters = session_config.require_object(f"{at}.parameters", parameters)
    return ToolDefinition(
        name, parse_text(f"{at}.description", given.get("description")), parameters
    )


def _chosen(tools: ToolSet, given: object, at: str) -> ToolSet:
    match given:
        case {"type": "function", "name": str(name)}:
            return replace(tools, choice=ToolChoice.AUTO, named=name)
        case str(word) if word in tuple(ToolChoice):
            return replace(tools, choice=ToolChoice(word), named="")
    raise FieldInvalid(
        f"'{at}' has an invalid value.",
        hint=f"Use one of: {', '.join(ToolChoice)}, or a function by its name.",
    )


@dataclass(frozen=True, slots=True)
class RealtimeDialogueConfig:
    """Configuration of a conversation that a client can set.

    ``model`` and ``voice`` are as the client wrote them. ``aloud``: answers are spoken if there is
    a TTS engine (``speaks``). ``any_voice``: only the speech server knows the names of its voices.
    ``audio_format``: format of the output audio.
    """

    model: str
    instructions: str = ""
    transcription: session_config.RealtimeTranscriptionConfig = DEFAULT_TRANSCRIPTION
    speaks: bool = True
    any_voice: bool = False
    aloud: bool = True
    tools: ToolSet = NO_TOOLS
    voice: str = DEFAULT_VOICE
    speed: float = 1.0
    audio_format: session_config.RealtimeAudioFormat = session_config.RealtimeAudioFormat.PCM

    @property
    def says(self) -> bool:
        """Return whether answers are spoken."""
        return self.speaks and self.aloud

    @property
    def own_voice(self) -> str:
        """Return the requested voice of the engine, '' for the default one."""
        default_voices = (DEFAULT_VOICE,) if self.any_voice else (DEFAULT_VOICE, *VOICES)
        return "" if self.voice in default_voices else self.voice

    def options(self, options: ConversationOptions) -> ConversationOptions:
        """Return the new options of the conversation; ``options`` are the current ones."""
        detection = self.transcription.detection
        return replace(
            options,
            instructions=self.instructions,
            voiced=self.says,
            tools=self.tools,
            delays=EndOfTurnDelays() if detection is None else _end_of_turn_delays(detection),
            ends_turns=detection is not None,
            answers=detection is not None and detection.answers,
            interruptible=detection is not None and detection.interrupts,
        )

    def live_options(self, options: LiveOptions) -> LiveOptions:
        """Return the recognition options of the user."""
        transcription, detection = self.transcription, self.transcription.detection
        return replace(
            options,
            language=transcription.language
            if transcription.requested_language
            else options.language,
            prompt=transcription.prompt,
            hotwords=transcription.hotwords,
            endpointing=CONVERSATION_ENDPOINTING
            if detection is None
            else detection.endpointing(CONVERSATION_ENDPOINTING),
        )

    def synthesis(self, default_synthesis: SynthesisOptions) -> SynthesisOptions:
        """Return the synthesis options of answers."""
        rate = (
            session_config.DEFAULT_RATE
            if self.audio_format is session_config.RealtimeAudioFormat.PCM
            else TELEPHONE_RATE
        )
        voice = self.own_voice or default_synthesis.voice
        return replace(default_synthesis, voice=voice, speed=self.speed, rate=rate)

    @property
    def output_view(self) -> dict[str, Any]:
        """Return the output configuration."""
        return {
            "format": session_config.RealtimeTranscriptionConfig(self.audio_format).format_view,
            "voice": self.voice,
        }

    def view(self, number: str, expires_at: int) -> dict[str, Any]:
        """Return the session as clients read it; ``expires_at`` is in seconds since 1970."""
        named = self.tools.named
        return {
            "type": session_config.RealtimeSessionType.CONVERSATION.value,
            "object": "realtime.session",
            "id": number,
            "model": self.model,
            "output_modalities": ["audio" if self.says else "text"],
            "instructions": self.instructions,
            "tools": tools_view(self.tools),
            "tool_choice": {"type": FUNCTION, "name": named} if named else self.tools.choice.value,
            "max_output_tokens": "inf",
            "tracing": None,
            "truncation": "auto",
            "prompt": None,
            "expires_at": expires_at,
            "audio": {
                "input": self.transcription.input_view(
                    session_config.RealtimeTurnDetection.conversation_view
                ),
                "output": {**self.output_view, "speed": self.speed},
            },
            "include": None,
        }


def refuse_beta_fields(given: Mapping[str, Any], at: str) -> None:
    """Refuse the beta format in a session or a response, named ``at`` in errors.

    Raises:
        errors.FieldInvalid: it has a field of the beta.
    """
    for name, now in _GA_NAMES.items():
        if given.get(name) is not None:
            raise FieldInvalid(
                f"'{at}.{name}' is a field of the beta API.", hint=f"Send '{at}.{now}' instead."
            )


def updated_dialogue(
    config: RealtimeDialogueConfig, session: object, spec: EngineSpec
) -> RealtimeDialogueConfig:
    """Return the configuration after a client's ``session``. The existence of the model and the
    voice is not checked.

    Raises:
        errors.BadRequest, errors.NotFound: a field is invalid or not available here.
    """
    given = session_config.require_object("session", session)
    if given.get("type") not in (None, session_config.RealtimeSessionType.CONVERSATION):
        raise FieldInvalid(
            f"'session.type' is not '{session_config.RealtimeSessionType.CONVERSATION}'.",
            hint="The type of a session cannot change; for transcription connect with "
            "?intent=transcription.",
        )
    refuse_beta_fields(given, "session")
    updated = replace(
        config,
        instructions=parse_instructions(given, "session.instructions", config.instructions),
        model=parse_text("session.model", given.get("model")) or config.model,
        aloud=parse_modalities(given, "session.output_modalities", config.aloud),
        tools=parse_tools(given, "session", config.tools),
    )
    audio = session_config.require_object("session.audio", given.get("audio") or {})
    audio_input = session_config.require_object("session.audio.input", audio.get("input") or {})
    updated = replace(
        updated,
        transcription=session_config.with_input(
            updated.transcription, audio_input, spec, _detection
        ),
    )
    return with_output(updated, audio, "session.audio")


def parse_instructions(given: Mapping[str, Any], name: str, default: str) -> str:
    """Return the instructions for the LLM.

    Raises:
        errors.FieldInvalid: they are not text, or too long.
    """
    if given.get("instructions") is None:
        return default
    return parse_text(name, given["instructions"], LONGEST_INSTRUCTIONS)


def parse_modalities(given: Mapping[str, Any], name: str, default: bool) -> bool:
    """Return whether answers are spoken.

    Raises:
        errors.FieldInvalid: the value is neither audio nor text.
    """
    modalities = given.get("output_modalities")
    if modalities is None:
        return default
    if modalities in (["audio"], ["text"]):
        return bool(modalities == ["audio"])
    raise FieldInvalid(f"'{name}' has an invalid value.", hint='Use ["audio"] or ["text"].')


def with_output(config: RealtimeDialogueConfig, audio: object, name: str) -> RealtimeDialogueConfig:
    """Return the configuration with the voice and the format of ``audio``, the field ``name``.

    Raises:
        errors.FieldInvalid: one of them is invalid.
    """
    at = f"{name}.output"
    output = session_config.require_object(name, audio or {}).get("output")
    given = session_config.require_object(at, output or {})
    updated = config
    if (audio_format := given.get("format")) is not None:
        parsed_format, rate = session_config.parse_audio_format(audio_format, f"{at}.format")
        if (
            parsed_format is session_config.RealtimeAudioFormat.PCM
            and rate != session_config.DEFAULT_RATE
        ):
            raise FieldInvalid(f"'{at}.format.rate' is not {session_config.DEFAULT_RATE}.")
        updated = replace(updated, audio_format=parsed_format)
    voice = given.get("voice")
    if isinstance(voice, Mapping):
        voice = voice.get("id")
    if name := parse_text(f"{at}.voice", voice).strip():
        updated = replace(updated, voice=name)
    speed = parse_number(f"{at}.speed", given.get("speed"), SLOWEST, FASTEST)
    return updated if speed is None else replace(updated, speed=speed)
