"""Dialect of OpenAI-compatible transcription servers. Pure.

Servers support different subsets of it. The richest form of request is tried first; if a server
refuses it, the next is tried. The form that answered a second of speech is that of later requests;
what is refused or left out of one of these changes nothing for others.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sidecar import openai_http
from sidecar.audio import SAMPLE_RATE
from sidecar.interfaces.engine_interface import AUTO, TranscribeOptions
from sidecar.interfaces.language_tags import LANGUAGE_NAMES, language_code
from sidecar.plugins.upstream import upstream_dialect
from sidecar.plugins.upstream.upstream_dialect import (
    TEXT,
    ChunkFailure,
    FailureStep,
    UpstreamAnswer,
    UpstreamLimits,
    UpstreamRequest,
)
from sidecar.transcripts import loop_guard
from sidecar.transcripts.speaker_turns import Span, merged_spans
from sidecar.transcripts.transcript import WORDS_BY_SERVER, Segment, Word
from sidecar.transcripts.vibevoice_output import sort_by_time

TRANSCRIPTIONS_PATH = "/v1/audio/transcriptions"
OPENAI_LIMITS = UpstreamLimits(600.0, 25_000_000)
"""OpenAI takes 25 MB, and vLLM as much (docs: protocols of both). Ten minutes are 19 MB as 16-bit
samples, and a model with a window of half a minute loses nothing by a cut."""
UNTIMED_LIMITS = UpstreamLimits(28.0, 25_000_000)
"""Of a server without times: Whisper's window is thirty seconds, some drop audio beyond it, and
words of short audio are aligned better."""
DIARIZING_MODEL_WORD = "diarize"
"""Word in the name of a model that diarizes (gpt-4o-transcribe-diarize)."""
LANGUAGES = {name: code for code, name in LANGUAGE_NAMES.items()}
"""Codes of the languages that Whisper's tokenizer names: OpenAI answers with the name."""


def drop_loops(segments: Iterable[Segment], duration_s: float) -> tuple[list[Segment], float]:
    """Return the segments without those that `LoopGuard` finds to be a loop, and the seconds lost.

    Each range that is left out becomes a segment with the flag 'loop'.
    """
    kept: list[Segment] = []
    lost: list[Span] = []
    guard = loop_guard.LoopGuard(duration_s)
    for segment in segments:
        kept.append(segment)
        loop = guard.segment(segment)
        if loop is None:
            continue
        first = len(kept) - loop.cut
        lost.append((kept[first].start, max(one.end for one in kept[first:])))
        del kept[first:]
        guard = loop_guard.LoopGuard(duration_s, kept)
    if not lost:
        return kept, 0.0
    skipped = [loop_guard.SkippedAudio(*span) for span in merged_spans(lost)]
    remaining = sort_by_time([*kept, *(one.segment() for one in skipped)])
    return remaining, sum(one.end - one.start for one in skipped)


SPEAKERS, WORDS, SEGMENTS = "speakers", "words", "segments"
FORMS: Mapping[str, Mapping[str, str | list[str]]] = {
    SPEAKERS: {"response_format": "diarized_json", "chunking_strategy": "auto"},
    WORDS: {
        "response_format": "verbose_json",
        "timestamp_granularities[]": ["word", "segment"],
    },
    SEGMENTS: {"response_format": "verbose_json"},
    TEXT: {"response_format": "json"},
}
"""Fields that ask for each form of an answer, the richest first."""


@dataclass(frozen=True)
class OpenAiDialect(upstream_dialect.UpstreamDialect):
    """Dialect of OpenAI's API; ``form``: that in which the server answers, '' if it has not
    answered yet."""

    model: str
    form: str = ""

    name = "openai"
    health = "/v1/models"
    rate = SAMPLE_RATE
    probes = True

    @property
    def limits(self) -> UpstreamLimits:
        """Return the limits of a request."""
        return UNTIMED_LIMITS if self.form == TEXT else OPENAI_LIMITS

    @property
    def forms(self) -> list[str]:
        """Return the forms to ask for, the richest first."""
        forms = list(FORMS)
        first = self.form or (SPEAKERS if DIARIZING_MODEL_WORD in self.model else WORDS)
        return forms[forms.index(first) :]

    @property
    def diarizes(self) -> bool:
        """Return whether the request asks for speakers."""
        return self.forms[0] == SPEAKERS

    def answered(self, answer: UpstreamAnswer) -> OpenAiDialect:
        """Return the dialect of a server that gave this answer to speech."""
        return replace(self, form=answer.form)

    def chunk_request(self, duration_s: float, options: TranscribeOptions) -> OpenAiChunkRequest:
        """Return the request of a chunk."""
        return OpenAiChunkRequest(self, duration_s, options)


class OpenAiChunkRequest:
    """Request of one chunk, sent again without what the server refuses, or with a higher
    temperature after a loop."""

    def __init__(
        self, dialect: OpenAiDialect, duration_s: float, options: TranscribeOptions
    ) -> None:
        self._model, self._forms, self._duration_s = dialect.model, dialect.forms, duration_s
        wanted = {
            "prompt": options.prompt_with_hotwords,
            "language": language_code(options.language),
        }
        self._refusable = {name: value for name, value in wanted.items() if value}
        self._left_out = ["max_tokens"] if options.max_tokens is not None else []
        self._temperature = options.temperature
        self._retries = 0
        self._body = bytearray()

    def next_request(self, flac: bytes) -> UpstreamRequest:
        """Return the request with all that the server has not refused of it."""
        self._body.clear()
        fields = {"model": self._model, **FORMS[self._forms[0]], **self._refusable}
        if self._temperature:
            fields["temperature"] = f"{self._temperature:g}"
        return UpstreamRequest(TRANSCRIPTIONS_PATH, fields)

    def feed(self, data: bytes) -> list[Segment]:
        """Add to the body; its segments are known only at the end."""
        self._body += data
        return []

    def finish(self) -> UpstreamAnswer:
        """Return the answer; one that repeats itself is requested again, at most three times."""
        try:
            body = json.loads(self._body)
            if body.get("error"):
                raise upstream_dialect.failure_of_error(body["error"])
            answer = parse_openai_answer(body, self._duration_s)
        except upstream_dialect.PARSE_ERRORS:
            raise upstream_dialect.garbled_failure("is no transcription") from None
        kept, lost_s = drop_loops(answer.segments, self._duration_s)
        if lost_s and (sampling := loop_guard.retry_sampling(self._retries)) is not None:
            self._retries += 1
            self._temperature = sampling.temperature
            raise upstream_dialect.garbled_failure("repeats itself", FailureStep.ANEW)
        return replace(
            answer,
            segments=tuple(kept),
            form=answer.form or self._forms[0],
            notices=(loop_guard.loop_skipped_notice(lost_s),) if lost_s else (),
            ignored=tuple(self._left_out),
        )

    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> ChunkFailure:
        """Return the failure; leave out first what the server may refuse, then ask for a simpler
        form."""
        failure = upstream_dialect.failure_of_status(status, headers, body)
        if status not in upstream_dialect.REFUSED_RECORDING:
            return failure
        if self._refusable:
            message = openai_http.server_message(body).lower()
            named = [name for name in self._refusable if name in message]
            self._left_out.append(next(iter(named or self._refusable)))
            del self._refusable[self._left_out[-1]]
        elif failure.step is FailureStep.ELSEWHERE and len(self._forms) > 1:
            del self._forms[0]
        else:
            return failure
        return ChunkFailure(FailureStep.ANEW, failure.error)


def parse_openai_answer(body: Mapping[str, Any], duration_s: float) -> UpstreamAnswer:
    """Parse the body of any of the formats; raise any of `PARSE_ERRORS` if it is malformed."""
    language = str(body.get("language") or AUTO).strip().lower()
    language = LANGUAGES.get(language, language if 2 <= len(language) <= 3 else AUTO)
    listed = body.get("segments") or []
    words = [_parse_word(one, duration_s) for one in body.get("words") or []]
    text = str(body["text"]).strip() if "text" in body or not listed else ""
    if not listed and not words:
        whole_chunk = (Segment(0.0, duration_s, text),) if text else ()
        form = TEXT if text or body.get("segments") is None else ""
        return UpstreamAnswer(whole_chunk, form=form, language=language)
    if not listed:
        listed = [{"start": words[0].start, "end": words[-1].end, "text": text}]
    listed = [one for one in listed if str(one["text"]).strip()]
    names: dict[str, int] = {}
    spans = [_parse_span(one, duration_s) for one in listed]
    starts = [start for start, _ in spans]
    owners: list[list[Word]] = [[] for _ in listed]
    for word in words:
        middle = (word.start + word.end) / 2
        if owners:
            owners[max(0, bisect_right(starts, middle) - 1)].append(word)
    diarized = any(isinstance(one.get("speaker"), str) for one in listed)
    segments = []
    for one, (start, end), inside in zip(listed, spans, owners, strict=True):
        speaker = one.get("speaker")
        number = names.setdefault(speaker, len(names)) if isinstance(speaker, str) else None
        text, by = str(one["text"]).strip(), WORDS_BY_SERVER if inside else ""
        segment = Segment(start, end, text, number, tuple(inside), words_by=by)
        # 0 is also what servers say that do not know it
        no_speech = upstream_dialect.parse_probability(one.get("no_speech_prob")) or None
        segments.append(replace(segment, no_speech_probability=no_speech))
    return UpstreamAnswer(tuple(segments), diarized=diarized, language=language)


def _parse_span(one: Mapping[str, Any], duration_s: float) -> tuple[float, float]:
    return upstream_dialect.clip_span(one["start"], one["end"], duration_s)


def _parse_word(one: Mapping[str, Any], duration_s: float) -> Word:
    return Word(*_parse_span(one, duration_s), str(one["word"]).strip())
