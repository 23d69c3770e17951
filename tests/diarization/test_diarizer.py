"""Who speaks when in the wheel's recordings."""

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from wheel_recordings import RATE, clip

from sidecar.audio import Block
from sidecar.diarization.clustering import SpeakerCount, detect_speech
from sidecar.diarization.diarizer import STEP_S, Diarizer
from sidecar.diarization.speaker_models import (
    HOP_SAMPLES,
    SingleSpeakerEncoder,
    SpeakerEncoder,
    SpeakerModels,
)
from sidecar.diarization.window_embeddings import DiarizationWindow, WindowExtractor
from sidecar.diarization.window_speakers import WindowSpeakers
from sidecar.transcripts.speaker_turns import SpeakerTurn


def heard(
    models: SpeakerModels, sound: Block, block: int = RATE, **options: Any
) -> list[SpeakerTurn]:
    diarizer = Diarizer(models, **options)
    for at in range(0, len(sound), block):
        diarizer.feed(sound[at : at + block])
    diarizer.finish()
    return diarizer.turns


def seconds(turns: list[SpeakerTurn], label: int, start: float, end: float) -> float:
    return sum(turn.overlap(start, end) for turn in turns if turn.label == label)


def test_play_of_two_people_has_two_speakers(models: SpeakerModels, play: Block) -> None:
    turns = heard(models, play)
    (man,) = {turn.label for turn in turns if turn.overlap(5.0, 7.5)}
    (woman,) = {turn.label for turn in turns if turn.overlap(9.3, 11.0)}
    assert {turn.label for turn in turns} == {man, woman}
    assert seconds(turns, man, 12.0, 14.0) > 1.5
    assert seconds(turns, woman, 15.0, 16.8) > 1.5
    assert seconds(turns, man, 23.8, 27.4) > 3.0


@pytest.mark.slow_except("[4")
@pytest.mark.parametrize("people", [1, 3, 4, 5])
def test_exact_number_of_a_clustering_anew_is_that_of_speakers_with_turns(
    models: SpeakerModels, play: Block, people: int
) -> None:
    diarizer = Diarizer(models)
    diarizer.feed(play)
    diarizer.finish()
    diarizer.found.cluster_anew(SpeakerCount(people, people, exact=True))
    assert len({turn.label for turn in diarizer.turns}) == people


@pytest.mark.slow_except("2-", "beckett")
@pytest.mark.parametrize("name", ["beckett", "two_cities"])
@pytest.mark.parametrize("num_speakers", [None, 2, 4])
def test_single_reader_is_one_speaker_whatever_number_is_given(
    models: SpeakerModels, name: str, num_speakers: int | None
) -> None:
    count = None if num_speakers is None else SpeakerCount(num_speakers, num_speakers)
    turns = heard(models, clip(name)[: 20 * RATE], count=count)
    assert {turn.label for turn in turns} == {0}


@pytest.mark.slow
def test_turns_do_not_depend_on_block_sizes(models: SpeakerModels, play: Block) -> None:
    play = play[: 18 * RATE]
    whole = heard(models, play, len(play))
    labels = [turn.label for turn in whole]
    numbers = {label: at for at, label in enumerate(dict.fromkeys(labels))}
    for block in (33_333, 10 * RATE):
        parts = heard(models, play, block)
        others = {label: at for at, label in enumerate(dict.fromkeys(one.label for one in parts))}
        assert [(one.start, one.end, others[one.label]) for one in parts] == [
            (one.start, one.end, numbers[one.label]) for one in whole
        ]


@pytest.mark.slow
def test_turns_do_not_depend_on_windows_per_batch(models: SpeakerModels, play: Block) -> None:
    whole = Diarizer(models)
    whole.feed(play)
    whole.finish()
    turns = whole.turns
    for count in (1, 3):
        in_batches = WindowSpeakers(windows_per_batch=count)
        in_batches.go_on(whole.found.windows, whole.found.known)
        in_batches.cluster()
        assert in_batches.turns(whole.listening.end_s) == turns


@pytest.mark.slow
def test_speech_spans_up_to_the_processed_time_do_not_change_later(
    models: SpeakerModels, play: Block
) -> None:
    diarizer = Diarizer(models)
    said: list[tuple[float, list[tuple[float, float]]]] = []
    for at in range(0, len(play), RATE):
        diarizer.feed(play[at : at + RATE])
        said.append((diarizer.speech_final_s, before(diarizer.speech, diarizer.speech_final_s)))
        assert diarizer.speech_final_s >= at / RATE - 18
    diarizer.finish()
    assert diarizer.speech_final_s == len(play) / RATE
    assert said[-1][1]
    for until_s, spans in said:
        assert before(diarizer.speech, until_s) == spans


def before(spans: list[tuple[float, float]], end_s: float) -> list[tuple[float, float]]:
    return [(start, min(end, end_s)) for start, end in spans if start < end_s]


def test_speaker_keeps_its_number_while_audio_arrives(models: SpeakerModels, play: Block) -> None:
    diarizer = Diarizer(models)
    numbers = set()
    for sound in (play[: 15 * RATE], play[15 * RATE :], play[: 10 * RATE]):
        diarizer.feed(sound)
        diarizer.decide()
        numbers |= {turn.label for turn in diarizer.turns if turn.overlap(5.0, 7.5)}
    assert len(numbers) == 1


def test_silence_and_very_short_audio_have_no_speakers(models: SpeakerModels) -> None:
    noise = np.random.default_rng(0).normal(scale=1e-4, size=12 * RATE).astype(np.float32)
    for sound in (noise, noise[:0], noise[:100], noise[:RATE], np.zeros(25 * RATE, np.float32)):
        assert heard(models, sound) == []


@pytest.mark.slow_except("[0.5", "[1.0", "[3.0", "[10.0")
@pytest.mark.parametrize("length_s", [0.5, 1.0, 3.0, 9.9, 10.0, 10.1, 12.4])
def test_short_recording_of_any_length_is_one_speaker_for_most_of_it(
    models: SpeakerModels, novel: Block, length_s: float
) -> None:
    start = 5 * RATE
    turns = heard(models, novel[start : start + round(length_s * RATE)])
    assert {turn.label for turn in turns} == {0}
    assert turns[-1].end <= length_s
    assert sum(turn.end - turn.start for turn in turns) > 0.6 * length_s


@pytest.mark.slow
def test_samples_of_a_long_silence_are_not_kept_in_memory(
    models: SpeakerModels, play: Block
) -> None:
    diarizer = Diarizer(models, step_s=10.0)
    for _ in range(6):
        diarizer.feed(np.zeros(20 * RATE, np.float32))
    diarizer.feed(play)
    assert len(diarizer.listening.audio) <= 31 * RATE
    diarizer.finish()
    assert min(turn.start for turn in diarizer.turns) > 119


def test_speech_detection_finds_the_pauses_between_two_speakers(
    models: SpeakerModels, play: Block
) -> None:
    stretches = detect_speech(models, np.concatenate([np.zeros(RATE, np.float32), play]))
    pauses = [(before[1], after[0]) for before, after in pairwise(stretches)]
    for start, end in ((9.1, 9.7), (12.4, 13.0), (15.1, 15.6), (18.0, 18.6), (22.9, 23.4)):
        assert any(first < (start + end) / 2 < last for first, last in pauses), (start, end)
    assert stretches[0][0] > 0.9
    assert detect_speech(models, np.zeros(0, np.float32)) == []


def test_clustering_into_fewer_speakers_than_before_is_no_error(
    models: SpeakerModels, play: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([3, 2, 1, 4, 1, 2, 1, 1, 1, 1])

    def persons(vectors: np.ndarray, *_: object) -> np.ndarray:
        return np.arange(len(vectors)) % next(found)

    monkeypatch.setattr("sidecar.diarization.window_speakers.cluster_embeddings", persons)
    diarizer = Diarizer(models)
    diarizer.feed(play[: 10 * RATE])
    diarizer.feed(play[10 * RATE : 20 * RATE])
    for _ in range(4):
        diarizer.decide()
    assert diarizer.turns


class Counted:
    """A session, and the shapes of what it was asked."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.shapes: list[tuple[int, ...]] = []

    def run(self, outputs: None, feed: dict[str, Any]) -> Any:
        self.shapes += [values.shape for values in feed.values()]
        return self._session.run(outputs, feed)


def listened(
    models: SpeakerModels, sound: Block, *, tell_apart: bool = True
) -> tuple[list[DiarizationWindow], Counted, Counted]:
    """The windows of a recording that comes second by second, and what the models were asked."""
    segmentation, trunk = Counted(models.segmentation), Counted(models.trunk)
    counted = replace(models, segmentation=segmentation, trunk=trunk)
    encoder = SpeakerEncoder(counted) if tell_apart else SingleSpeakerEncoder()
    listening = WindowExtractor(counted, encoder, STEP_S)
    found: list[DiarizationWindow] = []
    for at in range(0, len(sound), RATE):
        listening.hear(sound[at : at + RATE])
        found += listening.windows()
    listening.finish()
    return found + listening.windows(), segmentation, trunk


def starts(sound: Block, step_s: float = STEP_S) -> list[int]:
    """One window each step, one more half a step behind the first, and one up to the end."""
    step, last = round(step_s * RATE), len(sound) - 160_000
    return sorted({step // 2, *range(0, last + 1, step), last})


def heard_s(trunk: Counted) -> float:
    return sum(frames for _, frames, _ in trunk.shapes) * HOP_SAMPLES / RATE


def test_windows_that_end_in_one_block_are_one_batch_with_the_results_of_each_alone(
    models: SpeakerModels, novel: Block
) -> None:
    novel = novel[: 26 * RATE]
    windows, segmentation, _ = listened(models, novel)
    assert [batch for batch, _, _ in segmentation.shapes] == [1, 4, 1, 3]
    assert len(windows) == 9
    alone = Counted(models.segmentation)
    for window, begin in zip(windows, starts(novel), strict=True):
        sound = novel[begin : begin + 160_000]
        expected, _ = alone.run(None, {"waveforms": sound[None, None]})
        assert (window.activity == (expected[0] > 0.5)).all()


def test_encoder_runs_only_on_blocks_with_speech(models: SpeakerModels, play: Block) -> None:
    silence = np.zeros(20 * RATE, np.float32)
    windows, _, trunk = listened(models, np.concatenate([play[: 8 * RATE], silence]))
    assert 6 < heard_s(trunk) < 9.5
    assert any(window.present.any() for window in windows)
    _, _, trunk = listened(models, silence)
    assert not trunk.shapes


def test_pause_is_not_encoded_and_hardly_changes_the_embedding_of_its_speaker(
    models: SpeakerModels, novel: Block
) -> None:
    pause = np.zeros(2 * RATE, np.float32)
    said = [novel[at : at + 4 * RATE] for at in (0, 4 * RATE, 8 * RATE)]
    windows, _, trunk = listened(models, np.concatenate([said[0], pause, said[1], pause, said[2]]))
    assert heard_s(trunk) < 14.5
    whole = SpeakerEncoder(models).vector(np.concatenate(said))
    for window in windows:
        voice = int(window.alone_s.argmax())
        assert float(window.vectors[voice].astype(np.float32) @ whole) > 0.85


def test_diarizer_checkpoints_do_not_grow_and_resume_with_the_same_turns(
    models: SpeakerModels, play: Block
) -> None:
    diarizer, states, seen = Diarizer(models), list[dict[str, Any]](), list[int]()
    for at in range(0, len(play), 10 * RATE):
        diarizer.feed(play[at : at + 10 * RATE])
        states.append(diarizer.snapshot(sum(seen)))
        seen.append(len(states[-1]["windows"]))
    assert sum(seen) > 3
    about_all = [{**state, "windows": [], "known": []} for state in states]
    assert len(json.dumps(about_all[-1])) <= len(json.dumps(about_all[0])) + 8, "some digits"
    resumed = Diarizer(models)
    resumed.go_on(json.loads(json.dumps(states)))
    resumed.replay_audio(play)
    assert resumed.turns == diarizer.turns
    assert len({turn.label for turn in resumed.turns}) == 2


@pytest.mark.slow_except("2.5")
@pytest.mark.parametrize("step_s", [3.0, 2.5])
def test_diarization_resumed_at_a_window_has_the_vectors_of_an_uninterrupted_one(
    models: SpeakerModels, play: Block, step_s: float
) -> None:
    """So where a recording is gone on with, its vectors are those of one that was never left."""
    play = play[: 20 * RATE]
    whole = WindowExtractor(models, SpeakerEncoder(models), step_s)
    whole.hear(play)
    whole.finish()
    windows = whole.windows()
    resumed = WindowExtractor(models, SpeakerEncoder(models), step_s)
    resumed.go_on(starts(play, step_s)[3])
    resumed.replay_audio(play)
    resumed.finish()
    again = resumed.windows()
    assert [one.start for one in again] == [one.start for one in windows[3:]]
    for one, other in zip(again, windows[3:], strict=True):
        assert np.allclose(one.vectors, other.vectors, atol=2e-3)


def test_speech_detection_alone_runs_no_speaker_encoder_and_counts_every_speech_frame(
    models: SpeakerModels, play: Block
) -> None:
    windows, _, trunk = listened(models, play, tell_apart=False)
    assert not trunk.shapes
    assert all((one.present == one.activity.any(axis=0)).all() for one in windows)
