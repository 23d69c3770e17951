"""What a request of this wire says: its recording, its options, and the form of its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from fastapi import Request

from sidecar import errors
from sidecar.api.http import from_clients
from sidecar.api.http.bodies import media_type
from sidecar.api.http.caller import caller_of
from sidecar.api.http.upload import Upload, read_form
from sidecar.audio.source import AudioSource
from sidecar.auth.identity import Identity
from sidecar.interfaces.engine import AUTO, EngineSpec, Precision, TranscribeOptions
from sidecar.interfaces.options import parse_choice, parse_flag, parse_number, parse_whole
from sidecar.protocols import languages
from sidecar.protocols.aliases import precision_of
from sidecar.protocols.openai import speakers
from sidecar.service import Service
from sidecar.transcripts.transcript import Notice

FILE = "file"
_HINT = (
    "curl -F file=@recording.wav -F model=whisper-1 http://127.0.0.1:8765/v1/audio/transcriptions"
)
OWN = ("precision", "diarize", "diarization", "hotwords", "num_speakers", "max_tokens", "windows")
"""Fields of ours that OpenAI's API has not, for who knows them."""
VAD = "chunking_strategy"


class Format(StrEnum):
    """What the answer is."""

    JSON = "json"
    TEXT = "text"
    SRT = "srt"
    VTT = "vtt"
    VERBOSE = "verbose_json"
    DIARIZED = "diarized_json"


class Granularity(StrEnum):
    """What has times in the answer."""

    WORD = "word"
    SEGMENT = "segment"


SUBTITLES = (Format.SRT, Format.VTT)
STREAMED = (Format.JSON, Format.TEXT, Format.DIARIZED)


@dataclass(frozen=True, slots=True)
class Wish:
    """The form of an answer; ``notices`` are of what was sent and has no effect."""

    format: Format = Format.JSON
    stream: bool = False
    granularities: frozenset[Granularity] = frozenset({Granularity.SEGMENT})
    translate: bool = False
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """All of a request; ``source`` is open, and whoever has this sees to its end. ``fields``: all
    that tells it from another one with this recording."""

    source: AudioSource
    options: TranscribeOptions
    wish: Wish
    fields: Mapping[str, Any]


class Form:
    """The fields of a form, whose lists are written with brackets behind the name, or without."""

    def __init__(self, lists: Mapping[str, Sequence[str]]) -> None:
        self._lists = lists

    def one(self, name: str) -> str:
        """The value of a field, '' where there is none; the last of several."""
        return self._lists.get(name, [""])[-1]

    def all(self, name: str) -> list[str]:
        """All values of a field."""
        return [*self._lists.get(f"{name}[]", ()), *self._lists.get(name, ())]

    def inside(self, name: str) -> dict[str, object]:
        """What a field with values of its own has, as brackets or as JSON."""
        begin = f"{name}["
        found: dict[str, object] = {
            key.removeprefix(begin).removesuffix("]"): values[-1]
            for key, values in self._lists.items()
            if key.startswith(begin)
        }
        word = self.one(name).strip()
        if word.startswith("{"):
            try:
                return dict(from_clients.read(word)) | found
            except ValueError:
                raise errors.FieldInvalid(f"'{name}' is not valid JSON.") from None
        return ({"type": word} if word else {}) | found


async def read_request(
    request: Request, service: Service, *, translate: bool, usual: str = ""
) -> Asked:
    """Read the body; ``usual`` is the model of who names none.

    Raises:
        errors.BadRequest: it is not what it says it is, or means nothing.
        errors.ModelNotFound: its model is not here.
    """
    if media_type(request) != "multipart/form-data":
        raise errors.ContentTypeUnsupported(hint=f"Send multipart/form-data: {_HINT}")
    room = {f"{speakers.REFERENCES}{end}": speakers.ROOM for end in ("", "[]")}
    try:
        upload = await read_form(request, service, file=FILE, long=room)
    except errors.FileMissing:
        raise _no_file() from None
    try:
        return await _understood(upload, service, caller_of(request), translate, usual)
    except BaseException:
        upload.source.close()
        raise


async def _understood(
    upload: Upload, service: Service, caller: Identity, translate: bool, usual: str
) -> Asked:
    if upload.part != FILE:
        raise _no_file()
    form = Form(upload.lists)
    precision = precision_of(service.spec, form.one("model").strip() or usual)
    translate = translate or (
        bool(usual) and parse_flag("translate", form.one("translate"), default=False)
    )
    wish = wish_of(form, service.spec, translate=translate)
    options = service.options(fields_of(form, service.spec, wish, precision))
    known = speakers.known_speakers(form.all(speakers.NAMES), form.all(speakers.REFERENCES))
    options = replace(options, translate=translate)
    options = await speakers.recognised(service, caller, options, known)
    return Asked(upload.source, options, wish, {"translate": translate, "fields": upload.lists})


def wish_of(form: Form, spec: EngineSpec, *, translate: bool) -> Wish:
    """The form of the answer. Pure.

    Raises:
        errors.FieldInvalid: something is asked for that does not go together.
        errors.LogprobsUnavailable, errors.TranslationUnavailable: nobody here does that.
    """
    if translate and not spec.translates:
        raise errors.TranslationUnavailable(
            f"The engine '{spec.name}' does not translate: it writes down what is said.",
            hint="Whisper translates into English, with a model that knows more than English: "
            "start with --engine whisper.",
        )
    fmt = parse_choice("response_format", form.one("response_format"), Format.JSON)
    if translate and fmt is Format.DIARIZED:
        raise errors.FieldInvalid("'response_format' of a translation cannot be diarized_json.")
    stream = parse_flag("stream", form.one("stream"), default=False)
    if stream and fmt not in STREAMED:
        raise errors.FieldInvalid(
            f"'stream' does not go with '{fmt}'.", hint=f"Stream one of: {', '.join(STREAMED)}."
        )
    asked = frozenset(
        parse_choice("timestamp_granularities", one, Granularity.SEGMENT)
        for one in form.all("timestamp_granularities")
    )
    if asked and fmt is not Format.VERBOSE:
        raise errors.FieldInvalid(
            "'timestamp_granularities' goes with the response_format verbose_json only."
        )
    for one in form.all("include"):
        if one.strip().lower() != "logprobs":
            raise errors.FieldInvalid("'include' can be 'logprobs' only.")
        raise errors.LogprobsUnavailable()
    notices = tuple(notice for notice in (_chunking(form), _languages(form, spec)) if notice)
    usual = frozenset({Granularity.SEGMENT})
    return Wish(fmt, stream, asked or usual, translate, notices)


def fields_of(
    form: Form, spec: EngineSpec, wish: Wish, precision: Precision
) -> Mapping[str, object]:
    """The fields as the options of every wire have them. Pure.

    Raises:
        errors.BadRequest: languages or keywords mean nothing.
    """
    fields: dict[str, object] = {name: form.one(name) for name in OWN}
    if form.one("language").strip() and form.all("languages"):
        raise errors.FieldInvalid("'language' and 'languages[]' are both there; send one of them.")
    language = languages.tag_of(form.one("language"))
    if possible := form.all("languages"):
        language = languages.only(spec, possible)
    fields |= {
        # '' is the language that the service is set to
        "language": "" if language == AUTO and not possible else language,
        "prompt": form.one("prompt"),
        "temperature": form.one("temperature"),
    }
    keywords = [word for one in form.all("keywords") if (word := " ".join(one.split()))]
    if keywords:
        fields["hotwords"] = ", ".join([*filter(None, [form.one("hotwords")]), *keywords])
    # cues are made of words where there are any
    fields["words"] = Granularity.WORD in wish.granularities or wish.format in SUBTITLES
    if precision is not Precision.AUTO:
        fields["precision"] = precision.value
    if wish.format is Format.DIARIZED:
        fields["diarize"] = True
    elif not form.one("diarize").strip():
        fields["diarize"] = False
    return fields


def _chunking(form: Form) -> Notice | None:
    """Something to know where somebody tells us how to cut: we do that by ourselves."""
    given = form.inside(VAD)
    kind = given.pop("type", "auto") if given else "auto"
    if kind == "auto" and not given:
        return None
    if kind != "server_vad" or given.keys() - {
        "prefix_padding_ms",
        "silence_duration_ms",
        "threshold",
    }:
        raise errors.FieldInvalid(
            f"'{VAD}' is neither 'auto' nor a 'server_vad'.", hint="Send 'auto', or leave it out."
        )
    parse_whole(VAD, given.get("prefix_padding_ms"), 0, 60_000)
    parse_whole(VAD, given.get("silence_duration_ms"), 0, 60_000)
    parse_number(VAD, given.get("threshold"), 0, 1)
    return Notice("option_ignored", "Recordings are cut where it is quiet, by rules of our own.")


def _languages(form: Form, spec: EngineSpec) -> Notice | None:
    possible = form.all("languages")
    if len(possible) < 2 or languages.only(spec, possible) != AUTO:
        return None
    return Notice("option_ignored", "The language was found out among all that the engine knows.")


def _no_file() -> errors.FileMissing:
    return errors.FileMissing(f"The form has no file part named '{FILE}'.", hint=_HINT)
