"""An ear on a piece: it hears to the end, whatever the engine reads, and costs nobody a word."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from wheel_recordings import RATE, clip

from sidecar.audio import Block
from sidecar.diarization import speaker_models
from sidecar.diarization.diarizer import STEP_S
from sidecar.diarization.window_embeddings import decode_windows, window_starts
from sidecar.interfaces.engine_interface import DiarizationEffort
from sidecar.transcripts.speaker_embeddings import WindowEmbeddingsRequest
from sidecar.transcripts.transcript import Finished, Progress, Transcript
from sidecar.workers.chunk_diarization import DiarizationTee, join_diarization

ASKED = WindowEmbeddingsRequest(6.2, begins=True)


class Clip:
    """Twelve seconds of two people, a second at a time."""

    total_s = 12.0

    def __iter__(self) -> Iterator[Block]:
        sound = clip("endgame_nagg_nell")[: 12 * RATE]
        for at in range(0, len(sound), RATE):
            yield sound[at : at + RATE]


def finished() -> Finished:
    return Finished(Transcript((), "en", 6.2, "none", "fp32"))


def test_what_an_engine_leaves_unread_is_heard_and_it_gets_no_more_than_its_words() -> None:
    ear = DiarizationTee(Clip(), RATE, ASKED, DiarizationEffort.BALANCED, lambda: False)
    assert ear.total_s == 6.2
    first = next(iter(ear))
    assert len(first) == RATE
    assert ear.completed(Progress(1.0, 6.2)) == Progress(1.0, 6.2)
    done = ear.completed(finished())
    assert isinstance(done, Finished)
    given = done.transcript.local_voices
    assert given is not None
    assert decode_windows(given, window_starts(ASKED, 12 * RATE, STEP_S))[0].heard.any()
    assert given.windows not in repr(done)
    ear.close()
    whole = DiarizationTee(Clip(), RATE, ASKED, DiarizationEffort.BALANCED, lambda: True)
    assert sum(map(len, whole)) == round(6.2 * RATE)
    whole.close()


def test_where_no_voices_are_told_apart_and_where_nobody_waits_the_words_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(threads: int = 1) -> speaker_models.SpeakerModels:
        raise speaker_models.SpeakerModelsUnavailable("not here")

    monkeypatch.setattr(speaker_models, "load_models", none)
    ear = DiarizationTee(Clip(), RATE, ASKED, DiarizationEffort.BALANCED, lambda: False)
    left = DiarizationTee(Clip(), RATE, ASKED, DiarizationEffort.BALANCED, lambda: True)
    events = join_diarization(
        [(0, Progress(1.0, 6.2)), (0, finished()), (1, finished()), (2, finished())],
        [ear, left, None],
    )
    told = list(events)
    assert told[0] == (0, Progress(1.0, 6.2))
    assert {at for at, event in told if event == finished()} == {0, 1, 2}
    assert ear.completed(finished()) == finished()
    for one in (ear, left):
        one.close()
