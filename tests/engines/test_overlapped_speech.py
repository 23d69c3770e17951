"""Two people at once in one channel: what engines that diarize by embeddings say of the second."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import inf
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from engine_requests import SampleStream, request_of, transcript_of

from sidecar.audio import SAMPLE_RATE, Block
from sidecar.diarization.diarizer import Diarizer
from sidecar.diarization.window_speakers import WindowSpeakers
from sidecar.engines import moonshine
from sidecar.engines.utterance_transcription import UtteranceTranscription
from sidecar.engines.whisper.whisper_decoder import WhisperRecognizer, WhisperResult
from sidecar.engines.whisper.whisper_transcription import WhisperTranscription
from sidecar.interfaces.engine_interface import Precision
from sidecar.interfaces.recognition import RecognitionHypothesis
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import Segment, Transcript, Word

LENGTH_S = 10
Turns = list[SpeakerTurn]


class KnownTurns:
    """Diarizer that knows all turns from the start."""

    windows, recent_windows = 1, ()

    def __init__(self, turns: Turns) -> None:
        self.found, self.turns, self.final_s = WindowSpeakers(), turns, 0.0

    def feed(self, _: Block) -> None:
        pass

    def finish(self) -> None:
        self.final_s = inf

    def identified(self, found: Transcript, _: object) -> Transcript:
        return found


def request() -> Any:
    return request_of(SampleStream(np.ones(LENGTH_S * SAMPLE_RATE, np.float32), SAMPLE_RATE))


def words_in(audio: Block, what: str) -> tuple[Word, ...]:
    """A word each half second."""
    times = np.arange(0.0, len(audio) / SAMPLE_RATE - 0.3, 0.5).tolist()
    return tuple(Word(at, at + 0.3, f" {what}{len(audio)}_{at}") for at in times)


def by_whisper(turns: Turns) -> Sequence[Segment]:
    def recognize(audio: Block, *_: object) -> WhisperResult:
        return WhisperResult(words_in(audio, "w"), "en")

    recognizer = SimpleNamespace(recognize=recognize, precision=Precision.FP32, name="")
    diarizer = cast(Diarizer, KnownTurns(turns))
    with ThreadPoolExecutor(1) as thread:
        work = WhisperTranscription(
            cast(WhisperRecognizer, recognizer), thread, diarizer, request()
        )
        return transcript_of(work.events()).segments


def by_utterances(turns: Turns) -> Sequence[Segment]:
    def recognize(audio: Block, _: bool) -> RecognitionHypothesis:
        words = words_in(audio, "u")
        return RecognitionHypothesis("".join(one.text for one in words).strip(), words)

    diarizer = cast(Diarizer, KnownTurns(turns))
    work = UtteranceTranscription(recognize, diarizer, None, request(), moonshine.SPEC)
    return transcript_of(work.run(None, Precision.INT8, lambda found: found)).segments


@pytest.mark.parametrize("transcribe", [by_whisper, by_utterances])
@pytest.mark.parametrize(
    ("turns", "second"),
    [
        pytest.param([(0, 9.5), (4, 6)], [(4.0, 6.0, ("overlap",))], id="under the first"),
        pytest.param([(0, 4.5), (6, 9)], [(6.0, 9.0, ())], id="after the first"),
    ],
)
def test_second_speaker_has_a_segment_of_the_own_turn_and_speech_of_both_is_flagged_by_each_engine(
    transcribe: Callable[[Turns], Sequence[Segment]],
    turns: list[tuple[float, float]],
    second: list[tuple[float, float, tuple[str, ...]]],
) -> None:
    found = transcribe([SpeakerTurn(*turn, label) for label, turn in enumerate(turns)])
    of_second = [(one.start, one.end, one.flags) for one in found if one.speaker == 1]
    assert of_second == second
    at_4_s = {one.flags for one in found if one.start <= 4.2 <= one.end}
    assert at_4_s == {flags for *_, flags in second}
