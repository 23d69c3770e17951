"""Live audio by the Python client: over connections that break, and engines that die."""

import asyncio
import dataclasses
import errno
import json
import random
import threading
import wave
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from network_faults import network
from recordings import wav
from scripted_speech import pieces, talk
from service_process import Server, StartServer, new_file, wait_until
from vibevoice_asr_client import (
    NEVER,
    AnswerNotUnderstood,
    AsyncClient,
    Busy,
    Client,
    ClientError,
    ConnectionLost,
    Final,
    Noticed,
    Retry,
    ServiceUnreachable,
    Summary,
    codes,
)
from vibevoice_asr_client.calls import Answer
from vibevoice_asr_client.codes import SessionOver
from vibevoice_asr_client.flows import Surroundings
from vibevoice_asr_client.live_events import live_event_of
from vibevoice_asr_client.live_stream import Stream

from sidecar.api.live_messages import event_message
from sidecar.cli import remote_service
from sidecar.interfaces import live_events
from sidecar.live.sessions.event_log import NumberedEvent
from sidecar.transcripts.transcript import Notice, Segment, Transcript, Word

SOON = Retry(attempts=20, first_s=0.01, longest_s=0.05)
LOUDS = (0.3, 0.2, 0.35, 0.25)


@pytest.fixture(scope="module")
def whole(server: Server) -> list[Any]:
    """The events of a session that nothing happens to."""
    with Client(server.url) as client:
        return spoken(client)


def spoken(client: Client) -> list[Any]:
    with client.live(partials=False, diarize=False) as live:
        for piece in pieces(talk(*LOUDS)):
            live.send(piece)
        live.finish()
        return list(live)


def said(events: list[Any]) -> list[tuple[float, float, str]]:
    """What was said and when, by finals."""
    finals = [one.segment for one in events if isinstance(one, Final)]
    return [(one.start, one.end, one.text) for one in finals]


def test_live_client_yields_events_and_a_transcript(whole: list[Any]) -> None:
    numbers = [one.number for one in whole]
    assert numbers == sorted(set(numbers))
    assert len(said(whole)) == len(LOUDS)
    assert isinstance(whole[-1], Summary)
    transcript = whole[-1].transcript
    assert [(one.start, one.end, one.text) for one in transcript.segments] == said(whole)
    assert transcript.engine == "scripted"


async def test_cut_connections_of_a_live_session_lose_and_double_no_final_in_either_client(
    server: Server, whole: list[Any]
) -> None:
    with network(server.port, 0, 300, 500, 700, 900, 1100, 1300, 1500) as between:
        with Client(between.url, retry=SOON) as far:
            assert said(spoken(far)) == said(whole)
        assert between.connections >= 6
    with network(server.port, 900, 900, 900, 900, 900, 900) as between:
        async with (
            AsyncClient(between.url, retry=SOON) as far,
            far.live(partials=False, diarize=False) as live,
        ):
            for piece in pieces(talk(*LOUDS)):
                await live.send(piece)
                await asyncio.sleep(0.005)  # real time: a pace; it is cut after so many bytes
            await live.finish()
            events = [event async for event in live]
        assert between.connections >= 3
    assert said(events) == said(whole)
    assert events[-1].transcript.segments == whole[-1].transcript.segments


def test_killed_engine_gives_a_notice_and_the_same_finals_but_for_their_outer_words(
    start_server: StartServer, whole: list[Any]
) -> None:
    server = start_server()
    with Client(server.url) as client, client.live(partials=False) as live:
        rest = pieces(talk(*LOUDS))
        events = []
        for piece in rest[:35]:
            live.send(piece)
        for event in live:
            events.append(event)
            if isinstance(event, Final):
                break
        for worker in server.processes("sidecar.workers.worker_main"):
            worker.kill()
        for piece in rest[35:]:
            live.send(piece)
        live.finish()
        events += list(live)
    assert "engine_restarted" in [one.code for one in events if isinstance(one, Noticed)]
    # The fresh one cuts a little elsewhere: the word at each end has more or less of the quiet.
    inner = [[text.split()[1:-1] for *_, text in said(one)] for one in (events, whole)]
    assert inner[0] == inner[1]


@pytest.mark.slow
def test_session_over_its_grace_is_reported_as_gone_and_one_left_early_frees_its_place(
    start_server: StartServer,
) -> None:
    server = start_server(live_grace=0, live_sessions=1)
    with network(server.port, 600) as between, Client(between.url, retry=SOON) as far:
        with far.live() as live:
            live.send(talk(*LOUDS))
            with pytest.raises(codes.SessionNotFound) as gone:
                list(live)
            assert gone.value.hint
        with pytest.raises(codes.SessionNotFound):
            live.send(b"\0\0")
    with Client(server.url) as client:
        with client.live(), pytest.raises(Busy), client.live():
            pass
        with client.live() as live:  # who leaves early gives the session back at once
            live.send(bytes(3200))
        wait_until(lambda: opens(client), "the session is given back")


def opens(client: Client) -> bool:
    try:
        with client.live():
            return True
    except Busy:
        return False


async def test_wav_file_streamed_live_has_the_same_finals_in_both_clients_and_no_wav_is_an_error(
    server: Server, tmp_path: Path
) -> None:
    path = new_file(tmp_path / "talk.wav", wav(talk(0.3, 0.2, rate=48_000), rate=48_000))
    with Client(server.url) as client:
        here = list(client.live_file(path, pace=0, partials=False))
        async with AsyncClient(client.url) as other:
            there = [event async for event in other.live_file(path, pace=20, partials=False)]
        assert [text for *_, text in said(here)] == [text for *_, text in said(there)]
        assert len(said(here)) == 2
        path.write_bytes(path.read_bytes()[:-1])
        cut = list(client.live_file(path, pace=0, partials=False))
        assert [text for *_, text in said(cut)] == [text for *_, text in said(here)]
        path.write_bytes(b"RIFF, perhaps")
        with pytest.raises(ValueError, match="plain wav"):
            list(client.live_file(path))


async def test_recording_that_cannot_be_read_to_its_end_is_an_error_behind_its_words(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = new_file(tmp_path / "talk.wav", wav(talk(0.3)))
    read, left = wave.Wave_read.readframes, iter(range(0))

    def readframes(self: wave.Wave_read, count: int) -> bytes:
        if next(left, None) is None:
            raise OSError(errno.EIO, "Input/output error")
        return read(self, count)

    monkeypatch.setattr(wave.Wave_read, "readframes", readframes)
    with Client(server.url) as client:
        left, events = iter(range(15)), list[Any]()  # in the middle of a turn
        with pytest.raises(OSError, match="Input/output error"):
            events.extend(client.live_file(path, pace=0))
        left, others = iter(range(15)), list[Any]()

        async def hear(other: AsyncClient) -> None:
            async for event in other.live_file(path, pace=0):
                others.append(event)

        async with AsyncClient(client.url) as other:
            with pytest.raises(OSError, match="Input/output error"):
                await hear(other)
    for heard in (events, others):
        assert "w299" in said(heard)[-1][-1]
        assert isinstance(heard[-1], Summary)


def test_one_thread_may_send_while_another_receives_until_the_session_is_over(
    server: Server,
) -> None:
    with Client(server.url) as client:
        with client.live(turns="client", partials=False) as live:

            def speak() -> None:
                for loud in (0.3, 0.2):
                    live.send(talk(loud))
                    live.commit()
                live.change(language="de")
                live.finish()

            speaker = threading.Thread(target=speak)
            speaker.start()
            events = list(live)
            speaker.join()
            with pytest.raises(codes.SessionOver):
                live.send(b"\0\0")
        assert len(said(events)) == 2
        assert "vibevoice live" not in [thread.name for thread in threading.enumerate()]


def test_invalid_live_options_and_an_absent_service_have_errors_of_their_own(
    server: Server,
) -> None:
    with Client(server.url) as client:
        with pytest.raises(codes.FieldInvalid), client.live(tempo=3):
            pass
        with pytest.raises(ValueError, match="encoding"):
            client.live(encoding="mp3")
    nowhere = Client("http://127.0.0.1:1", retry=Retry(attempts=2, first_s=0.01))
    with pytest.raises(ServiceUnreachable), nowhere.live():
        pass


# What is decided, without sockets


class Service:
    """What the service keeps of a session, over connections; ``width``: bytes of a sample."""

    def __init__(self, width: int) -> None:
        self.sound, self.width = b"", width
        self.orders: list[tuple[int, str]] = []
        self.told = 0

    def began(self) -> str:
        return json.dumps({"type": "began", **self.counts()})

    def counts(self) -> dict[str, int]:
        return {
            "received_samples": len(self.sound) // self.width,
            "received_orders": len(self.orders),
        }

    def took(self, message: bytes | str) -> None:
        if isinstance(message, bytes):
            self.sound += message
        else:
            self.orders.append((len(self.sound), json.loads(message)["type"]))


AROUND = Surroundings(SOON, lambda: 0.5, lambda: datetime.now(UTC))


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(), st.integers(1, 2))
def test_random_cuts_deliver_audio_and_commands_once_and_in_order(
    steps: list[int], seed: int, channels: int
) -> None:
    dice, width = random.Random(seed), 2 * channels
    stream, service = Stream({"channels": channels}, "pcm16", 8, AROUND), Service(width)
    meant, orders = b"", []
    begun = False
    for step in [*steps, 5]:
        if step <= 1:
            piece = dice.randbytes(width * dice.randrange(1, 30))
            stream.sound(piece)
            meant += piece
        elif step == 2:
            stream.order("commit")
            orders.append((len(meant), "commit"))
        elif step == 3 and begun:
            stream.took(json.dumps({"type": "received", **service.counts()}))
        elif step == 4 and begun:
            for _ in range(dice.randrange(3)):
                if (message := stream.next()) is not None:
                    service.took(message)
        elif step == 5:  # what is on its way is lost; sometimes the answer is, too
            first = stream.next() if begun else None
            if isinstance(first, bytes):  # a part of it arrives, or nothing
                service.took(first[: dice.randrange(len(first) // width) * width])
            while begun and dice.random() < 0.5 and stream.next() is not None:
                pass
            if begun:
                stream.lost(None)
            opening = json.loads(stream.opening())
            assert opening["session"] == stream.session
            assert ("after" in opening) == begun
            stream.took(service.began())
            begun = True
    while (message := stream.next()) is not None:
        service.took(message)
        stream.took(json.dumps({"type": "received", **service.counts()}))
    assert (service.sound, service.orders) == (meant, orders)
    assert stream.waiting_s == 0


def begun(around: Surroundings, grace_s: float = 15.0) -> Stream:
    """A session that the service has opened."""
    stream = Stream({}, "pcm16", 8, around)
    stream.opening()
    began = {"received_samples": 0, "received_orders": 0, "grace_s": grace_s}
    stream.took(json.dumps({"type": "began", **began}))
    return stream


SEGMENT = Segment(0.25, 1.5, "Ever tried.", 1, (Word(0.25, 0.75, "Ever"),), (), "spread")
EVERY_EVENT = (
    live_events.SpeechStarted(2, 0.25),
    live_events.SpeechStopped(2, 1.5),
    live_events.Partial(2, 5, 0.25, 1.25, "Ever", "Ev", "tri"),
    live_events.Final(2, 5, SEGMENT, "en", 0.125, 0.25),
    live_events.Final(2, 5, dataclasses.replace(SEGMENT, speaker=None), "en"),
    live_events.TurnEnded(2, 0.25, 1.5, "Ever tried."),
    live_events.TurnDropped(2, 1.5),
    live_events.SpeakersRevised({5: 0, 6: 1}),
    live_events.NoticeRaised(Notice("engine_restarted", "It died.")),
    live_events.Summary(
        Transcript((SEGMENT,), "en", 2.0, "scripted", "fp32", diarized=True, recognized_s=1.5)
    ),
)


@pytest.mark.parametrize("event", EVERY_EVENT, ids=lambda event: type(event).__name__)
def test_every_live_event_survives_its_message(event: live_events.LiveEvent) -> None:
    said = live_event_of(json.loads(event_message(NumberedEvent(7, event, 1))))
    assert said is not None
    assert said.number == 7
    of_both = live_events.SpeakersRevised, live_events.Summary
    assert isinstance(event, of_both) or vars(said)["channel"] == 1
    assert remote_service.convert_live_event(said) == event


def test_live_events_of_the_message_test_are_all_kinds_that_clients_get() -> None:
    assert {type(event) for event in EVERY_EVENT} | {
        live_events.InputProcessed,  # told by `received`
        live_events.SpeakerEmbeddingsKnown,  # for the next engine, never for a client
        live_events.ContextKnown,
        live_events.SessionRejected,  # a client is told `live_full`
    } == set(get_args(live_events.LiveEvent))


def test_invalid_live_message_is_an_error_and_an_unknown_or_repeated_event_is_ignored() -> None:
    for said in (
        "[]",
        "{",
        '{"type": "began"}',
        '{"type": "began", "received_samples": 1, "received_orders": 0}',
        '{"type": "partial", "number": 1}',
    ):
        with pytest.raises(AnswerNotUnderstood):
            Stream({}, "pcm16", 16_000, AROUND).took(said)
    stream = Stream({}, "pcm16", 16_000, AROUND)
    assert stream.took('{"type": "yodel", "number": 1}') == [], "a newer service may say more"
    started = '{"type": "speech_started", "number": 3, "turn": 0, "at": 0.5}'
    assert len(stream.took(started)) == 1
    assert stream.took(started) == [], "it was there"
    stream.opening()
    assert json.loads(stream.opening())["after"] == 3
    with pytest.raises(ClientError):
        stream.lost(AnswerNotUnderstood("no"))


def test_unstarted_session_starts_again_and_a_started_one_is_gone() -> None:
    stream = Stream({}, "pcm16", 16_000, AROUND)
    stream.opening()
    assert stream.lost(None) > 0
    assert json.loads(stream.opening())["after"] == 0, "it may have got there"
    assert stream.lost(codes.SessionNotFound("none")) == 0
    assert "after" not in json.loads(stream.opening())
    stream.took('{"type": "began", "received_samples": 0, "received_orders": 0}')
    with pytest.raises(codes.SessionNotFound):
        stream.lost(codes.SessionNotFound("none"))


@pytest.mark.parametrize(("grace_s", "over_s"), [(15.0, 15.0), (90.0, 90.0), (0.0, 0.0)])
def test_lost_connection_is_retried_for_the_grace_of_the_session(
    grace_s: float, over_s: float
) -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    stream = begun(Surroundings(Retry(), lambda: 0.0, lambda: now), grace_s)
    start, waits = now, []
    with pytest.raises(ConnectionLost) as lost:  # noqa: PT012 - as often as it takes
        while True:
            waits.append(stream.lost(None))
            now += timedelta(seconds=waits[-1])
            stream.opening()
    assert lost.value.hint
    assert (now - start).total_seconds() >= over_s, "an attempt after it finds out"
    assert len(waits) >= Retry().attempts - 1
    if grace_s:
        assert max(waits) <= 2.0, "a service that is back soon is found in time"


def test_reconnects_of_many_clients_are_spread() -> None:
    def waits(chance: float) -> list[float]:
        """The pause after some failures, and the last one before the session is dropped."""
        now = datetime(2026, 11, 23, tzinfo=UTC)
        stream = begun(Surroundings(Retry(), lambda: chance, lambda: now))
        found = [stream.lost(None) for _ in range(5)]
        now += timedelta(seconds=14.9)
        return [found[-1], round(stream.lost(None), 3)]

    assert [waits(chance) for chance in (0.0, 0.5, 1.0)] == [[1.0, 0.2], [1.5, 0.7], [2.0, 1.2]]


@pytest.mark.parametrize("status", [404, 500, 502])
def test_answer_of_a_proxy_ends_an_unopened_session_and_not_one_in_its_grace(status: int) -> None:
    with pytest.raises((AnswerNotUnderstood, Busy)) as said:
        raise Answer(status, {}, "<html>Nothing here.</html>").error(datetime.now(UTC))
    opening, stream = Stream({}, "pcm16", 8, AROUND), begun(AROUND)
    opening.opening()
    for one in (opening, stream):
        with pytest.raises(type(said.value)):
            one.lost(said.value)
    for _ in range(3):
        stream.opening()
        assert stream.lost(said.value) > 0


def test_without_retries_a_lost_connection_ends_the_session() -> None:
    with pytest.raises(ConnectionLost):
        begun(dataclasses.replace(AROUND, retry=NEVER)).lost(None)


async def test_use_of_a_live_session_before_its_block_raises_not_begun() -> None:
    near, far = Client("http://127.0.0.1:1").live(), AsyncClient("http://127.0.0.1:1").live()
    for use in (lambda: near.send(b"\0\0"), near.finish, lambda: next(near)):
        with pytest.raises(SessionOver, match="not begun"):
            await asyncio.to_thread(use)
    near.close()
    for wait in (far.send(b"\0\0"), anext(far)):
        with pytest.raises(SessionOver, match="not begun"):
            await wait
