"""Interface of an upstream dialect, and what the refusals of a server mean. Pure.

Each upstream has one `UpstreamDialect`, which says what the server can. A `ChunkRequest` is one
chunk of a recording on its way to the server and back.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sidecar import errors
from sidecar.interfaces.engine_interface import AUTO, TranscribeOptions
from sidecar.openai_http import (
    TOO_LARGE_MESSAGE,
    RequestRefused,
    parse_retry_after,
    server_message,
)
from sidecar.plugins.upstream.errors import (
    UpstreamBusy,
    UpstreamError,
    UpstreamFailed,
    UpstreamGarbled,
    UpstreamRefused,
    UpstreamRefusedRecording,
    UpstreamUnreachable,
)
from sidecar.transcripts.transcript import Notice, Segment

Error = TypeVar("Error", bound=errors.SidecarError)

PARSE_ERRORS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""Errors of parsing a malformed response."""

FLAC = "audio/flac"
FORMS = SPEAKERS, WORDS, SEGMENTS, TEXT = "speakers", "words", "segments", "text"
"""Forms of an answer, the richest first; that of text has no times."""

REFUSED_RECORDING = frozenset({400, 415, 422})
"""Statuses of a server that read the request, if it takes a second of speech: the others are about
its address, its key or itself, and may be over in a moment."""
LACKING = frozenset({408, 425, 507})
"""Statuses of a server that lacks something for now: the request in time, or space on its disk. A
small request, such as a second of speech, may have it."""


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


class AskAgain(Exception):
    """The server has to be sent another request for the chunk at once."""


class ChunkTooLarge(Exception):
    """The server takes, or answers, only smaller chunks; ``error``: that of the smallest."""

    def __init__(self, error: errors.SidecarError) -> None:
        self.error = error
        super().__init__(error.detail)


def error_of_refusal(refusal: RequestRefused) -> UpstreamError | ChunkTooLarge:
    """Return what a status other than 200 means, in any dialect."""
    status, message = refusal.status, server_message(refusal.body)
    answered = f"The upstream answered {status}{f': {message}' if message else '.'}"
    if status in (401, 403):
        return UpstreamRefused(
            f"The upstream answered {status}: it rejects the key.",
            hint="Set VIBEVOICE_UPSTREAM_KEY or --upstream-key @FILE to a valid key.",
        )
    if status == 413 or TOO_LARGE_MESSAGE.search(message):
        return ChunkTooLarge(UpstreamRefusedRecording(answered))
    after = parse_retry_after(refusal.headers)
    if status == 429 and "insufficient_quota" in server_message(refusal.body, "code"):
        return UpstreamRefused(answered)
    if status == 429 or (status == 503 and after is not None):
        rest_s = UpstreamBusy.rest_s if after is None else after
        busy = UpstreamBusy(retry_after=max(1, round(rest_s)))
        busy.rest_s = rest_s
        return busy
    if status in LACKING:
        return UpstreamUnreachable(answered, hint="Check that server: its answer is in the detail.")
    if status == 409 or status >= 500:
        return UpstreamFailed(answered)
    return (UpstreamRefusedRecording if status in REFUSED_RECORDING else UpstreamRefused)(answered)


def error_of_message(error: Mapping[str, Any] | str) -> UpstreamError | ChunkTooLarge:
    """Return what an error means that comes with status 200, in a body or a stream."""
    body = json.dumps({"error": error}).encode()
    status = error.get("code") if isinstance(error, Mapping) else None
    if isinstance(status, int) and 400 <= status < 600:
        return error_of_refusal(RequestRefused(status, {}, body))
    message = f"The upstream reports: {server_message(body)}"
    if TOO_LARGE_MESSAGE.search(message):
        return ChunkTooLarge(UpstreamRefusedRecording(message))
    return UpstreamFailed(message)


def garbled(what: str) -> UpstreamGarbled:
    """Return the error of a malformed answer."""
    return UpstreamGarbled(f"The upstream's response {what}.")


def with_server_name(error: Error, server: str) -> Error:
    """Return a copy of the error with the server's name, if it is about a server."""
    detail = error.detail.replace("The upstream", f"The upstream {server}", 1)
    if isinstance(error, UpstreamUnreachable) and detail == error.default_detail:
        detail = f"The upstream {server} does not answer."
    named = copy(error)
    named.detail, named.args = detail, (detail,)
    return named


def options_without(options: TranscribeOptions, names: Collection[str]) -> TranscribeOptions:
    """Return the options without what a server may refuse of them, if it is named."""
    if "prompt" in names:
        options = replace(options, prompt="", hotwords=())
    return replace(options, language=AUTO) if "language" in names else options


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """HTTP request; ``content``: arguments of httpx for its body; bytes are JSON. ``accept``: its
    Accept header. ``kept_alive``: the answer has no long pause before its first byte, either."""

    path: str
    content: Mapping[str, Any]
    accept: str = "*/*"
    kept_alive: bool = False


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """Transcription of a chunk by a server; times in seconds from the chunk's start.

    ``form``: what the server was seen to give, if its kind does not say it; of `TEXT`, segments
    have the times of the audio that their words are somewhere in. ``diarized``: whether it
    diarized. ``precision`` and ``language``: 'auto' if it did not return them. ``ignored``: options
    that it does not support. ``late``: the segments that were not streamed before; None if they are
    not known.
    """

    segments: tuple[Segment, ...]
    form: str = ""
    diarized: bool = False
    language: str = AUTO
    precision: str = AUTO
    notices: tuple[Notice, ...] = ()
    ignored: tuple[str, ...] = ()
    late: tuple[Segment, ...] | None = None


@dataclass
class ChunkRequest(ABC):
    """Request of a chunk of ``duration_s`` seconds, sent once or several times, until there is an
    answer. Each method may raise an `UpstreamError`, `ChunkTooLarge` or `AskAgain`."""

    dialect: UpstreamDialect
    options: TranscribeOptions
    duration_s: float
    flac: bytes
    streamed: list[Segment] = field(default_factory=list, init=False)
    """Segments that `feed` returned since the answer began."""

    @abstractmethod
    def __post_init__(self) -> None:
        """Begin without an answer."""

    @abstractmethod
    def next_request(self) -> UpstreamRequest:
        """Return the request to send now. Discard an unfinished answer, except if the server can go
        on from it."""

    @abstractmethod
    def feed(self, data: bytes) -> list[Segment]:
        """Add to the answer and return the new segments."""

    @abstractmethod
    def finish(self) -> UpstreamAnswer:
        """Return the answer after its end."""

    def refused(self, refusal: RequestRefused) -> Exception:
        """Return what a refusal means, to be raised."""
        error, said = error_of_refusal(refusal), server_message(refusal.body).lower()
        of_request = refusal.status in REFUSED_RECORDING
        if of_request and self.simplify(said, too_large=isinstance(error, ChunkTooLarge)):
            return AskAgain()
        return error

    def simplify(self, said: str, *, too_large: bool) -> bool:
        """Leave out of the next request what the server may have refused, by what it said; return
        whether there is anything."""
        return False

    def form(self, fields: Mapping[str, str | list[str]], file: str) -> dict[str, Any]:
        """Return the content of a request with fields, and the audio as ``file``."""
        return {"data": fields, "files": {file: ("audio.flac", self.flac, FLAC)}}


@dataclass(frozen=True, slots=True)
class AudioWindows:
    """Windows of a streaming model, in samples at ``rate``: each begins ``chunk_samples`` behind
    the one before, and has the text of so much audio."""

    rate: int
    chunk_samples: int
    window_samples: int

    @property
    def chunk_s(self) -> float:
        """Return the seconds from one window to the next."""
        return self.chunk_samples / self.rate


@dataclass(frozen=True, slots=True)
class UpstreamDialect:
    """Protocol of one upstream, and what it can: a value that does not change.

    ``health``: path of its health check; ``prompt``: that answers at once, even while it works.
    ``rate``: that of its model, in Hz. ``longest_s``: longest audio of a request. ``form``: that in
    which it answers speech; '' if only a request shows it. ``by_voices``: it diarizes as this
    service does (`EngineSpec.by_voices`). Its chunks are requested without speakers if the whole
    recording is diarized here. ``resumes``: servers with this value go on from each other's
    answers. ``windows``: of a streaming model. ``complete``: it looks itself for speech without
    words.
    """

    name: str
    health: str
    rate: int
    longest_s: float
    request: Callable[[UpstreamDialect, TranscribeOptions, float, bytes], ChunkRequest]
    model: str = ""
    form: str = ""
    diarizes: bool = True
    by_voices: bool = False
    prompt: bool = False
    resumes: bool = False
    windows: AudioWindows | None = None
    complete: bool = False

    def chunk_request(
        self, options: TranscribeOptions, duration_s: float, flac: bytes
    ) -> ChunkRequest:
        """Return the request of a chunk of ``duration_s`` seconds."""
        return self.request(self, options, duration_s, flac)
