"""Wyoming messages: events, requests, answers.

Lengths in headers are not trusted: the reader limits how many bytes it reads, and for how long.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import pydantic.dataclasses

from sidecar import errors
from sidecar.api.http import request_headers
from sidecar.api.http.responses import IncrementalTextResponse, UnsentSegments
from sidecar.audio.audio_decoder import MAX_CHANNELS, MAX_RATE, MIN_RATE
from sidecar.interfaces.engine_interface import AUTO, EngineSpec
from sidecar.interfaces.live_options import NumberRange
from sidecar.interfaces.request_options import LANGUAGE_NAMES
from sidecar.jobs.job_record import JobRecord
from sidecar.transcripts.transcript import Transcript
from sidecar.version import __version__

LONGEST_LINE = 64 << 10
LARGEST_DATA = 64 << 10
"""Maximum bytes of JSON, in the line and after it."""
LARGEST_LENGTH = 1 << 53
HINT = "docs/wyoming.md says which events there are, and what is in them."


@dataclass(frozen=True, slots=True)
class WyomingEvent:
    """Event; its payload of ``payload`` bytes is read separately."""

    type: str
    data: Mapping[str, Any] = field(default_factory=dict)
    payload: int = 0

    def with_data(self, behind: bytes) -> WyomingEvent:
        """Return the event with the data that came after its line.

        Raises:
            errors.MessageInvalid: the data is not an object.
        """
        if not behind:
            return self
        return replace(self, data={**self.data, **_object(behind, "'data' behind it")})


def parse_event_header(line: bytes) -> tuple[WyomingEvent, int]:
    """Parse the header line of an event; return it and the number of data bytes that follow it.

    Raises:
        errors.MessageInvalid: it is not the header of an event.
        errors.MessageTooBig: it announces more data than is allowed.
    """
    said = _object(line, "line")
    kind, data = said.get("type"), said.get("data")
    if not isinstance(kind, str) or not isinstance(data, dict | None):
        raise errors.MessageInvalid(
            "An event needs a 'type', and its 'data' has to be an object.", hint=HINT
        )
    more, payload = (_length(said, f"{name}_length") for name in ("data", "payload"))
    if more > LARGEST_DATA:
        raise errors.MessageTooBig(f"'data_length' is beyond {LARGEST_DATA}.", hint=HINT)
    return WyomingEvent(kind, data or {}, payload), more


def event_bytes(kind: str, data: Mapping[str, Any] | None = None) -> bytes:
    """Return an event, completely in its line."""
    return json.dumps({"type": kind, "data": dict(data or {})}).encode() + b"\n"


def error_event(error: errors.SidecarError) -> bytes:
    """Return the event of an error, with its hint."""
    return event_bytes("error", {"text": f"{error.detail} {error.hint}", "code": error.code})


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        said = request_headers.parse_json_message(text)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise errors.MessageInvalid(f"The {what} of an event is not a JSON object.", hint=HINT)
    return said


def _length(said: Mapping[str, Any], name: str) -> int:
    value = said.get(name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < LARGEST_LENGTH:
        raise errors.MessageInvalid(f"'{name}' is not a number of bytes.", hint=HINT)
    return value


PROGRAM_ATTRIBUTION = {"name": "vibevoice-asr", "url": ""}
MODEL_ATTRIBUTIONS = {
    "moonshine": {"name": "Moonshine AI", "url": "https://github.com/moonshine-ai/moonshine"},
    "vibevoice": {"name": "Microsoft", "url": "https://github.com/microsoft/VibeVoice"},
    "whisper": {"name": "OpenAI", "url": "https://github.com/openai/whisper"},
}
"""Authors of the engines' models, if known."""


def info_data(spec: EngineSpec) -> dict[str, Any]:
    """Return the description of this service: one program with the loaded model. If the engine
    takes any language, it lists all that have a code, because clients choose from the list."""
    model = _artifact(spec.name, spec.title, MODEL_ATTRIBUTIONS.get(spec.name, PROGRAM_ATTRIBUTION))
    program = _artifact("vibevoice-asr", "Speech to text", PROGRAM_ATTRIBUTION) | {
        "models": [model | {"languages": list(spec.languages or LANGUAGE_NAMES), "version": None}],
        "supports_transcript_streaming": True,
    }
    others = ("tts", "handle", "intent", "wake", "mic", "snd")
    return {"asr": [program], **{name: [] for name in others}}


class WyomingJobEvents:
    """Events of one job: `transcript-start`, a `transcript-chunk` for each segment, and at the end
    a `transcript` with the whole text, which is authoritative."""

    def __init__(self) -> None:
        self._segments, self._text = UnsentSegments(), IncrementalTextResponse()
        self._begun = False

    def more(self, record: JobRecord) -> Iterator[bytes]:
        """Yield the events of new segments."""
        for _, segment in self._segments.more(record):
            if segment.is_speech and (text := self._text.add(segment.text)):
                yield from self._begin()
                yield event_bytes("transcript-chunk", {"text": text})

    def end(self, transcript: Transcript) -> Iterator[bytes]:
        """Yield the events of the whole transcript."""
        yield from self._begin()
        language = transcript.language
        known = {} if language in (None, AUTO) else {"language": language}
        yield event_bytes("transcript", {"text": transcript.text, **known})
        yield event_bytes("transcript-stop")

    def _begin(self) -> Iterator[bytes]:
        if not self._begun:
            self._begun = True
            yield event_bytes("transcript-start")


def _artifact(name: str, description: str, maker: dict[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "version": __version__,
        "installed": True,
        "attribution": maker,
    }


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
            fields: dict[str, Any] = {
                name: data.get(name) for name in ("rate", "width", "channels")
            }
            return cls(**fields)
        except pydantic.ValidationError:
            raise errors.SoundInvalid(
                "'rate', 'width' and 'channels' are not a supported audio format.",
                hint="Send samples of 2, 3 or 4 bytes, signed and little-endian, such as 16,000 a "
                "second of 2 bytes each, in one channel.",
            ) from None


def fields_of(data: Mapping[str, Any], spec: EngineSpec) -> dict[str, object]:
    """Return the fields of `transcribe` as request options. Diarization is off: the protocol has no
    field for speakers.

    Raises:
        errors.ModelNotFound: the model is not the loaded one.
        errors.FieldInvalid: names or terms are not lists of strings.
    """
    check_model_name(data.get("name"), spec)
    terms = [
        term for name in ("transcript_names", "transcript_terms") for term in _texts(data, name)
    ]
    fields: dict[str, object] = {"language": data.get("language"), "diarize": False}
    return fields | ({"hotwords": ", ".join(terms)} if terms else {})


def check_model_name(name: object, spec: EngineSpec) -> None:
    """Refuse a program or model that is not the loaded one.

    Raises:
        errors.ModelNotFound: it is another one.
    """
    if name not in (None, "", spec.name):
        raise errors.ModelNotFound(
            hint=f"The loaded model is '{spec.name}'; use this name or none."
        )


def _texts(data: Mapping[str, Any], name: str) -> list[str]:
    found = data.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise errors.FieldInvalid(f"'{name}' is not a list of strings.", hint=HINT)
    return [text for one in found if (text := " ".join(one.split()))]


READ_BYTES = 64 << 10


class WyomingClientGone(Exception):
    """The client disconnected."""


class WyomingClientEnded(WyomingClientGone):
    """The client closed its side between two events: it sends no more, and may still read."""


class WyomingEventReader:
    """Reader of the events of a connection, in order, each with its payload."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._ahead: asyncio.Task[WyomingEvent] | None = None

    def ahead(self) -> asyncio.Task[WyomingEvent]:
        """Return the task that reads the next event, which `next` also returns."""
        if self._ahead is None:
            self._ahead = asyncio.get_running_loop().create_task(self._read())
        return self._ahead

    async def next(self, timeout_s: float | None) -> WyomingEvent:
        """Return the next event.

        Raises:
            WyomingClientGone, WyomingClientEnded: the client sends no more.
            TimeoutError: no event came within ``timeout_s`` seconds.
            errors.MessageInvalid, errors.MessageTooBig: it is not a valid event.
        """
        reading = self.ahead()
        try:
            async with asyncio.timeout(timeout_s):
                return await reading
        finally:
            self._ahead = None

    async def payload(self, size: int, timeout_s: Callable[[], float]) -> AsyncIterator[bytes]:
        """Yield the payload of the event in blocks; ``timeout_s`` returns the timeout of each.

        Raises:
            WyomingClientGone, errors.UploadStalled: it ends early, or stalls.
        """
        while size:
            try:
                async with asyncio.timeout(timeout_s()):
                    piece = await self._reader.read(min(size, READ_BYTES))
            except TimeoutError:
                raise errors.UploadStalled() from None
            if not piece:
                raise WyomingClientGone
            size -= len(piece)
            yield piece

    async def drop(self, most: int) -> None:
        """Read and discard input, at most about ``most`` bytes, until the client ends."""
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.wait({self._ahead})
        while most > 0 and (piece := await self._reader.read(READ_BYTES)):
            most -= len(piece)

    def close(self) -> None:
        """Stop reading."""
        ahead = self._ahead
        if ahead is not None and not ahead.cancel() and not ahead.cancelled():
            ahead.exception()  # retrieved, so that asyncio does not log it

    async def _read(self) -> WyomingEvent:
        try:
            line = await self._reader.readline()
            if not line:
                raise WyomingClientEnded
            if not line.endswith(b"\n"):
                raise WyomingClientGone
            event, more = parse_event_header(line)
            return event.with_data(await self._reader.readexactly(more))
        except ValueError:
            raise errors.MessageTooBig(
                f"The line of an event is longer than {LONGEST_LINE} bytes.", hint=HINT
            ) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise WyomingClientGone from None
