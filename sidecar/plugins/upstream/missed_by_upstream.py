"""Speech of a chunk that an upstream's answer has no words for. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.audio import Block
from sidecar.diarization.clustering import detect_speech
from sidecar.diarization.speaker_models import shared_speaker_models
from sidecar.engines.vibevoice.vibevoice_coverage import missed_speech
from sidecar.engines.vibevoice.vibevoice_windows import (
    SpeechSpans,
    VibeVoiceWindow,
    resample_for_diarization,
)
from sidecar.plugins.upstream.audio_chunks import (
    AudioChunk,
    ChunkResult,
    shift_segments,
    time_words,
    to_float,
)
from sidecar.plugins.upstream.openai_dialect import UNTIMED_S
from sidecar.plugins.upstream.upstream_dialect import UpstreamAnswer

LEAST_HEARD_S = 5.0
"""A server that hears less than this of a short chunk hears no more of a shorter one."""


def result_and_rest(
    chunk: AudioChunk, answer: UpstreamAnswer, server: str, look: bool
) -> tuple[ChunkResult, tuple[AudioChunk, ...]]:
    """Return the result of an answer, and the chunks to send for the speech behind its last word.

    ``look``: whether speech may be missing. What is missing between two words, or where a shorter
    chunk does not help, is in the result's ``missed``.
    """
    if not look:
        return _result(chunk, answer, server, chunk.end_s, ()), ()
    segments = shift_segments(answer.segments, chunk.start_s)
    window = VibeVoiceWindow(chunk.start_s, to_float(chunk.samples), None)
    found = missed_speech(window, segments, chunk.rate, _listen, last=True)
    missed = [(one.start_s, one.speech_s) for one in found]
    heard_until_s = max((one.end for one in segments), default=chunk.start_s)
    shorter = chunk.duration_s > UNTIMED_S or heard_until_s - chunk.start_s >= LEAST_HEARD_S
    if not (missed and shorter and missed[-1][0] >= heard_until_s):
        return _result(chunk, answer, server, chunk.end_s, missed), ()
    start_s, _ = missed.pop()
    rest = chunk.part(start_s, chunk.end_s + 1.0, last=chunk.last)
    return _result(chunk, answer, server, start_s, missed), (*rest.parts(UNTIMED_S),)


def _listen(samples: Block, rate: int) -> SpeechSpans:
    """Return the spans with speech; none if the models are not installed."""
    models = shared_speaker_models()
    return detect_speech(models, resample_for_diarization(samples, rate)) if models else ()


def _result(
    chunk: AudioChunk,
    answer: UpstreamAnswer,
    server: str,
    end_s: float,
    missed: Sequence[tuple[float, float]],
) -> ChunkResult:
    timed = time_words(chunk, answer)
    return ChunkResult(chunk.start_s, end_s, timed, server, tuple(missed))
