"""What a client says of how it wants to be heard, in the two shapes that its SDKs send. Pure.

The shape of today (``session.update``) has all of it under ``audio.input``; the one of the beta
(``transcription_session.update``) has a field for each. Only what is there changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from sidecar import errors
from sidecar.audio import g711
from sidecar.interfaces.engine import EngineSpec
from sidecar.interfaces.limits import limits_of
from sidecar.interfaces.live import Endpointing
from sidecar.interfaces.options import (
    parse_choice,
    parse_number,
    parse_prompt,
    parse_whole,
    parse_word,
)
from sidecar.live.sessions.session import RATES
from sidecar.protocols import languages
from sidecar.protocols.aliases import ALIASES, LIVE_ALIASES
from sidecar.protocols.openai_realtime.configuration import (
    BETA_SOUND,
    USUAL_RATE,
    Configuration,
    Delay,
    Detection,
    Pauses,
    Sound,
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
        return dataclasses.replace(before, sound=sound, rate=g711.RATE)
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
        tag = languages.tag_of(said) if said else languages.only(spec, possible)
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
