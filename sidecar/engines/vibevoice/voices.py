"""Speech and voices of a recording that is heard in windows.

Pauses are found and voices compared by the models of `sidecar.diarization`, on the CPU, once a
window, over some seconds of audio, however long the window is.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sidecar.audio import Block
from sidecar.diarization.encoder import SpeakerEncoder, Vector
from sidecar.diarization.features import RATE
from sidecar.diarization.models import VoicesUnavailable, load_models
from sidecar.diarization.speaker_identification import Voice
from sidecar.diarization.speech import speech as stretches_of_speech
from sidecar.transcripts.speaker_turns import Turn, clearest_stretches

log = logging.getLogger(__name__)

PIECE_S = 4.0
"""What one vector is made of, at the most: so little that a voice is several of them. If the model
gave a speaker some words of another's, most of the pieces are still right."""
PIECES = 6
"""Of each voice in a window, the clearest. More of them hardly change it."""
LEAST_S = 1.5
"""Shorter stretches are put together to so much. A voice of which there is less is not compared:
with 1.5 s of each, one person in seven is not known again (`SAME_VOICE`)."""
STRETCH_S = 0.5
"""A shorter stretch is left out: the model's times are not that exact."""
KIN = 0.35
"""The cosine between two pieces of one voice; under it one of them is taken for somebody else's."""


def speech(samples: Block, rate: int) -> list[tuple[float, float]]:
    """Where there is speech, (start, end) in seconds; nothing if the models are not here."""
    try:
        models = load_models()
    except VoicesUnavailable as error:
        log.warning("windows are cut without listening for pauses: %s", error)
        return []
    return stretches_of_speech(models, at_rate(samples, rate))


class Voices:
    """The voices of the persons in a recording at ``rate``.

    A person is the mean of what was heard of them, each second weighing the same, so that it gets
    surer with every window. Nothing is loaded before two windows are to be compared; without the
    encoder no voice is heard, which is logged once, and the windows' overlap alone links them.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._known: dict[int, Vector] = {}
        self._seconds: dict[int, float] = {}

    @property
    def persons(self) -> Mapping[int, Voice]:
        """What everybody that is remembered sounds like."""
        return {
            person: Voice(heard / np.linalg.norm(heard), self._seconds[person])
            for person, heard in self._known.items()
        }

    def hear(self, samples: Block, turns: Sequence[Turn]) -> Mapping[int, Voice]:
        """The voice of each label of a window, where there is enough of it.

        ``samples``: the window, shape (samples,); the times of ``turns`` are in it.
        """
        found: dict[int, Voice] = {}
        for label in {turn.label: None for turn in turns}:
            stretches = clearest_stretches(turns, label, PIECE_S, STRETCH_S)
            pieces = self._pieces(samples, stretches)
            if pieces and self._encoder is not None:
                seconds = [len(piece) / self._rate for piece in pieces]
                vectors = [self._encoder.vector(at_rate(piece, self._rate)) for piece in pieces]
                found[label] = agreed(np.stack(vectors), np.array(seconds, np.float32))
        return found

    def _pieces(self, samples: Block, stretches: Sequence[tuple[float, float]]) -> list[Block]:
        """The sound of `PIECES` stretches; short ones are put together."""
        pieces: list[Block] = []
        held = samples[:0]
        for start, end in stretches:
            first, last = round(max(0.0, start) * self._rate), round(end * self._rate)
            held = np.concatenate([held, samples[first:last]])
            if len(held) >= LEAST_S * self._rate:
                pieces.append(held)
                held = samples[:0]
            if len(pieces) == PIECES:
                break
        return pieces

    def likenesses(self, voices: Mapping[int, Voice]) -> Mapping[tuple[int, int], float]:
        """The cosine, from -1 to 1, for each pair of a remembered person and a label."""
        return {
            (person, label): float(known @ voice.vector / np.linalg.norm(known))
            for person, known in self._known.items()
            for label, voice in voices.items()
        }

    def remember(self, voices: Mapping[int, Voice], persons: Mapping[int, int]) -> None:
        """Keep a window's voices; ``persons``: who each label is."""
        for label, voice in voices.items():
            heard = voice.vector * voice.seconds
            self._known[persons[label]] = self._known.get(persons[label], 0.0) + heard
            self._seconds[persons[label]] = self._seconds.get(persons[label], 0.0) + voice.seconds

    @cached_property
    def _encoder(self) -> SpeakerEncoder | None:
        try:
            return SpeakerEncoder()
        except VoicesUnavailable as error:
            log.warning("speakers are linked by what two windows both hear alone: %s", error)
            return None


def agreed(vectors: npt.NDArray[np.float32], seconds: npt.NDArray[np.float32]) -> Voice:
    """The voice that most of the ``seconds`` agree on, of pieces of what is said to be one.

    ``vectors``: shape (pieces, size), each of length 1.
    """
    alike = vectors @ vectors.T
    middle = int((alike @ seconds).argmax())
    kin = alike[middle] >= KIN
    mean = seconds[kin] @ vectors[kin]
    return Voice(mean / np.linalg.norm(mean), float(seconds[kin].sum()))


def at_rate(samples: Block, rate: int) -> Block:
    """The samples at the rate that both listen at."""
    if rate == RATE:
        return samples
    import soxr

    resampled: Block = soxr.resample(samples, rate, RATE)
    return resampled
