"""Probability that nobody speaks in a span, from the windows of the diarizer."""

from dataclasses import replace

import numpy as np
import pytest

from sidecar.diarization.window_embeddings import (
    FRAME_LEAD_S,
    FRAME_STEP_S,
    NO_SPEECH_FRAMES,
    NO_SPEECH_STEPS,
    WINDOW_FRAMES,
    DiarizationWindow,
    no_speech_probability,
)

STEPS = WINDOW_FRAMES // NO_SPEECH_FRAMES
SPEECH, SILENCE = 0, NO_SPEECH_STEPS


def window(start: int, *values: int) -> DiarizationWindow:
    """A window with equal parts of these values."""
    parts = np.array_split(np.zeros(STEPS, np.uint8), len(values))
    steps = [part + np.uint8(value) for part, value in zip(parts, values, strict=True)]
    nothing = np.zeros(0)
    return DiarizationWindow(start, nothing, nothing, nothing, nothing, np.concatenate(steps))


def second_of(frame: float) -> float:
    return FRAME_LEAD_S + frame * FRAME_STEP_S


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ((0, WINDOW_FRAMES // 2), 0.0),
        ((WINDOW_FRAMES // 2 + NO_SPEECH_FRAMES, WINDOW_FRAMES), 1.0),
        ((WINDOW_FRAMES - 1, WINDOW_FRAMES), 1.0),
        ((0, WINDOW_FRAMES), 0.5),
        ((0, 65 * NO_SPEECH_FRAMES), 0.246),  # 16 steps of 65
    ],
)
def test_no_speech_probability_is_the_mean_over_the_frames_of_the_span(
    frames: tuple[int, int], expected: float
) -> None:
    windows = [window(0, SPEECH, SILENCE)]
    assert no_speech_probability(windows, *map(second_of, frames)) == expected


def test_overlapping_windows_count_alike_and_windows_elsewhere_not_at_all() -> None:
    windows = [window(0, SPEECH), window(60, SILENCE), window(10 * WINDOW_FRAMES, SILENCE)]
    span = second_of(120), second_of(180)
    assert no_speech_probability(windows, *span) == 0.5


def test_windows_without_no_speech_probability_are_left_out_and_alone_give_none() -> None:
    older = replace(window(0, SILENCE), no_speech=None)
    span = second_of(10), second_of(90)
    assert no_speech_probability([older], *span) is None
    assert no_speech_probability([], *span) is None
    assert no_speech_probability([older, window(0, SPEECH)], *span) == 0.0
