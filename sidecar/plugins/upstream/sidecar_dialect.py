"""Dialect of another vibevoice-asr. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from sidecar import errors
from sidecar.errors import ErrorKind
from sidecar.interfaces.engine_interface import AUTO
from sidecar.interfaces.request_fields import REQUEST_FIELDS
from sidecar.openai_http import RequestRefused
from sidecar.plugins.upstream import upstream_dialect
from sidecar.plugins.upstream.errors import (
    UpstreamBusy,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamUnreachable,
)
from sidecar.plugins.upstream.upstream_dialect import (
    SPEAKERS,
    ChunkRequest,
    UpstreamAnswer,
    UpstreamDialect,
    UpstreamRequest,
)
from sidecar.transcripts import transcript
from sidecar.transcripts.transcript_formats import parse_flags

TRANSCRIBE_PATH = "/transcribe"
NDJSON = "application/x-ndjson"
OPTIONS = tuple(name for name, row in REQUEST_FIELDS.items() if row.upstream and not row.same_as)
"""Options that are sent along; 'diarize' also if it is false."""
OF_SERVER = (errors.BadAudio, errors.AudioLost, errors.Unschedulable)
"""Errors that are the recording's elsewhere: it was sent a FLAC file of ours, which is whole."""
_SPEAKER = re.compile(r"Speaker_(\d{1,4})")


def sidecar_dialect(rate: int, *, by_voices: bool = False) -> UpstreamDialect:
    """Return the dialect of a server that cuts, diarizes and guards against loops by itself."""
    return UpstreamDialect(
        *("sidecar", "/health", rate, math.inf, SidecarChunkRequest),
        form=SPEAKERS,
        by_voices=by_voices,
        prompt=True,
        complete=True,
    )


def waiting_jobs(health: bytes) -> int:
    """Return the jobs in a /health: those that wait, and the one that runs; 0 if it has none."""
    try:
        body = json.loads(health)
        return int(body["jobs_waiting"]) + int(body["engine_state"] == "busy")
    except upstream_dialect.PARSE_ERRORS:
        return 0


class SidecarChunkRequest(ChunkRequest):
    """Request of one chunk; the answer is NDJSON, or one JSON body from an older build."""

    def __post_init__(self) -> None:
        self._rest = bytearray()
        self._body: Any = None

    def next_request(self) -> UpstreamRequest:
        """Return the request with all options, because the server knows them all."""
        self.__post_init__()
        self.streamed = []
        sent = {name: getattr(self.options, name) for name in OPTIONS}
        fields = {name: _field(sent[name]) for name in OPTIONS if sent[name] or name == "diarize"}
        content = self.form(fields, "audio")
        return UpstreamRequest(TRANSCRIBE_PATH, content, NDJSON, kept_alive=True)

    def feed(self, data: bytes) -> list[transcript.Segment]:
        """Add to the body and return the segments in it."""
        self._rest += data
        if b"\n" not in data:
            return []
        *lines, self._rest = self._rest.split(b"\n")
        return [one for line in lines for one in self._segments_of(line)]

    def finish(self) -> UpstreamAnswer:
        """Return the transcript."""
        self._segments_of(self._rest)
        try:
            answer = parse_sidecar_answer(self._body, self.duration_s)
        except upstream_dialect.PARSE_ERRORS:
            raise upstream_dialect.garbled("is no transcript") from None
        if any(one.code == transcript.AUDIO_TRUNCATED for one in answer.notices):
            raise UpstreamFailed("The upstream decoded only a part of what it was sent.")
        return answer

    def _segments_of(self, line: bytes | bytearray) -> list[transcript.Segment]:
        """Return the segment in a line; any other line ends the answer."""
        if not line.strip():
            return []
        try:
            match json.loads(line):
                case {"segment": dict(fields)}:
                    return [_segment(fields, self.duration_s, self.options.diarize)]
                case {"failed": dict(fields)}:
                    headers = {"retry-after": str(fields.get("retry_after", ""))}
                    status, body = int(fields["status"]), json.dumps(fields).encode()
                    raise self.refused(RequestRefused(status, headers, body))
                case {"result": body} | body:
                    self._body = body
        except upstream_dialect.PARSE_ERRORS:
            raise upstream_dialect.garbled("is no transcript") from None
        return []

    def refused(self, refusal: RequestRefused) -> Exception:
        """Return the error of its problem details, with the same code if no server could help."""
        general, error = upstream_dialect.error_of_refusal(refusal), parse_problem(refusal.body)
        # an engine that crashed is not busy: it died of this recording, in each attempt there
        died = isinstance(error, errors.EngineCrashed)
        too_large = error is not None and error.kind is ErrorKind.WONT_FIT
        if isinstance(general, UpstreamBusy | UpstreamUnreachable) and not (died or too_large):
            return general
        if error is None or isinstance(error, errors.Unauthorized):
            return general
        message = f"The upstream answered {refusal.status}: {error.detail}"
        failed = isinstance(general, UpstreamFailed | UpstreamBusy)
        if failed and error.kind is not ErrorKind.WONT_FIT:
            return UpstreamFailed(message, hint=error.hint)
        if error.kind is ErrorKind.TOO_LARGE:
            return upstream_dialect.ChunkTooLarge(error)
        if isinstance(error, OF_SERVER):
            return UpstreamFailed(message, hint=error.hint)
        if error.fault not in (errors.Fault.RECORDING, errors.Fault.DEVICE):
            return UpstreamRefused(message, hint=error.hint)
        return error


def _field(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse_sidecar_answer(body: Mapping[str, Any], duration_s: float) -> UpstreamAnswer:
    """Parse the body of a 200; raise any of `PARSE_ERRORS` if it is malformed."""
    metadata = body["metadata"]
    diarized = metadata["diarized"] is True
    return UpstreamAnswer(
        segments=tuple(_segment(one, duration_s, diarized) for one in body["segments"]),
        diarized=diarized,
        language=str(metadata.get("language", AUTO)),
        precision=str(metadata.get("model_precision", AUTO)),
        notices=tuple(
            transcript.Notice(str(one["code"]), str(one["message"]))
            for one in metadata.get("warnings", ())
        ),
    )


def parse_problem(body: bytes) -> errors.SidecarError | None:
    """Return this project's error that a problem's body names; None if it names none."""
    try:
        values = json.loads(body)
        error = errors.from_wire({"detail": str(values["detail"]), "code": values["code"]})
    except upstream_dialect.PARSE_ERRORS:
        return None
    return None if type(error) is errors.SidecarError else error


def _segment(one: Mapping[str, Any], duration_s: float, diarized: bool) -> transcript.Segment:
    flags, has_speaker = parse_flags(one.get("flags", ()))
    labelled = diarized and has_speaker  # an older release has no flag without diarization
    speaker = _SPEAKER.fullmatch(str(one["speaker"])) if labelled else None
    words = tuple(
        transcript.Word(*_span(word, duration_s), str(word["text"]), _confidence(word))
        for word in one.get("words", ())
    )
    by = str(one.get("words_by", ""))
    if by not in transcript.WORDS_BY:
        by = transcript.WORDS_BY_SERVER
    start, end = _span(one, duration_s)
    return transcript.Segment(
        start=start,
        end=end,
        text=str(one["text"]),
        speaker=int(speaker[1]) if speaker else None,
        words=words,
        flags=flags,
        words_by=by if words else "",
        confidence=_confidence(one),
        language=str(one.get("language") or ""),
        no_speech_probability=upstream_dialect.parse_probability(one.get("no_speech_probability")),
    )


def _span(one: Mapping[str, Any], duration_s: float) -> tuple[float, float]:
    return upstream_dialect.clip_span(one["start_time"], one["end_time"], duration_s)


def _confidence(one: Mapping[str, Any]) -> float | None:
    confidence = float(one.get("confidence") or 0.0)
    return max(transcript.MIN_CONFIDENCE, confidence) if 0.0 < confidence <= 1.0 else None
