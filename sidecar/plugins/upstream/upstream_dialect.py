"""Interface of an upstream dialect, and classification of failures into retry steps. Pure.

Each upstream has one `UpstreamDialect`, which says what the server can. A `ChunkRequest` is one
chunk of a recording on its way to the server and back.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol, Self

from sidecar import errors
from sidecar.interfaces.engine_interface import AUTO, TranscribeOptions
from sidecar.openai_http import TOO_LARGE_MESSAGE, parse_retry_after, server_message
from sidecar.plugins.upstream.errors import (
    UpstreamBusy,
    UpstreamFailed,
    UpstreamGarbled,
    UpstreamRefused,
    UpstreamRefusedRecording,
    UpstreamUnreachable,
)
from sidecar.transcripts.transcript import Notice, Segment

PARSE_ERRORS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""Errors of parsing a malformed response."""

FLAC = "audio/flac"
TEXT = "text"
"""Form of an answer without times."""

REFUSED_RECORDING = frozenset({400, 415, 422})
"""Statuses of a server that read the request: the others are about its address, its key or itself,
and may be over in a moment."""


def parse_probability(value: object) -> float | None:
    """Return a number from 0 to 1 of an answer with three digits; None for all else."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    return round(float(value), 3) if known else None  # type: ignore[arg-type]


def clip_span(start: Any, end: Any, duration_s: float) -> tuple[float, float]:
    """Return two times of an answer, in order and within the chunk. For one that is missing or no
    number the other counts, for both the whole chunk."""
    numbers = [math.nan if one is None else float(one) for one in (start, end)]
    known = [min(max(0.0, one), duration_s) for one in numbers if not math.isnan(one)]
    first, last = (known[0], known[-1]) if known else (0.0, duration_s)
    return first, max(first, last)


class FailureStep(Enum):
    """Next step after a chunk failed."""

    AGAIN = auto()
    """The server has failed: it goes into back-off, and another is tried first."""
    LATER = auto()
    """The server reports that it is overloaded; this does not count as an attempt."""
    ELSEWHERE = auto()
    """The server will never take this; another might."""
    SMALLER = auto()
    """The recording is too long or too large for the server."""
    ANEW = auto()
    """Send another form of the request to the same server at once."""
    NEVER = auto()
    """No server would take it: the recording or the request is at fault."""


@dataclass(eq=False)
class ChunkFailure(Exception):
    """Failure of a chunk: the next step, and the error if no step helps.

    ``sent``: whether the server had begun to read audio, so that the audio may be at fault.
    """

    step: FailureStep
    error: errors.SidecarError
    retry_after: float | None = None
    sent: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__init__(self.error.detail)


def failure_of_status(status: int, headers: Mapping[str, str], body: bytes) -> ChunkFailure:
    """Return the failure that a status other than 200 means, in any dialect."""
    message = server_message(body)
    answered = f"The upstream answered {status}{f': {message}' if message else '.'}"
    if status in (401, 403):
        rejected = UpstreamRefused(
            f"The upstream answered {status}: it rejects the key.",
            hint="Set VIBEVOICE_UPSTREAM_KEY or --upstream-key @FILE to a valid key.",
        )
        return ChunkFailure(FailureStep.ELSEWHERE, rejected)
    if status == 413 or TOO_LARGE_MESSAGE.search(message):
        return ChunkFailure(FailureStep.SMALLER, UpstreamRefusedRecording(answered))
    if status == 429 and "insufficient_quota" in server_message(body, "code"):
        return ChunkFailure(FailureStep.ELSEWHERE, UpstreamRefused(answered))
    after = parse_retry_after(headers)
    if status == 429 or (status == 503 and after is not None):
        after = 1.0 if after is None else after
        busy = UpstreamBusy(retry_after=max(1, round(after)))
        return ChunkFailure(FailureStep.LATER, busy, after)
    if status in (408, 409, 425) or status >= 500:
        return ChunkFailure(FailureStep.AGAIN, UpstreamFailed(answered))
    refused = UpstreamRefusedRecording if status in REFUSED_RECORDING else UpstreamRefused
    return ChunkFailure(FailureStep.ELSEWHERE, refused(answered))


def failure_of_error(error: Mapping[str, Any] | str) -> ChunkFailure:
    """Return the failure that an error means that comes with status 200, in a body or a stream."""
    message = f"The upstream reports: {server_message(json.dumps({'error': error}).encode())}"
    status = error.get("code") if isinstance(error, Mapping) else None
    if isinstance(status, int) and 400 <= status < 600:
        return failure_of_status(status, {}, json.dumps({"error": dict(error)}).encode())  # type: ignore[arg-type]
    if TOO_LARGE_MESSAGE.search(message):
        return ChunkFailure(FailureStep.SMALLER, UpstreamRefusedRecording(message))
    return ChunkFailure(FailureStep.AGAIN, UpstreamFailed(message))


def garbled_failure(what: str, step: FailureStep = FailureStep.AGAIN) -> ChunkFailure:
    """Return the failure of a malformed answer."""
    return ChunkFailure(step, UpstreamGarbled(f"The upstream's response {what}."))


def connection_lost_failure(what: str) -> ChunkFailure:
    """Return the failure of a server that disconnected or fell silent during a request."""
    return ChunkFailure(FailureStep.AGAIN, UpstreamFailed(f"The upstream {what}."))


def unreachable_failure(detail: str | None = None) -> ChunkFailure:
    """Return the failure of a server that received nothing."""
    return ChunkFailure(FailureStep.AGAIN, UpstreamUnreachable(detail), sent=False)


def refused_failure(detail: str, hint: str | None = None) -> ChunkFailure:
    """Return the failure of a server that cannot be used and received nothing."""
    refused = UpstreamRefused(detail, hint=hint)
    return ChunkFailure(FailureStep.ELSEWHERE, refused, sent=False)


def with_server_name(error: errors.SidecarError, server: str) -> errors.SidecarError:
    """Return the error with the server's name, if it is about a server."""
    detail = error.detail.replace("The upstream", f"The upstream {server}", 1)
    if isinstance(error, UpstreamUnreachable) and detail == error.default_detail:
        detail = f"The upstream {server} does not answer."
    return type(error)(detail, hint=error.hint, retry_after=error.retry_after)


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """HTTP request: a JSON body, or a form with the audio as its only file."""

    path: str
    fields: Mapping[str, str | list[str]] = field(default_factory=dict)
    file_field: str = "file"
    body: bytes | None = None
    streams: bool = False
    """True if the answer is streamed: a long pause in it is a failure."""
    accept: str = "*/*"
    """Accept header of the request."""


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """Transcription of a chunk by a server; times in seconds from the chunk's start.

    ``form``: what the server was seen to give, if its kind does not say it; of `TEXT`, without
    times, one segment covers the chunk. ``diarized``: whether it diarized. ``precision`` and
    ``language``: 'auto' if it did not return them. ``ignored``: options that it does not support.
    """

    segments: tuple[Segment, ...]
    form: str = ""
    diarized: bool = False
    language: str = AUTO
    precision: str = AUTO
    notices: tuple[Notice, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    """Limits of a request: seconds, and bytes on the wire (``growth``: factor by which the encoding
    enlarges the audio)."""

    seconds: float
    bytes: int
    growth: float = 1.0

    def longest_s(self, rate: int) -> float:
        """Return the seconds of 16-bit audio at ``rate`` that are within both limits."""
        return min(self.seconds, self.bytes / self.growth / (2 * rate))


class ChunkRequest(Protocol):
    """Request of a chunk, sent once or several times, until there is an answer."""

    def next_request(self, flac: bytes) -> UpstreamRequest:
        """Return the request to send now; ``flac`` is the chunk as FLAC. Discard an unfinished
        answer, except if the server can go on from it."""

    def feed(self, data: bytes) -> list[Segment]:
        """Add to the answer and return the new segments.

        Raises:
            ChunkFailure: the answer is malformed.
        """

    def finish(self) -> UpstreamAnswer:
        """Return the answer after its end.

        Raises:
            ChunkFailure: it broke off, is malformed, or must be requested again.
        """

    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> ChunkFailure:
        """Return the failure that a status other than 200 means."""


class UpstreamDialect(ABC):
    """Protocol of one upstream, and what it can: a value that does not change."""

    name: str
    health: str
    """Path of its health check."""
    rate: int
    """Sample rate of its model, in Hz."""
    prompt = False
    """True if its health check answers at once, even while it works."""
    probes = False
    """True if only its answers show what it can."""
    by_voices = False
    """True if it diarizes as this service does (`EngineSpec.by_voices`). Its chunks are requested
    without speakers if the whole recording is diarized here."""

    @property
    @abstractmethod
    def limits(self) -> UpstreamLimits:
        """Return the limits of a request."""

    @property
    def diarizes(self) -> bool:
        """Return whether it diarizes."""
        return True

    @property
    def alike(self) -> str:
        """Return a value; servers with the same, if it is not empty, can go on from each other's
        answers."""
        return ""

    def answered(self, answer: UpstreamAnswer) -> Self:
        """Return the dialect of a server that gave this answer to speech."""
        return self

    @abstractmethod
    def chunk_request(self, duration_s: float, options: TranscribeOptions) -> ChunkRequest:
        """Return the request of a chunk of ``duration_s`` seconds."""

    def waiting(self, health: bytes) -> int:
        """Return the recordings that wait there, from the body of ``health``; 0 if it has no
        number."""
        return 0
