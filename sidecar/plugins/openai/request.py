"""Transcription request: form, options, response format, known speakers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from fastapi import Request

from sidecar import errors
from sidecar.api.http.request_headers import identity_of, media_type, parse_json_message
from sidecar.api.http.upload import UploadForm, close_on_error, is_raw_recording, read_form
from sidecar.audio.audio_source import AudioSource
from sidecar.audio.upload_spool import UploadSpool
from sidecar.auth.identity import Identity
from sidecar.interfaces import request_options
from sidecar.interfaces.engine_interface import AUTO, EngineSpec, Precision, TranscribeOptions
from sidecar.interfaces.language_tags import parse_language
from sidecar.interfaces.request_fields import REQUEST_FIELDS
from sidecar.plugins.openai import common as openai_common
from sidecar.plugins.openai.errors import LogprobsUnavailable, TranslationUnavailable
from sidecar.plugins.openai.settings import OpenAISettings
from sidecar.service.facade import Service
from sidecar.transcripts.transcript import Notice

NAMES, REFERENCES = "known_speaker_names", "known_speaker_references"
MAX_KNOWN_SPEAKERS = 4
SHORTEST_S, LONGEST_S = 2.0, 10.0
"""Limits of a reference clip in seconds, as in OpenAI's API."""
LONGEST_NAME = 64
MAX_REFERENCE_CHARACTERS = 3 << 20
"""Maximum characters of a data URL: ten seconds of stereo, 16 bit, at 48 kHz are 2.6 million."""
MAX_REFERENCES_CHARACTERS = MAX_KNOWN_SPEAKERS * MAX_REFERENCE_CHARACTERS
_URL = re.compile(r"data:(?P<type>[\w.+/;=-]*?);base64,", re.ASCII | re.IGNORECASE)

FILE = "file"
_HINT = (
    "curl -F file=@recording.wav -F model=whisper-1 http://127.0.0.1:8765/v1/audio/transcriptions"
)
NATIVE_FIELDS = tuple(name for name, row in REQUEST_FIELDS.items() if row.openai)
"""Fields that OpenAI's API does not have."""
VAD_FIELD = "chunking_strategy"
LISTS = ("timestamp_granularities", "include", "languages", "keywords", NAMES, REFERENCES)
KNOWN_FIELDS = frozenset(
    (
        *(*NATIVE_FIELDS, *LISTS, VAD_FIELD),
        *(FILE, "model", "language", "prompt", "temperature", "response_format", "stream"),
    )
)
"""All known fields, without the brackets of lists."""
_ITEM = re.compile(r"([a-z_]+)\[(\d{0,4})\]", re.ASCII)
"""Name of a value of a list; encoders of PHP and of some JavaScript number them."""


def known_speakers(names: Sequence[str], references: Sequence[str]) -> dict[str, bytes]:
    """Return the reference clips of known speakers, by name. Pure.

    Raises:
        errors.FieldInvalid: there are too many, the numbers of clips and names differ, or one is
            invalid.
    """
    names = [" ".join(name.split()) for name in names]
    if len(names) != len(references):
        raise errors.FieldInvalid(
            f"'{NAMES}[]' has {len(names)} names and '{REFERENCES}[]' {len(references)} clips.",
            hint="Send a clip for each name, in the same order.",
        )
    if len(names) > MAX_KNOWN_SPEAKERS:
        raise errors.FieldInvalid(f"'{NAMES}[]' has more than {MAX_KNOWN_SPEAKERS} names.")
    if any(not 1 <= len(name) <= LONGEST_NAME for name in names) or len(set(names)) < len(names):
        raise errors.FieldInvalid(
            f"'{NAMES}[]' has a name that is empty, too long or duplicated.",
            hint=f"Send names of at most {LONGEST_NAME} characters, each once.",
        )
    return {name: _bytes_of(name, url) for name, url in zip(names, references, strict=True)}


def _bytes_of(name: str, url: str) -> bytes:
    """Return the bytes of a data URL."""
    match = _URL.match(url.strip())
    if match is None or len(url) > MAX_REFERENCE_CHARACTERS:
        raise _wrong(name, "is no data URL in base64, or too long")
    try:
        clip = request_options.decode_base64(url.strip()[match.end() :])
    except ValueError:
        raise _wrong(name, "is not valid base64") from None
    if not clip:
        raise _wrong(name, "is empty")
    return clip


async def with_known_speakers(
    service: Service, identity: Identity, options: TranscribeOptions, clips: Mapping[str, bytes]
) -> TranscribeOptions:
    """Return the options with the known speakers, whose clips are checked.

    Raises:
        errors.FieldInvalid: a clip is not audio, too short or too long, or not of one speaker.
        errors.VoicesUnavailable: this machine cannot compute speaker embeddings.
    """
    for name, clip in clips.items():
        try:
            with await service.spool_threads.run(_source, clip) as source:
                length_s = await service.submissions.measure(identity, source)
                if length_s is not None and not SHORTEST_S <= length_s <= LONGEST_S:
                    raise _wrong(name, f"has {length_s:.1f} s")
                options = await service.enrolled_speakers.with_clip(
                    identity, options, name, source, LONGEST_S
                )
        except errors.BadAudio as error:
            raise _wrong(name, f"cannot be used: {error.detail}") from None
    return options


def _source(clip: bytes) -> AudioSource:
    spool = UploadSpool(None)
    spool.add(clip)
    return spool.finish()


def _wrong(name: str, what: str) -> errors.FieldInvalid:
    return errors.FieldInvalid(
        f"'{REFERENCES}[]': the voice of {name!r} {what}.",
        hint=f"Send {SHORTEST_S:.0f} to {LONGEST_S:.0f} s of one voice as a data URL: "
        "data:audio/wav;base64,…",
    )


class OpenAIResponseFormat(StrEnum):
    """Format of the answer."""

    JSON = "json"
    TEXT = "text"
    SRT = "srt"
    VTT = "vtt"
    VERBOSE = "verbose_json"
    DIARIZED = "diarized_json"


class OpenAIGranularity(StrEnum):
    """Granularity of times in the answer."""

    WORD = "word"
    SEGMENT = "segment"


SUBTITLE_FORMATS = (OpenAIResponseFormat.SRT, OpenAIResponseFormat.VTT)
STREAMED_FORMATS = (
    OpenAIResponseFormat.JSON,
    OpenAIResponseFormat.TEXT,
    OpenAIResponseFormat.DIARIZED,
)


@dataclass(frozen=True, slots=True)
class OpenAIAnswerOptions:
    """Options of a response; ``notices`` are about fields that have no effect."""

    format: OpenAIResponseFormat = OpenAIResponseFormat.JSON
    stream: bool = False
    granularities: frozenset[OpenAIGranularity] = frozenset({OpenAIGranularity.SEGMENT})
    translate: bool = False
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenAIRequest:
    """Parsed request. ``source`` is open, and the holder of the request closes it. ``fields``:
    everything that distinguishes it from another request with this recording. ``warnings``: about
    values that were not applied."""

    source: AudioSource
    options: TranscribeOptions
    answer: OpenAIAnswerOptions
    fields: Mapping[str, Any]
    warnings: tuple[str, ...] = ()


class OpenAIRequestForm:
    """Fields of a form; names of lists may end with brackets."""

    def __init__(self, lists: Mapping[str, Sequence[str]]) -> None:
        self._lists = lists

    def one(self, name: str) -> str:
        """Return the value of a field, '' if it is missing; the last of several."""
        return self._lists.get(name, [""])[-1]

    def all(self, name: str) -> list[str]:
        """Return all values of a list, numbered ones in order of their numbers."""
        numbers = {name: -1} | {
            sent: int(item[2] or -2)
            for sent in self._lists
            if (item := _ITEM.fullmatch(sent)) and item[1] == name
        }
        names = sorted(numbers, key=lambda sent: numbers[sent])
        return [value for sent in names for value in self._lists.get(sent, ())]

    def inside(self, name: str) -> dict[str, object]:
        """Return the values of a field that has subfields, given with brackets or as JSON."""
        begin = f"{name}["
        subfields: dict[str, object] = {
            key.removeprefix(begin).removesuffix("]"): values[-1]
            for key, values in self._lists.items()
            if key.startswith(begin)
        }
        word = self.one(name).strip()
        if word.startswith("{"):
            try:
                return dict(parse_json_message(word)) | subfields
            except ValueError:
                raise errors.FieldInvalid(f"'{name}' is not valid JSON.") from None
        return ({"type": word} if word else {}) | subfields


async def read_request(
    request: Request, service: Service, *, translate: bool, whisper_cpp: bool = False
) -> OpenAIRequest:
    """Read the body, a form or the recording itself; ``whisper_cpp``: of a client of
    whisper.cpp's server, which need not name a model.

    Raises:
        errors.BadRequest: the body does not have its content type, or a field is invalid.
        errors.ModelNotFound: its model is unknown.
    """
    raw = is_raw_recording(request)
    if not raw and media_type(request) != "multipart/form-data":
        raise errors.ContentTypeUnsupported(hint=f"Send multipart/form-data: {_HINT}")
    ends = "", "[]", *(f"[{number}]" for number in range(MAX_KNOWN_SPEAKERS))
    long_fields = {f"{REFERENCES}{end}": MAX_REFERENCES_CHARACTERS for end in ends}
    try:
        upload = await read_form(request, service, file=FILE, long=long_fields, raw=raw)
    except errors.FileMissing:
        raise _no_file() from None
    with close_on_error(upload.source):
        return await _parse_request(upload, service, identity_of(request), translate, whisper_cpp)


async def _parse_request(
    upload: UploadForm, service: Service, identity: Identity, translate: bool, whisper_cpp: bool
) -> OpenAIRequest:
    if upload.part != FILE:
        raise _no_file()
    form = OpenAIRequestForm(upload.lists)
    strict = OpenAISettings.of(service.settings).openai_strict
    model = form.one("model").strip() or (service.spec.name if whisper_cpp else "")
    precision = openai_common.chosen_precision(service.spec, model, strict=strict)
    translate = translate or (
        whisper_cpp
        and request_options.parse_flag("translate", form.one("translate"), default=False)
    )
    answer = answer_options_of(form, service.spec, translate=translate, strict=strict)
    if not whisper_cpp:  # clients of whisper.cpp's server send many fields that only it knows
        odd = request_options.unknown_fields(map(_field_of, upload.lists), KNOWN_FIELDS)
        answer = replace(
            answer, notices=(*answer.notices, *request_options.unknown_field_notices(odd))
        )
    options = service.options(option_fields(form, service.spec, answer, precision))
    names, references = form.all(NAMES), form.all(REFERENCES)
    if references:  # base64 of four clips takes 0.25 s: not on the event loop
        clips = await service.spool_threads.run(known_speakers, names, references)
    else:
        clips = known_speakers(names, references)
    options = replace(options, translate=translate)
    options = await with_known_speakers(service, identity, options, clips)
    warnings = (
        *openai_common.model_warnings(service.spec, model),
        *(notice.message for notice in answer.notices),
    )
    fields = {"translate": translate, "fields": upload.lists}
    return OpenAIRequest(upload.source, options, answer, fields, warnings)


def _field_of(name: str) -> str:
    """Return the field that a name in a form belongs to; the name, if that has other brackets."""
    if (item := _ITEM.fullmatch(name)) is not None and item[1] in LISTS:
        return item[1]
    return VAD_FIELD if name.startswith(f"{VAD_FIELD}[") else name


def answer_options_of(
    form: OpenAIRequestForm, spec: EngineSpec, *, translate: bool, strict: bool = False
) -> OpenAIAnswerOptions:
    """Return the options of the response. ``strict``: refuse what cannot be fulfilled, instead of a
    notice. Pure.

    Raises:
        errors.FieldInvalid: fields contradict each other.
        LogprobsUnavailable, TranslationUnavailable: the engine cannot do it.
    """
    if translate and not spec.translates:
        raise TranslationUnavailable(
            f"The engine '{spec.name}' with its model only transcribes and does not translate.",
            hint="Whisper translates into English with a multilingual model but large-v3-turbo: "
            "start with --engine whisper.",
        )
    response_format = request_options.parse_choice(
        "response_format", form.one("response_format"), OpenAIResponseFormat.JSON
    )
    if translate and response_format is OpenAIResponseFormat.DIARIZED:
        raise errors.FieldInvalid("'response_format' of a translation cannot be diarized_json.")
    stream = request_options.parse_flag("stream", form.one("stream"), default=False)
    if stream and response_format not in STREAMED_FORMATS:
        raise errors.FieldInvalid(
            f"'stream' cannot be combined with '{response_format}'.",
            hint=f"Stream one of: {', '.join(STREAMED_FORMATS)}.",
        )
    granularities = frozenset(
        request_options.parse_choice("timestamp_granularities", one, OpenAIGranularity.SEGMENT)
        for one in form.all("timestamp_granularities")
    )
    notices = [_chunking(form), _languages(form, spec), _logprobs(form, strict=strict)]
    if granularities and response_format is not OpenAIResponseFormat.VERBOSE:
        only = "'timestamp_granularities' goes with the response_format verbose_json only."
        if strict:
            raise errors.FieldInvalid(only)
        notices.append(Notice("option_ignored", only))
        granularities = frozenset()
    granularities = granularities or frozenset({OpenAIGranularity.SEGMENT})
    all_notices = tuple(notice for notice in notices if notice)
    return OpenAIAnswerOptions(response_format, stream, granularities, translate, all_notices)


def _logprobs(form: OpenAIRequestForm, *, strict: bool) -> Notice | None:
    for one in form.all("include"):
        if one.strip().lower() != "logprobs":
            raise errors.FieldInvalid("'include' can be 'logprobs' only.")
        if strict:
            raise LogprobsUnavailable()
        return Notice("option_ignored", LogprobsUnavailable.default_detail)
    return None


def option_fields(
    form: OpenAIRequestForm, spec: EngineSpec, answer: OpenAIAnswerOptions, precision: Precision
) -> Mapping[str, object]:
    """Return the fields as request options. Pure.

    Raises:
        errors.BadRequest: languages or keywords are invalid.
    """
    fields: dict[str, object] = {name: form.one(name) for name in NATIVE_FIELDS}
    if form.one("language").strip() and form.all("languages"):
        raise errors.FieldInvalid(
            "'language' and 'languages[]' exclude each other; send one of them."
        )
    language = parse_language(form.one("language"))
    if possible := form.all("languages"):
        language = openai_common.engine_language(spec, possible)
    fields |= {
        # '' is the default language of the service
        "language": "" if language == AUTO and not possible else language,
        "prompt": form.one("prompt"),
        "temperature": form.one("temperature"),
    }
    keywords = [word for one in form.all("keywords") if (word := " ".join(one.split()))]
    if keywords:
        fields["hotwords"] = ", ".join([*filter(None, [form.one("hotwords")]), *keywords])
    # subtitles are made of words if there are any
    fields["words"] = (
        OpenAIGranularity.WORD in answer.granularities or answer.format in SUBTITLE_FORMATS
    )
    if precision is not Precision.AUTO:
        fields["precision"] = precision.value
    if answer.format is OpenAIResponseFormat.DIARIZED:
        fields["diarize"] = True
    elif not form.one("diarize").strip():
        fields["diarize"] = False
    return fields


def _chunking(form: OpenAIRequestForm) -> Notice | None:
    """Return the notice for a chunking strategy, which has no effect here."""
    given = form.inside(VAD_FIELD)
    kind = given.pop("type", "auto") if given else "auto"
    if kind == "auto" and not given:
        return None
    known = {"prefix_padding_ms", "silence_duration_ms", "threshold"}
    if kind != "server_vad" or given.keys() - known:
        raise errors.FieldInvalid(
            f"'{VAD_FIELD}' is neither 'auto' nor a 'server_vad'.", hint="Send 'auto', or omit it."
        )
    request_options.parse_integer(VAD_FIELD, given.get("prefix_padding_ms"), 0, 60_000)
    request_options.parse_integer(VAD_FIELD, given.get("silence_duration_ms"), 0, 60_000)
    request_options.parse_number(VAD_FIELD, given.get("threshold"), 0, 1)
    return Notice(
        "option_ignored", "Recordings are cut at pauses, by this service's own parameters."
    )


def _languages(form: OpenAIRequestForm, spec: EngineSpec) -> Notice | None:
    possible = form.all("languages")
    if len(possible) < 2 or openai_common.engine_language(spec, possible) != AUTO:
        return None
    return Notice("option_ignored", "The language was detected among all that the engine supports.")


def _no_file() -> errors.FileMissing:
    return errors.FileMissing(f"The form has no file part named '{FILE}'.", hint=_HINT)
