"""Routes of /transcribe, the API of the desktop app and of most clients, and of /v1/estimate.

The fields that the app's parser reads keep their names and types; all other fields are additions.

Segments may be revised until the end, as in every stream of this service; the transcript is final.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from functools import partial
from math import ceil
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from sidecar.api.http import error_responses, middleware, openapi, responses, upload
from sidecar.api.http.request_headers import accepts, identity_of, wants_async
from sidecar.api.http.responses import json_response, to_json
from sidecar.api.job_routes import job_response
from sidecar.api.job_schemas import JobAnswer, TranscribeWarning
from sidecar.audio.audio_source import AudioSource
from sidecar.audio.ffmpeg_output import AudioTrack
from sidecar.errors import FieldInvalid, FieldMissing, SidecarError, TokenInvalid
from sidecar.gpu_memory.cards import find_card, forecast_on
from sidecar.gpu_memory.memory_plan import JobForecast
from sidecar.interfaces import request_options
from sidecar.interfaces.language_tags import MAX_SHOWN_CHARACTERS
from sidecar.interfaces.request_fields import REQUEST_FIELDS
from sidecar.jobs.job_record import JobRecord
from sidecar.jobs.job_runner import Job
from sidecar.service.facade import Service
from sidecar.transcripts.transcript import SEGMENT_FLAGS, Transcript
from sidecar.transcripts.transcript_formats import render_result, segment_body, transcript_body


class TranscribeWord(BaseModel):
    """A word with its times."""

    start_time: float
    end_time: float
    text: str
    confidence: float | None = Field(
        None,
        examples=[0.93],
        description="Geometric mean of the probabilities of its tokens; omitted if unknown.",
    )


_FLAGS = {"type": "array", "items": {"type": "string", "enum": [*SEGMENT_FLAGS]}}


class TranscribeSegment(BaseModel):
    """Segment: speech of one speaker."""

    speaker: str = Field(
        examples=["Speaker_0"],
        description="Label of its speaker, 'Speaker_0', 'Speaker_1' and so on: if there is none "
        "or it is unknown, the first, and a flag says so.",
    )
    name: str | None = Field(None, description="Name of the identified speaker, or channel.")
    start_time: float = Field(examples=[0.07], description="Seconds from the start.")
    end_time: float = Field(examples=[0.93], description="Seconds from the start.")
    text: str = Field(examples=["Do you hear me?"], description="What is said.")
    words: list[TranscribeWord] = Field([], description="Its words, if they were asked for.")
    words_by: str = Field(
        default="",
        examples=["attention"],
        description="Source of word times: 'attention' (of the model), 'server' (of an upstream), "
        "'aligned' (at pauses and changes of sound), 'spread' (evenly, a guess).",
    )
    flags: Annotated[list[str], WithJsonSchema(_FLAGS)] = Field(
        [],
        description="What is unusual about it: "
        + ", ".join(f"'{flag}' ({meaning})" for flag, meaning in SEGMENT_FLAGS.items()),
    )
    confidence: float | None = Field(
        None, examples=[0.91], description="How sure the engine is, up to 1."
    )
    no_speech_probability: float | None = Field(
        None,
        examples=[0.04],
        description="Probability that nobody speaks in it; omitted if unknown.",
    )
    language: str = Field("", examples=["en"], description="Language tag; omitted if unknown.")


class TranscribeSpeaker(BaseModel):
    """Voice profile of a speaker."""

    speaker: str = Field(examples=["Speaker_0"])
    name: str | None = Field(
        examples=["Nell"],
        description="Name of the enrolled speaker, or of the channel; null if unknown.",
    )
    person: str | None = Field(description="Id of the enrolled speaker in /v1/people.")
    likeness: float | None = Field(
        examples=[0.78],
        description="Similarity to that speaker, or to the most similar other one; at most 1.",
    )
    voice_seconds: float = Field(
        examples=[15.1], description="Seconds in which this speaker speaks alone."
    )


class TranscribeMetadata(BaseModel):
    """Metadata of the transcript."""

    model_config = ConfigDict(protected_namespaces=())

    duration: float = Field(examples=[28.277], description="Seconds of audio.")
    recognized_s: float | None = Field(
        None,
        examples=[21.4],
        description="Before it no word of a live session is missing; omitted if none is.",
    )
    language: str = Field(examples=["en"])
    language_probability: float | None = Field(
        None, examples=[0.97], description="Of the language that Whisper detected; else omitted."
    )
    processing_time: float = Field(examples=[11.2], description="Seconds of engine work.")
    model_precision: str = Field(examples=["int8"], description="Precision that was used.")
    num_speakers: int = Field(examples=[2])
    engine: str = Field(examples=["moonshine"])
    model: str = Field(
        default="",
        examples=["whisper-small"],
        description="Model that transcribed it, if the engine has several.",
    )
    device: str = Field(
        default="",
        examples=["cuda"],
        description="Device that was used: cuda or cpu, if the engine may use either.",
    )
    diarized: bool = Field(description="Speakers were told apart.")
    no_speech: bool = Field(
        description="Nobody speaks: there are no segments, and the output is not truncated."
    )
    job_id: str = Field(description="Id in the log and in /v1/jobs.")
    warnings: list[TranscribeWarning]
    words_by: str = Field(
        default="",
        examples=["attention"],
        description="Least exact source of word times of all segments; omitted if there are none.",
    )
    hotwords: list[str] = Field(
        [],
        examples=[["Nagg", "Nell"]],
        description="Hotwords that the engine got: of the request, of the service, and names of "
        "the owner; omitted if none.",
    )
    speakers: list[TranscribeSpeaker] = Field(
        [], description="Voice profiles, with the setting 'people' or with reference clips."
    )


class TranscribeAnswer(BaseModel):
    """Result of a transcription."""

    status: Literal["success"]
    segments: list[TranscribeSegment]
    metadata: TranscribeMetadata


TRANSCRIBE_BODY = openapi.submission(openapi.OPTIONS)

TRANSCRIBE_FIELDS = openapi.schema_fields(TRANSCRIBE_BODY)

MB = 1 << 20
NeededMegabytes = Annotated[int, BeforeValidator(lambda size: size and ceil(size / MB))]
"""From bytes, rounded up, as that much is needed."""
FreeMegabytes = Annotated[int, BeforeValidator(lambda size: size and size // MB)]


class EstimateAlternative(openapi.RenderedBody):
    """A precision with which the recording would fit into memory."""

    precision: str = Field(examples=["int8"])
    needed_mb: NeededMegabytes = Field(examples=[11469], validation_alias="peak_bytes")
    seconds: openapi.RoundedSeconds | None = Field(examples=[231.5])


class EstimateTrack(openapi.RenderedBody):
    """An audio track of a container."""

    track: int = Field(examples=[2], description="Value of the field 'track'.")
    language: str | None = Field(examples=["ger"], description="ISO 639-2; null if unknown.")
    title: str = Field(examples=["Director's comment"], description="Empty if it has none.")
    channels: Annotated[int | None, BeforeValidator(lambda count: count or None)] = Field(
        examples=[2], description="Null if unknown."
    )
    default: bool = Field(
        description="The file marks it as the one to play.", validation_alias="is_default"
    )

    @classmethod
    def all_of(cls, tracks: Sequence[AudioTrack]) -> list[dict[str, Any]]:
        """Return the bodies of the tracks of a recording."""
        numbered = enumerate(tracks, 1)
        return [cls.render({"track": number, **asdict(one)}) for number, one in numbered]


class EstimateAnswer(openapi.RenderedBody):
    """Estimate of a recording; memory in MB (2**20 bytes), times in seconds."""

    fits: bool
    precision: str = Field(examples=["int8"], description="The precision that would be used.")
    audio_seconds: openapi.RoundedSeconds | None = Field(
        examples=[3600.0],
        description="Null if only decoding would show it.",
        validation_alias="audio_s",
    )
    needed_mb: NeededMegabytes | None = Field(
        examples=[11469],
        description="Null for engines that need little memory.",
        validation_alias="needed_bytes",
    )
    available_mb: FreeMegabytes | None = Field(examples=[16282], validation_alias="available_bytes")
    seconds: openapi.RoundedSeconds | None = Field(
        examples=[231.5], description="Estimate; null if the device's speed is not known."
    )
    longest_audio_seconds: float = Field(
        examples=[3600.0],
        description="Longest recording for this precision.",
        validation_alias="longest_audio_s",
    )
    windows: int | None = Field(
        None, examples=[13], description="At most; 1: the whole recording at once."
    )
    at_once: int | None = Field(None, examples=[7], description="Windows in a batch.")
    card: str | None = Field(None, examples=["RTX 3060 12GB"], description="If it was named.")
    seconds_least: openapi.RoundedSeconds | None = Field(
        None,
        examples=[180.2],
        description="With the fastest card of that size; 'seconds' are those of the slowest.",
        validation_alias="least_s",
    )
    smaller: EstimateAnswer | None = Field(None, description="On the next smaller card.")
    larger: EstimateAnswer | None = Field(None, description="On the next larger card.")
    sentence: str = Field(examples=["fits: int8, 11.2 of 15.9 GB, about 4 minutes"])
    alternatives: list[EstimateAlternative] = Field(
        description="Precisions that would fit if this one does not."
    )
    tracks: list[EstimateTrack] = Field(
        default=[], description="Audio tracks of a container, if the recording was sent."
    )
    warnings: list[TranscribeWarning] = Field(
        default=[], description="Only if there are any, such as of an unknown field."
    )


_ESTIMATE_OPTIONS = {
    name: openapi.OPTIONS[name] for name, row in REQUEST_FIELDS.items() if row.estimate
} | {
    "card": openapi.text(
        "A graphics card that is not here, by size or name: what VibeVoice-ASR would do on it.",
        examples=["12GB", "RTX 4090"],
    )
}

_LENGTHS = {
    "duration": openapi.number(0, None, "Seconds of audio; or send 'minutes' or 'audio_path'."),
    "minutes": openapi.number(0, None, "Minutes of audio."),
    "audio_path": openapi.PATH,
}
_ESTIMATE_FIELDS = TRANSCRIBE_FIELDS | {*_LENGTHS, "card"}
"""Fields that are no mistake: a client may send those of the transcription that it is about."""
ESTIMATE_BODY: dict[str, Any] = openapi.request_body(
    openapi.object_schema(_LENGTHS | _ESTIMATE_OPTIONS),
    openapi.object_schema({"audio": openapi.AUDIO_FILE, **_ESTIMATE_OPTIONS}, ["audio"]),
    examples={
        "an hour": {"value": {"duration": 3600, "precision": "int8"}},
        "a card": {"value": {"minutes": 90, "card": "12GB"}},
        "a file": {"value": {"audio_path": "/home/me/recordings/meeting.opus"}},
    },
)


def answer_body(service: Service, job: JobRecord, transcript: Transcript) -> dict[str, Any]:
    """Return the body of a finished transcription."""
    body = transcript_body(service.noted(transcript, job.options))
    body["metadata"] |= {"processing_time": round(job.processing_s, 3), "job_id": job.id}
    return {"status": "success", **body}


MEDIA_TYPE = "application/x-ndjson"
KEEP_ALIVE = b"\n"
"""An empty line, which every client ignores."""


class NdjsonResponse(responses.EventStreamResponse):
    """Streamed response of NDJSON lines."""

    media_type = MEDIA_TYPE


async def ndjson_lines(service: Service, job: Job) -> AsyncGenerator[bytes, None]:
    """Yield the lines of a response, and an empty line as a keep-alive."""
    unsent = responses.UnsentSegments()
    try:
        async with aclosing(job.watched(responses.SSE_KEEP_ALIVE_S)) as changes:
            async for record in changes:
                if record is None:
                    yield KEEP_ALIVE
                    continue
                for index, segment in unsent.more(record):
                    yield _line("segment", segment_body(segment), index=index)
        transcript = await job.result()
        yield await render_result(
            transcript.segments,
            lambda: _line(
                "result",
                answer_body(service, job.record, transcript),
                revised=unsent.revised(transcript),
            ),
        )
    except SidecarError as error:
        yield error_line(error)


def error_line(error: SidecarError) -> bytes:
    """Return the last line of a failed transcription: a problem, and when to retry."""
    retry = {} if error.retry_after is None else {"retry_after": str(error.retry_after)}
    return _line("failed", error_responses.problem_body(error) | retry)


def _line(name: str, body: Mapping[str, Any], **more: Any) -> bytes:
    return to_json({name: body, **more}) + b"\n"


def build_router(service: Service) -> APIRouter:
    """Return the routes of /transcribe and /v1/estimate."""
    router = openapi.Routes(responses=openapi.PROBLEMS, route_class=openapi.RequestRoute)

    @router.post(
        "/transcribe",
        response_model=TranscribeAnswer,
        responses={
            200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}},
            202: {"model": JobAnswer},
        },
        openapi_extra=TRANSCRIBE_BODY,
    )
    async def transcribe(request: Request) -> Response:
        """Transcribe a recording."""
        identity = identity_of(request)
        later = wants_async(request.headers.getlist("prefer"))
        with await service.submissions.reserve_position(identity) as reservation:
            fields, source = await upload.read_fields(request, service)
            with upload.close_on_error(source):
                options = service.options(fields, TRANSCRIBE_FIELDS)
                source = source or await upload.open_local(request, fields, service)
            job = await service.submissions.submit(
                identity, source, options, reservation, kept=later
            )
        if later:
            applied = {"Preference-Applied": "respond-async"}
            return await job_response(service, identity, job.record, 202, applied)
        cancel = partial(service.owned.cancel_soon, identity, job.record)
        if accepts(request.headers, MEDIA_TYPE):
            farewell = error_line(TokenInvalid())
            return NdjsonResponse(ndjson_lines(service, job), cancel, farewell)
        async with middleware.watch_disconnect(request, cancel, cancel):
            transcript = await job.result()
        return json_response(
            await render_result(
                transcript.segments, lambda: to_json(answer_body(service, job.record, transcript))
            )
        )

    @router.post("/v1/estimate", response_model=EstimateAnswer, openapi_extra=ESTIMATE_BODY)
    async def estimate(request: Request) -> Response:
        """Estimate memory and time of a recording."""
        fields, source = await upload.read_fields(request, service)
        odd = request_options.unknown_field_notices(
            request_options.unknown_fields(fields, _ESTIMATE_FIELDS)
        )
        forecast, tracks = await _forecast(request, service, fields, source)
        body = EstimateAnswer.render(forecast)
        if tracks:
            body["tracks"] = EstimateTrack.all_of(tracks)
        return json_response(body | ({"warnings": [asdict(one) for one in odd]} if odd else {}))

    return router


def _named_length_s(service: Service, fields: upload.Fields) -> float | None:
    """Return the seconds of audio that a request names; `None` if they are empty."""
    longest_s = service.settings.max_audio_hours * 3600
    if fields.get("minutes") is not None:
        minutes = request_options.parse_number("minutes", fields["minutes"], 0, longest_s / 60)
        return minutes and 60 * minutes
    if fields.get("duration") is None:
        raise FieldMissing("One of the fields 'duration', 'minutes' and 'audio_path' is needed.")
    return request_options.parse_number("duration", fields["duration"], 0, longest_s)


async def _forecast(
    request: Request, service: Service, fields: upload.Fields, source: AudioSource | None
) -> tuple[JobForecast, Sequence[AudioTrack]]:
    """Return the forecast, and the audio tracks of the recording; ``source`` is closed."""
    info = None
    try:
        options = service.options(fields)
        lengths = [name for name in _LENGTHS if fields.get(name) is not None]
        if source is None and len(lengths) > 1:
            raise FieldInvalid(
                f"'{lengths[0]}' and '{lengths[1]}' exclude each other.", hint="Send one of them."
            )
        card = request_options.parse_text("card", fields.get("card"), MAX_SHOWN_CHARACTERS)
        named = find_card(card) if card else None
        if source is None and fields.get("audio_path") is None:
            audio_s = _named_length_s(service, fields)
        else:
            source = source or await upload.open_local(request, fields, service)
            info = await service.submissions.probe(identity_of(request), source, options)
            audio_s = info.total_s
    finally:
        if source is not None:
            source.close()
    if named is not None:
        return forecast_on(named, audio_s, options), info.tracks if info else ()
    if info is None:
        return service.job_engine.forecast(audio_s, options), ()
    return service.job_engine.forecast(audio_s, options, info.channels), info.tracks
