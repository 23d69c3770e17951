"""Live sessions of a front that hears nothing: who hears them dies, stops, fills up or talks
nonsense, and no word of theirs is lost or said twice.

All are real processes; the sound is such that each word says where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import signal
import socket
import ssl
import threading
import wave
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import moonshine_voice
import pytest
from proxies import RoundRobin
from recordings import run_ffmpeg
from remote_live_services import Ears, sessions_of
from scripted_speech import pieces, sound
from service_process import PATIENCE_S, Server, free_port, wait_until
from vibevoice_asr_client import (
    Client,
    Final,
    Retry,
    ServiceError,
    SpeechStarted,
    SpeechStopped,
    Summary,
)
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from sidecar.auth import self_signed_certificate
from sidecar.auth.identity import ANONYMOUS
from sidecar.engines import engine_spec
from sidecar.errors import LiveFull, UpstreamUnreachable
from sidecar.interfaces.engine_interface import UpstreamOptions
from sidecar.interfaces.live_events import LiveSessionStart
from sidecar.interfaces.live_options import LiveOptions
from sidecar.live.sessions import session_registry
from sidecar.live.sessions.engine_relay import SharedLiveEngine
from sidecar.live.sessions.session_limits import SessionBounds, SessionLimits
from sidecar.upstream import load_balancer
from sidecar.workers import remote_live_call
from sidecar.workers.engine_slot import EngineState
from sidecar.workers.remote_live_engine import RemoteEngineSlot

ONCE = Retry(attempts=0)
PACE = 2.0
"""Seconds of the recording that go up in a second."""
TURNS = [(0.5, 0.0), *[part for n in range(6) for part in ((1.5, 0.1 + n / 10), (1.0, 0.0))]]


def finals(events: list[Any]) -> list[tuple[float, float, str]]:
    """All that was told: from when to when, and what."""
    return [
        (round(one.segment.start, 2), round(one.segment.end, 2), one.segment.text)
        for one in events
        if isinstance(one, Final)
    ]


def told_once(events: list[Any], whole: list[tuple[float, float, str]]) -> None:
    """Every word, in its place, and none twice; at the end as well."""
    assert finals(events) == whole
    assert len({one.piece for one in events if isinstance(one, Final)}) == len(whole)
    numbers = [event.number for event in events]
    assert numbers == sorted(set(numbers))
    assert isinstance(events[-1], Summary)
    assert [one.text for one in events[-1].transcript.segments] == [text for *_, text in whole]


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds that somebody says."""
    path = tmp_path_factory.mktemp("spoken") / "spoken.wav"
    clip = Path(moonshine_voice.get_assets_path()) / "beckett.wav"
    run_ffmpeg("-i", clip, "-ar", 16_000, "-ac", 1, path)
    return path


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six turns, each louder than the one before: so are its words, and so it is another's."""
    path = tmp_path_factory.mktemp("loud") / "loud.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", "NONE"))
        file.writeframes(sound(*TURNS))
    return path


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ears]:
    home = tmp_path_factory.mktemp("front")
    with Ears(home, ears={"live_sessions": 2, "shutdown_grace": 60}) as running:
        yield running


@pytest.fixture(scope="module")
def whole(front: Ears, loud: Path) -> list[Any]:
    """What one says that hears for itself."""
    with Client(str(front.ears[0].client.base_url)) as client:
        return list(client.live_file(loud, pace=10, partials=False))


def heard(
    front: Server,
    path: Path,
    seen: Callable[[Any], None] = lambda event: None,
    pace: float = PACE,
) -> list[Any]:
    """All that a client hears, which looks at each event as it comes."""
    events: list[Any] = []
    with Client(str(front.client.base_url), retry=ONCE) as client:
        for event in client.live_file(path, pace=pace, partials=False):
            events.append(event)
            seen(event)
    return events


@pytest.mark.slow
def test_two_that_die_in_a_word_and_in_a_silence_cost_no_word(tmp_path: Path, spoken: Path) -> None:
    with Ears(tmp_path, 3, ears={"live_engine": "moonshine"}) as front:
        with Client(str(front.ears[0].client.base_url)) as client:
            alone = finals(list(client.live_file(spoken, pace=PACE, partials=False)))
        killed: list[Server] = []
        to_come = {(Final, 1), (SpeechStopped, 2)}

        def kill(event: Any) -> None:
            word = isinstance(event, SpeechStarted) and event.turn == 1 and not killed
            # Who dies before it has told the word is taken to have died of it, as the one before.
            to_come.discard((type(event), getattr(event, "turn", -1)))
            silence = not to_come and len(killed) == 1
            if word or silence:
                killed.append(front.who_hears())
                for process in reversed(killed[-1].family()):
                    process.kill()
                killed[-1].process.wait(PATIENCE_S)

        events = heard(front, spoken, kill)
        assert len(killed) == 2
        told_once(events, alone)
        assert sessions_of(front) == 0


@pytest.mark.slow
def test_speakers_and_times_stay_what_they_were_at_whoever_goes_on(
    front: Ears, loud: Path, whole: list[Any]
) -> None:
    ended: list[Server] = []

    def end(event: Any) -> None:
        if isinstance(event, SpeechStarted) and event.turn == 3:
            ended.append(front.who_hears())
            ended[-1].process.terminate()

    events = heard(front, loud, end)
    told_once(events, finals(whole))
    assert events[-1].transcript.segments == whole[-1].transcript.segments
    assert not [one for one in events if getattr(one, "code", "") == "engine_restarted"]
    assert ended[0].process.wait(PATIENCE_S) == 0
    front.begins(ended[0])


@pytest.mark.slow
def test_one_that_says_nothing_any_more_is_left(front: Ears, loud: Path, whole: list[Any]) -> None:
    stopped: list[Server] = []

    def stop(event: Any) -> None:
        if isinstance(event, SpeechStarted) and event.turn == 1:
            stopped.append(front.who_hears())
            stopped[-1].process.send_signal(signal.SIGSTOP)

    try:
        told_once(heard(front, loud, stop), finals(whole))
        assert "upstream_failed" in front.log()
    finally:
        for one in stopped:
            one.process.send_signal(signal.SIGCONT)
    wait_until(lambda: not sessions_of(stopped[0]), PATIENCE_S, "it has left the session as well")


async def begun(server: Server, name: str) -> Any:
    """A session that is heard, and the connection that has it; else why not, told first."""
    socket = await connect(f"ws://127.0.0.1:{server.port}/v1/live", proxy=None)
    await socket.send(json.dumps({"type": "begin", "session": name}))
    for piece in pieces(sound((0.5, 0.0), (1.0, 0.3), (1.0, 0.0))):
        await socket.send(piece)
    async with asyncio.timeout(PATIENCE_S):
        first = json.loads(message := await socket.recv())
        if first["type"] == "error":
            return socket, first
        while json.loads(message := await socket.recv())["type"] != "final":
            pass
    return socket, json.loads(message)


async def test_all_of_them_take_as_many_as_each_takes_and_no_more(front: Ears) -> None:
    sockets = []
    for number in range(4):
        socket, last = await begun(front, f"one-{number}")
        assert last["type"] == "final"
        sockets.append(socket)
    assert [sessions_of(one) for one in front.ears] == [2, 2]
    socket, refused = await begun(front, "one-more")
    assert refused["code"] == "live_full"
    assert refused["retry_after"] > 0
    for one in (*sockets, socket):
        await one.close()
    await asyncio.to_thread(
        wait_until,
        lambda: not any(map(sessions_of, front.ears)),
        PATIENCE_S,
        "who is not wanted any more is left",
    )


async def test_a_place_that_is_long_in_coming_keeps_nobody_from_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_registry, "REMOTE_START_WAIT_S", 0.01)
    coming = asyncio.Event()

    @contextlib.asynccontextmanager
    async def share() -> AsyncIterator[SharedLiveEngine]:
        await coming.wait()
        raise LiveFull
        yield

    spec = dataclasses.replace(engine_spec("upstream"), sessions=2)
    sessions = session_registry.SessionRegistry(spec, share, SessionLimits(), SessionBounds())
    first = sessions.open(ANONYMOUS, LiveOptions())
    await sessions.placed(first)
    assert not first.over
    second = sessions.open(ANONYMOUS, LiveOptions())
    coming.set()
    monkeypatch.setattr(session_registry, "REMOTE_START_WAIT_S", PATIENCE_S)
    with pytest.raises(LiveFull):
        await sessions.placed(second)
    assert sessions.going_on() == []
    await sessions.close()


def refused(start: Callable[..., Server], upstream: str, loud: Path, **more: object) -> str:
    """What a session is told that nobody takes."""
    there = start(live_engine="upstream", upstream=upstream, **more)
    with pytest.raises(ServiceError) as wrong:
        heard(there, loud, pace=10)
    assert there.client.get("/readyz").status_code < 500
    return str(wrong.value)


def test_who_has_no_key_for_it_is_told_so(start_server: Callable[..., Server], loud: Path) -> None:
    strict = start_server(token="the right one for it")
    name = f"http://127.0.0.1:{strict.port}"
    said = refused(start_server, name, loud, upstream_key="another key")
    assert "upstream_refused" in said
    assert "key" in said
    assert "another key" not in strict.log()


@pytest.mark.slow
def test_where_nobody_is_a_session_waits_for_a_moment_and_ends(
    start_server: Callable[..., Server], loud: Path
) -> None:
    said = refused(start_server, f"http://127.0.0.1:{free_port()}", loud)
    assert "upstream_unreachable" in said


async def test_who_is_back_gets_a_session_although_they_still_stand_aside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load_balancer, "MIN_BACKOFF_S", load_balancer.MAX_BACKOFF_S)
    port = free_port()
    slot = RemoteEngineSlot(engine_spec("upstream"), UpstreamOptions((f"http://127.0.0.1:{port}",)))
    begin = {"options": LiveOptions().to_wire(), "begin": LiveSessionStart().to_wire()}
    with pytest.raises(UpstreamUnreachable):
        async with slot.calling("live", **begin):
            pass

    async def takes(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(json.dumps(BEGAN))
        await socket.wait_closed()

    async with serve(takes, "127.0.0.1", port), slot.calling("live", **begin):
        assert slot.state is EngineState.BUSY
    await slot.close()


async def test_where_all_are_silent_nobody_is_asked_again_once_a_session_has_waited_long_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_live_call, "BEGIN_TIMEOUT_S", 0.2)
    monkeypatch.setattr(load_balancer, "UNREACHABLE_WAIT_S", 0.3)
    monkeypatch.setattr(load_balancer, "MIN_BACKOFF_S", 0.01)
    silent = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    urls = tuple(f"http://127.0.0.1:{one.getsockname()[1]}" for one in silent)
    slot = RemoteEngineSlot(engine_spec("upstream"), UpstreamOptions(urls))
    begin = {"options": LiveOptions().to_wire(), "begin": LiveSessionStart().to_wire()}
    with pytest.raises(UpstreamUnreachable):
        async with slot.calling("live", **begin):
            pass
    await slot.close()
    for one in silent:
        with one:
            one.setblocking(False)
            one.accept()[0].close()
            with pytest.raises(BlockingIOError):
                one.accept()


@pytest.mark.slow
def test_over_tls_nobody_is_believed_but_who_has_a_certificate_that_is_named(
    start_server: Callable[..., Server], front: Ears, loud: Path, whole: list[Any], tmp_path: Path
) -> None:
    pytest.importorskip("cryptography")
    pair = self_signed_certificate.ensure_certificate(tmp_path / "tls", frozenset({"localhost"}))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    proxy = RoundRobin(front.ears[0].port, tls=context)
    name = f"https://localhost:{proxy.port}"
    assert "upstream_refused" in refused(start_server, name, loud)
    there = start_server(live_engine="upstream", upstream=name, upstream_ca=pair.certificate)
    told_once(heard(there, loud, pace=10), finals(whole))
    proxy.close()


@contextlib.contextmanager
def stand_in(talk: Callable[[ServerConnection], Any]) -> Iterator[int]:
    """Somebody at a port who answers as ``talk`` does."""
    ready, port = threading.Event(), [0]
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async with serve(talk, "127.0.0.1", 0) as server:
            port[0] = server.sockets[0].getsockname()[1]
            ready.set()
            await stop.wait()

    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    ready.wait(PATIENCE_S)
    try:
        yield port[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


BEGAN = {"type": "began", "session": "x", "form": 1}
HEARD = {"live": "Heard", "at": 0.1, "settled": 0.0}


def events(*said: object) -> list[object]:
    """A place, and what is told of the session in it."""
    return [BEGAN, {"type": "events", "events": said}]


NONSENSE: dict[str, list[object]] = {
    "no JSON": ["hello"],
    "half an event": events({"live": "Final", "turn": 0}),
    "bytes": [b"\0\1"],
    "a time that no sound was sent for": events({**HEARD, "at": 1e9, "settled": 1e9}),
    "words of another service": [{"type": "session.created"}],
    "a number that is none": [BEGAN, '{"type":"events","events":[{"live":"Heard","at":NaN}]}'],
    "words at no time": [
        BEGAN,
        '{"type":"events","events":[{"live":"Final","turn":0,"piece":0,'
        '"segment":{"start":0.1,"end":1e999,"text":"never"}}]}',
    ],
    "no such version": [{"type": "error", "code": "field_invalid", "message": "'lease'"}],
    "speakers of pieces that nobody told": events({"live": "SpeakersRevised", "speakers": {7: 1}}),
    "an end at once": [],
}


class Babble:
    """Somebody at a port, who says what the test wants."""

    def __init__(self) -> None:
        self.what = ""
        self.visits = 0

    async def __call__(self, socket: ServerConnection) -> None:
        """One connection."""
        self.visits += 1
        await socket.recv()
        for said in NONSENSE[self.what]:
            await socket.send(said if isinstance(said, str | bytes) else json.dumps(said))
        with contextlib.suppress(Exception):
            while NONSENSE[self.what]:
                await socket.recv()


@pytest.fixture(scope="module")
def babble() -> Babble:
    return Babble()


@pytest.fixture(scope="module")
def misled(
    babble: Babble, front: Ears, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A front that takes the one for somebody who hears, and another who does."""
    with stand_in(babble) as port:
        names = f"http://127.0.0.1:{port},http://127.0.0.1:{front.ears[0].port}"
        home = tmp_path_factory.mktemp("misled")
        with Server(home, live_engine="upstream", upstream=names) as there:
            yield there


@pytest.mark.slow_except("no JSON")
@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_costs_no_word_where_somebody_else_can_hear(
    what: str, babble: Babble, misled: Server, loud: Path, whole: list[Any]
) -> None:
    babble.what, babble.visits = what, 0
    for _ in range(100):
        if not babble.visits:  # it may still rest
            told_once(heard(misled, loud, pace=20), finals(whole))
    assert babble.visits
    assert "Traceback" not in misled.log()
