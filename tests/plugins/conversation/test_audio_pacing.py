"""Sound on its way to a client, by a made-up clock."""

import pytest
from conversation_simulator import RATE, silence
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.interfaces.engine_interface import SynthesizedAudio, WordMark
from sidecar.plugins.conversation.audio_pacing import (
    MAX_AUDIO_LEAD_S,
    MAX_FRAME_S,
    MIN_FRAME_S,
    AudioPacer,
    ReplyAudioFrame,
)


def run(pacer: AudioPacer, now: float, until: float) -> list[tuple[float, ReplyAudioFrame]]:
    """Let it send whenever it wants to."""
    found: list[tuple[float, ReplyAudioFrame]] = []
    while True:
        found += [(now, frame) for frame in pacer.due(now)]
        wake = pacer.wake_at(now)
        if wake is None or wake > until:
            return found
        assert wake > now, "it turns in a circle"
        now = wake


def numbered(seconds: float, start: int = 0) -> SynthesizedAudio:
    """Samples that are their own numbers."""
    count = round(seconds * RATE)
    return SynthesizedAudio(b"".join((start + n).to_bytes(2, "little") for n in range(count)), RATE)


@pytest.fixture
def pacer() -> AudioPacer:
    return AudioPacer()


def test_audio_is_sent_before_playback_needs_it_but_at_most_the_maximum_lead_ahead(
    pacer: AudioPacer,
) -> None:
    pacer.add(1, 0, numbered(2.0), 10.0)
    sent = run(pacer, 10.0, 20.0)
    for at, frame in sent:
        assert frame.start + frame.seconds - (at - 10.0) <= MAX_AUDIO_LEAD_S + 1e-3
        assert at - 10.0 <= frame.start + 1e-3, "the ear ran dry"
    assert b"".join(frame.pcm for _, frame in sent) == numbered(2.0).pcm
    assert all(MIN_FRAME_S - 1e-3 <= frame.seconds <= MAX_FRAME_S for _, frame in sent[:-1])
    assert pacer.heard_s(12.0) == pytest.approx(2.0)
    assert pacer.wake_at(12.0) is None


def test_end_of_a_turn_sends_the_remaining_samples(pacer: AudioPacer) -> None:
    pacer.add(1, 0, numbered(0.3), 0.0)
    sent = [frame for _, frame in run(pacer, 0.0, 0.25)]
    pacer.add(1, 0, numbered(0.002, start=300), 0.26)
    sent += [*pacer.due(0.26), *pacer.end(1)]
    assert b"".join(frame.pcm for frame in sent) == numbered(0.302).pcm
    assert sum(frame.seconds for frame in sent[:-1]) == pytest.approx(sent[-1].start)
    assert (pacer.turn, pacer.end(1)) == (0, [])


def test_client_that_can_clear_gets_all_audio_ahead_of_playback() -> None:
    pacer = AudioPacer(clears=True)
    pacer.add(1, 0, numbered(2.0), 10.0)
    frames = pacer.due(10.0)
    assert sum(frame.seconds for frame in frames) == pytest.approx(2.0)
    assert max(frame.seconds for frame in frames) <= MAX_FRAME_S
    assert pacer.heard_s(10.5) == pytest.approx(0.5)
    assert pacer.wake_at(10.5) == pytest.approx(12.0)  # to tell that all was heard


def test_first_short_audio_is_sent_without_waiting_and_the_next_before_playback_runs_out(
    pacer: AudioPacer,
) -> None:
    pacer.add(1, 0, silence(0.03), 0.0)
    assert [frame.seconds for frame in pacer.due(0.0)] == [pytest.approx(0.03)]
    pacer.add(1, 0, silence(0.03), 0.0)
    assert pacer.due(0.0) == []  # what follows waits for its like, or until the client has none
    assert pacer.wake_at(0.0) == pytest.approx(0.01)
    assert [frame.seconds for frame in pacer.due(0.01)] == [pytest.approx(0.03)]


def test_short_audio_is_sent_in_joined_frames(pacer: AudioPacer) -> None:
    for number in range(20):
        pacer.add(1, number, silence(0.06), 0.0)
    frames = [frame for _, frame in run(pacer, 0.0, 9.0)]
    assert sum(frame.seconds for frame in frames) == pytest.approx(1.2)
    assert len(frames) <= 10


def test_frame_ends_between_two_words_if_a_mark_is_in_reach() -> None:
    for marks, ends in (
        ((0.0, 0.13, 0.9), 0.13),
        ((0.0, 0.1, 0.9), MAX_AUDIO_LEAD_S),  # none within what may be sent
        ((0.1, 0.125, 0.14, 0.4), 0.14),
    ):
        pacer = AudioPacer()
        words = tuple(WordMark(number, at) for number, at in enumerate(marks))
        pacer.add(1, 0, SynthesizedAudio(bytes(2 * RATE), RATE, words), 0.0)
        assert pacer.due(0.0)[0].seconds == pytest.approx(ends)
    pacer = AudioPacer()
    pacer.add(1, 0, silence(0.06), 0.0)
    second = SynthesizedAudio(bytes(RATE), RATE, (WordMark(0, 0.07),))
    pacer.add(1, 1, second, 0.0)  # its piece begins at 0.06
    assert pacer.due(0.0)[0].seconds == pytest.approx(0.13)


def test_audio_of_a_dropped_turn_is_not_sent_even_if_added_later_and_that_of_the_next_is(
    pacer: AudioPacer,
) -> None:
    pacer.add(1, 0, silence(2.0), 0.0)
    sent = sum(frame.seconds for _, frame in run(pacer, 0.0, 0.5))
    assert pacer.played(0.5) == pytest.approx(sent)  # it cannot be unheard
    pacer.drop_audio(1)
    pacer.add(1, 0, silence(2.0), 0.6)
    assert pacer.due(0.6) == []
    assert pacer.wake_at(0.6) is None
    pacer.add(2, 0, silence(0.1), 0.7)
    assert [frame.turn for frame in pacer.due(0.7)] == [2]
    pacer.drop_audio(1)
    assert pacer.heard_s(0.8) == pytest.approx(0.1)


def test_drop_at_a_client_that_can_clear_ends_the_turn_and_its_played_time() -> None:
    pacer = AudioPacer(clears=True)
    pacer.add(1, 0, silence(2.0), 0.0)
    pacer.due(0.0)
    assert pacer.played(0.5) == pytest.approx(0.5)
    pacer.drop_audio(1)
    assert pacer.turn == 0
    assert pacer.played(9.0) == 0.0


def test_no_audio_is_sent_during_a_pause_and_none_is_lost_after_it(pacer: AudioPacer) -> None:
    pacer.add(1, 0, numbered(1.0), 0.0)
    sent = run(pacer, 0.0, 0.3)
    pacer.pause(0.3)
    heard = pacer.heard_s(0.3)
    assert pacer.heard_s(5.0) == heard
    assert pacer.due(5.0) == []
    assert pacer.wake_at(5.0) is None
    pacer.resume(5.0)
    sent += run(pacer, 5.0, 9.0)
    assert b"".join(frame.pcm for _, frame in sent) == numbered(1.0).pcm
    assert pacer.heard_s(5.0 + 1.0 - heard) == pytest.approx(1.0)


def test_pause_holds_new_audio_while_a_client_that_can_clear_plays_on() -> None:
    pacer = AudioPacer(clears=True)
    pacer.add(1, 0, silence(1.0), 0.0)
    pacer.due(0.0)
    pacer.pause(0.2)
    pacer.add(1, 0, silence(1.0), 0.3)
    assert pacer.due(0.5) == []
    assert pacer.heard_s(0.5) == pytest.approx(0.5)
    pacer.resume(0.6)
    assert pacer.due(0.6)
    assert pacer.heard_s(1.6) == pytest.approx(1.6)


def test_playback_position_stops_while_no_audio_is_there(pacer: AudioPacer) -> None:
    pacer.add(1, 0, silence(0.1), 0.0)
    pacer.due(0.0)
    pacer.add(1, 0, silence(0.1), 3.0)
    assert pacer.heard_s(3.0) == pytest.approx(0.1)
    pacer.due(3.0)
    assert pacer.heard_s(3.05) == pytest.approx(0.15)


def test_second_sample_rate_within_a_turn_is_refused(pacer: AudioPacer) -> None:
    pacer.add(1, 0, SynthesizedAudio(b"", 1000), 0.0)
    with pytest.raises(ValueError, match="one rate"):
        pacer.add(1, 0, SynthesizedAudio(b"", 2000), 0.0)


steps = st.lists(
    st.tuples(st.sampled_from(["add", "wait", "wait", "pause", "resume"]), st.integers(1, 60)),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(story=steps, hushed=st.booleans())
def test_any_sequence_of_audio_and_pauses_keeps_order_and_lead(
    story: list[tuple[str, int]], hushed: bool
) -> None:
    pacer, now, made, before = AudioPacer(), 0.0, 0, 0.0
    sent: list[bytes] = []

    def until(at: float) -> float:
        for when, frame in run(pacer, now, at):
            sent.append(frame.pcm)
            total = sum(map(len, sent)) / (2 * RATE)
            assert total - pacer.heard_s(when) <= MAX_AUDIO_LEAD_S + 1e-3
        return at

    for kind, number in story:
        if kind == "add":
            pacer.add(1, made % 3, numbered(number / 100, made), now)
            made += round(number / 100 * RATE)
            now = until(now)
        elif kind == "wait":
            now = until(now + number / 50)
        elif kind == "pause":
            pacer.pause(now)
        else:
            pacer.resume(now)
            now = until(now)
        assert before <= pacer.heard_s(now) + 1e-9
        before = pacer.heard_s(now)
    if hushed:
        pacer.drop_audio(1)
    pacer.resume(now)
    until(now + 99)
    expected = numbered(made / RATE).pcm
    got = b"".join(sent)
    assert got == expected[: len(got)]
    assert hushed or (got == expected and pacer.heard_s(now + 99) == pytest.approx(made / RATE))
