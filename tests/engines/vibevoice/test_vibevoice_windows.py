"""Where a long recording is cut: at pauses, inside the window, with something heard twice."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.audio import Block
from sidecar.engines.vibevoice.vibevoice_windows import (
    VibeVoiceWindow,
    VibeVoiceWindows,
    longest_pause,
)

RATE = 100


class Recording:
    """Samples as a stream, in blocks of a few."""

    def __init__(self, samples: Block, block: int = 70, total_s: float | None = None) -> None:
        self._samples, self._block, self.total_s = samples, block, total_s

    def __iter__(self) -> Iterator[Block]:
        for at in range(0, len(self._samples), self._block):
            yield self._samples[at : at + self._block]


def ramp(seconds: float) -> Block:
    """Each sample is its own number."""
    return np.arange(round(seconds * RATE), dtype=np.float32)


def cut(samples: Block, window_s: float, block: int = 70) -> list[VibeVoiceWindow]:
    windows = VibeVoiceWindows(Recording(samples, block), RATE, window_s)
    return [VibeVoiceWindow(one.start_s, one.samples.copy(), one.border_s) for one in windows]


@pytest.mark.parametrize(
    ("speech", "middle"),
    [
        ([], 5.0),
        ([(0, 4), (6, 10)], 5.0),
        ([(0, 2), (3, 7), (7.5, 10)], 2.5),
        ([(0, 2), (3, 6), (7, 10)], 6.5),
        ([(0, 3)], 6.5),
        ([(8, 10)], 4.0),
        ([(-5, 4), (6, 20)], 5.0),
        ([(0, 8), (1, 2), (9, 10)], 8.5),
        ([(0, 10)], None),
        ([(0, 5), (5.1, 10)], None),
    ],
    ids=[
        "nobody speaks",
        "one pause",
        "the longer of two",
        "the later of two as long",
        "silence at the end",
        "silence at the beginning",
        "speech that reaches beyond",
        "one within another",
        "speech all through",
        "a gap inside a word",
    ],
)
def test_a_border_is_in_the_middle_of_the_longest_pause(
    speech: list[tuple[float, float]], middle: float | None
) -> None:
    assert longest_pause(speech, 0, 10) == (middle and pytest.approx(middle))


def test_a_recording_that_fits_is_one_window_without_a_border() -> None:
    for seconds in (0.01, 59.9, 60.0):
        (window,) = cut(ramp(seconds), 60)
        assert (window.start_s, window.border_s) == (0.0, None)
        assert np.array_equal(window.samples, ramp(seconds))


def test_a_recording_of_nothing_has_no_window() -> None:
    assert cut(ramp(0), 60) == []


@given(
    seconds=st.floats(0.1, 400),
    window_s=st.floats(5, 120),
    block=st.integers(1, 20_000),
)
def test_windows_are_short_enough_overlap_and_leave_nothing_out(
    seconds: float, window_s: float, block: int
) -> None:
    samples = ramp(seconds)
    windows = cut(samples, window_s, block)
    for window in windows:
        assert len(window.samples) <= round(window_s * RATE)
        start = round(window.start_s * RATE)
        assert np.array_equal(window.samples, samples[start : start + len(window.samples)])
    for before, after in pairwise(windows):
        assert before.border_s is not None
        end_s = before.start_s + len(before.samples) / RATE
        assert after.start_s < before.border_s < end_s
        assert before.border_s - before.start_s >= window_s / 2
    assert windows[-1].border_s is None
    assert round(windows[-1].start_s * RATE) + len(windows[-1].samples) == len(samples)


def test_the_border_is_in_the_pause_that_the_listener_hears() -> None:
    heard: list[int] = []

    def listen(samples: Block, rate: int) -> list[tuple[float, float]]:
        """Speech up to 47.0 s and from 48.0 s on."""
        first = float(samples[0]) / rate
        heard.append(len(samples))
        return [(0, 47.0 - first), (48.0 - first, 500.0)]

    windows = list(VibeVoiceWindows(Recording(ramp(100)), RATE, 60, listen))
    assert windows[0].border_s == pytest.approx(47.5)
    assert windows[1].start_s == pytest.approx(42.5)
    assert heard[0] < 60 * RATE / 2  # it is asked about the end only


def test_a_window_that_was_too_long_comes_again_in_shorter_ones() -> None:
    samples = ramp(100)
    windows = VibeVoiceWindows(Recording(samples), RATE, 90)
    pieces = iter(windows)
    first = next(pieces)
    assert len(first.samples) == 90 * RATE
    windows.again(30)
    rest = [(one.start_s, len(one.samples), float(one.samples[0])) for one in pieces]
    assert rest[0] == (0.0, 30 * RATE, 0.0)
    assert {length for _, length, _ in rest[:-1]} == {30 * RATE}
    assert rest[-1][0] + rest[-1][1] / RATE == 100
    assert windows.end_s == 100


def test_the_last_window_can_come_again_too() -> None:
    windows = VibeVoiceWindows(Recording(ramp(20)), RATE, 60)
    pieces = iter(windows)
    assert next(pieces).border_s is None
    windows.again(60)
    assert len(next(pieces).samples) == 20 * RATE
    assert next(pieces, None) is None
