"""HTTP client of one upstream, and detection of its kind."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sidecar import openai_http
from sidecar.audio import SAMPLE_RATE, VIBEVOICE_SAMPLE_RATE
from sidecar.config.secret_settings import host_of
from sidecar.interfaces.engine_interface import AUTO, TranscribeOptions, UpstreamOptions
from sidecar.plugins.upstream import upstream_dialect
from sidecar.plugins.upstream.audio_chunks import AudioChunk
from sidecar.plugins.upstream.errors import UpstreamRefusedRecording, UpstreamTimeout
from sidecar.plugins.upstream.load_balancer import FailoverLimits
from sidecar.plugins.upstream.openai_dialect import OpenAiDialect
from sidecar.plugins.upstream.sidecar_dialect import SidecarDialect
from sidecar.plugins.upstream.upstream_dialect import (
    FLAC,
    ChunkFailure,
    ChunkRequest,
    FailureStep,
    UpstreamAnswer,
    UpstreamDialect,
    UpstreamRequest,
)
from sidecar.plugins.upstream.vllm_dialect import VllmDialect
from sidecar.transcripts.transcript import Segment

if TYPE_CHECKING:
    import httpx


HEALTH_PATH, MODELS_PATH = "/health", "/v1/models"
UPSTREAM_ENGINE = "upstream"
"""Name of this engine: a server that runs it forwards recordings to others."""
VIBEVOICE = "vibevoice"
_AWAY = frozenset({502, 503, 504})
"""Statuses of a proxy whose server is away, or of a server that starts."""

SPEECH_S = 1.0
MAX_REQUESTS_PER_CHUNK = 32
"""Maximum requests for one chunk to one server; each dialect has lower limits of its own."""
MAX_ANSWER_BYTES = 64 << 20
"""Maximum bytes of an answer; an hour of speech with word times takes 3 MB."""
MAX_EVENT_BYTES = 4 << 20
"""Maximum bytes of an event of a streamed answer; some servers resend the whole text in each."""

SegmentsCallback = Callable[[Sequence[Segment]], None]
"""Callback for segments as they arrive, in seconds from the chunk's start."""


def second_of_speech() -> bytes:
    """Return speech from the wheel of the embedded engine, as FLAC; silence if that is missing."""
    import soundfile

    rate = VIBEVOICE_SAMPLE_RATE
    samples, spec = np.zeros(round(SPEECH_S * rate), np.int16), find_spec("moonshine_voice")
    with suppress(OSError, soundfile.LibsndfileError):
        for folder in (spec and spec.submodule_search_locations) or ():
            path = Path(folder) / "assets" / "endgame_nagg_nell.wav"
            samples, rate = soundfile.read(path, len(samples), rate, dtype="int16")
    return AudioChunk(0.0, samples, rate, last=True).flac()


def sidecar_dialect_of(health: bytes) -> SidecarDialect | None:
    """Return the dialect of another vibevoice-asr if the body is its /health, else None.

    Raises:
        ChunkFailure: it forwards recordings itself: the transcript could not name its engine, and
            the upstream might be this service.
    """
    body = openai_http.loads(health)
    if not isinstance(body, dict) or not {"contract", "engine", "engine_state"} <= body.keys():
        return None
    engine = str(body["engine"])
    if engine == UPSTREAM_ENGINE:
        raise upstream_dialect.refused_failure("The upstream has the engine 'upstream' itself.")
    if engine == VIBEVOICE:
        return SidecarDialect(VIBEVOICE_SAMPLE_RATE)
    return SidecarDialect(SAMPLE_RATE, by_voices=True)


def dialect_of(kind: str, models: bytes, wanted: str | None) -> UpstreamDialect:
    """Return the dialect of a server that is not a vibevoice-asr.

    ``kind``: 'openai', 'vllm', or 'auto' to derive it from the list of models.

    Raises:
        ChunkFailure: no model is set and none is listed.
    """
    body = openai_http.loads(models)
    model = wanted or next(iter(openai_http.model_names(body)), None)
    if model is None:
        raise upstream_dialect.refused_failure(
            "The upstream lists no models.",
            "Name one with VIBEVOICE_UPSTREAM_MODEL, and the server's kind with "
            "VIBEVOICE_UPSTREAM_DIALECT.",
        )
    if kind == "auto":
        listed = openai_http.listed_models(body)
        shown = wanted or " ".join(str(one.get(key)) for one in listed for key in ("id", "root"))
        kind = "vllm" if VIBEVOICE in shown.lower() else "openai"
    return VllmDialect(model) if kind == "vllm" else OpenAiDialect(model)


class UpstreamClient:
    """Client of one upstream. ``name`` is its host and port."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        key: str,
        options: UpstreamOptions,
        limits: FailoverLimits,
    ) -> None:
        self.name = host_of(url)
        self.dialect: UpstreamDialect | None = None
        self.longest_s = options.piece_s or float("inf")
        """Maximum length of a chunk: of one that was answered after a longer one was refused."""
        self._client, self._url = client, url
        self._headers = openai_http.authorization(key)
        self._options, self._limits = options, limits
        self._probing, self._probed = asyncio.Lock(), False

    async def known_dialect(self) -> UpstreamDialect:
        """Return its dialect; determined once.

        Raises:
            ChunkFailure: it cannot be reached, or cannot be identified.
        """
        if self.dialect is None:
            self.dialect = await self._detect_dialect()
        return self.dialect

    async def ready(self) -> UpstreamDialect:
        """Return its dialect, with what it answered to a second of speech if only that shows what
        it can.

        Raises:
            ChunkFailure: as `known_dialect`, or it did not answer.
        """
        async with self._probing:
            dialect = await self.known_dialect()
            if dialect.probes and not self._probed:
                request = dialect.chunk_request(SPEECH_S, TranscribeOptions())
                timeout_s = self._limits.extra_timeout_s + self._options.timeout * SPEECH_S
                speech = await asyncio.to_thread(second_of_speech)
                try:
                    answer = await self.transcribe(request, speech, lambda _: None, timeout_s)
                except ChunkFailure as failure:
                    if isinstance(failure.error, UpstreamRefusedRecording):  # it was of none
                        raise upstream_dialect.refused_failure(failure.error.detail) from None
                    raise
                self.dialect, self._probed = dialect.answered(answer), True
            return self.dialect or dialect

    async def check_health(self) -> int:
        """Check its health and return how many recordings wait there; 0 if it does not report it.

        Raises:
            ChunkFailure: it does not answer, or is unhealthy.
        """
        dialect = await self.known_dialect()
        status, body = await self._get(dialect.health)
        if status >= 500:
            raise upstream_dialect.unreachable_failure(f"The upstream is not well: {status}.")
        return dialect.waiting(body)

    async def transcribe(
        self,
        chunk_request: ChunkRequest,
        flac: bytes,
        on_segments: SegmentsCallback,
        timeout_s: float,
    ) -> UpstreamAnswer:
        """Send a chunk and return the answer; report segments to ``on_segments`` as they arrive.

        Raises:
            ChunkFailure: there is no answer.
        """
        for _ in range(MAX_REQUESTS_PER_CHUNK):
            try:
                return await self._answer(chunk_request, flac, on_segments, timeout_s)
            except ChunkFailure as failure:
                if failure.step is not FailureStep.ANEW:
                    raise
                last = failure.error
        raise ChunkFailure(FailureStep.ELSEWHERE, last)

    async def _answer(
        self,
        chunk_request: ChunkRequest,
        flac: bytes,
        on_segments: SegmentsCallback,
        timeout_s: float,
    ) -> UpstreamAnswer:
        request, silence_s = chunk_request.next_request(flac), self._limits.stream_silence_timeout_s
        headers, content = (
            self._headers | {"Accept": request.accept},
            _request_content(request, flac),
        )
        with _refusals_of(chunk_request), _http_errors_as_failures():
            async with asyncio.timeout(timeout_s) as deadline:
                until = deadline.when() or 0.0
                async with openai_http.accepted(
                    self._client, "POST", self._url + request.path, headers=headers, **content
                ) as response:
                    if "html" in response.headers.get("content-type", ""):
                        raise upstream_dialect.refused_failure(
                            "The upstream answered with a web page.",
                            "It may be one to sign in at: check the address and the key.",
                        )

                    async def limited_body() -> AsyncIterator[bytes]:
                        byte_count = 0
                        async for block in response.aiter_bytes():
                            byte_count += len(block)
                            if byte_count > MAX_ANSWER_BYTES:
                                raise upstream_dialect.garbled_failure("has no end")
                            yield block
                            if request.streams:
                                now = asyncio.get_running_loop().time()
                                deadline.reschedule(min(until, now + silence_s))

                    blocks = limited_body()
                    if request.accept == openai_http.EVENT_STREAM:
                        blocks = openai_http.event_data(blocks, MAX_EVENT_BYTES, _wrong_event)
                    async for data in blocks:
                        if segments := chunk_request.feed(data):
                            on_segments(segments)
        return chunk_request.finish()

    async def _detect_dialect(self) -> UpstreamDialect:
        kind = self._options.dialect
        if kind in (AUTO, "sidecar"):
            status, body = await self._get(HEALTH_PATH)
            if (dialect := sidecar_dialect_of(body)) is not None:
                return dialect
            if kind == "sidecar":
                _check_not_away(status)
                return SidecarDialect(SAMPLE_RATE)
        status, body = await self._get(MODELS_PATH)
        if kind == AUTO or not self._options.model:
            _check_not_away(status)
        if status in (401, 403):
            raise upstream_dialect.failure_of_status(status, {}, body)
        if kind == AUTO and status != 200 and not self._options.model:
            raise upstream_dialect.refused_failure(
                "The upstream does not say what it is.", "Set VIBEVOICE_UPSTREAM_DIALECT."
            )
        return dialect_of(kind, body, self._options.model)

    async def _get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of a small request; a server that does not answer is
        unreachable."""
        try:
            with _http_errors_as_failures():
                async with asyncio.timeout(self._limits.probe_timeout_s):
                    return 200, await openai_http.get(
                        self._client, self._url + path, headers=self._headers
                    )
        except openai_http.RequestRefused as refused:
            return refused.status, refused.body
        except ChunkFailure as failure:
            if failure.step is not FailureStep.AGAIN:
                raise
            raise upstream_dialect.unreachable_failure() from None


def _check_not_away(status: int) -> None:
    """Raise `ChunkFailure` if the status is that of a proxy whose server is away, or of a server
    that starts: it does not say what the server is."""
    if status in _AWAY:
        raise upstream_dialect.unreachable_failure(f"The upstream answered {status}.")


def _wrong_event(first: bytes | None) -> ChunkFailure:
    return upstream_dialect.garbled_failure(
        "has an event without end" if first is None else "is no stream of events"
    )


def _request_content(request: UpstreamRequest, flac: bytes) -> dict[str, Any]:
    """Return the arguments for httpx."""
    if request.body is not None:
        return {"content": request.body}
    return {"data": dict(request.fields), "files": {request.file_field: ("audio.flac", flac, FLAC)}}


@contextmanager
def _refusals_of(chunk_request: ChunkRequest) -> Iterator[None]:
    """Turn a refusal into the `ChunkFailure` that it means for a request."""
    try:
        yield
    except openai_http.RequestRefused as refused:
        raise chunk_request.refused(refused.status, refused.headers, refused.body) from None


@contextmanager
def _http_errors_as_failures() -> Iterator[None]:
    """Turn errors of the connection into `ChunkFailure`."""
    try:
        with openai_http.http_errors_as(
            _unreachable,
            lambda _: upstream_dialect.connection_lost_failure("went away in the middle"),
        ):
            yield
    except TimeoutError:
        raise ChunkFailure(FailureStep.AGAIN, UpstreamTimeout()) from None


def _unreachable(error: Exception) -> ChunkFailure:
    if not _is_certificate_error(error):
        return upstream_dialect.unreachable_failure()
    return upstream_dialect.refused_failure(
        "The upstream's certificate is not one that is trusted.",
        "Set VIBEVOICE_UPSTREAM_CA to the file with the certificate of who signed it.",
    )


def _is_certificate_error(error: BaseException | None) -> bool:
    """Return whether a certificate is the reason of a failed connection."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
