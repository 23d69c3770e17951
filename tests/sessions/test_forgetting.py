"""Every wish that a turn be forgotten is answered once, whatever becomes of the engine."""

from __future__ import annotations

from sidecar.sessions.session import Bounds, Session
from sidecar.sessions.sound import Commit, Held
from sidecar.speech.live import LiveOptions, TurnDropped, TurnEnded


def dropped(session: Session) -> list[int]:
    return [one.event.turn for one in session.told._kept if isinstance(one.event, TurnDropped)]


def test_what_an_engine_died_over_is_forgotten_by_the_next_one() -> None:
    session = Session("n", "o", LiveOptions(), Bounds(), Held(1 << 20), now=lambda: 0.0)
    session.begins_anew()
    session.forget()
    assert session.orders() == [{"forget": True}]
    session.heard(TurnDropped(0, 0.0))
    session.begins_anew()
    assert dropped(session) == [0], "it was answered before the engine died"
    session.forget()
    assert session.orders() == [{"forget": True}]
    session.forget()
    session.begins_anew()
    assert dropped(session) == [0, 1, 2], "one that had been told it, and one that had not"
    assert session.orders() == []
    session.begins_anew()
    assert dropped(session) == [0, 1, 2]


def test_a_commit_that_was_answered_is_not_asked_of_the_next_engine() -> None:
    session = Session("n", "o", LiveOptions(), Bounds(), Held(1 << 20), now=lambda: 0.0)
    session.begins_anew()
    for _ in range(2):
        session.commit()
        assert isinstance(session.sound.take(), Commit)
    session.heard(TurnEnded(0, 0.0, 0.0, "", committed=True))
    session.begins_anew()
    assert isinstance(session.sound.take(), Commit), "the second has no answer yet"
    assert session.sound.take() is None
