"""Speech of a chunk that an upstream's answer has no words for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from sidecar import errors
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
from sidecar.plugins.upstream.errors import UpstreamFailed, UpstreamGarbled
from sidecar.plugins.upstream.openai_dialect import UNTIMED_S
from sidecar.plugins.upstream.upstream_dialect import UpstreamAnswer

LEAST_HEARD_S = 5.0
"""A server that hears less than this of a short chunk hears no more of a shorter one."""


def result_and_rest(
    chunk: AudioChunk, answer: UpstreamAnswer, server: str, again_s: float | None
) -> tuple[ChunkResult, tuple[AudioChunk, ...]]:
    """Return the result of an answer, and the chunks to send for the speech behind its last word.

    ``again_s``: longest chunk for speech that was missed; `None` if none is looked for. Each is at
    most half of ``chunk``, or `UNTIMED_S`: of the same input there is the same answer. What is
    missing between two words, or where a shorter chunk does not help, is in the result's
    ``missed``.
    """
    if again_s is None:
        return _result(chunk, answer, server, chunk.end_s, ()), ()
    segments = shift_segments(answer.segments, chunk.start_s)
    window = VibeVoiceWindow(chunk.start_s, cast("Block", chunk.samples), None)  # see `_listen`
    found = missed_speech(window, segments, chunk.rate, _listen, last=True)
    missed = [(one.start_s, one.speech_s) for one in found]
    heard_until_s = max((one.end for one in segments), default=chunk.start_s)
    shorter = chunk.duration_s > UNTIMED_S or heard_until_s - chunk.start_s >= LEAST_HEARD_S
    if not (missed and shorter and missed[-1][0] >= heard_until_s):
        return _result(chunk, answer, server, chunk.end_s, missed), ()
    start_s, _ = missed.pop()
    rest = chunk.part(start_s, chunk.end_s + 1.0, last=chunk.last)
    longest_s = max(UNTIMED_S, min(again_s, chunk.duration_s / 2))
    return _result(chunk, answer, server, start_s, missed), (*rest.parts(longest_s),)


def blames_chunk(error: errors.SidecarError) -> bool:
    """Return whether the audio or the options may be why a server fails; so they are only if it
    takes a second of speech."""
    fails = isinstance(error, UpstreamFailed | UpstreamGarbled)
    return fails or error.fault is errors.Fault.RECORDING


def untranscribed_result(part: AudioChunk, before: ChunkResult) -> ChunkResult:
    """Return the result of a part of a chunk that no server has words for, ``before``: that of the
    part before."""
    answer = replace(before.answer, segments=(), notices=(), late=())
    missed = ((part.start_s, part.duration_s),)
    return ChunkResult(part.start_s, part.end_s, answer, before.server, missed)


def _listen(samples: Block, rate: int) -> SpeechSpans:
    """Return the spans with speech in samples of 16 bits; none if the models are not installed."""
    models = shared_speaker_models()
    if not models:
        return ()
    floats = to_float(np.asarray(samples, np.int16))
    return detect_speech(models, resample_for_diarization(floats, rate))


def _result(
    chunk: AudioChunk,
    answer: UpstreamAnswer,
    server: str,
    end_s: float,
    missed: Sequence[tuple[float, float]],
) -> ChunkResult:
    timed = time_words(chunk, answer)
    return ChunkResult(chunk.start_s, end_s, timed, server, tuple(missed))
