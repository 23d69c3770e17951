"""Long speech without a pause, cut at the limit of a window: each word is there once."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import inf
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from engine_requests import SampleStream, request_of, transcript_of

from sidecar.audio import SAMPLE_RATE, Block
from sidecar.diarization.diarizer import Diarizer
from sidecar.diarization.window_speakers import WindowSpeakers
from sidecar.engines.whisper.whisper_decoder import WhisperRecognizer, WhisperResult
from sidecar.engines.whisper.whisper_transcription import WhisperTranscription
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import Transcript, Word

LENGTH_S, WORD_S = 100, 0.4


class OneTurn:
    """Diarizer that knows from the start that one person speaks all the time."""

    windows, recent_windows = 1, ()

    def __init__(self) -> None:
        self.found, self.turns = WindowSpeakers(), [SpeakerTurn(0.0, LENGTH_S, 0)]
        self.final_s = 0.0

    def feed(self, _: Block) -> None:
        pass

    def finish(self) -> None:
        self.final_s = inf

    def identified(self, found: Transcript, _: object) -> Transcript:
        return found


def spoken(offset_s: float, late_s: float) -> tuple[list[Word], Any]:
    """Words of `WORD_S` from ``offset_s`` on, and a recognizer that hears those which are whole in
    its audio, each window ``late_s`` later or earlier than the one before. The audio is a clock:
    each sample is its time."""
    starts = np.arange(offset_s, LENGTH_S - WORD_S, WORD_S)
    words = [Word(at, at + WORD_S, f" w{number}") for number, at in enumerate(starts.tolist())]
    error = late_s

    def recognize(audio: Block, *_: object) -> WhisperResult:
        nonlocal error
        begin, end, error = float(audio[0]), float(audio[-1]), -error
        inside = (one for one in words if begin <= one.start and one.end <= end)
        heard = (
            replace(one, start=one.start - begin + error, end=one.end - begin + error)
            for one in inside
        )
        return WhisperResult(tuple(heard), "en")

    return words, SimpleNamespace(recognize=recognize, precision=Precision.FP32, name="")


def transcribed(recognizer: Any) -> Sequence[str]:
    clock = np.arange(LENGTH_S * SAMPLE_RATE, dtype=np.float32) / np.float32(SAMPLE_RATE)
    request = request_of(SampleStream(clock, SAMPLE_RATE), TranscribeOptions(diarize=False))
    with ThreadPoolExecutor(1) as thread:
        work = WhisperTranscription(
            cast(WhisperRecognizer, recognizer), thread, cast(Diarizer, OneTurn()), request
        )
        return transcript_of(work.events()).text.split()


@pytest.mark.parametrize("late_s", [0.0, 0.1, -0.1])
@pytest.mark.parametrize("offset_s", [0.0, 0.1, 0.2, 0.3])
def test_each_word_of_speech_without_a_pause_is_in_the_transcript_once_and_in_order(
    offset_s: float, late_s: float
) -> None:
    words, recognizer = spoken(offset_s, late_s)
    assert transcribed(recognizer) == [one.text.strip() for one in words]
