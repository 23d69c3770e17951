"""A live session whose engine dies behind each of its events: the story is the same as without."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
import pytest

from sidecar.interfaces import live_events
from sidecar.interfaces.live_options import (
    ALL_AUDIO,
    LIVE_RATE,
    EndpointingOptions,
    LiveOptions,
    LiveOrder,
    TurnControl,
)
from sidecar.interfaces.recognition import PrecedingContext, RecognitionHypothesis, SegmentRequest
from sidecar.live.runtime.stream_recognizer import StreamRecognizer
from sidecar.live.sessions.input_log import InputChunk, InputLogTotals
from sidecar.live.sessions.session import Session
from sidecar.live.sessions.session_limits import SessionBounds

CHUNK_SAMPLES = 333
"""Of each message: frames, commits and messages end at different places."""
Kind = TypeVar("Kind", bound=live_events.LiveEvent)
Input = tuple[int, float] | LiveOrder | LiveOptions
"""Word and seconds of speech, 0 for silence; or what follows it."""


class EngineDied(Exception):
    pass


class Engine:
    """Engine that hears the words of `Input` in the audio, and dies behind its event ``lives``. Its
    text says also which words it was given as context."""

    def __init__(self, session: Session, lives: int) -> None:
        self.session, self._lives = session, lives
        options = session.begins_anew()
        log = session.input_log
        begin = session.event_log.so_far(log.settled, log.lead)
        self.recognizer = StreamRecognizer(options, begin, "made-up", "fp32", context=True)
        self._finishes = False

    def work(self) -> None:
        """Take all input, and recognize all that is due."""
        heard = self.recognizer
        while not heard.over:
            if (frames := heard.frames(1)) is not None:
                probability = 0.9 if np.abs(frames).mean() > 0.001 else 0.0
                self._tell(heard.process_frame(probability, 0.0))
            elif heard.orders:
                self._tell(heard.follow())
            elif (task := heard.next_recognition()) is not None:
                found = _hypothesis(heard.begin(task))
                self._tell(heard.add_hypothesis(task, found, 0.0, 0.0))
            elif not self._take():
                return

    def _take(self) -> bool:
        item = self.session.input_log.take()
        if isinstance(item, InputChunk):
            samples = np.frombuffer(item.raw, "<i2").astype(np.float32)
            self.recognizer.push(samples / 32768, 0.0)
        elif item is not None:
            self.recognizer.push(item, 0.0)
        elif self.session.finishing and not self._finishes:
            self._finishes = True
            self.recognizer.push(LiveOrder.FINISH, 0.0)
        else:
            return False
        return True

    def _tell(self, events: Iterable[live_events.LiveEvent]) -> None:
        for event in events:
            self.session.handle_event(event)
            self._lives -= 1
            if not self._lives and not self.recognizer.over:
                raise EngineDied


def _hypothesis(request: SegmentRequest) -> RecognitionHypothesis:
    before = request.preceding_context or PrecedingContext((), 0)
    words = tuple(_words(request.audio[before.samples :]))
    text = " ".join([f"w{word}" for word in words] + [f"after-{word}" for word in before.said])
    return RecognitionHypothesis(text if words else "", tokens=words)


def _words(audio: np.ndarray) -> Iterator[int]:
    """Words that were said for a fifth of a second at least; a segment begins before its first."""
    said = np.rint(np.abs(audio) * 100).astype(int)
    for word, samples in zip(*np.unique(said, return_counts=True), strict=True):
        if word and samples >= LIVE_RATE // 5:
            yield int(word)


async def told(
    options: LiveOptions, inputs: Iterable[Input], lives: int = -1
) -> tuple[list[live_events.LiveEvent], bool]:
    """All events but progress, if the first engine dies behind its event ``lives``; whether it
    died."""
    session = Session("n", "o", options, SessionBounds(), InputLogTotals(1 << 30))
    engine, died = Engine(session, lives), False

    def work() -> None:
        nonlocal engine, died
        try:
            engine.work()
        except EngineDied:
            engine, died = Engine(session, -1), True

    for one in inputs:
        if session.finishing:
            break
        if isinstance(one, LiveOptions):
            session.change(one)
        elif one is LiveOrder.COMMIT:
            session.commit()
        elif one is LiveOrder.CANCEL:
            session.cancel()
        elif not isinstance(one, LiveOrder):
            word, seconds = one
            rest = np.full(round(seconds * LIVE_RATE), word / 100 * 32768).astype("<i2")
            for at in range(0, len(rest), CHUNK_SAMPLES):
                if session.finishing:
                    break
                await session.send(rest[at : at + CHUNK_SAMPLES].tobytes())
                work()
        work()
    session.finish()
    work()
    work()
    return [one.event for one in session.event_log.kept], died


def of(events: Iterable[live_events.LiveEvent], kind: type[Kind]) -> list[Kind]:
    return [one for one in events if isinstance(one, kind)]


def story(events: list[live_events.LiveEvent]) -> list[object]:
    """What clients act on: the starts and ends of turns with their texts, and the whole text."""
    turns = [
        (one.turn, one.text, one.committed)
        if isinstance(one, live_events.TurnEnded)
        else (type(one).__name__, one.turn)
        for one in events
        if isinstance(
            one, live_events.TurnEnded | live_events.TurnDropped | live_events.SpeechStarted
        )
    ]
    return [*turns, *(one.transcript.text for one in of(events, live_events.Summary))]


COMMIT, CANCEL = LiveOrder.COMMIT, LiveOrder.CANCEL
SHORT = EndpointingOptions(longest_s=2.0)
PAUSES: tuple[Input, ...] = (
    (0, 0.5),
    (11, 1.0),
    (0, 0.8),
    (12, 1.0),
    (0, 2.0),
    (13, 0.5),
    (0, 1.0),
)


@pytest.mark.parametrize(
    ("options", "inputs"),
    [
        pytest.param(LiveOptions(), PAUSES, id="pauses end turns"),
        pytest.param(
            LiveOptions(endpointing=SHORT),
            ((11, 1.5), (12, 1.6), (0, 3.0), (13, 1.0), (0, 1.0)),
            id="a long turn is cut",
        ),
        pytest.param(
            LiveOptions(turns=TurnControl.CLIENT),
            (*PAUSES[:3], COMMIT, (0, 0.21), (12, 1.0), COMMIT, (0, 1.0), (13, 0.7), COMMIT),
            id="commits end turns",
        ),
        pytest.param(
            LiveOptions(turns=TurnControl.CLIENT, endpointing=ALL_AUDIO),
            ((11, 1.01), COMMIT, (0, 1.0), (12, 1.0), COMMIT, COMMIT, (13, 1.0)),
            id="commits end turns of all audio",
        ),
        pytest.param(
            LiveOptions(turns=TurnControl.CLIENT),
            (*PAUSES[:3], COMMIT, *PAUSES[3:5], CANCEL, *PAUSES[5:], COMMIT),
            id="a turn is dropped",
        ),
        pytest.param(
            LiveOptions(turns=TurnControl.CLIENT),
            (*PAUSES[:5], LiveOptions(), (0, 1.0), *PAUSES[5:]),
            id="pauses end turns from a pause on",
        ),
        pytest.param(LiveOptions(turns=TurnControl.ONE), PAUSES, id="a pause ends the session"),
        pytest.param(
            LiveOptions(),
            (*PAUSES[:3], LiveOptions(turns=TurnControl.ONE), *PAUSES[3:]),
            id="the next pause ends the session",
        ),
    ],
)
async def test_engine_death_after_any_event_loses_and_doubles_no_turn_commit_or_word(
    options: LiveOptions, inputs: tuple[Input, ...]
) -> None:
    whole, _ = await told(options, inputs)
    different, lives = {}, 0
    died = True
    while died:
        lives += 1
        events, died = await told(options, inputs, lives)
        if story(events) != story(whole):
            different[lives] = story(events)
    assert lives > 10
    assert not different
