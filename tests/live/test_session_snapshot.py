"""A live session on its way to another service: as it was, or not at all."""

from __future__ import annotations

import pytest

from sidecar import errors
from sidecar.interfaces.live_events import (
    ContextUtterance,
    Final,
    NoticeRaised,
    SpeakersRevised,
    SpeechStarted,
    TurnEnded,
)
from sidecar.interfaces.live_options import LiveOptions, SampleEncoding, TurnControl
from sidecar.live.sessions.event_log import EventLogState, NumberedEvent
from sidecar.live.sessions.input_log import InputChunk, InputCommit, InputDiscard, InputLogState
from sidecar.live.sessions.session_checkpoint import (
    SessionCheckpoint,
    parse_checkpoint,
    serialize_checkpoint,
    serialize_events,
)
from sidecar.transcripts.speaker_embeddings import SpeakerCandidate, SpeakerEmbedding
from sidecar.transcripts.transcript import Notice, Segment, Word

VOICE = SpeakerEmbedding("AAAA", 2.5)
SPOKEN = Segment(0.5, 1.5, "Ever tried.", 0, (Word(0.5, 1.0, "Ever"), Word(1.0, 1.5, "tried.")))
ONE = SessionCheckpoint(
    LiveOptions(
        "de",
        TurnControl.CLIENT,
        prompt="Nagg",
        known_voices=(SpeakerCandidate("1", "Nell", (VOICE,)),),
    ),
    EventLogState(
        7,
        1,
        (
            NumberedEvent(1, SpeechStarted(0, 0.5)),
            NumberedEvent(4, Final(0, 0, SPOKEN, "de", 0.1, 0.2, "Nell")),
            NumberedEvent(5, TurnEnded(0, 0.5, 1.5, "Ever tried.", committed=True)),
            NumberedEvent(6, SpeakersRevised({0: 1}, {1: None})),
            NumberedEvent(7, NoticeRaised(Notice("partials_late", "Later."))),
        ),
        {1: VOICE},
        (ContextUtterance(0.5, 1.5, (3, 1, 4)),),
    ),
    InputLogState(
        3.0,
        72_000,
        2.0,
        48_000,
        (2.0, 24_000),
        (
            InputChunk(2.0, b"later", SampleEncoding.FLOAT32, 48_000),
            InputCommit(2),
            InputDiscard(3),
            InputChunk(2.5, b"last", SampleEncoding.PCM16, 48_000),
        ),
        (InputChunk(1.0, b"before", SampleEncoding.PCM16, 16_000),),
        1.00005,
    ),
    3,
    1,
    ((2, 2.5), (3, 2.5)),
    True,
    61.5,
    "live",
)


def test_it_arrives_as_it_left() -> None:
    said, known = ONE.told.kept, ONE.options.known_voices
    assert (
        parse_checkpoint(
            serialize_checkpoint(ONE),
            [serialize_events(said[:2], known), serialize_events(said[2:])],
        )
        == ONE
    )


@pytest.mark.parametrize(
    "data", [b"", b"\0\0\0\2{}", serialize_checkpoint(ONE).replace(b'"version":3', b'"version":4')]
)
def test_what_another_version_wrote_is_no_session(data: bytes) -> None:
    with pytest.raises(errors.SessionNotFound):
        parse_checkpoint(data, [])
