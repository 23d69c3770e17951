"""Dialect of OpenAI-compatible transcription servers. Pure.

Servers support different subsets of it. The richest form of request is tried first; if a server
refuses it, the next is tried. The form that answered a second of speech is that of later requests;
what is refused or left out of one of these changes nothing for others.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sidecar.audio import SAMPLE_RATE
from sidecar.interfaces.engine_interface import AUTO
from sidecar.interfaces.language_tags import LANGUAGE_NAMES, language_code
from sidecar.plugins.upstream import upstream_dialect
from sidecar.plugins.upstream.upstream_dialect import (
    FORMS,
    SEGMENTS,
    SPEAKERS,
    TEXT,
    WORDS,
    ChunkRequest,
    UpstreamAnswer,
    UpstreamDialect,
    UpstreamRequest,
)
from sidecar.transcripts import loop_guard
from sidecar.transcripts.speaker_turns import Span, merged_spans
from sidecar.transcripts.transcript import WORDS_BY_SERVER, Segment, Word
from sidecar.transcripts.vibevoice_output import sort_by_time

TRANSCRIPTIONS_PATH = "/v1/audio/transcriptions"
LONGEST_S = 600.0
"""OpenAI takes 25 MB, and vLLM as much (docs: protocols of both). Ten minutes are 19 MB as 16-bit
samples, and a model with a window of half a minute loses nothing by a cut."""
UNTIMED_S = 28.0
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


FIELDS_OF_FORMS: Mapping[str, Mapping[str, str | list[str]]] = {
    SPEAKERS: {"response_format": "diarized_json", "chunking_strategy": "auto"},
    WORDS: {
        "response_format": "verbose_json",
        "timestamp_granularities[]": ["word", "segment"],
    },
    SEGMENTS: {"response_format": "verbose_json"},
    TEXT: {"response_format": "json"},
}
"""Fields that ask for each form of an answer."""


def openai_dialect(model: str, form: str = "") -> UpstreamDialect:
    """Return the dialect of a server that answers speech in this form."""
    return UpstreamDialect(
        "openai",
        "/v1/models",
        SAMPLE_RATE,
        UNTIMED_S if form == TEXT else LONGEST_S,
        OpenAiChunkRequest,
        model,
        form,
        diarizes=(form or _richest_form(model)) == SPEAKERS,
    )


def _richest_form(model: str) -> str:
    return SPEAKERS if DIARIZING_MODEL_WORD in model else WORDS


class OpenAiChunkRequest(ChunkRequest):
    """Request of one chunk, sent again without what the server refuses, or with a higher
    temperature after a loop."""

    def __post_init__(self) -> None:
        self._forms = FORMS[FORMS.index(self.dialect.form or _richest_form(self.dialect.model)) :]
        wanted = {
            "prompt": self.options.prompt_with_hotwords,
            "language": language_code(self.options.language),
        }
        self._refusable = {name: value for name, value in wanted.items() if value}
        self._left_out = ["max_tokens"] if self.options.max_tokens is not None else []
        self._temperature = self.options.temperature
        self._retries = 0
        self._body = bytearray()

    def next_request(self) -> UpstreamRequest:
        """Return the request with all that the server has not refused of it."""
        self._body.clear()
        fields = {"model": self.dialect.model, **FIELDS_OF_FORMS[self._forms[0]], **self._refusable}
        if self._temperature:
            fields["temperature"] = f"{self._temperature:g}"
        return UpstreamRequest(TRANSCRIPTIONS_PATH, self.form(fields, "file"))

    def feed(self, data: bytes) -> list[Segment]:
        """Add to the body; its segments are known only at the end."""
        self._body += data
        return []

    def finish(self) -> UpstreamAnswer:
        """Return the answer; one that repeats itself is requested again, at most three times."""
        try:
            body = json.loads(self._body)
            if body.get("error"):
                raise upstream_dialect.error_of_message(body["error"])
            answer = parse_openai_answer(body, self.duration_s)
        except upstream_dialect.PARSE_ERRORS:
            raise upstream_dialect.garbled("is no transcription") from None
        kept, lost_s = drop_loops(answer.segments, self.duration_s)
        if lost_s and (sampling := loop_guard.retry_sampling(self._retries)) is not None:
            self._retries += 1
            self._temperature = sampling.temperature
            raise upstream_dialect.AskAgain
        return replace(
            answer,
            segments=tuple(kept),
            form=answer.form or self._forms[0],
            notices=(loop_guard.loop_skipped_notice(lost_s),) if lost_s else (),
            ignored=tuple(self._left_out),
        )

    def simplify(self, said: str, *, too_large: bool) -> bool:
        """Leave out first what the server may refuse, then ask for a simpler form."""
        if self._refusable:
            named = [name for name in self._refusable if name in said]
            self._left_out.append(next(iter(named or self._refusable)))
            del self._refusable[self._left_out[-1]]
        elif not too_large and len(self._forms) > 1:
            self._forms = self._forms[1:]
        else:
            return False
        return True


def parse_openai_answer(body: Mapping[str, Any], duration_s: float) -> UpstreamAnswer:
    """Parse the body of any of the formats; raise any of `PARSE_ERRORS` if it is malformed."""
    language = str(body.get("language") or AUTO).strip().lower()
    language = LANGUAGES.get(language, language if 2 <= len(language) <= 3 else AUTO)
    given = body.get("segments") or []
    listed = [one for one in given if str(one["text"]).strip()]
    words = [_parse_word(one, duration_s) for one in body.get("words") or []]
    text = str(body["text"]).strip() if "text" in body or not given else ""
    if not listed and not words:
        whole_chunk = (Segment(0.0, duration_s, text),) if text else ()
        form = TEXT if text or body.get("segments") is None else ""
        return UpstreamAnswer(whole_chunk, form=form, language=language)
    if not listed:
        text = text or " ".join(one.text for one in words)
        listed = [{"start": words[0].start, "end": words[-1].end, "text": text}]
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
