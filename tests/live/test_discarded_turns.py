"""Every wish that a turn be forgotten is answered once, whatever becomes of the engine."""

from __future__ import annotations

from sidecar.interfaces.live_events import TurnDropped, TurnEnded
from sidecar.interfaces.live_options import LiveOptions
from sidecar.live.sessions.input_log import InputChunk, InputCommit, InputLogTotals
from sidecar.live.sessions.session import Session
from sidecar.live.sessions.session_limits import SessionBounds


def dropped(session: Session) -> list[int]:
    return [one.event.turn for one in session.told._kept if isinstance(one.event, TurnDropped)]


def told_to(session: Session) -> list[str]:
    """What an engine is told, in order."""
    items = []
    while (item := session.sound.take()) is not None:
        silent = isinstance(item, InputChunk) and not any(item.raw)
        items.append("silence" if silent else type(item).__name__)
    return items


async def test_what_an_engine_died_over_is_forgotten_by_the_next_one() -> None:
    session = Session(
        "n", "o", LiveOptions(), SessionBounds(), InputLogTotals(1 << 20), now=lambda: 0.0
    )
    session.begins_anew()
    session.forget()
    assert told_to(session) == ["InputDiscard"]
    session.heard(TurnDropped(0, 0.0))
    session.begins_anew()
    assert told_to(session) == [], "it was answered before the engine died"
    await session.send(b"12" * 800)
    session.forget()
    assert told_to(session) == ["InputDiscard", "silence"], "the clock goes on"
    session.forget()
    session.begins_anew()
    assert told_to(session) == ["InputDiscard", "silence", "InputDiscard"]
    session.heard(TurnDropped(1, 0.0))
    session.begins_anew()
    assert told_to(session) == ["silence", "InputDiscard"]
    session.heard(TurnDropped(2, 0.0))
    assert session.sound.bytes == 0
    assert dropped(session) == [0, 1, 2]


async def test_what_was_committed_before_is_not_overtaken() -> None:
    session = Session(
        "n", "o", LiveOptions(), SessionBounds(), InputLogTotals(1 << 20), now=lambda: 0.0
    )
    session.begins_anew()
    await session.send(b"12" * 800)
    session.commit()
    await session.send(b"12" * 800)
    session.forget()
    await session.send(b"12" * 800)
    session.commit()
    everything = [
        "InputChunk",
        "InputCommit",
        "InputDiscard",
        "silence",
        "InputChunk",
        "InputCommit",
    ]
    assert told_to(session) == everything
    session.begins_anew()
    assert told_to(session) == everything, "and the next engine is told the same"
    session.heard(TurnEnded(0, 0.0, 0.05, "one", committed=True))
    session.heard(TurnDropped(1, 0.05))
    session.begins_anew()
    assert told_to(session) == everything[3:]


def test_a_commit_that_was_answered_is_not_asked_of_the_next_engine() -> None:
    session = Session(
        "n", "o", LiveOptions(), SessionBounds(), InputLogTotals(1 << 20), now=lambda: 0.0
    )
    session.begins_anew()
    for _ in range(2):
        session.commit()
        assert isinstance(session.sound.take(), InputCommit)
    session.heard(TurnEnded(0, 0.0, 0.0, "", committed=True))
    session.begins_anew()
    assert isinstance(session.sound.take(), InputCommit), "the second has no answer yet"
    assert session.sound.take() is None
