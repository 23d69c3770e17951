"""What the models are asked for: windows together, and the trunk only where somebody speaks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from wheel_recordings import RATE

from sidecar.audio import Block
from sidecar.diarization.diarizer import STEP_S
from sidecar.diarization.speaker_models import (
    HOP_SAMPLES,
    SingleSpeakerEncoder,
    SpeakerEncoder,
    SpeakerModels,
)
from sidecar.diarization.window_embeddings import DiarizationWindow, WindowExtractor


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


def test_windows_that_end_in_one_block_are_looked_at_together(
    models: SpeakerModels, novel: Block
) -> None:
    windows, segmentation, _ = listened(models, novel)
    assert [batch for batch, _, _ in segmentation.shapes] == [1, 4, 1, 4, 4, 2]
    assert len(windows) == 16
    alone = Counted(models.segmentation)
    for window, begin in zip(windows, starts(novel), strict=True):
        sound = novel[begin : begin + 160_000]
        (expected,) = alone.run(None, {"waveforms": sound[None, None]})
        assert (window.activity == (expected[0] > 0.5)).all()


def test_the_trunk_hears_only_pieces_in_which_somebody_speaks(
    models: SpeakerModels, play: Block
) -> None:
    silence = np.zeros(20 * RATE, np.float32)
    windows, _, trunk = listened(models, np.concatenate([play[: 8 * RATE], silence]))
    assert 6 < heard_s(trunk) < 9.5
    assert any(window.heard.any() for window in windows)
    _, _, trunk = listened(models, silence)
    assert not trunk.shapes


def test_a_pause_that_the_trunk_does_not_hear_leaves_the_voice_what_it_is(
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


@pytest.mark.parametrize("step_s", [3.0, 2.5])
def test_a_block_hangs_on_the_window_that_begins_with_it_at_any_step(
    models: SpeakerModels, play: Block, step_s: float
) -> None:
    """So where a recording is gone on with, its vectors are those of one that was never left."""
    whole = WindowExtractor(models, SpeakerEncoder(models), step_s)
    whole.hear(play)
    whole.finish()
    windows = whole.windows()
    resumed = WindowExtractor(models, SpeakerEncoder(models), step_s)
    resumed.go_on(starts(play, step_s)[5])
    resumed.replay_audio(play)
    resumed.finish()
    again = resumed.windows()
    assert [one.start for one in again] == [one.start for one in windows[5:]]
    for one, other in zip(again, windows[5:], strict=True):
        assert np.allclose(one.vectors, other.vectors, atol=2e-3)


def test_without_telling_apart_every_frame_of_speech_counts(
    models: SpeakerModels, play: Block
) -> None:
    windows, _, trunk = listened(models, play, tell_apart=False)
    assert not trunk.shapes
    assert all((one.heard == one.activity.any(axis=0)).all() for one in windows)
