"""Session configuration and session.update. Pure.

The shape of today (``session.update``) has all of it under ``audio.input``; the one of the beta
(``transcription_session.update``) has a field for each. Only what is there changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sidecar import errors
from sidecar.audio import codecs
from sidecar.interfaces.engine_interface import AUTO, EngineSpec
from sidecar.interfaces.live_engine import Encoding, Endpointing, LiveOptions, Turns, limits_of
from sidecar.interfaces.request_options import (
    parse_choice,
    parse_number,
    parse_prompt,
    parse_whole,
    parse_word,
)
from sidecar.live.sessions.session import RATES
from sidecar.protocols import openai_common
from sidecar.protocols.openai_common import ALIASES, DIARIZING, LIVE_ALIASES

USUAL_RATE = 24_000
"""Samples a second of PCM; OpenAI takes no other."""
TALKS = "realtime"
"""The type of a session that answers (`dialogue`); those that are heard here do not."""


class Sound(StrEnum):
    """What the bytes are, by its media type."""

    PCM = "audio/pcm"
    MU_LAW = "audio/pcmu"
    A_LAW = "audio/pcma"


BETA_SOUND = {"pcm16": Sound.PCM, "g711_ulaw": Sound.MU_LAW, "g711_alaw": Sound.A_LAW}
"""As the beta calls it."""


class Detection(StrEnum):
    """Who hears that somebody has done speaking; None besides, for the client alone."""

    SERVER = "server_vad"
    SEMANTIC = "semantic_vad"


class Delay(StrEnum):
    """How long a model may wait before it writes."""

    UNSAID = ""
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"


_DELAY_S = {
    Delay.MINIMAL: 0.16,
    Delay.LOW: 0.32,
    Delay.MEDIUM: 0.48,
    Delay.HIGH: 0.96,
    Delay.XHIGH: 2.4,
}


@dataclass(frozen=True, slots=True)
class Pauses:
    """What counts as speech and as its end."""

    threshold: float = 0.5
    padding_ms: int = 300
    silence_ms: int = 500


@dataclass(frozen=True, slots=True)
class Configuration:
    """All that a client can say of a session. ``model`` and ``said_language`` are as it wrote them,
    ``pauses`` None where it ends turns itself."""

    sound: Sound = Sound.PCM
    rate: int = USUAL_RATE
    model: str = ""
    said_language: str = ""
    language: str = AUTO
    prompt: str = ""
    delay: Delay = Delay.UNSAID
    pauses: Pauses | None = field(default_factory=Pauses)

    @property
    def diarizes(self) -> bool:
        """Whether who speaks is to be told."""
        return self.model == DIARIZING

    def options(self, before: LiveOptions) -> LiveOptions:
        """The options of the session, which has had others."""
        return dataclasses.replace(
            before,
            language=self.language,
            turns=Turns.CLIENT if self.pauses is None else Turns.SILENCE,
            endpointing=_endpointing(self.pauses or Pauses()),
            diarize=self.diarizes,
            prompt=self.prompt,
            delay_s=_DELAY_S.get(self.delay),
        )

    def samples(self, raw: bytes) -> tuple[bytes, Encoding, int]:
        """Bytes of a client as a session takes them."""
        match self.sound:
            case Sound.PCM:
                return raw, Encoding.PCM16, self.rate
            case Sound.MU_LAW:
                return codecs.from_mu_law(raw), Encoding.PCM16, codecs.G711_RATE
            case Sound.A_LAW:
                return codecs.from_a_law(raw), Encoding.PCM16, codecs.G711_RATE

    @property
    def format_view(self) -> dict[str, Any]:
        """How sound comes in, as clients of today read it."""
        sound: dict[str, Any] = {"type": self.sound.value}
        return {**sound, "rate": self.rate} if self.sound is Sound.PCM else sound

    @property
    def transcription_view(self) -> dict[str, Any] | None:
        """How it is heard, in the shape of both; None where a client said nothing of that."""
        said = {
            "model": self.model,
            "language": self.said_language,
            "prompt": self.prompt,
            "delay": self.delay.value,
        }
        return {name: value for name, value in said.items() if value} or None

    def view(self, number: str, expires_at: int) -> dict[str, Any]:
        """The session as clients of today read it; ``expires_at`` in seconds since 1970."""
        return {
            "type": "transcription",
            "object": "realtime.transcription_session",
            "id": number,
            "expires_at": expires_at,
            "audio": {
                "input": {
                    "format": self.format_view,
                    "transcription": self.transcription_view,
                    "noise_reduction": None,
                    "turn_detection": self._detection(),
                }
            },
            "include": None,
        }

    def beta_view(self, number: str, expires_at: int) -> dict[str, Any]:
        """The session as clients of the beta read it."""
        sounds = {sound: name for name, sound in BETA_SOUND.items()}
        return {
            "id": number,
            "object": "realtime.transcription_session",
            "expires_at": expires_at,
            "input_audio_format": sounds[self.sound],
            "input_audio_transcription": self.transcription_view,
            "input_audio_noise_reduction": None,
            "turn_detection": self._detection(),
            "modalities": ["text"],
            "include": None,
        }

    def _detection(self) -> dict[str, Any] | None:
        if self.pauses is None:
            return None
        return {
            "type": Detection.SERVER.value,
            "threshold": self.pauses.threshold,
            "prefix_padding_ms": self.pauses.padding_ms,
            "silence_duration_ms": self.pauses.silence_ms,
        }


def _endpointing(pauses: Pauses) -> Endpointing:
    usual = Endpointing()
    below = usual.threshold - usual.neg_threshold
    return dataclasses.replace(
        usual,
        threshold=pauses.threshold,
        neg_threshold=max(0.0, pauses.threshold - below),
        sure_threshold=max(usual.sure_threshold, pauses.threshold),
        pre_roll_s=pauses.padding_ms / 1000,
        pause_s=min(usual.pause_s, pauses.silence_ms / 1000),
        silence_s=pauses.silence_ms / 1000,
    )


LONGEST_PADDING_MS = 3_000
"""Twice what comes before speech is no longer than an utterance, which is 8 s here."""
_SILENCE = limits_of(Endpointing)["silence_s"]
LONGEST_SILENCE_MS = round(1000 * _SILENCE.most)
_INPUT = "session.audio.input"


class Eagerness(StrEnum):
    """How soon somebody has done speaking."""

    AUTO = "auto"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


_SILENCE_MS = {Eagerness.LOW: 1_500, Eagerness.HIGH: 300}
"""For `Detection.SEMANTIC`, which nobody here can: a pause stands for it."""


def updated(before: Configuration, session: object, spec: EngineSpec) -> Configuration:
    """What a client's ``session`` makes of the configuration.

    Raises:
        errors.BadRequest, errors.NotFound: it means nothing, or nothing that is to be had here.
    """
    given = _inputs(object_of("session", session))
    after = before
    if (sound := given.get("format")) is not None:
        after = with_sound(after, object_of(f"{_INPUT}.format", sound))
    if "transcription" in given:
        wish = object_of(f"{_INPUT}.transcription", given["transcription"] or {})
        after = with_transcription(after, wish, spec)
    if "turn_detection" in given:
        after = dataclasses.replace(after, pauses=_pauses(after.pauses, given["turn_detection"]))
    return after


def check_model(name: str, spec: EngineSpec) -> str:
    """A model's name that counts here.

    Raises:
        errors.ModelNotFound: it does not.
    """
    if name and name not in (spec.name, *ALIASES, *LIVE_ALIASES):
        raise errors.ModelNotFound(
            f"There is no model '{name[:80]}' here that transcribes live.",
            hint=f"What hears live here is '{spec.name}'; 'whisper-1' or "
            "'gpt-4o-transcribe' stand for it, too.",
        )
    return name


def _inputs(session: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is under ``audio.input``, whichever shape it came in."""
    kind = session.get("type", "transcription")
    if kind != "transcription":
        raise errors.FieldInvalid(
            "'session.type' is not 'transcription'.",
            hint="This service transcribes here; it does not answer.",
        )
    audio = object_of("session.audio", session.get("audio") or {})
    given = dict(object_of(_INPUT, audio.get("input") or {}))
    names = {
        "input_audio_transcription": "transcription",
        "input_audio_noise_reduction": "noise_reduction",
        "turn_detection": "turn_detection",
    }
    given |= {ours: session[theirs] for theirs, ours in names.items() if theirs in session}
    if (sound := session.get("input_audio_format")) is not None:
        if not isinstance(sound, str) or sound not in BETA_SOUND:
            raise errors.FieldInvalid(
                "'session.input_audio_format' has a value that is not possible.",
                hint=f"Use one of: {', '.join(BETA_SOUND)}.",
            )
        given["format"] = {"type": BETA_SOUND[sound].value}
    return given


def with_sound(before: Configuration, given: Mapping[str, Any]) -> Configuration:
    """Sound comes in as ``given`` says, in the shape of today.

    Raises:
        errors.FieldInvalid: it is none that is taken.
    """
    sound = parse_choice(f"{_INPUT}.format.type", given.get("type"), Sound.PCM)
    if sound is not Sound.PCM:
        return dataclasses.replace(before, sound=sound, rate=codecs.G711_RATE)
    rate = parse_whole(f"{_INPUT}.format.rate", given.get("rate"), RATES.start, RATES.stop - 1)
    return dataclasses.replace(before, sound=sound, rate=rate or USUAL_RATE)


def with_transcription(
    before: Configuration, given: Mapping[str, Any], spec: EngineSpec
) -> Configuration:
    """It is heard as ``given`` says, in the shape of both.

    Raises:
        errors.BadRequest, errors.NotFound: it means nothing, or nothing that is to be had here.
    """
    at = f"{_INPUT}.transcription"
    after = before
    if "model" in given:
        model = check_model(parse_word(f"{at}.model", given["model"]).strip(), spec)
        after = dataclasses.replace(after, model=model)
    if "language" in given or "languages" in given:
        said = parse_word(f"{at}.language", given.get("language")).strip()
        possible = _words(f"{at}.languages", given.get("languages"))
        tag = openai_common.tag_of(said) if said else openai_common.only(spec, possible)
        if not spec.speaks(tag):
            raise errors.LanguageUnsupported(f"The engine '{spec.name}' does not know '{tag}'.")
        after = dataclasses.replace(after, said_language=said, language=tag)
    if "prompt" in given or "keywords" in given:
        keywords = ", ".join(_words(f"{at}.keywords", given.get("keywords")))
        prompt = parse_prompt({"prompt": given.get("prompt"), "hotwords": keywords})
        after = dataclasses.replace(after, prompt=prompt)
    if "delay" in given:
        delay = parse_choice(f"{at}.delay", given["delay"], Delay.UNSAID)
        after = dataclasses.replace(after, delay=delay)
    return after


def _pauses(before: Pauses | None, given: object) -> Pauses | None:
    if given is None:
        return None
    at = f"{_INPUT}.turn_detection"
    fields = object_of(at, given)
    kind = parse_choice(f"{at}.type", fields.get("type"), Detection.SERVER)
    if kind is Detection.SEMANTIC:
        eagerness = parse_choice(f"{at}.eagerness", fields.get("eagerness"), Eagerness.AUTO)
        return Pauses(silence_ms=_SILENCE_MS.get(eagerness, Pauses().silence_ms))
    known = before or Pauses()
    threshold = threshold_of(f"{at}.threshold", fields)
    padding = parse_whole(
        f"{at}.prefix_padding_ms", fields.get("prefix_padding_ms"), 0, LONGEST_PADDING_MS
    )
    silence = parse_whole(
        f"{at}.silence_duration_ms",
        fields.get("silence_duration_ms"),
        round(1000 * _SILENCE.least),
        LONGEST_SILENCE_MS,
    )
    return Pauses(
        known.threshold if threshold is None else threshold,
        known.padding_ms if padding is None else padding,
        known.silence_ms if silence is None else silence,
    )


def threshold_of(name: str, fields: Mapping[str, Any]) -> float | None:
    """From which probability on somebody speaks, None where nothing is said of that.

    Raises:
        errors.FieldInvalid: it is none.
    """
    limits = limits_of(Endpointing)["threshold"]
    return parse_number(name, fields.get("threshold"), limits.least, limits.most)


def object_of(name: str, value: object) -> Mapping[str, Any]:
    """The fields of an object.

    Raises:
        errors.FieldInvalid: it is none.
    """
    if not isinstance(value, Mapping):
        raise errors.FieldInvalid(f"'{name}' is no object.")
    return value


def _words(name: str, value: object) -> list[str]:
    if not isinstance(value, list | None):
        raise errors.FieldInvalid(f"'{name}' is no list.")
    return [word for one in value or () if (word := parse_word(name, one).strip())]
