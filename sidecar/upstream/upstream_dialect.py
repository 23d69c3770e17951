"""Interface of an upstream dialect, and classification of failures into retry steps. Pure.

A `UpstreamDialect` is made for each upstream and remembers what it learned of it; a `ChunkRequest`
is one piece of a recording on its way through it.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol

from sidecar import errors
from sidecar.interfaces.engine_interface import AUTO, TranscribeOptions
from sidecar.transcripts.speaker_embeddings import EncodedWindowEmbeddings
from sidecar.transcripts.transcript import Notice, Segment
from sidecar.upstream.openai_http import parse_retry_after, server_message

PARSE_ERRORS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""Errors of parsing a malformed response."""
_TOO_MUCH = re.compile(
    r"context length|encoder cache|too (long|large|big)|exceeds? the (max|limit)|max_model_len"
    r"|maximum (allowed )?(file ?size|duration|content size|audio)|duration.{0,40}exceed",
    re.IGNORECASE,
)
"""Messages of servers for a recording that is too long or too large, whatever the status is
(vLLM: 400)."""


class FailureStep(Enum):
    """Next step after a chunk failed."""

    AGAIN = auto()
    """The server is in trouble: it stands aside for a while, another is tried first."""
    LATER = auto()
    """It has too much to do, and says so: no attempt was lost."""
    ELSEWHERE = auto()
    """It will not take this, ever: another might."""
    SMALLER = auto()
    """Too long or too large for it."""
    ANEW = auto()
    """Ask the same server at once, in another way."""
    NEVER = auto()
    """No server would: the recording or the request is to blame."""


class ChunkFailure(Exception):
    """Failure of a chunk: the next step, and the error if nothing helps.

    ``sent``: whether the server had begun to read audio, so that the audio may be to blame.
    """

    def __init__(
        self,
        step: FailureStep,
        error: errors.SidecarError,
        retry_after: float | None = None,
        *,
        sent: bool = True,
    ) -> None:
        self.step = step
        self.error = error
        self.retry_after = retry_after
        self.sent = sent
        super().__init__(error.detail)


def failure_of_status(status: int, headers: Mapping[str, str], body: bytes) -> ChunkFailure:
    """Return the failure that an answer other than 200 means, in any dialect."""
    said = server_message(body)
    answered = f"The upstream answered {status}{f': {said}' if said else '.'}"
    if status in (401, 403):
        return ChunkFailure(
            FailureStep.ELSEWHERE,
            errors.UpstreamRefused(
                f"The upstream answered {status}: it rejects the key.",
                hint="Set VIBEVOICE_UPSTREAM_KEY or --upstream-key @FILE to a valid key.",
            ),
        )
    if status == 413 or _TOO_MUCH.search(said):
        return ChunkFailure(FailureStep.SMALLER, errors.UpstreamRefused(answered))
    if status == 429 and "insufficient_quota" in server_message(body, "code"):
        return ChunkFailure(FailureStep.ELSEWHERE, errors.UpstreamRefused(answered))
    after = parse_retry_after(headers)
    if status == 429 or (status == 503 and after is not None):
        after = 1.0 if after is None else after
        return ChunkFailure(
            FailureStep.LATER, errors.UpstreamBusy(retry_after=max(1, round(after))), after
        )
    if status in (408, 409, 425) or status >= 500:
        return ChunkFailure(FailureStep.AGAIN, errors.UpstreamFailed(answered))
    return ChunkFailure(FailureStep.ELSEWHERE, errors.UpstreamRefused(answered))


def failure_of_error(error: Mapping[str, Any] | str) -> ChunkFailure:
    """Return the failure that an error inside a 200 means, in a body or in a stream."""
    said = server_message(json.dumps({"error": error}).encode())
    status = error.get("code") if isinstance(error, Mapping) else None
    if isinstance(status, int) and 400 <= status < 600:
        return failure_of_status(status, {}, json.dumps({"error": dict(error)}).encode())  # type: ignore[arg-type]
    if _TOO_MUCH.search(said):
        return ChunkFailure(
            FailureStep.SMALLER, errors.UpstreamRefused(f"The upstream reports: {said}")
        )
    return ChunkFailure(FailureStep.AGAIN, errors.UpstreamFailed(f"The upstream reports: {said}"))


def garbled_failure(what: str, step: FailureStep = FailureStep.AGAIN) -> ChunkFailure:
    """An answer that is none."""
    return ChunkFailure(step, errors.UpstreamGarbled(f"The upstream's response {what}."))


def connection_lost_failure(what: str) -> ChunkFailure:
    """A server that went away, or fell silent, in the middle."""
    return ChunkFailure(FailureStep.AGAIN, errors.UpstreamFailed(f"The upstream {what}."))


def unreachable_failure(
    detail: str | None = None, step: FailureStep = FailureStep.AGAIN
) -> ChunkFailure:
    """A server that was sent nothing."""
    return ChunkFailure(step, errors.UpstreamUnreachable(detail), sent=False)


def refused_failure(
    detail: str, hint: str | None = None, step: FailureStep = FailureStep.ELSEWHERE
) -> ChunkFailure:
    """A server that will not do, and was sent nothing."""
    return ChunkFailure(step, errors.UpstreamRefused(detail, hint=hint), sent=False)


def certificate_failure(step: FailureStep) -> ChunkFailure:
    """A connection that failed because of the server's certificate."""
    return refused_failure(
        "The upstream's certificate is not one that is trusted.",
        "Set VIBEVOICE_UPSTREAM_CA to the file with the certificate of who signed it.",
        step,
    )


def with_server_name(error: errors.SidecarError, server: str) -> errors.SidecarError:
    """The same error with the server's name, where it is about one."""
    detail = error.detail.replace("The upstream", f"The upstream {server}", 1)
    if isinstance(error, errors.UpstreamUnreachable) and detail == error.default_detail:
        detail = f"The upstream {server} does not answer."
    return type(error)(detail, hint=error.hint, retry_after=error.retry_after)


FLAC = "audio/flac"


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """A request: a JSON body, or a form with the audio as its one file."""

    path: str
    fields: Mapping[str, str | list[str]] = field(default_factory=dict)
    file_field: str = "file"
    body: bytes | None = None
    streams: bool = False
    """The answer comes bit by bit: a long silence in it means trouble."""
    accept: str = "*/*"
    """The form of the answer that is asked for."""


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """Transcription of a chunk by a server; times in seconds from the chunk's begin.

    ``timed``: whether the server gave times; without, one segment covers all of it. ``diarized``:
    whether it told speakers apart. ``precision`` and ``language``: 'auto' if it did not say.
    ``ignored``: options that it cannot follow. ``local_voices``: its window embeddings, unchecked,
    if they were requested.
    """

    segments: tuple[Segment, ...]
    timed: bool = True
    diarized: bool = False
    language: str = AUTO
    precision: str = AUTO
    notices: tuple[Notice, ...] = ()
    ignored: tuple[str, ...] = ()
    local_voices: EncodedWindowEmbeddings | None = None


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    """Limits of a request: seconds, and bytes as they are sent (``growth``: by how much the
    encoding in the request enlarges them)."""

    seconds: float
    bytes: int
    growth: float = 1.0

    def longest_s(self, rate: int) -> float:
        """Seconds of 16-bit sound at ``rate`` that are surely within both."""
        return min(self.seconds, self.bytes / self.growth / (2 * rate))


class ChunkRequest(Protocol):
    """Request of a chunk, once or several times, until there is a response."""

    def call(self, sound: bytes) -> UpstreamRequest:
        """The request to send now; ``sound`` is the piece as flac. What was read before and not
        ended is forgotten, except where the server can go on from it."""

    def feed(self, data: bytes) -> list[Segment]:
        """More of the answer; the segments that are known by now.

        Raises:
            ChunkFailure: the answer is none.
        """

    def finish(self) -> UpstreamAnswer:
        """The answer is over.

        Raises:
            ChunkFailure: it broke off, or is none, or has to be asked for again.
        """

    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> ChunkFailure:
        """Return the failure that a status other than 200 means."""


class UpstreamDialect(ABC):
    """One server's way of speaking."""

    name: str
    health: str
    """Path of its health check."""
    rate: int
    """Hz that its model hears at."""
    limits: UpstreamLimits
    prompt = False
    """True if its health check answers at once, whatever it works on."""
    timed = True
    """True if it returns times, as far as is known."""
    surely_timed = False
    """True if that is known before the first answer."""
    alike = ""
    """Servers of the same such name go on with each other's answers; '' where none can."""
    voices = False
    """True if it returns the local speakers of a chunk (`transcripts.speaker_embeddings`), for
    diarization over a whole recording; no server is asked that does not offer it."""

    @property
    def diarizes(self) -> bool:
        """Return whether it diarizes."""
        return True

    @abstractmethod
    def hearing(self, duration_s: float, options: TranscribeOptions) -> ChunkRequest:
        """A piece of ``duration_s`` seconds that is to be heard."""

    def waiting(self, health: bytes) -> int:
        """Recordings that wait there already, by what ``health`` says; 0 where it does not."""
        return 0
