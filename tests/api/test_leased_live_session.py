"""A place for another service, as that one sees it: what is told of a session that it has."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import struct
from base64 import b64encode
from typing import Any, cast

import pytest
from scripted_speech import pieces, sound
from service_process import PATIENCE_S, Server, until, wait_until
from websockets.asyncio.client import ClientConnection, connect

from sidecar import errors
from sidecar.api.leased_live_session import LeaseConnection
from sidecar.interfaces.live_events import (
    UTTERANCE_DROPPED,
    Final,
    InputProcessed,
    LiveSessionStart,
    NoticeRaised,
    SpeechStarted,
    TurnEnded,
    to_wire,
)
from sidecar.interfaces.live_options import EndpointingOptions, LiveOptions, TurnControl
from sidecar.live.sessions.input_log import InputLogTotals
from sidecar.live.sessions.session import Session
from sidecar.live.sessions.session_limits import SessionBounds
from sidecar.transcripts.speaker_embeddings import SpeakerEmbedding
from sidecar.transcripts.transcript import Notice, Segment
from sidecar.upstream.remote_live_messages import (
    PROTOCOL_VERSION,
    RemoteEventChecker,
    RemoteSessionRequest,
    command_text,
)

SPEECH = sound((0.5, 0.0), (1.0, 0.3), (0.8, 0.0), (1.0, 0.2), (0.8, 0.0))
BEFORE = (Segment(1.0, 2.0, "so", 0), Segment(2.5, 3.0, "far", 1), Segment(3.5, 4.0, "and", 1))
VOICES = {
    one: SpeakerEmbedding(
        b64encode(struct.pack("<256e", *(float(at == one) for at in range(256)))).decode(), 1.0
    )
    for one in range(2)
}
GOING_ON = LiveSessionStart(5.0, 1, 7, BEFORE, 1, (2, 4, 6), VOICES, 4.5)
"""Two pieces of a turn that has ended, one of that which goes on, half a second to hear again."""


async def leased(
    server: Server, begin: LiveSessionStart, options: LiveOptions | None = None
) -> tuple[ClientConnection, dict[str, Any]]:
    """A connection, and what it is answered."""
    wanted = RemoteSessionRequest(PROTOCOL_VERSION, options or LiveOptions(), begin).to_wire()
    socket = await connect(f"ws://127.0.0.1:{server.port}/v1/live", proxy=None, max_size=None)
    await socket.send(json.dumps({"type": "begin", "lease": wanted}))
    return socket, json.loads(await socket.recv())


async def told(socket: ClientConnection) -> list[list[dict[str, Any]]]:
    """All that is told to the end, by messages, as the other side believes it."""
    found = []
    async with asyncio.timeout(PATIENCE_S):
        while not found or found[-1][-1]["live"] != "Summary":
            message = json.loads(await socket.recv())
            assert message["type"] in ("events", "received"), message
            if message["type"] == "events":
                found.append(message["events"])
    await socket.close()
    return found


async def test_a_final_comes_with_what_is_settled_by_it_and_never_alone(server: Server) -> None:
    options = LiveOptions(turns=TurnControl.CLIENT, endpointing=EndpointingOptions(silence_s=0.3))
    socket, began = await leased(server, LiveSessionStart(), options)
    assert (began["type"], began["form"]) == ("began", PROTOCOL_VERSION)
    for piece in pieces(SPEECH):
        await socket.send(piece)
    for order in ({"commit": True}, {"commit": True}, {"finish": True}):
        await socket.send(command_text(order))
    messages = await told(socket)
    believed = RemoteEventChecker(LiveSessionStart())
    believed.sent(SPEECH, "pcm16", 16_000)
    for message in messages:
        assert believed.events(message)
        kinds = [one["live"] for one in message]
        if "Final" in kinds:
            last = len(kinds) - 1 - kinds[::-1].index("Final")
            assert "Heard" in kinds[last:], kinds
    events = [event for message in messages for event in message]
    heard = [one for one in events if one["live"] == "Heard"]
    assert [one["commits"] for one in heard] == sorted(one["commits"] for one in heard)
    assert heard[-1]["commits"] == 2, "also of the turn in which nothing was said"
    assert sum(one["live"] == "VoicesKnown" for one in events)


def test_a_notice_is_believed_of_no_turn_and_of_a_new_one_but_not_of_one_that_was_told() -> None:
    believed = RemoteEventChecker(LiveSessionStart(turn=3))
    dropped = Notice(UTTERANCE_DROPPED, "Too many speak.")
    for turn in (None, 3):
        assert believed.events([to_wire(NoticeRaised(dropped, turn))])[0]["turn"] == turn
    with pytest.raises(ValueError, match="turn"):
        believed.events([to_wire(NoticeRaised(dropped, 2))])


async def test_one_that_goes_on_has_its_own_clock_numbers_and_words(server: Server) -> None:
    socket, _ = await leased(server, GOING_ON)
    await socket.send(command_text({"sound": "pcm16", "rate": 16_000}))
    await socket.send(sound((0.5, 0.3)) + SPEECH)
    await socket.send(command_text({"finish": True}))
    events = [event for message in await told(socket) for event in message]
    finals = [one for one in events if one["live"] == "Final"]
    assert [one["piece"] for one in finals] == [7, 8]
    assert [one["turn"] for one in finals] == [1, 2]
    assert finals[0]["segment"]["start"] == pytest.approx(5.3, abs=0.1), "the lead says nothing"
    ends = [one for one in events if one["live"] == "TurnEnded"]
    assert ends[0]["text"].startswith("and w"), "the turn had begun before"
    said = [one["text"] for one in events[-1]["transcript"]["segments"]]
    assert said[:3] == ["so", "far", "and"]
    assert len(said) == 5


async def test_who_has_another_version_or_says_no_such_session_is_refused(server: Server) -> None:
    for begin, form in (
        (LiveSessionStart(), PROTOCOL_VERSION + 1),
        (dataclasses.replace(GOING_ON, pieces=(2,)), PROTOCOL_VERSION),
        (dataclasses.replace(GOING_ON, lead=9.0), PROTOCOL_VERSION),
        (
            dataclasses.replace(GOING_ON, voices={0: SpeakerEmbedding("AAAA", 1.0)}),
            PROTOCOL_VERSION,
        ),
    ):
        wanted = {"form": form, "options": LiveOptions().to_wire(), "begin": begin.to_wire()}
        async with connect(f"ws://127.0.0.1:{server.port}/v1/live", proxy=None) as socket:
            await socket.send(json.dumps({"type": "begin", "lease": wanted}))
            answer = json.loads(await socket.recv())
        assert (answer["type"], answer["code"]) == ("error", "field_invalid")
    assert "Traceback" not in server.log()


async def test_a_session_ends_with_the_connection_of_who_has_it(server: Server) -> None:
    async def come_to(count: int) -> None:
        def seen() -> bool:
            page = server.client.get("/metrics").text
            return re.findall(r'live_sessions\{wire="lease"\} (\d+)', page) == [str(count)][:count]

        await asyncio.to_thread(wait_until, seen, PATIENCE_S, f"there are {count}")

    await come_to(0)  # a session of a test before may have just ended
    socket, _ = await leased(server, LiveSessionStart())
    await come_to(1)
    socket.transport.abort()
    await come_to(0)


@pytest.mark.parametrize(
    "said",
    ["no order", '{"type":"sound","encoding":"pcm16","rate":1}', '{"type":"begin"}', '{"a":1}'],
)
async def test_what_is_no_order_ends_it_with_a_word(said: str, server: Server) -> None:
    socket, _ = await leased(server, LiveSessionStart())
    await socket.send(said)
    async with asyncio.timeout(PATIENCE_S):
        while (answer := json.loads(await socket.recv()))["type"] != "error":
            pass
    assert answer["code"] == "message_invalid"
    assert "Traceback" not in server.log()


class Sent(list[str]):
    """What goes out, in a socket's place: which message has what is seen nowhere else."""

    async def send(self, *messages: str) -> None:
        self.extend(messages)


async def test_nothing_goes_out_between_a_final_and_what_it_settles() -> None:
    sent = Sent()
    session = Session("one", "anna", LiveOptions(), SessionBounds(), InputLogTotals(1 << 20))
    place = LeaseConnection(cast("Any", sent), session, LiveSessionStart())
    session.observers = [place]
    telling = asyncio.create_task(place.tell())
    for event in (
        Final(0, 0, Segment(0.0, 1.0, "so")),
        TurnEnded(0, 0.0, 1.0, "so", committed=True),
        SpeechStarted(1, 1.5),
    ):
        session.heard(event)
        await asyncio.sleep(0.01)
        assert not sent, "whoever goes on now has not heard of it"
    session.heard(InputProcessed(1.5, 1.0))
    await until(lambda: sent)
    (message,) = sent
    kinds = [one["live"] for one in json.loads(message)["events"]]
    assert (*kinds[:3], kinds[-1]) == ("Final", "TurnEnded", "SpeechStarted", "Heard")
    session.heard(Final(1, 1, Segment(1.5, 2.0, "and")))
    session.finish(asked=False)
    session.heard(InputProcessed(2.0, 2.0))
    with pytest.raises(errors.SessionHandedOver):
        await telling
    assert len(sent) == 1, "of what the end of the service cuts nobody is told"
