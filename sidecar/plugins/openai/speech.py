"""Route of /v1/audio/speech: TTS in OpenAI's API."""

import asyncio
import base64
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from sidecar import errors
from sidecar.api.http import openapi, responses, upload
from sidecar.api.http.request_headers import identity_of
from sidecar.audio.codecs import SAMPLE_BYTES, EncodedFormat, audio_encoder
from sidecar.auth.identity import Identity
from sidecar.auth.rate_limits import FairOwnerSemaphore, counted, is_within_fair_share
from sidecar.concurrency import running
from sidecar.installation import is_build_without_voices, voice_hint
from sidecar.interfaces import request_options
from sidecar.interfaces.engine_interface import SynthesisOptions, TtsSpec
from sidecar.interfaces.tts_text import SentenceSplitter
from sidecar.limit_overrides import limit
from sidecar.plugins.openai.common import DEFAULT_VOICE, ERRORS, VOICES, warning_headers
from sidecar.plugins.openai.errors import SpeechFull, SpeechUnavailable
from sidecar.plugins.openai.settings import OpenAISettings
from sidecar.service.facade import Service
from sidecar.workers.tts_client import TtsClient

log = logging.getLogger(__name__)

SPEECH = "/v1/audio/speech"
MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
"""OpenAI's TTS models; with `openai_strict` only they and the engine's name are valid."""
MAX_INPUT_CHARACTERS = 4096
"""Maximum length of the text, as in OpenAI's API."""
MAX_WAITING_CHARACTERS = limit("speech_characters", 16 * MAX_INPUT_CHARACTERS)
"""Maximum characters of all requests at once, also of waiting ones: an hour of speech."""
MAX_REQUESTS = 32
"""Maximum requests at once: each holds a phrase in memory if its client reads slowly."""
RATE = 24_000
"""Sample rate in Hz, as in OpenAI's `pcm`."""
SLOWEST, FASTEST = 0.25, 4.0
MAX_PHRASE_BYTES = 120 * SAMPLE_BYTES * RATE
"""Maximum bytes of a phrase's audio, which waits in memory for a slow client. A sentence of 250
characters at a quarter of the speed takes about 70 s."""
MAX_SPEECH_S = limit("speech_seconds", 7200)
"""Maximum audio of one request, in seconds: 4096 digits at a quarter of the speed take less than
two hours. FLAC of that length is 350 MB on disk."""
SILENCE_BYTES = SAMPLE_BYTES * RATE // 5
"""Bytes of silence for an input without anything to speak."""


class SpeechStreamFormat(StrEnum):
    """Format of the audio stream."""

    AUDIO = "audio"
    SSE = "sse"


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """Speech request; ``warnings``: about options without effect."""

    text: str
    synthesis: SynthesisOptions
    audio_format: EncodedFormat
    stream: SpeechStreamFormat
    warnings: tuple[str, ...] = ()


class SpeechQuota:
    """Quota of characters in synthesis or waiting for it, by owner. The engine synthesizes one text
    at a time.

    ``turns``: fair access to the engine, phrase by phrase. A conversation needs no turn, and waits
    for at most one phrase.
    """

    def __init__(self) -> None:
        self.turns, self._owners = FairOwnerSemaphore(1), Counter[str]()

    @contextmanager
    def held(self, identity: Identity, characters: int) -> Iterator[None]:
        """Count ``characters`` within the block. A request counts at least 1/`MAX_REQUESTS` of the
        limit.

        Raises:
            SpeechFull: the owner's share or the limit of all owners is exceeded.
        """
        characters = max(characters, MAX_WAITING_CHARACTERS // MAX_REQUESTS)
        has = self._owners[identity.owner]
        free = MAX_WAITING_CHARACTERS - self._owners.total()
        fair = not identity.limits.shares or is_within_fair_share(has, characters, free)
        if self._owners.total() and not (fair and characters <= free):
            raise SpeechFull()
        with counted(self._owners, identity.owner, characters):
            yield


def build_router(service: Service) -> APIRouter:
    """Build the route of this protocol."""
    router, quota = openapi.Routes(responses=ERRORS), SpeechQuota()

    @router.post(
        SPEECH,
        responses={200: {"description": "Audio, streamed", "content": _CONTENT}},
        openapi_extra=_BODY,
    )
    async def speak(request: Request) -> Response:
        """Synthesize speech (OpenAI's API)."""
        fields = await upload.read_json(request)
        if (tts := service.tts) is None:
            raise SpeechUnavailable(hint=voice_hint() if is_build_without_voices() else None)
        speech_request = parse_speech_request(
            fields, tts.spec, strict=OpenAISettings.of(service.settings).openai_strict
        )
        return SpeechResponse(tts, speech_request, quota, identity_of(request))

    return router


def parse_speech_request(fields: upload.Fields, spec: TtsSpec, *, strict: bool) -> SpeechRequest:
    """Return the parsed request, with the voice as the client named it.

    Raises:
        errors.FieldMissing, errors.FieldInvalid: a field is missing or invalid.
        errors.ModelNotFound: ``strict``, and the model is unknown.
    """
    text = fields.get("input")
    if not isinstance(text, str) or not text.strip():
        raise errors.FieldMissing(
            "The field 'input' is missing.", hint="Send the text to synthesize."
        )
    if len(text) > MAX_INPUT_CHARACTERS:
        raise errors.FieldInvalid(
            f"'input' has {len(text)} characters; the limit is {MAX_INPUT_CHARACTERS}.",
            hint="Send it in parts.",
        )
    audio_format = request_options.parse_choice(
        "response_format", fields.get("response_format"), EncodedFormat.MP3
    )
    stream = request_options.parse_choice(
        "stream_format", fields.get("stream_format"), SpeechStreamFormat.AUDIO
    )
    speed = request_options.parse_number("speed", fields.get("speed"), SLOWEST, FASTEST) or 1.0
    warnings = [*_model_warnings(fields.get("model"), spec, strict=strict)]
    if request_options.parse_text("instructions", fields.get("instructions")).strip():
        warnings.append("'instructions' has no effect: no engine here takes any.")
    warnings += request_options.unknown_fields(fields, _FIELDS)
    voice = fields.get("voice")
    name = request_options.parse_text(
        "voice", voice.get("id") if isinstance(voice, dict) else voice
    ).strip()
    synthesis = SynthesisOptions(voice=name, speed=speed, rate=RATE)
    return SpeechRequest(text, synthesis, audio_format, stream, tuple(warnings))


def _model_warnings(given: object, spec: TtsSpec, *, strict: bool) -> tuple[str, ...]:
    name = request_options.parse_text("model", given).strip()
    if strict and not name:
        raise errors.FieldMissing(
            "The field 'model' is missing.", hint=f"Send '{spec.name}', or one of OpenAI's names."
        )
    if strict and name not in (spec.name, *MODELS):
        raise errors.ModelNotFound(hint=f"The TTS engine of this service is '{spec.name}'.")
    if name in ("", spec.name):
        return ()
    return (f"The model '{name[:64]}' is not loaded here; '{spec.name}' spoke.",)


async def with_available_voice(request: SpeechRequest, tts: TtsClient) -> SpeechRequest:
    """Return the request with a voice of the engine.

    If the engine lacks a voice of OpenAI's, its default ('') replaces it, with a warning. This
    loads the engine if its list of voices is needed.

    Raises:
        errors.SidecarError: the engine does not load.
    """
    name = request.synthesis.voice
    if name in ("", DEFAULT_VOICE):
        return replace(request, synthesis=replace(request.synthesis, voice=""))
    spec = tts.spec
    if name not in VOICES or not spec.lists_voices or name in await tts.ready():
        return request
    warning = f"The voice '{name}' is not available; the default voice of '{spec.name}' was used."
    synthesis = replace(request.synthesis, voice="")
    return replace(request, synthesis=synthesis, warnings=(*request.warnings, warning))


async def speech_audio(
    tts: TtsClient, request: SpeechRequest, quota: SpeechQuota, identity: Identity
) -> AsyncGenerator[bytes, None]:
    """Yield the encoded audio of a text while it is synthesized, sentence by sentence. Other
    requests are served between sentences.

    Raises:
        errors.VoiceUnknown: the voice does not exist.
        errors.FieldInvalid: the audio is longer than `MAX_SPEECH_S`.
        errors.SidecarError: the engine does not load, or failed.
    """
    encoder = await asyncio.to_thread(audio_encoder, request.audio_format, RATE)
    sentences = SentenceSplitter()
    size = 0
    for phrase in [*sentences.feed(request.text), *sentences.flush()]:
        if not phrase.text:
            continue
        audio = phrase_audio(tts, phrase.text, request.synthesis, quota.turns.held(identity))
        async with aclosing(audio) as blocks:
            async for block in blocks:
                size += len(block)
                if size > MAX_SPEECH_S * SAMPLE_BYTES * RATE:
                    raise errors.FieldInvalid(
                        f"'input' is more than {MAX_SPEECH_S} s of audio.", hint="Send it in parts."
                    )
                if encoded := await asyncio.to_thread(encoder.add, block):
                    yield encoded
    if not size:
        yield await asyncio.to_thread(encoder.add, bytes(SILENCE_BYTES))
    rest = encoder.end()
    while part := await asyncio.to_thread(next, rest, b""):
        yield part


async def phrase_audio(
    tts: TtsClient,
    text: str,
    synthesis: SynthesisOptions,
    turn: AbstractAsyncContextManager[None],
    *,
    max_bytes: int = MAX_PHRASE_BYTES,
) -> AsyncGenerator[bytes, None]:
    """Yield the samples of a phrase, at most ``max_bytes``. The engine, held for one ``turn``,
    never waits for a slow client.

    Raises:
        errors.EngineFailed: the audio is longer than that, or the engine failed.
        errors.SidecarError: as `TtsClient.say`.
    """
    waiting: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def pump() -> None:
        free = max_bytes
        try:
            async with turn, aclosing(tts.say(text, synthesis)) as blocks:
                async for block in blocks:
                    free -= len(block.pcm)
                    if free < 0:
                        raise errors.EngineFailed("The audio of a phrase exceeded the limit.")
                    waiting.put_nowait(block.pcm)
        finally:
            waiting.put_nowait(None)

    async with running(pump()) as (pumping,):
        while (pcm := await waiting.get()) is not None:
            yield pcm
        await pumping


async def speech_events(audio: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield encoded audio as server-sent events."""
    async with aclosing(audio) as parts:
        async for part in parts:
            delta = base64.b64encode(part).decode()
            yield responses.sse_frame({"type": "speech.audio.delta", "audio": delta})
    usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    yield responses.sse_frame({"type": "speech.audio.done", "usage": usage})


class SpeechResponse(responses.StreamedResponse):
    """Response that streams audio while it is synthesized.

    An error before the first audio has its own response; a later one breaks the connection. A
    disconnect stops the synthesis.
    """

    def __init__(
        self, tts: TtsClient, request: SpeechRequest, quota: SpeechQuota, identity: Identity
    ) -> None:
        self._events = request.stream is SpeechStreamFormat.SSE
        self.media_type = (
            responses.SSE_MEDIA_TYPE if self._events else request.audio_format.media_type
        )
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._tts, self._request = tts, request
        self._quota, self._identity = quota, identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI request."""
        with self._quota.held(self._identity, len(self._request.text)):
            try:
                revoked = await responses.send_until_disconnect(scope, receive, self._speak(send))
            except errors.SidecarError as error:
                if not self._begun:
                    raise
                log.warning(
                    "speech synthesis of a request stopped before its end: %s", error.detail
                )
                return
        if revoked and not self._begun:
            raise errors.TokenInvalid()

    async def _speak(self, send: Send) -> None:
        request = await with_available_voice(self._request, self._tts)
        self.headers.update(warning_headers(request.warnings))
        audio = speech_audio(self._tts, request, self._quota, self._identity)
        await self._send_all(send, speech_events(audio) if self._events else audio)


_CONTENT: dict[str, Any] = {
    **openapi.content(*(one.media_type for one in EncodedFormat), schema=openapi.AUDIO_FILE),
    **openapi.content(responses.SSE_MEDIA_TYPE, schema={"type": "object"}),
}
_FIELDS: dict[str, Any] = {
    "input": openapi.text(minLength=1, maxLength=MAX_INPUT_CHARACTERS),
    "model": openapi.text(examples=["tts-1"]),
    "voice": openapi.text(examples=["alloy"]),
    "response_format": openapi.choice(EncodedFormat, default="mp3"),
    "speed": openapi.number(SLOWEST, FASTEST, default=1.0),
    "stream_format": openapi.choice(SpeechStreamFormat),
    "instructions": openapi.text("No effect here."),
}
_BODY = openapi.request_body(openapi.object_schema(_FIELDS, ["input"]))
