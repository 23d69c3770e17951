"""Speech and voices of a recording that is heard in windows, by the moonshine-voice library.

Its public calls only, which are there on every platform: its Silero detector finds the pauses; its
diarizer listens to a known voice and a new one in one go and puts them into one cluster, or not.
That happens on the CPU, once a window, over a minute or two of audio, however long the window is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from sidecar.audio import Block
from sidecar.speakers import Turn, likeness, shares, stretches_alone

if TYPE_CHECKING:
    from moonshine_voice.transcriber import Stream

log = logging.getLogger(__name__)

RATE = 16_000
VOICE_S = 8.0
"""Of each voice. Less of it is played over and over: 2 s of each of two speakers, or 2.5 s of four,
are told apart by that, and all taken for one or two without."""
LEAST_S = 1.5
"""A voice of which there is less is not compared."""
STRETCH_S = 0.5
"""A shorter stretch of it is left out: the model's times are not that exact."""
ALL_VOICES_S = 120.0
"""Of all voices in one listening; with more of them each is shorter."""
LONGEST_STRETCH_S = 20.0
CADENCE_S = 2.0
"""Between two looks; at 2 s as many voices are told apart as at 1 s, for half of the work."""
_GAP_S = 1.0
_SPEECH = {"skip_transcription": "true", "vad_max_segment_duration": str(1.5 * LONGEST_STRETCH_S)}
_SPEAKERS = {
    "skip_transcription": "true",
    "identify_speakers": "true",
    "diarization_analyze_cadence": str(CADENCE_S),
    "diarization_cluster_cadence": "60.0",
    "diarization_cluster_window_sec": "0",
}


def speech(samples: Block, rate: int) -> list[tuple[float, float]]:
    """Where there is speech, (start, end) in seconds; nothing if the library does not load."""
    with _listening(_SPEECH) as stream:
        if stream is None:
            return []
        lines = _hear(stream, at_rate(samples, rate))
    return [(line.start_time, line.start_time + line.duration) for line in lines]


class Voices:
    """The voices of the persons in a recording at ``rate``: some seconds of each."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._known: dict[int, Block] = {}

    def likenesses(self, samples: Block, turns: Sequence[Turn]) -> Mapping[tuple[int, int], float]:
        """From 0 to 1, for each pair of a remembered person and a label of ``turns``.

        ``samples``: a window, shape (samples,); the times of ``turns`` are in it.
        """
        new = self._voices(samples, turns)
        if not new or not self._known:
            return {}
        known = list(self._known.items())
        heard = _clusters([voice for _, voice in [*known, *new.items()]])
        mine, theirs = heard[: len(known)], heard[len(known) :]
        return {
            (person, label): likeness(one, other)
            for (person, _), one in zip(known, mine, strict=True)
            for label, other in zip(new, theirs, strict=True)
        }

    def remember(self, samples: Block, turns: Sequence[Turn], persons: Mapping[int, int]) -> None:
        """Keep the voices of a window's labels, as the voices of who they are."""
        for label, voice in self._voices(samples, turns).items():
            if len(voice) > len(self._known.get(persons[label], ())):
                self._known[persons[label]] = voice

    def _voices(self, samples: Block, turns: Sequence[Turn]) -> dict[int, Block]:
        """The clearest seconds of each label."""
        found: dict[int, Block] = {}
        for label in {turn.label: None for turn in turns}:
            parts: list[Block] = []
            left_s = VOICE_S
            for start, end in stretches_alone(turns, label):
                if min(end - start, left_s) < STRETCH_S:
                    break
                begin = round(start * self._rate)
                parts.append(samples[begin : begin + round(min(end - start, left_s) * self._rate)])
                left_s -= min(end - start, left_s)
            if VOICE_S - left_s >= LEAST_S:
                found[label] = at_rate(np.concatenate(parts), self._rate)
        return found


def _clusters(voices: Sequence[Block]) -> list[dict[int, float]]:
    """Let the library hear voices one after another; for each the seconds of every cluster."""
    length = round(min(VOICE_S, ALL_VOICES_S / len(voices)) * RATE)
    gap = np.zeros(round(_GAP_S * RATE), np.float32)
    parts, spans, at = [gap], [], len(gap)
    for voice in voices:  # a short one over and over: clustering needs a number of looks at it
        parts += [np.resize(voice, length), gap]
        spans.append((at / RATE, (at + length) / RATE))
        at += length + len(gap)
    with _listening(_SPEAKERS) as stream:
        lines = [] if stream is None else _hear(stream, np.concatenate(parts))
    found = [
        Turn(span.start_time, span.start_time + span.duration, span.speaker_index)
        for line in lines
        for span in line.speaker_spans or []
    ]
    return [shares(found, *span) for span in spans]


def at_rate(samples: Block, rate: int) -> Block:
    """The samples at the library's rate."""
    if rate == RATE:
        return samples
    import soxr

    resampled: Block = soxr.resample(samples, rate, RATE)
    return resampled


@contextmanager
def _listening(options: dict[str, str]) -> Iterator[Stream | None]:
    """A stream of the library for a moment; None if it does not load here."""
    try:
        from moonshine_voice import ModelArch, MoonshineError, get_model_path
        from moonshine_voice.transcriber import Transcriber
    except (ImportError, OSError) as error:
        log.warning("windows are cut and linked without listening: %s", error)
        yield None
        return
    options = {"return_audio_data": "false", **options}
    try:
        library = Transcriber(get_model_path("tiny-en"), ModelArch.TINY, options=options)
    except MoonshineError as error:
        log.warning("windows are cut and linked without listening: %s", error)
        yield None
        return
    with library, library.create_stream() as stream:
        yield stream


def _hear(stream: Stream, samples: Block) -> Sequence[Any]:
    """The library's lines of some audio."""
    stream.start()
    step = round(CADENCE_S * RATE)
    for at in range(0, len(samples), step):
        stream.add_audio(samples[at : at + step].tolist(), RATE)
    transcript = stream.stop()
    return transcript.lines if transcript else []
