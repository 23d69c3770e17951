"""What voices sound like is kept for an engine that has to go on, and said to nobody."""

from __future__ import annotations

from sidecar.interfaces.live_events import (
    Final,
    SpeakerEmbeddingsKnown,
    SpeakersRevised,
    from_wire,
    to_wire,
)
from sidecar.live.sessions.event_log import EventLog
from sidecar.transcripts.speaker_embeddings import SpeakerEmbedding
from sidecar.transcripts.transcript import Segment


async def test_no_client_hears_what_voices_sound_like() -> None:
    told = EventLog()
    voices = SpeakerEmbeddingsKnown({0: SpeakerEmbedding("AAAA", 2.5)})
    told.add(Final(0, 3, Segment(0.0, 1.0, "hello")))
    told.add(voices)
    told.add(SpeakersRevised({3: 0}))
    told.end()
    numbered = [one async for one in told.after(0)]
    assert [type(one.event) for one in numbered] == [Final, SpeakersRevised]
    assert [one.number for one in numbered] == [1, 2]
    begin = told.so_far(1.0)
    assert begin.voices == voices.voices
    assert (begin.pieces, begin.said[0].speaker) == ((3,), 0)


def test_voices_come_back_from_the_wire_between_our_processes() -> None:
    voices = SpeakerEmbeddingsKnown({4: SpeakerEmbedding("AAAA", 2.5)})
    assert from_wire(to_wire(voices)) == voices
