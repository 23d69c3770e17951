"""Acoustic echo detection. Imports numpy.

The user's audio and the played audio are kept for some seconds on one clock. They are compared by
the envelopes of narrow bands: a room, a loudspeaker and a browser's filters change these less than
the samples.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sidecar.interfaces.engine_interface import SynthesizedAudio
from sidecar.interfaces.live_options import SampleEncoding
from sidecar.plugins.conversation.barge_in import MAX_ECHO_LAG_S

HISTORY_S = 12.0
"""Seconds of audio of either side that are kept, and compared at most."""
FRAMES_PER_S = 100
"""Values of an envelope per second."""
WINDOW_FRAMES = 4
"""Frames in the window of one value: 40 ms are enough to separate the harmonics of a voice."""
BANDS, LOWEST_HZ, HIGHEST_HZ = 48, 150, 3900
"""Frequency bands of a telephone."""
COMPRESSION = 0.3
"""Exponent of a band's power: it keeps the loudest vowels from deciding alone."""
MIN_COMPARED_S = 0.4
"""Seconds of audio below which nothing is compared: any two such short recordings are similar."""
SEGMENT_S = 1.0
"""Seconds of one segment of an utterance, about. Each segment has to be similar: so a word of the
user's after a long echo counts."""
SILENCE_AMPLITUDE_RATIO = 0.1
"""Fraction of the loudest segment's amplitude below which a segment is silence."""
MAX_CLOCK_LEAD_S = 0.2
"""Lead of the echo before the playback clock, in seconds: clients report playback late."""

COMPARE_EVERY_S = 0.2
"""Seconds of new audio after which an utterance over a reply is compared, also without words."""
MAX_WORDLESS_S = 2.0
"""Seconds up to which an utterance without words is compared; then only new words start that."""
MIN_SAMPLE_RATE = 8_000
"""Sample rate below which audio does not have these bands."""
ENOUGH_HZ = 16_000
"""Sample rate to which audio of a multiple of it is averaged: so a comparison takes as long at any
rate that a client announces, and the bands lose nothing."""
MAX_RATES = 2
"""Sample rates that are compared, the newest ones. Each one's envelope takes time on the event
loop, and a client may announce another rate with each message."""
MERGED_SPAN_S = 0.1
"""Duration to which shorter spans are merged, in seconds."""

Samples = npt.NDArray[np.int16]
Envelopes = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _AudioSpan:
    """Samples that end at a time (played audio) or at a position in the user's audio."""

    end: float
    samples: Samples
    rate: int

    @property
    def start(self) -> float:
        return self.end - len(self.samples) / self.rate


class EchoDetector:
    """Comparison of the user's audio with the played audio, of the last `HISTORY_S`."""

    def __init__(self) -> None:
        self.recorded: deque[_AudioSpan] = deque()
        self._played: deque[_AudioSpan] = deque()
        self._turn, self._rate, self._at_s = 0, 0, 0.0
        self._unplayed = bytearray()
        """Audio of the turn after ``_at_s``, which was not played yet."""
        self._last_similarity = (-1.0, 0.0)
        """Start and similarity of the utterance that was compared last."""

    def hear(self, raw: bytes, encoding: SampleEncoding, rate: int, upto: float) -> None:
        """Add audio of the user, which ends at position ``upto`` in seconds."""
        if encoding is SampleEncoding.PCM16:
            samples = np.frombuffer(raw, "<i2")
        else:
            floats = np.nan_to_num(np.frombuffer(raw, "<f4"))
            samples = (np.clip(floats, -1, 1) * 32767).astype(np.int16)
        _append_span(self.recorded, _AudioSpan(upto, samples, rate))

    def emit(self, turn: int, audio: SynthesizedAudio) -> None:
        """Add audio of a turn that is to be played."""
        if turn != self._turn:
            self._turn, self._rate, self._at_s = turn, audio.rate, 0.0
            self._unplayed.clear()
        self._unplayed += audio.pcm

    def play(self, turn: int, seconds: float, now: float) -> None:
        """Record how much of the turn's audio was played by ``now``, in all."""
        count = round((seconds - self._at_s) * self._rate) if turn == self._turn else 0
        if count <= 0:  # a report may go back: audio that was counted is not added twice
            return
        played = np.frombuffer(bytes(self._unplayed[: 2 * count]), "<i2")
        del self._unplayed[: 2 * count]
        self._at_s += len(played) / self._rate
        _append_span(self._played, _AudioSpan(now, played, self._rate))

    def is_due(self, start: float, end: float, compared_s: float) -> bool:
        """Return whether to compare an utterance without words from ``start`` to ``end`` again.
        ``compared_s`` is the position up to which audio was compared last."""
        return end - start <= MAX_WORDLESS_S and end - compared_s >= COMPARE_EVERY_S

    def comparison(
        self, start: float, end: float, ended: float
    ) -> Callable[[], float | None] | None:
        """Return a function for any thread, or `None` if nothing was played then.

        It returns the similarity of an utterance to what was played, from 0 to 1; `None` if there
        is too little speech. The utterance is the user's audio from ``start`` to ``end``; ``ended``
        is the time of its end.
        """
        began = ended - (end - start)
        if not self._played or self._played[-1].end < began - MAX_ECHO_LAG_S:
            return None
        first, began = max(start, end - HISTORY_S), max(began, ended - HISTORY_S)
        recorded, played = tuple(self.recorded), tuple(self._played)
        since, until = began - MAX_ECHO_LAG_S, ended + MAX_CLOCK_LEAD_S

        def compare() -> float | None:
            recorded_envelopes = _envelopes_between(recorded, first, end)
            played_envelopes = _envelopes_between(played, since, until)
            continues = first > start
            return self._compared(start, recorded_envelopes, played_envelopes, continues=continues)

        return compare

    def _compared(
        self, start: float, recorded: Envelopes, played: Envelopes, *, continues: bool
    ) -> float | None:
        if len(recorded) < MIN_COMPARED_S * FRAMES_PER_S:
            return None
        segments = np.array_split(recorded, max(1, round(len(recorded) / FRAMES_PER_S / SEGMENT_S)))
        loud = [float(np.mean(one ** (1 / COMPRESSION))) for one in segments]
        similarities, at = [], 0
        for segment, power in zip(segments, loud, strict=True):
            reach = len(segment) + round((MAX_ECHO_LAG_S + MAX_CLOCK_LEAD_S) * FRAMES_PER_S)
            if power >= SILENCE_AMPLITUDE_RATIO**2 * max(loud):
                similarities.append(echo_similarity(segment, played[at : at + reach]))
            at += len(segment)
        before, similarity = self._last_similarity
        if continues and before == start:  # audio before HISTORY_S was compared then
            similarities.append(similarity)
        self._last_similarity = start, min(similarities)
        return min(similarities)


def echo_similarity(recorded: Envelopes, played: Envelopes) -> float:
    """Return the maximum normalised correlation of ``recorded`` with ``played``, from 0 to 1.

    ``recorded`` is compared at every offset. Each band's mean is subtracted, because it depends on
    the room and the loudspeaker.
    """
    count = len(recorded)
    recorded_form = (recorded - recorded.mean(axis=0)).ravel()
    size, best = float(np.linalg.norm(recorded_form)), 0.0
    for at in range(len(played) - count + 1):
        segment = played[at : at + count]
        played_form = (segment - segment.mean(axis=0)).ravel()
        power = size * float(np.linalg.norm(played_form))
        if power > 0:
            best = max(best, float(recorded_form @ played_form) / power)
    return best


def band_envelopes(samples: Samples, rate: int) -> Envelopes:
    """Return the compressed loudness of each band, `FRAMES_PER_S` values a second; shape (frames,
    bands)."""
    merged = max(1, rate // ENOUGH_HZ)
    means = samples[: len(samples) // merged * merged].reshape(-1, merged).mean(axis=1)
    rate //= merged
    step = rate // FRAMES_PER_S
    size = WINDOW_FRAMES * step
    if len(means) < size or rate < MIN_SAMPLE_RATE:
        return np.zeros((0, BANDS), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(means / 32768, size)[::step]
    windows = windows * np.hanning(size)
    power = np.abs(np.fft.rfft(windows, axis=1)) ** 2
    limits = np.linspace(LOWEST_HZ, HIGHEST_HZ, BANDS + 1)
    edges = np.searchsorted(np.fft.rfftfreq(size, 1 / rate), limits)
    bands = np.add.reduceat(power, edges, axis=1)[:, :-1] / size**2
    return np.asarray(bands**COMPRESSION, np.float32)


def _envelopes_between(spans: Sequence[_AudioSpan], start: float, end: float) -> Envelopes:
    """Return the envelopes of the audio from ``start`` to ``end``; gaps are silence. Audio of each
    rate has its own: a client or a voice may have changed it. Of more than `MAX_RATES` the newest
    count."""
    usable = (span.rate for span in reversed(spans) if span.rate >= MIN_SAMPLE_RATE)
    rates = list(dict.fromkeys(usable))[:MAX_RATES]
    each = [band_envelopes(_samples_between(spans, rate, start, end), rate) for rate in rates]
    count = min(map(len, each), default=0)
    silence = np.zeros((count, BANDS), np.float32)
    return np.asarray(np.max([silence, *(one[:count] for one in each)], axis=0), np.float32)


def _samples_between(spans: Sequence[_AudioSpan], rate: int, start: float, end: float) -> Samples:
    """Return the audio of one rate; all else is silence."""
    samples = np.zeros(max(0, round((end - start) * rate)), np.int16)
    for span in spans:
        at = round((span.start - start) * rate)
        first, last = max(0, at), min(len(samples), at + len(span.samples))
        if span.rate == rate and first < last:
            samples[first:last] = span.samples[first - at : last - at]
    return samples


def _append_span(spans: deque[_AudioSpan], span: _AudioSpan) -> None:
    if not len(span.samples):
        return
    last = spans[-1] if spans else None
    if (
        last is not None
        and last.rate == span.rate
        and len(last.samples) + len(span.samples) <= MERGED_SPAN_S * span.rate
        and abs(span.start - last.end) < 1 / FRAMES_PER_S
    ):
        samples = np.concatenate([spans.pop().samples, span.samples])
        span = _AudioSpan(span.end, samples, span.rate)
    spans.append(span)
    while span.end - spans[0].end > HISTORY_S:
        spans.popleft()
