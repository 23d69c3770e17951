"""What one client of a live wire can keep in memory, in bytes and entries."""

import gc
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import errors
from sidecar.interfaces.live_events import SpeechStopped
from sidecar.interfaces.live_options import LiveOptions, SampleEncoding
from sidecar.live.sessions import input_log
from sidecar.live.sessions.session import Session
from sidecar.live.sessions.session_limits import SessionBounds
from sidecar.plugins.conversation.speech_input import CLOCK_HISTORY_S, MIN_CLOCK_STEP_S, AudioClock

RATE = 16_000


def a_session(bounds: SessionBounds | None = None) -> Session:
    return Session(
        "s", "o", LiveOptions(), bounds or SessionBounds(), input_log.InputLogTotals(1 << 30)
    )


def kept_by(work: Callable[[], object]) -> int:
    """Bytes that lines of this file and of the log have allocated and that stay: what other threads
    of this process allocate meanwhile is not counted."""
    gc.collect()
    tracemalloc.start()
    try:
        held = work()
        gc.collect()
        snapshot = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    del held
    lines = [tracemalloc.Filter(True, str(one)) for one in (__file__, input_log.__file__)]
    return sum(trace.size for trace in snapshot.filter_traces(lines).traces)


@pytest.mark.slow_except("waiting for")
@pytest.mark.parametrize("taken", [True, False], ids=["heard at once", "waiting for an engine"])
def test_tiny_chunks_take_less_than_twice_the_memory_that_is_counted(taken: bool) -> None:
    def keep() -> input_log.InputLog:
        sound = input_log.InputLog(input_log.InputLogTotals(1 << 30))
        for number in range(20_000):
            sound.add(number.to_bytes(2, "little"), SampleEncoding.PCM16, RATE)
            if taken:
                assert sound.take() is not None
        assert (sound.bytes, len(sound)) == (40_000, -(-40_000 // input_log.JOINED_BYTES))
        return sound

    assert kept_by(keep) < 2 * 40_000


@given(
    st.lists(st.integers(1, input_log.SMALL_BYTES), min_size=1, max_size=60),
    st.lists(st.booleans(), min_size=60, max_size=60),
    st.integers(0, 60),
)
def test_joined_chunks_are_replayed_whole_and_in_order(
    sizes: list[int], takes: list[bool], again: int
) -> None:
    sound, said, taken = input_log.InputLog(input_log.InputLogTotals(1 << 30)), b"", b""
    for number, size in enumerate(sizes):
        raw = bytes([number]) * (2 * size)
        said += raw
        sound.add(raw, SampleEncoding.PCM16, RATE)
        if takes[number]:
            taken += b"".join(one.raw for one in rest(sound))
        if number == again:
            sound.rewind()
            taken = b""
    taken += b"".join(one.raw for one in rest(sound))
    assert taken == said
    assert sound.bytes == len(said)
    assert sound.seconds == pytest.approx(len(said) / 2 / RATE)


def rest(sound: input_log.InputLog) -> list[input_log.InputChunk]:
    found = []
    while isinstance(item := sound.take(), input_log.InputChunk):
        found.append(item)
    return found


async def test_only_the_last_of_unsent_option_changes_is_kept() -> None:
    session = a_session()
    for number in range(1000):
        session.change(LiveOptions(prompt=f"{number}"))
    change = session.input_log.take()
    assert isinstance(change, LiveOptions)
    assert (change.prompt, session.input_log.take()) == ("999", None)
    assert session.received_orders == 1000, "and each counts as received"


async def test_no_more_option_changes_than_the_limit_are_kept_and_the_last_counts() -> None:
    session = a_session()
    for number in range(3 * input_log.MAX_CHANGES):
        await session.send(bytes(2))
        session.change(LiveOptions(prompt=f"{number}"))
        if number % 2:
            session.input_log.take()
    items = [session.input_log.take() for _ in range(len(session.input_log))]
    changes = [one.prompt for one in items if isinstance(one, LiveOptions)]
    assert changes[-1] == f"{3 * input_log.MAX_CHANGES - 1}"
    session.begins_anew()
    items = [session.input_log.take() for _ in range(len(session.input_log))]
    assert sum(isinstance(one, LiveOptions) for one in items) == input_log.MAX_CHANGES
    assert session.input_log.take() is None


async def test_session_refuses_commands_beyond_its_limit_and_can_still_finish() -> None:
    session = a_session(SessionBounds(commands=100))
    for _ in range(50):
        session.commit()
        session.cancel()
    for command in (session.commit, session.cancel, lambda: session.change(LiveOptions())):
        with pytest.raises(errors.SessionOver):
            command()
    assert isinstance(session.reason, errors.SessionTooLong)
    assert len(session.input_log) == session.received_orders == 100
    session.finish()
    assert session.finishing


async def test_session_with_more_kept_events_than_the_limit_takes_no_more_audio() -> None:
    session = a_session(SessionBounds(events=100))
    for number in range(101):
        assert session.reason is None
        session.handle_event(SpeechStopped(number, float(number)))
    assert isinstance(session.reason, errors.SessionTooLong)
    with pytest.raises(errors.SessionOver):
        await session.send(bytes(3200))


def test_audio_clock_has_bounded_entries_however_small_the_chunks_and_tells_the_right_time() -> (
    None
):
    clock = AudioClock()
    for number in range(5000):
        clock.came(1.0, number * 0.01)
    assert len(clock.ends) == 1, "empty messages"
    rate, seconds = 1000, 2 * CLOCK_HISTORY_S
    for number in range(1, round(seconds * rate) + 1):
        clock.came(1.0 + number / rate, number / rate)
    assert len(clock.ends) <= 2 * CLOCK_HISTORY_S / MIN_CLOCK_STEP_S + 2
    for position in (200.0, 230.005, 240.9):
        assert clock.time(position) == pytest.approx(position - 1.0, abs=MIN_CLOCK_STEP_S)


async def test_ended_session_keeps_no_audio() -> None:
    session = a_session()
    for _ in range(10):
        await session.send(bytes(3200))
        session.commit()
    session.end()
    assert (session.input_log.bytes, len(session.input_log)) == (0, 0)
