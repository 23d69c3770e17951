"""Request options from any protocol. Pure.

A value is text (of a form or the command line) or a JSON value; for None and empty text the default
applies. Every error names the field.
"""

import base64
import difflib
import itertools
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from math import nan
from typing import Any, NamedTuple, TypeVar

from sidecar.errors import FieldInvalid, FieldMissing, PrecisionUnknown
from sidecar.interfaces.engine_interface import (
    AUTO,
    ChannelMode,
    DiarizationEffort,
    EngineSpec,
    Precision,
    TranscribeOptions,
    join_prompt,
)
from sidecar.interfaces.language_tags import parse_language, printable_text
from sidecar.interfaces.request_fields import (
    MAX_CHANNELS,
    MAX_PROMPT_CHARACTERS,
    MAX_SPEAKERS,
    REQUEST_FIELDS,
    SPEAKER_COUNT_FIELDS,
    RequestField,
)
from sidecar.transcripts.transcript import MAX_NAME_CHARACTERS, Notice, Transcript

Choice = TypeVar("Choice", bound=StrEnum)
Value = TypeVar("Value")

_URL_SAFE = {0x2D: "+", 0x5F: "/"}  # - and _
_TRUE, _FALSE = {"true", "1", "yes", "y", "on"}, {"false", "0", "no", "n", "off"}
_INTEGER = re.compile(r"[+-]?\d{1,20}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(\d{1,20}(\.\d{0,20})?|\.\d{1,20})(e[+-]?\d{1,4})?", re.ASCII)


def parse_options(
    given: Mapping[str, object],
    diarization: DiarizationEffort,
    language: str = AUTO,
    known: Collection[str] | None = None,
) -> TranscribeOptions:
    """Return the options in the fields of a request; other fields are ignored.

    ``diarization``, ``language``: defaults if the client sends none. ``prompt`` and ``context`` are
    the same field. ``known``: all fields of the request; the response names others
    (`TranscribeOptions.unknown_fields`).

    Raises:
        errors.BadRequest: a value is invalid.
    """
    sent_language = parse_text("language", given.get("language"))
    prompt, hotwords = parse_prompt(given)
    own = {
        "precision": parse_precision(parse_text("precision", given.get("precision")) or AUTO),
        "language": parse_language(sent_language) if sent_language else language,
        "diarization": parse_choice("diarization", given.get("diarization"), diarization),
        "prompt": prompt,
        "hotwords": hotwords,
        **parse_speaker_counts(given)._asdict(),
    }
    values = own | {
        name: _parse_value(row, given.get(name))
        for name, row in REQUEST_FIELDS.items()
        if name not in own and not row.same_as
    }
    names = given.get("channel_names")
    values["channel_names"] = parse_channel_names(names, values["channels"]) if names else ()
    unknown = () if known is None else unknown_fields(given, known)
    return TranscribeOptions(**values, unknown_fields=unknown)


def _parse_value(row: RequestField, value: object) -> Any:
    """Return the value of a field that needs no other one.

    Raises:
        errors.FieldInvalid: it is not of the kind, or not within the limits.
    """
    if row.kind is bool:
        return parse_flag(row.name, value, default=row.default)
    if issubclass(row.kind, StrEnum):
        return parse_choice(row.name, value, row.default)
    if row.kind is str:
        return parse_text(row.name, value)
    parse = parse_integer if row.kind is int else parse_number
    number = parse(row.name, value, row.least, row.most)
    return row.default if number is None else number


class SpeakerCounts(NamedTuple):
    """Number of speakers, or its limits, as far as a client knows them."""

    num_speakers: int | None = None
    min_speakers: int | None = None
    max_speakers: int | None = None


def parse_speaker_counts(given: Mapping[str, object]) -> SpeakerCounts:
    """Return the numbers of speakers in the fields of a request.

    Raises:
        errors.FieldInvalid: one is invalid, or they contradict each other.
    """
    counts = {
        name: parse_integer(name, given.get(name), 1, MAX_SPEAKERS) for name in SPEAKER_COUNT_FIELDS
    }
    if not any(counts.values()):
        return SpeakerCounts()
    least, most = counts.pop("min_speakers"), counts.pop("max_speakers")
    number = _same_field(counts)
    if number is not None and (least or most):
        raise FieldInvalid(
            "'num_speakers' cannot be combined with 'min_speakers' or 'max_speakers'.",
            hint="Send the number if you know it, else its limits.",
        )
    if least and most and least > most:
        raise FieldInvalid("'min_speakers' is more than 'max_speakers'.")
    return SpeakerCounts(number, least, most)


def _same_field(values: Mapping[str, Value | None]) -> Value | None:
    """Return the value of a field that has several names.

    Raises:
        errors.FieldInvalid: the values differ.
    """
    distinct = {value for value in values.values() if value}
    if len(distinct) > 1:
        names = " and ".join(f"'{name}'" for name in values)
        raise FieldInvalid(
            f"{names} are the same field and have different values.", hint="Send one of them."
        )
    return next(iter(distinct), None)


OPTION_IGNORED = "option_ignored"
FIELD_UNKNOWN = "field_unknown"
MAX_UNKNOWN_FIELDS = 10
"""Fields of one request that are compared with known ones: a comparison takes time."""


def unknown_fields(sent: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    """Return a sentence for each field that is not ``known``, with the nearest known field."""
    names = [name for name in dict.fromkeys(sent) if name not in known]
    return tuple(
        f"There is no field '{printable_text(name)}'; it has no effect.{did_you_mean(name, known)}"
        for name in names[:MAX_UNKNOWN_FIELDS]
    )


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return a question with the nearest ``known`` field behind a space, '' if none is near."""
    close = difflib.get_close_matches(printable_text(name).lower(), known, 1)
    return f" Did you mean '{close[0]}'?" if close else ""


def field_missing(name: str, sent: Iterable[str]) -> FieldMissing:
    """Return the error of a missing field, with the nearest of the first names that were
    ``sent``."""
    names = [printable_text(one) for one in itertools.islice(sent, MAX_UNKNOWN_FIELDS)]
    close = difflib.get_close_matches(name, names, 1)
    hint = f"Did you mean '{name}' by '{close[0]}'?" if close else None
    return FieldMissing(f"The field '{name}' is missing.", hint=hint)


def unknown_field_notices(sentences: Iterable[str]) -> tuple[Notice, ...]:
    """Return the sentences of `unknown_fields` as notices of a response."""
    return tuple(Notice(FIELD_UNKNOWN, sentence) for sentence in sentences)


def ignored_fields(spec: EngineSpec, options: TranscribeOptions) -> tuple[str, ...]:
    """Return the options that the client sent and the engine does not support."""

    def lacks(row: RequestField) -> bool:
        return row.follows is not None and not row.follows(spec)

    ignored = (
        "/".join(one for one in row.noticed_with or (name,) if lacks(REQUEST_FIELDS[one]))
        for name, row in REQUEST_FIELDS.items()
        if not row.same_as and getattr(options, name) != row.default and lacks(row)
    )
    return tuple(dict.fromkeys(ignored))


def with_ignored_notices(
    spec: EngineSpec, transcript: Transcript, options: TranscribeOptions, *, edited: bool = False
) -> Transcript:
    """Return a transcript with notices about options that were not followed. ``edited``: by its
    owner, who may have changed the speakers."""
    notices = []
    precision, name = options.precision, spec.name
    if precision not in (Precision.AUTO, transcript.precision):
        reason = f": {spec.lacking[precision]}" if precision in spec.lacking else ""
        used = transcript.precision
        message = f"The engine '{name}' has no {precision} here{reason}; {used} was used."
        if spec.resolve_precision(precision) is precision:  # the engine was reloaded meanwhile
            message = f"Instead of {precision}, {transcript.precision} was used."
        notices.append(Notice("precision_substituted", message))
    if left_out := ignored_fields(spec, options):
        fields = ", ".join(left_out)
        message = f"The engine '{name}' cannot follow these options: {fields}."
        if not spec.steerable or spec.prompt_only:
            message += " The engines 'vibevoice' and 'whisper' can."
        notices.append(Notice(OPTION_IGNORED, message))
    counts = SpeakerCounts(options.num_speakers, options.min_speakers, options.max_speakers)
    given_for_all = options.channels is not ChannelMode.SEPARATE  # else for each of them
    if any(counts) and given_for_all and not edited and spec.counted:
        notices += speaker_count_notices(transcript, counts)
    return transcript.with_notice(*notices, *unknown_field_notices(options.unknown_fields))


def speaker_count_notices(transcript: Transcript, counts: SpeakerCounts) -> list[Notice]:
    """Return the notice of a diarized transcript with another number of speakers than was given."""
    count, exact = transcript.num_speakers, counts.num_speakers
    least, most = counts.min_speakers or 0, counts.max_speakers or count
    if not transcript.diarized or not transcript.has_speech:
        return []
    if (exact or least) <= count <= (exact or most):
        return []
    given = exact or (f"at least {least}" if count < least else f"at most {most}")
    speakers = f"{count} speaker{'s' * (count != 1)}"
    message = f"The transcript has {speakers}; the request named {given}."
    return [Notice("speaker_count_differs", message)]


def parse_precision(value: str) -> Precision:
    """Return the precision with that name.

    Raises:
        errors.PrecisionUnknown: there is none.
    """
    try:
        return Precision(value.strip().lower())
    except ValueError:
        raise PrecisionUnknown(
            f"The precision '{printable_text(value)}' is unknown.",
            hint=f"Use one of: {', '.join(Precision)}.",
        ) from None


def parse_text(name: str, value: object, most: int | None = None) -> str:
    """Return the text of a field, '' if it is None.

    Raises:
        errors.FieldInvalid: it is not text, or has more than ``most`` characters.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise FieldInvalid(f"The field '{name}' is not a string.")
    if most is not None and len(value) > most:
        raise FieldInvalid(f"'{name}' has more than {most} characters.")
    return value


def decode_base64(text: str) -> bytes:
    """Return the bytes of base64 text, of either alphabet, with or without line breaks and padding,
    or as a data URL.

    Raises:
        ValueError: it is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)  # as most send it: the rest copies the text
    except ValueError:
        plain = "".join(text.rpartition(";base64,")[2].split()).rstrip("=").translate(_URL_SAFE)
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def parse_flag(name: str, value: object, *, default: bool) -> bool:
    """Return a truth value, or the default.

    Raises:
        errors.FieldInvalid: it is neither true nor false.
    """
    if isinstance(value, bool):
        return value
    word = parse_text(name, value).strip().lower()
    if not word:
        return default
    if word not in _TRUE | _FALSE:
        raise FieldInvalid(f"'{name}' is neither true nor false.", hint="Send 'true' or 'false'.")
    return word in _TRUE


def parse_choice(name: str, value: object, default: Choice) -> Choice:
    """Return a value of the enumeration that ``default`` belongs to.

    Raises:
        errors.FieldInvalid: it is none of them.
    """
    word = parse_text(name, value).strip().lower()
    if not word:
        return default
    choices = type(default)
    try:
        return choices(word)
    except ValueError:
        raise FieldInvalid(
            f"'{name}' has an invalid value.", hint=f"Use one of: {', '.join(choices)}."
        ) from None


def parse_integer(name: str, value: object, least: float, most: float) -> int | None:
    """Return a whole number from ``least`` to ``most``, or None if there is no value.

    Raises:
        errors.FieldInvalid: it is anything else.
    """
    number = _parse_json_number(value, _INTEGER)
    if number is not None and not (least <= number <= most and number == int(number)):  # also NaN
        raise _not_between(name, "a whole number", f"{least} to {most}")
    return None if number is None else int(number)


def parse_number(name: str, value: object, least: float, most: float) -> float | None:
    """Return a number from ``least`` to ``most``, or None if there is no value.

    Raises:
        errors.FieldInvalid: it is anything else, including NaN and infinities.
    """
    number = _parse_json_number(value, _DECIMAL)
    if number is not None and not least <= number <= most:  # also refuses NaN
        raise _not_between(name, "a number", f"{least:g} to {most:g}")
    return None if number is None else float(number)


def _not_between(name: str, what: str, limits: str) -> FieldInvalid:
    return FieldInvalid(
        f"'{name}' is not {what} from {limits}.",
        hint=f"Send a number from {limits}, or omit the field.",
    )


def _parse_json_number(value: object, pattern: re.Pattern[str]) -> float | None:
    """Return a JSON number, or text that matches; None without a value, NaN for anything else."""
    if isinstance(value, str):
        value = value.strip() or None
        if value and pattern.fullmatch(value):
            return float(value)
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return nan


def parse_prompt(given: Mapping[str, object]) -> tuple[str, tuple[str, ...]]:
    """Return the context (``prompt`` or ``context``) with its lines, and the ``hotwords``, which
    commas, semicolons and line breaks separate.

    Raises:
        errors.FieldInvalid: a value is not text or too long, or the two contexts differ.
    """
    fields = "prompt", "context", "hotwords"
    texts = {name: _parse_lines(name, given.get(name)) for name in fields}
    if not any(texts.values()):
        return "", ()
    context = _same_field({name: texts[name] for name in ("prompt", "context")}) or ""
    hotwords = split_hotwords(texts["hotwords"])
    length = len(join_prompt(context, hotwords))
    if length > MAX_PROMPT_CHARACTERS:
        names = " and ".join(f"'{name}'" for name, text in texts.items() if text)
        raise FieldInvalid(
            f"{names} has {length} characters; the limit is {MAX_PROMPT_CHARACTERS}.",
            hint="Send the names and terms that matter most.",
        )
    return context, hotwords


def parse_channel_names(value: object, channels: ChannelMode) -> tuple[str, ...]:
    """Return the names between commas and semicolons, in the order of the channels, without
    invisible characters; '' for one that has its usual name, and none for the last ones that do.

    Raises:
        errors.FieldInvalid: it is not text, there are too many or too long ones, or the channels
            are mixed.
    """
    text = _parse_single_line("channel_names", value)
    if not text:
        return ()
    if channels is ChannelMode.MIX:
        raise FieldInvalid(
            "'channel_names' names separate channels, and the channels are mixed.",
            hint="Send 'channels' with the value 'separate', too, or omit the names.",
        )
    visible = "".join(one for one in text if unicodedata.category(one) != "Cf")
    names = tuple(name.strip() for name in re.split("[,;、，；]", visible.rstrip(",;、，； ")))
    if len(names) > MAX_CHANNELS or max(map(len, names)) > MAX_NAME_CHARACTERS:
        raise FieldInvalid(
            f"'channel_names' has more than {MAX_CHANNELS} names, or one of more than "
            f"{MAX_NAME_CHARACTERS} characters.",
            hint="Separate the names by commas, in the order of the channels.",
        )
    return names


def check_channels(count: int, options: TranscribeOptions) -> None:
    """Check the separate channels of a recording that has so many.

    Raises:
        errors.FieldInvalid: there are too many, or fewer than names.
    """
    if count > MAX_CHANNELS:
        raise FieldInvalid(
            f"The recording has {count} channels; at most {MAX_CHANNELS} can be transcribed for "
            "themselves.",
            hint="Send 'channels' with the value 'mix'.",
        )
    if len(options.channel_names) > count:
        raise FieldInvalid(
            f"'channel_names' has {len(options.channel_names)} names, and the recording has "
            f"{count} channels.",
            hint="Separate the names by commas, in the order of the channels.",
        )


def parse_hotwords(value: object) -> tuple[str, ...]:
    """Return the hotwords of a host or a token.

    Raises:
        errors.FieldInvalid: it is not text, or too long.
    """
    return parse_prompt({"hotwords": value})[1]


def split_hotwords(text: str) -> tuple[str, ...]:
    """Return the names and terms between commas, semicolons and line breaks, each once."""
    words = (" ".join(word.split()) for word in re.split("[,;、，；\n]", text))
    return tuple(dict.fromkeys(filter(None, words)))


def _parse_single_line(name: str, value: object) -> str:
    """Return text on one line, without control characters and surrounding space."""
    return " ".join(_parse_lines(name, value).split())


def _parse_lines(name: str, value: object) -> str:
    """Return the lines of a text that have any, without control characters and surrounding
    space."""
    word = parse_text(name, value)
    try:
        word.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can contain
        raise FieldInvalid(f"The field '{name}' is not valid Unicode.") from None
    plain = (
        "".join(" " if unicodedata.category(one) == "Cc" else one for one in line)
        for line in word.splitlines()
    )
    return "\n".join(filter(None, (" ".join(line.split()) for line in plain)))
