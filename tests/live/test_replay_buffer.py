"""What of a session's sound is kept, and what an engine takes of it. Every commit and every wish
that a turn be forgotten is answered once, whatever becomes of the engine."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.interfaces.live_events import InputProcessed, TurnDropped, TurnEnded
from sidecar.interfaces.live_options import LiveOptions, LiveOrder, SampleEncoding
from sidecar.live.sessions.input_log import (
    JOINED_BYTES,
    InputChunk,
    InputItem,
    InputLog,
    InputLogTotals,
)
from sidecar.live.sessions.session import Session
from sidecar.live.sessions.session_limits import SessionBounds

SECOND = bytes(range(250)) * 128
"""Of pcm16 at 16 kHz."""


def kept(held: InputLogTotals | None = None) -> InputLog:
    return InputLog(held or InputLogTotals(1 << 30))


def taken(sound: InputLog) -> list[InputItem]:
    items = []
    while (item := sound.take()) is not None:
        items.append(item)
    return items


def test_audio_of_any_encoding_has_its_position_in_seconds() -> None:
    sound = kept()
    sound.add(SECOND, SampleEncoding.PCM16, 16_000)
    sound.add(SECOND, SampleEncoding.FLOAT32, 8_000)
    sound.add(SECOND, SampleEncoding.PCM16, 32_000)
    assert (sound.at, sound.seconds) == (2.5, 2.5)
    assert [one.at for one in taken(sound) if isinstance(one, InputChunk)] == [0.0, 1.0, 2.0]


def test_settled_audio_is_dropped_and_the_next_engine_gets_the_rest() -> None:
    held = InputLogTotals(1 << 30)
    sound = kept(held)
    for _ in range(3):
        sound.add(SECOND, SampleEncoding.PCM16, 16_000)
    assert held.bytes == 3 * len(SECOND)
    taken(sound)
    sound.settle(1.25, 0)
    assert held.bytes == sound.bytes == 2 * len(SECOND)
    assert sound.seconds == 2.0
    assert sound.take() is None
    sound.rewind()
    first, second = taken(sound)
    assert isinstance(first, InputChunk)
    assert (first.at, first.raw) == (1.25, SECOND[8000:])
    assert isinstance(second, InputChunk)
    assert (second.at, second.raw) == (2.0, SECOND)


def test_engine_gets_silence_in_place_of_cancelled_audio_and_committed_audio_unchanged() -> None:
    held = InputLogTotals(1 << 30)
    sound = kept(held)
    sound.add(SECOND, SampleEncoding.PCM16, 16_000)
    sound.order(LiveOrder.COMMIT)
    sound.add(SECOND, SampleEncoding.PCM16, 16_000)
    sound.order(LiveOrder.CANCEL)
    items = taken(sound)
    assert items[1:3] == [LiveOrder.COMMIT, LiveOrder.CANCEL]
    first, last = items[0], items[-1]
    assert isinstance(first, InputChunk)
    assert isinstance(last, InputChunk)
    assert (first.raw, last.at, any(last.raw)) == (SECOND, 1.0, False)
    sound.settle(1.0, 1)
    sound.dropped()
    assert held.bytes == len(SECOND)
    sound.clear()
    assert (held.bytes, sound.take(), sound.settled) == (0, None, 2.0)


@given(seed=st.integers(0, 2**32))
def test_random_engine_answers_and_crashes_lose_and_double_no_commit_cancel_or_audio(
    seed: int,
) -> None:
    """An engine answers in order; it dies at any time, and another begins anew. What it needs no
    more ends before what it has answered, as an utterance begins before its first word."""
    chance = random.Random(seed)
    sound = kept()
    asked = answered = forgotten = dropped = done = 0
    pending: list[InputItem] = []
    for _ in range(80):
        match chance.randrange(6):
            case 0:
                sound.add(SECOND[: 2 * chance.randrange(1, 99)], SampleEncoding.PCM16, 16_000)
            case 1:
                sound.order(LiveOrder.COMMIT)
                asked += 1
            case 2:
                if (item := sound.take()) is not None:
                    pending.append(item)
            case 3 if pending:
                item = pending.pop(0)
                if item is LiveOrder.COMMIT:
                    done += 1
                    answered += 1
                    sound.answered(done)
                elif item is LiveOrder.CANCEL:
                    dropped += 1
                    sound.dropped()
                else:
                    needed_s = chance.choice((0.0, 0.001, 0.02))
                    sound.settle(max(sound.settled, item.at + item.seconds - needed_s), done)
            case 4 if chance.random() < 0.3:
                sound.rewind()
                pending, done = [], 0
            case 5 if chance.random() < 0.2:
                sound.order(LiveOrder.CANCEL)
                forgotten += 1
    sound.rewind()
    rest = taken(sound)
    assert answered + rest.count(LiveOrder.COMMIT) == asked
    assert dropped + rest.count(LiveOrder.CANCEL) == forgotten
    chunks = [one for one in rest if isinstance(one, InputChunk)]
    ends = [one.at + one.seconds for one in chunks]
    assert [one.at for one in chunks[1:]] == pytest.approx(ends[:-1]), "none is left out"
    assert [sound.settled, *ends][-1] == pytest.approx(sound.at), "to the last of it"
    settled = sound.bytes - sum(len(one.raw) for one in chunks)
    assert 0 <= settled < JOINED_BYTES, "beside that, what is settled of the first"


@pytest.mark.parametrize("settled", [0.8, 1.0 - 256 / 16_000, 1.0])
async def test_answered_commit_is_not_replayed_though_unsettled_audio_before_it_is(
    settled: float,
) -> None:
    """An utterance begins before its first word, and a frame ends before the commit."""
    session = begun()
    await session.send(SECOND)
    session.commit()
    assert told_to(session) == ["InputChunk", "commit"]
    session.handle_event(TurnEnded(0, 0.0, 1.0, "words", committed=True))
    session.handle_event(InputProcessed(1.0, settled, 1))
    await session.send(SECOND)
    for _ in range(2):
        session.begins_anew()
        assert session.input_log.lead == pytest.approx(settled)
        assert set(told_to(session)) == {"InputChunk"}
    session.commit()
    session.begins_anew()
    assert told_to(session)[-1] == "commit"
    session.handle_event(TurnEnded(1, 1.0, 2.0, "more words", committed=True))
    session.lose()
    assert [one.committed for one in ends(session)] == [True, True, False]


def test_settled_audio_that_the_next_engine_needs_is_kept_and_replayed_first() -> None:
    held = InputLogTotals(1 << 30)
    sound = kept(held)
    for _ in range(4):
        sound.add(SECOND, SampleEncoding.PCM16, 16_000)
    sound.order(LiveOrder.COMMIT)
    sound.add(SECOND, SampleEncoding.PCM16, 16_000)
    taken(sound)
    sound.settle(4.0, 1, wanted=2.5)
    assert (sound.settled, sound.seconds) == (4.0, 1.0), "what is wanted counts for nobody"
    assert held.bytes == 3 * len(SECOND)
    sound.rewind()
    assert sound.lead == 2.5, "in the middle of a message"
    again = taken(sound)
    assert [each.at for each in again if isinstance(each, InputChunk)] == [2.5, 3.0, 4.0]
    assert LiveOrder.COMMIT not in again, "it was answered"
    sound.settle(5.0, 0, wanted=4.5)
    assert (sound.lead, held.bytes) == (4.5, len(SECOND))
    sound.clear()
    assert held.bytes == 0


@given(seed=st.integers(0, 2**32))
def test_audio_goes_to_every_engine_under_the_options_of_its_arrival(seed: int) -> None:
    """An engine takes, settles and dies at any time; turns are dropped, audio is lost."""
    chance, sound = random.Random(seed), kept()
    prompt, wanted = "", list[tuple[float, str]]()

    def check(engine: str, items: list[InputItem]) -> str:
        for one in items:
            if isinstance(one, LiveOptions):
                engine = one.prompt
            elif isinstance(one, InputChunk):
                asked = [
                    of for at, of in wanted if one.at - 1e-6 <= at < one.at + one.seconds - 1e-6
                ]
                assert set(asked) <= {engine}
        return engine

    engine = ""
    for number in range(60):
        match chance.randrange(7):
            case 0 | 1:
                wanted.append((sound.at, prompt))
                sound.add(SECOND[: 2 * chance.randrange(1, 99)], SampleEncoding.PCM16, 16_000)
            case 2:
                prompt = f"{number}"
                sound.order(LiveOptions(prompt=prompt))
            case 3 if (item := sound.take()) is not None:
                engine = check(engine, [item])
            case 4:
                sound.settle(chance.uniform(sound.settled, sound.at), 0)
            case 5 if chance.random() < 0.3:
                sound.lose()
                sound.rewind()
                engine = sound.options.prompt
            case 6 if chance.random() < 0.5:
                sound.rewind()
                engine = sound.options.prompt
    assert check(engine, taken(sound)) == prompt
    sound.rewind()
    assert check(sound.options.prompt, taken(sound)) == prompt


async def test_discarded_turn_is_replayed_as_silence_before_and_after_an_option_change_in_it() -> (
    None
):
    session = begun()
    await session.send(b"12" * 800)
    session.change(LiveOptions(prompt="other"))
    await session.send(b"12" * 800)
    session.cancel()
    assert told_to(session) == ["cancel", "silence", "LiveOptions", "silence"]
    session.handle_event(TurnDropped(0, 0.0))
    assert session.begins_anew().prompt == ""
    session.handle_event(InputProcessed(0.1, 0.1))
    assert told_to(session) == ["silence", "LiveOptions", "silence"]
    session.handle_event(InputProcessed(0.1, 0.1))
    assert session.begins_anew().prompt == "other"


def test_full_buffer_lets_one_session_of_each_owner_add_until_it_falls_silent() -> None:
    held = InputLogTotals(0)
    one, other = InputLog(held), InputLog(held)
    assert held.may_add(InputLog(held, "another"), 0.0)
    assert held.may_add(one, 0.0)
    assert held.may_add(one, 0.9)
    assert not held.may_add(other, 1.8)
    assert held.may_add(other, 1.9)
    assert not held.may_add(one, 2.0)


async def fill(totals: InputLogTotals, owner: str, count: int) -> list[Session]:
    """Sessions that no engine has, each with as much audio as it takes."""
    sessions = [
        Session(f"{owner} {number}", owner, LiveOptions(), SessionBounds(), totals, lambda: 0.0)
        for number in range(count)
    ]
    for session in sessions:
        taken = True
        while taken:
            sending = asyncio.ensure_future(session.send(SECOND))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            taken = sending.done()
            sending.cancel()
    return sessions


async def test_owner_that_fills_the_buffer_leaves_room_for_two_others_and_all_keep_within_it() -> (
    None
):
    totals = InputLogTotals(256 << 20)
    sessions = await fill(totals, "greedy", 150)
    assert 0.80 < totals.bytes / totals.most < 0.82
    sessions += await fill(totals, "modest", 40)
    sessions += await fill(totals, "late", 10)
    assert totals.by_owner["modest"] > 35 << 20
    assert totals.by_owner["late"] > 5 << 20
    assert totals.bytes < totals.most
    for session in sessions:
        session.input_log.clear()
    assert (totals.bytes, len(totals.by_owner), totals.turns) == (0, 0, {})


def begun() -> Session:
    """One that an engine has."""
    session = Session("n", "o", LiveOptions(), SessionBounds(), InputLogTotals(1 << 20))
    session.begins_anew()
    return session


def dropped(session: Session) -> list[int]:
    return [one.event.turn for one in session.event_log.kept if isinstance(one.event, TurnDropped)]


def ends(session: Session) -> list[TurnEnded]:
    return [one.event for one in session.event_log.kept if isinstance(one.event, TurnEnded)]


def told_to(session: Session) -> list[str]:
    """What an engine is told, in order."""
    items = []
    while (item := session.input_log.take()) is not None:
        silent = isinstance(item, InputChunk) and not any(item.raw)
        name = item.value if isinstance(item, LiveOrder) else type(item).__name__
        items.append("silence" if silent else name)
    return items


async def test_only_a_cancel_unanswered_at_an_engine_crash_is_sent_again_to_the_next_engine() -> (
    None
):
    session = begun()
    session.cancel()
    assert told_to(session) == ["cancel"]
    session.handle_event(TurnDropped(0, 0.0))
    session.begins_anew()
    assert told_to(session) == [], "it was answered before the engine died"
    await session.send(b"12" * 800)
    session.cancel()
    assert told_to(session) == ["cancel", "silence"], "the clock goes on"
    session.cancel()
    session.begins_anew()
    assert told_to(session) == ["cancel", "silence", "cancel"]
    session.handle_event(TurnDropped(1, 0.0))
    session.begins_anew()
    assert told_to(session) == ["silence", "cancel"]
    session.handle_event(TurnDropped(2, 0.0))
    assert session.input_log.bytes == 0
    assert dropped(session) == [0, 1, 2]


async def test_cancel_does_not_overtake_an_earlier_commit() -> None:
    session = begun()
    await session.send(b"12" * 800)
    session.commit()
    await session.send(b"12" * 800)
    session.cancel()
    await session.send(b"12" * 800)
    session.commit()
    everything = ["InputChunk", "commit", "cancel", "silence", "InputChunk", "commit"]
    assert told_to(session) == everything
    session.begins_anew()
    assert told_to(session) == everything, "and the next engine is told the same"
    session.handle_event(TurnEnded(0, 0.0, 0.05, "one", committed=True))
    session.handle_event(TurnDropped(1, 0.05))
    session.begins_anew()
    assert told_to(session) == everything[3:]


@pytest.mark.parametrize("taken_again", [0, 1, 2])
async def test_cancel_after_an_engine_crash_keeps_the_audio_of_the_turns_before(
    taken_again: int,
) -> None:
    """The engine that died had ended the first turn, whose words it had not sent."""
    session = begun()
    for _ in range(3):
        await session.send(b"12" * 16_000)
    assert told_to(session) == ["InputChunk"] * 3
    session.begins_anew()
    for _ in range(taken_again):
        session.input_log.take()
    await session.send(b"12" * 16_000)
    session.cancel()
    expected = ["InputChunk"] * (3 - taken_again) + ["cancel", "silence"]
    assert told_to(session) == expected
