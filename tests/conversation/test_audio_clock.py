"""When something was said, by where it lies in the sound."""

from __future__ import annotations

import pytest

from sidecar.conversation.speech_input import CLOCK_HISTORY_S, AudioClock


def test_what_lies_before_the_end_of_a_chunk_was_said_that_much_before_it_came() -> None:
    clock = AudioClock()
    clock.came(0.5, 100.5)
    clock.came(1.0, 101.0)
    for position in (0.1, 0.5, 0.7, 1.0):
        assert clock.time(position) == pytest.approx(100 + position)


def test_a_client_that_pauses_between_two_chunks_makes_no_difference_to_either() -> None:
    clock = AudioClock()
    clock.came(0.5, 100.5)
    clock.came(1.0, 160.0)
    assert clock.time(0.5) == 100.5
    assert clock.time(0.6) == pytest.approx(159.6)


def test_what_is_not_there_yet_is_said_now_and_what_is_long_gone_is_not_kept() -> None:
    clock = AudioClock()
    assert clock.time(3.0) == 3.0
    for second in range(1, 1000):
        clock.came(float(second), 50.0 + second)
    assert clock.time(2000.0) == 50.0 + 999
    assert len(clock._ends) <= CLOCK_HISTORY_S + 2
    assert clock.time(999 - CLOCK_HISTORY_S) == pytest.approx(50 + 999 - CLOCK_HISTORY_S)
