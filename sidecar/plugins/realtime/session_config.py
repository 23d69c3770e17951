"""Session configuration and session.update. Pure.

The current format (``session.update``) has everything under ``audio.input``; the beta
(``transcription_session.update``) has a field for each. Fields that are left out stay.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeGuard

from sidecar import errors
from sidecar.audio import codecs
from sidecar.interfaces import live_options
from sidecar.interfaces.engine_interface import AUTO, EngineSpec, join_prompt
from sidecar.interfaces.language_tags import parse_language
from sidecar.interfaces.request_options import (
    parse_choice,
    parse_integer,
    parse_number,
    parse_prompt,
    parse_text,
    unknown_fields,
)
from sidecar.live.sessions.session_limits import SAMPLE_RATES
from sidecar.plugins.openai import common as openai_common

DEFAULT_RATE = 24_000
"""Default sample rate of PCM in Hz; OpenAI accepts no other."""

_DELAY_S = {"minimal": 0.16, "low": 0.32, "medium": 0.48, "high": 0.96, "xhigh": 2.4}

_NESTED = frozenset(
    {"audio", "input", "output", "format", "transcription", "noise_reduction", "turn_detection"}
    | {"input_audio_transcription", "input_audio_noise_reduction"}
)
_SESSION_FIELDS = _NESTED | {
    *("type", "object", "id", "model", "instructions", "tools", "tool_choice", "prompt", "include"),
    *("output_modalities", "max_output_tokens", "tracing", "truncation", "expires_at", "metadata"),
    *("rate", "language", "languages", "keywords", "delay", "voice", "speed", "eagerness"),
    *("threshold", "prefix_padding_ms", "silence_duration_ms", "idle_timeout_ms"),
    *("create_response", "interrupt_response", "modalities", "max_response_output_tokens"),
    *("input_audio_format", "output_audio_format", "temperature", "client_secret"),
    *("parallel_tool_calls", "reasoning", "strength"),
}
"""Fields of all kinds of session, with those that have no effect here."""

LONGEST_PADDING_MS = 3_000
"""Maximum padding: twice as much is shorter than the longest utterance, which is 8 s here."""
_SILENCE = live_options.field_limits(live_options.EndpointingOptions)["silence_s"]
LONGEST_SILENCE_MS = round(1000 * _SILENCE.most)
_INPUT = "session.audio.input"
DETECTION = f"{_INPUT}.turn_detection"


class RealtimeSessionType(StrEnum):
    """Type of a session: conversation, or only transcription."""

    TRANSCRIPTION = "transcription"
    CONVERSATION = "realtime"


def is_conversation(session: object) -> TypeGuard[Mapping[str, Any]]:
    """Return whether a client's ``session`` is a conversation."""
    return isinstance(session, Mapping) and session.get("type") == RealtimeSessionType.CONVERSATION


class RealtimeAudioFormat(StrEnum):
    """Audio format by its media type."""

    PCM = "audio/pcm"
    MU_LAW = "audio/pcmu"
    A_LAW = "audio/pcma"


BETA_AUDIO_FORMATS = {
    "pcm16": RealtimeAudioFormat.PCM,
    "g711_ulaw": RealtimeAudioFormat.MU_LAW,
    "g711_alaw": RealtimeAudioFormat.A_LAW,
}


class RealtimeVadType(StrEnum):
    """Kind of turn detection. `None` instead means that the client ends turns."""

    SERVER = "server_vad"
    SEMANTIC = "semantic_vad"


class RealtimeDelay(StrEnum):
    """Delay before a model emits text."""

    UNSAID = ""
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"


class RealtimeEagerness(StrEnum):
    """Eagerness of the end of turn."""

    AUTO = "auto"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class RealtimeTurnDetection:
    """Turn detection. ``answers``: the end of a turn starts a response; ``interrupts``: speech
    during a response interrupts it. The other fields apply to one ``kind`` each."""

    kind: RealtimeVadType = RealtimeVadType.SERVER
    eagerness: RealtimeEagerness = RealtimeEagerness.AUTO
    threshold: float = 0.5
    padding_ms: int = 300
    silence_ms: int = 500
    answers: bool = True
    interrupts: bool = True

    def endpointing(
        self, default_options: live_options.EndpointingOptions
    ) -> live_options.EndpointingOptions:
        """Return the endpointing options; ``default_options`` has the other values."""
        if self.kind is RealtimeVadType.SEMANTIC:
            return default_options
        options = default_options.with_threshold(self.threshold)
        return replace(options, pre_roll_s=self.padding_ms / 1000)

    def view(self) -> dict[str, Any]:
        """Return it in the format of transcription sessions."""
        return {
            "type": self.kind.value,
            "threshold": self.threshold,
            "prefix_padding_ms": self.padding_ms,
            "silence_duration_ms": self.silence_ms,
        }

    def conversation_view(self) -> dict[str, Any]:
        """Return it in the format of conversations."""
        then = {"create_response": self.answers, "interrupt_response": self.interrupts}
        if self.kind is RealtimeVadType.SEMANTIC:
            return {"type": self.kind.value, "eagerness": self.eagerness.value, **then}
        return {**self.view(), "idle_timeout_ms": None, **then}


@dataclass(frozen=True, slots=True)
class RealtimeTranscriptionConfig:
    """Recognition options that a client can set.

    ``model`` and ``requested_language`` are as the client wrote them. ``detection`` is `None` if
    the client ends turns. ``transcribes``: transcripts are sent.
    """

    audio_format: RealtimeAudioFormat = RealtimeAudioFormat.PCM
    rate: int = DEFAULT_RATE
    model: str = ""
    requested_language: str = ""
    language: str = AUTO
    prompt: str = ""
    hotwords: tuple[str, ...] = ()
    delay: RealtimeDelay = RealtimeDelay.UNSAID
    detection: RealtimeTurnDetection | None = field(default_factory=RealtimeTurnDetection)
    transcribes: bool = True

    @property
    def diarizes(self) -> bool:
        """Return whether diarization is requested."""
        return self.model == openai_common.DIARIZING_MODEL

    def options(self, options: live_options.LiveOptions) -> live_options.LiveOptions:
        """Return the new options of the session; ``options`` are the current ones."""
        turns, endpointing = live_options.TurnControl.CLIENT, live_options.ALL_AUDIO
        if self.detection is not None:
            pauses, silence_s = live_options.EndpointingOptions(), self.detection.silence_ms / 1000
            pauses = replace(pauses, pause_s=min(pauses.pause_s, silence_s), silence_s=silence_s)
            turns = live_options.TurnControl.SILENCE
            endpointing = self.detection.endpointing(pauses)
        return replace(
            options,
            language=self.language,
            turns=turns,
            endpointing=endpointing,
            diarize=self.diarizes,
            prompt=self.prompt,
            hotwords=self.hotwords,
            delay_s=_DELAY_S.get(self.delay),
        )

    def samples(self, audio: bytes) -> tuple[bytes, live_options.SampleEncoding, int]:
        """Return audio of the client as bytes, encoding and sample rate for a session."""
        encoding = live_options.SampleEncoding.PCM16
        if self.audio_format is RealtimeAudioFormat.PCM:
            return audio, encoding, self.rate
        is_mu_law = self.audio_format is RealtimeAudioFormat.MU_LAW
        decode = codecs.decode_mu_law if is_mu_law else codecs.decode_a_law
        return decode(audio), encoding, codecs.G711_RATE

    @property
    def format_view(self) -> dict[str, Any]:
        """Return the audio input format, in the current format of the API."""
        view: dict[str, Any] = {"type": self.audio_format.value}
        return {**view, "rate": self.rate} if self.audio_format is RealtimeAudioFormat.PCM else view

    @property
    def transcription_view(self) -> dict[str, Any] | None:
        """Return the transcription options, in both formats of the API; `None` if the client set
        none."""
        options = {
            "model": self.model,
            "language": self.requested_language,
            "prompt": join_prompt(self.prompt, self.hotwords),
            "delay": self.delay.value,
        }
        return {name: value for name, value in options.items() if value} or None

    def input_view(
        self, detection_view: Callable[[RealtimeTurnDetection], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return the input configuration in the current format; ``detection_view`` renders the turn
        detection."""
        return {
            "format": self.format_view,
            "transcription": self.transcription_view if self.transcribes else None,
            "noise_reduction": None,
            "turn_detection": None if self.detection is None else detection_view(self.detection),
        }

    def view(self, number: str, expires_at: int) -> dict[str, Any]:
        """Return the session in the current format; ``expires_at`` is in seconds since 1970."""
        return {
            "type": "transcription",
            "object": "realtime.transcription_session",
            "id": number,
            "expires_at": expires_at,
            "audio": {"input": self.input_view(RealtimeTurnDetection.view)},
            "include": None,
        }

    def beta_view(self, number: str, expires_at: int) -> dict[str, Any]:
        """Return the session in the beta format."""
        names = {audio_format: name for name, audio_format in BETA_AUDIO_FORMATS.items()}
        return {
            "id": number,
            "object": "realtime.transcription_session",
            "expires_at": expires_at,
            "input_audio_format": names[self.audio_format],
            "input_audio_transcription": self.transcription_view,
            "input_audio_noise_reduction": None,
            "turn_detection": None if self.detection is None else self.detection.view(),
            "modalities": ["text"],
            "include": None,
        }


def unknown_session_fields(session: object) -> tuple[str, ...]:
    """Return a sentence for each field of a client's ``session`` that no session has."""
    parts, names = [session], list[str]()
    for part in parts:
        if isinstance(part, Mapping):
            names += part
            parts += [part[name] for name in part if name in _NESTED]
    return unknown_fields(names, _SESSION_FIELDS)


_SILENCE_MS = {RealtimeEagerness.LOW: 1_500, RealtimeEagerness.HIGH: 300}
"""Silence for `RealtimeVadType.SEMANTIC`, which no engine here supports: a pause replaces it."""


def updated_transcription(
    config: RealtimeTranscriptionConfig, session: object, spec: EngineSpec
) -> RealtimeTranscriptionConfig:
    """Return the configuration after a client's ``session``.

    Raises:
        errors.BadRequest, errors.NotFound: a field is invalid or not available here.
    """
    return with_input(config, _inputs(require_object("session", session)), spec, _detection)


def with_input(
    config: RealtimeTranscriptionConfig,
    given: Mapping[str, Any],
    spec: EngineSpec,
    detection_of: Callable[[RealtimeTurnDetection, Mapping[str, Any]], RealtimeTurnDetection],
) -> RealtimeTranscriptionConfig:
    """Return the configuration after the fields ``given`` under ``audio.input``; ``detection_of``
    reads the turn detection.

    Raises:
        errors.BadRequest, errors.NotFound: a field is invalid or not available here.
    """
    changes: dict[str, Any] = {}
    if (audio_format := given.get("format")) is not None:
        changes["audio_format"], changes["rate"] = parse_audio_format(
            audio_format, f"{_INPUT}.format"
        )
    if "transcription" in given:
        transcription = given["transcription"]
        changes["transcribes"] = transcription is not None
        if transcription is not None:
            changes |= _transcription(
                require_object(f"{_INPUT}.transcription", transcription), spec
            )
    if "turn_detection" in given:
        changes["detection"] = None
        if (detection := given["turn_detection"]) is not None:
            known = config.detection or RealtimeTurnDetection()
            changes["detection"] = detection_of(known, require_object(DETECTION, detection))
    return replace(config, **changes)


def check_model(name: str, spec: EngineSpec) -> str:
    """Return the name of a model, checked.

    Raises:
        errors.ModelNotFound: it is unknown.
    """
    if name and name not in (spec.name, *openai_common.ALIASES, *openai_common.LIVE_ALIASES):
        raise errors.ModelNotFound(
            f"There is no model '{name[:80]}' for live transcription here.",
            hint=f"The live engine is '{spec.name}'; 'whisper-1' and 'gpt-4o-transcribe' are "
            "names for it, too.",
        )
    return name


def _inputs(session: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields under ``audio.input`` from either format."""
    if session.get("type") not in (None, RealtimeSessionType.TRANSCRIPTION):
        raise errors.FieldInvalid(
            "'session.type' is not 'transcription'.",
            hint="Use 'transcription': this connection does not hold conversations.",
        )
    audio = require_object("session.audio", session.get("audio") or {})
    given = dict(require_object(_INPUT, audio.get("input") or {}))
    names = {
        "input_audio_transcription": "transcription",
        "input_audio_noise_reduction": "noise_reduction",
        "turn_detection": "turn_detection",
    }
    given |= {ours: session[theirs] for theirs, ours in names.items() if theirs in session}
    if (audio_format := session.get("input_audio_format")) is not None:
        if not isinstance(audio_format, str) or audio_format not in BETA_AUDIO_FORMATS:
            raise errors.FieldInvalid(
                "'session.input_audio_format' has an invalid value.",
                hint=f"Use one of: {', '.join(BETA_AUDIO_FORMATS)}.",
            )
        given["format"] = {"type": BETA_AUDIO_FORMATS[audio_format].value}
    if "transcription" in given:
        given["transcription"] = given["transcription"] or {}
    return given


def parse_audio_format(value: object, at: str) -> tuple[RealtimeAudioFormat, int]:
    """Return the audio format and its sample rate in Hz, from the current format; ``at`` names the
    field.

    Raises:
        errors.FieldInvalid: it is not supported.
    """
    given = require_object(at, value)
    audio_format = parse_choice(f"{at}.type", given.get("type"), RealtimeAudioFormat.PCM)
    if audio_format is not RealtimeAudioFormat.PCM:
        return audio_format, codecs.G711_RATE
    least, most = SAMPLE_RATES.start, SAMPLE_RATES.stop - 1
    return audio_format, parse_integer(f"{at}.rate", given.get("rate"), least, most) or DEFAULT_RATE


def _transcription(given: Mapping[str, Any], spec: EngineSpec) -> dict[str, Any]:
    """Return what the transcription options ``given``, in either format, change."""
    at, changes = f"{_INPUT}.transcription", dict[str, Any]()
    given = {name: value for name, value in given.items() if value is not None}
    if "model" in given:
        changes["model"] = check_model(parse_text(f"{at}.model", given["model"]).strip(), spec)
    if "language" in given or "languages" in given:
        language = parse_text(f"{at}.language", given.get("language")).strip()
        possible = _words(f"{at}.languages", given.get("languages"))
        tag = (
            parse_language(language) if language else openai_common.engine_language(spec, possible)
        )
        if not spec.speaks(tag):
            raise errors.LanguageUnsupported(f"The engine '{spec.name}' does not support '{tag}'.")
        changes["requested_language"], changes["language"] = language, tag
    if "prompt" in given or "keywords" in given:
        keywords = ", ".join(_words(f"{at}.keywords", given.get("keywords")))
        fields = {"prompt": given.get("prompt"), "hotwords": keywords}
        changes["prompt"], changes["hotwords"] = parse_prompt(fields)
    if "delay" in given:
        changes["delay"] = parse_choice(f"{at}.delay", given["delay"], RealtimeDelay.UNSAID)
    return changes


def detection_field(given: Mapping[str, Any], name: str) -> tuple[str, Any]:
    """Return the name of a field of the turn detection in errors, and its value."""
    return f"{DETECTION}.{name}", given.get(name)


def _detection(detection: RealtimeTurnDetection, given: Mapping[str, Any]) -> RealtimeTurnDetection:
    kind = parse_choice(*detection_field(given, "type"), RealtimeVadType.SERVER)
    if kind is RealtimeVadType.SEMANTIC:
        eagerness = parse_choice(*detection_field(given, "eagerness"), RealtimeEagerness.AUTO)
        detection = RealtimeTurnDetection()
        return replace(detection, silence_ms=_SILENCE_MS.get(eagerness, detection.silence_ms))
    return with_pauses(detection, given, round(1000 * _SILENCE.least))


def with_pauses(
    detection: RealtimeTurnDetection, given: Mapping[str, Any], least_silence_ms: int
) -> RealtimeTurnDetection:
    """Return the turn detection with the threshold, padding and silence ``given``.

    Raises:
        errors.FieldInvalid: a value is not a number, or beyond its limits.
    """
    limits = live_options.field_limits(live_options.EndpointingOptions)["threshold"]
    threshold, padding, silence = (
        detection_field(given, name)
        for name in ("threshold", "prefix_padding_ms", "silence_duration_ms")
    )
    changes: dict[str, Any] = {
        "threshold": parse_number(*threshold, limits.least, limits.most),
        "padding_ms": parse_integer(*padding, 0, LONGEST_PADDING_MS),
        "silence_ms": parse_integer(*silence, least_silence_ms, LONGEST_SILENCE_MS),
    }
    return replace(
        detection, **{name: value for name, value in changes.items() if value is not None}
    )


def require_object(name: str, value: object) -> Mapping[str, Any]:
    """Return the fields of an object.

    Raises:
        errors.FieldInvalid: the value is not an object.
    """
    if not isinstance(value, Mapping):
        raise errors.FieldInvalid(f"'{name}' is not an object.")
    return value


def _words(name: str, value: object) -> list[str]:
    if not isinstance(value, list | None):
        raise errors.FieldInvalid(f"'{name}' is not a list.")
    return [word for one in value or () if (word := parse_text(name, one).strip())]
