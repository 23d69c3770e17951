"""A live session on its way to another service: as it was, or not at all."""

from __future__ import annotations

import pytest

from sidecar import errors
from sidecar.interfaces.live_engine import Encoding, LiveOptions, Turns
from sidecar.interfaces.live_events import (
    Final,
    Noticed,
    SpeakersRevised,
    SpeechStarted,
    TurnEnded,
    Understood,
)
from sidecar.live.sessions.event_log import Numbered, ToldState
from sidecar.live.sessions.input_log import Chunk, Commit, Forget, SoundState
from sidecar.live.sessions.session_checkpoint import Carried, packed, packed_story, unpacked
from sidecar.transcripts.speaker_embeddings import KnownVoice, VoicePrint
from sidecar.transcripts.transcript import Notice, Segment, Word

VOICE = VoicePrint("AAAA", 2.5)
SPOKEN = Segment(0.5, 1.5, "Ever tried.", 0, (Word(0.5, 1.0, "Ever"), Word(1.0, 1.5, "tried.")))
ONE = Carried(
    LiveOptions(
        "de", Turns.CLIENT, prompt="Nagg", known_voices=(KnownVoice("1", "Nell", (VOICE,)),)
    ),
    ToldState(
        7,
        1,
        (
            Numbered(1, SpeechStarted(0, 0.5)),
            Numbered(4, Final(0, 0, SPOKEN, "de", 0.1, 0.2, "Nell")),
            Numbered(5, TurnEnded(0, 0.5, 1.5, "Ever tried.", committed=True)),
            Numbered(6, SpeakersRevised({0: 1}, {1: None})),
            Numbered(7, Noticed(Notice("partials_late", "Later."))),
        ),
        {1: VOICE},
        (Understood(0.5, 1.5, (3, 1, 4)),),
    ),
    SoundState(
        3.0,
        72_000,
        2.0,
        48_000,
        (2.0, 24_000),
        (
            Chunk(2.0, b"later", Encoding.FLOAT32, 48_000),
            Commit(2),
            Forget(3),
            Chunk(2.5, b"last", Encoding.PCM16, 48_000),
        ),
        (Chunk(1.0, b"before", Encoding.PCM16, 16_000),),
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
    assert unpacked(packed(ONE), [packed_story(said[:2], known), packed_story(said[2:])]) == ONE


@pytest.mark.parametrize(
    "data", [b"", b"\0\0\0\2{}", packed(ONE).replace(b'"version":3', b'"version":4')]
)
def test_what_another_version_wrote_is_no_session(data: bytes) -> None:
    with pytest.raises(errors.SessionNotFound):
        unpacked(data, [])
