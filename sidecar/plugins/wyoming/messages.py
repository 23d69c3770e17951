"""Wyoming messages of this service: what it reads of a client, within limits, and its answers.

The package wyoming has the framing and the events. It believes every length in a header, so
`WyomingEventReader` checks headers before the package reads on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, cast

import pydantic
import pydantic.dataclasses
from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_read_event
from wyoming.info import AsrModel, AsrProgram, Attribution, Info

from sidecar import errors
from sidecar.api.http import request_headers
from sidecar.api.http.responses import IncrementalTextResponse, UnsentSegments
from sidecar.audio.audio_info import MAX_CHANNELS, MAX_RATE, MIN_RATE
from sidecar.interfaces.engine_interface import AUTO, EngineSpec
from sidecar.interfaces.language_tags import LANGUAGE_NAMES
from sidecar.interfaces.live_options import NumberRange
from sidecar.jobs.job_record import JobRecord
from sidecar.plugins.wyoming.errors import MessageTooBig
from sidecar.transcripts import transcript as transcripts
from sidecar.version import __version__

LONGEST_LINE = 64 << 10
LARGEST_DATA = 64 << 10
"""Maximum bytes of JSON behind the line."""
LARGEST_PAYLOAD = 4 << 20
"""Maximum bytes of audio of an event: it is in memory until it is read whole."""
HINT = "docs/wyoming.md says which events there are, and what is in them."

MODEL_MAKERS = {
    "moonshine": ("Moonshine AI", "https://github.com/moonshine-ai/moonshine"),
    "vibevoice": ("Microsoft", "https://github.com/microsoft/VibeVoice"),
    "whisper": ("OpenAI", "https://github.com/openai/whisper"),
}
"""Authors of the engines' models with their addresses, if known."""


def error_event(error: errors.SidecarError) -> Error:
    """Return the event of an error, with its hint."""
    return Error(f"{error.detail} {error.hint}", error.code)


def info_of(spec: EngineSpec) -> Info:
    """Return the description of this service: one program with the loaded model. If the engine
    takes any language, it lists all that have a code, because clients choose from the list."""
    ours = "vibevoice-asr", ""
    maker = Attribution(*MODEL_MAKERS.get(spec.name, ours))
    languages = list(spec.languages or LANGUAGE_NAMES)
    program = AsrProgram(
        "vibevoice-asr",
        Attribution(*ours),
        installed=True,
        description="Speech to text",
        version=__version__,
        models=[AsrModel(spec.name, maker, True, spec.title, None, languages)],
        supports_transcript_streaming=True,
    )
    return Info(asr=[program])


class WyomingJobEvents:
    """Events of one job: `transcript-start`, a `transcript-chunk` for each segment, and at the end
    a `transcript` with the whole text, which is authoritative."""

    def __init__(self) -> None:
        self._segments, self._text = UnsentSegments(), IncrementalTextResponse()
        self._begun = False

    def more(self, record: JobRecord) -> Iterator[Eventable]:
        """Yield the events of new segments."""
        for _, segment in self._segments.more(record):
            if segment.is_speech and (text := self._text.add(segment.text)):
                yield from self._begin()
                yield TranscriptChunk(text)

    def end(self, transcript: transcripts.Transcript) -> Iterator[Eventable]:
        """Yield the events of the whole transcript."""
        yield from self._begin()
        language = None if transcript.language == AUTO else transcript.language
        yield Transcript(transcript.text, language=language)
        yield TranscriptStop()

    def _begin(self) -> Iterator[Eventable]:
        if not self._begun:
            self._begun = True
            yield TranscriptStart()


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config={"strict": True})
class WyomingAudioFormat:
    """Format of signed samples; ``width`` is the bytes of one. One-byte samples are excluded: the
    protocol does not say whether they are signed."""

    rate: Annotated[int, NumberRange(MIN_RATE, MAX_RATE)]
    width: Annotated[int, NumberRange(2, 4)]
    channels: Annotated[int, NumberRange(1, MAX_CHANNELS)]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> WyomingAudioFormat:
        """Return the format in `audio-start` or `audio-chunk`.

        Raises:
            errors.SoundInvalid: it is missing or not supported.
        """
        try:
            return cls(data["rate"], data["width"], data["channels"])
        except (KeyError, pydantic.ValidationError):
            raise errors.SoundInvalid(
                "'rate', 'width' and 'channels' are not a supported audio format.",
                hint="Send samples of 2, 3 or 4 bytes, signed and little-endian, such as 16,000 a "
                "second of 2 bytes each, in one channel.",
            ) from None


def fields_of(transcribe: Transcribe, spec: EngineSpec) -> dict[str, object]:
    """Return the fields of `transcribe` as request options. Diarization is off: the protocol has no
    field for speakers.

    Raises:
        errors.ModelNotFound: the model is not the loaded one.
        errors.FieldInvalid: names or terms are not lists of strings.
    """
    check_model_name(transcribe.name, spec)
    hotwords = _texts("transcript_names", transcribe.transcript_names)
    hotwords += _texts("transcript_terms", transcribe.transcript_terms)
    fields: dict[str, object] = {"language": transcribe.language, "diarize": False}
    return fields | ({"hotwords": ", ".join(hotwords)} if hotwords else {})


def check_model_name(name: object, spec: EngineSpec) -> None:
    """Refuse a program or model that is not the loaded one.

    Raises:
        errors.ModelNotFound: it is another one.
    """
    if name not in (None, "", spec.name):
        raise errors.ModelNotFound(
            hint=f"The loaded model is '{spec.name}'; use this name or none."
        )


def _texts(name: str, found: object) -> list[str]:
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise errors.FieldInvalid(f"'{name}' is not a list of strings.", hint=HINT)
    return [text for one in found if (text := " ".join(one.split()))]


class WyomingClientGone(Exception):
    """The client disconnected."""


class WyomingClientEnded(WyomingClientGone):
    """The client closed its side between two events: it sends no more, and may still read."""


class WyomingEventReader:
    """Reader of the events of a connection, in order."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._ahead: asyncio.Task[Event] | None = None

    def ahead(self) -> asyncio.Task[Event]:
        """Return the task that reads the next event, which `next` also returns."""
        if self._ahead is None:
            self._ahead = asyncio.get_running_loop().create_task(self._read())
        return self._ahead

    async def next(self, timeout_s: float | None) -> Event:
        """Return the next event.

        Raises:
            WyomingClientGone, WyomingClientEnded: the client sends no more.
            TimeoutError: no event came within ``timeout_s`` seconds.
            errors.MessageInvalid, MessageTooBig: it is not a valid event.
        """
        reading = self.ahead()
        try:
            async with asyncio.timeout(timeout_s):
                return await reading
        finally:
            self._ahead = None

    async def drop(self, most: int) -> None:
        """Read and discard input, at most about ``most`` bytes, until the client ends."""
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.wait({self._ahead})
        while most > 0 and (piece := await self._reader.read(LONGEST_LINE)):
            most -= len(piece)

    def close(self) -> None:
        """Stop reading."""
        ahead = self._ahead
        if ahead is not None and not ahead.cancel() and not ahead.cancelled():
            ahead.exception()  # retrieved, so that asyncio does not log it

    async def _read(self) -> Event:
        try:
            event = await async_read_event(cast(Any, _CheckedStream(self._reader)))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise WyomingClientGone from None
        if event is None:
            raise errors.MessageInvalid("The line of an event is not JSON.", hint=HINT)
        return event


class WyomingEventHeader(pydantic.BaseModel, strict=True):
    """Line of an event."""

    type: str
    data: dict[str, Any] | None = None
    data_length: Annotated[int, pydantic.Field(ge=0, le=LARGEST_DATA)] | None = None
    payload_length: Annotated[int, pydantic.Field(ge=0, le=LARGEST_PAYLOAD)] | None = None


class _CheckedStream:
    """Stream of one event as the package reads it, with its header and data checked."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader, self._data_length = reader, 0

    async def readline(self) -> bytes:
        """Return the line, without what is null in it.

        Raises:
            WyomingClientGone, WyomingClientEnded: the client sends no more.
            errors.MessageInvalid, MessageTooBig: it is not the line of an event.
        """
        try:
            line = await self._reader.readline()
        except ValueError:
            raise MessageTooBig(
                f"The line of an event is longer than {LONGEST_LINE} bytes.", hint=HINT
            ) from None
        if not line:
            raise WyomingClientEnded
        if not line.endswith(b"\n"):
            raise WyomingClientGone
        try:
            header = WyomingEventHeader.model_validate(_json_object(line))
        except pydantic.ValidationError as error:
            if any(one["type"] == "less_than_equal" for one in error.errors()):
                raise MessageTooBig(
                    f"'data_length' is beyond {LARGEST_DATA}, or 'payload_length' beyond "
                    f"{LARGEST_PAYLOAD}.",
                    hint=HINT,
                ) from None
            raise errors.MessageInvalid(
                "An event needs a 'type', its 'data' has to be an object, and its lengths "
                "numbers of bytes.",
                hint=HINT,
            ) from None
        self._data_length = header.data_length or 0
        return header.model_dump_json(exclude_none=True).encode()

    async def readexactly(self, n: int) -> bytes:
        """Return the data, if the line announced some, and then the payload."""
        block = await self._reader.readexactly(n)
        if self._data_length:
            self._data_length = 0
            _json_object(block)
        return block


def _json_object(text: bytes) -> dict[str, Any]:
    value = request_headers.parse_json_object(text)
    if value is None:
        raise errors.MessageInvalid(
            "The line of an event, or the data behind it, is not a JSON object.", hint=HINT
        )
    return value
