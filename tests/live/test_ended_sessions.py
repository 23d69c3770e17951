"""What a session says last that the service ends: its words, its summary, and then why."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from asgi_server import served
from live_wire import rest
from scripted_speech import tone
from service_process import PATIENCE_S, until
from websockets.asyncio.client import connect

from sidecar import errors
from sidecar.auth.authentication import AccessControl
from sidecar.auth.identity import ANONYMOUS, AuthMethod, Identity, SignedCredential
from sidecar.auth.rate_limits import RevocableStreams
from sidecar.config.settings import Settings
from sidecar.engines import scripted_engine
from sidecar.interfaces import live_events
from sidecar.interfaces.live_options import LiveOptions
from sidecar.live.sessions.engine_relay import AcquireLiveEngine
from sidecar.live.sessions.input_log import InputLogTotals
from sidecar.live.sessions.session import (
    FINISH_TIMEOUT_S,
    SAVE_TIMEOUT_S,
    SaveSession,
    Session,
)
from sidecar.live.sessions.session_limits import SessionBounds
from sidecar.live.sessions.session_registry import SessionRegistry
from sidecar.live.sessions.stereo_session import StereoSession
from sidecar.server.http_app import create_whole_app
from sidecar.service.facade import Service
from sidecar.transcripts.transcript import UNHEARD_FLAG, Segment, Transcript

Open = Callable[..., Awaitable[Service]]
REASONS = ("idle", "longest", "shutdown", "revoked", "events")
LIMITS: dict[str, Any] = {"live_idle": 100.0, "live_longest": 7000.0}
SPEECH = tone(1.6)
APPEND = json.dumps(
    {"type": "input_audio_buffer.append", "audio": base64.b64encode(SPEECH).decode()}
)


@dataclass
class Ending:
    """A service in which all sessions can be ended."""

    service: Service
    port: int
    streams: RevocableStreams
    now: float = 0.0
    revoked: bool = False
    local_only = False

    def identify(self, origin: object) -> Identity:
        return Identity("anna", AuthMethod.JWT, credential=SignedCredential("1", "key"))

    def refusal(self, credential: SignedCredential) -> str | None:
        return "was revoked" if self.revoked else None

    async def end(self, reason: str) -> None:
        if reason == "shutdown":
            await self.service.drain(PATIENCE_S)
        elif reason == "revoked":
            self.revoked = True
            self.streams.check_credentials()
        elif reason == "events":
            await until(lambda: all(one.reason for one in self.service.live.going_on()))
            self.service.live.check_time_limits()
        else:
            self.now = LIMITS[f"live_{reason}"] if reason == "longest" else 700.0
            for session in self.service.live.going_on() if reason == "longest" else ():
                session.touched = self.now
            self.service.live.check_time_limits()


@asynccontextmanager
async def ending_of(service: Service) -> AsyncIterator[Ending]:
    made = Ending(service, 0, RevocableStreams(lambda credential: made.refusal(credential)))
    service.live.now = lambda: made.now
    access = AccessControl(authenticator=made, streams=made.streams)
    async with served(create_whole_app(service, access, None)) as listener:
        made.port = listener.getsockname()[1]
        yield made


CLIENTS: dict[str, tuple[str, list[str | bytes], str]] = {
    "live": ("/v1/live", ['{"type": "begin"}', SPEECH], "summary"),
    "two channels": ("/v1/live", ['{"type": "begin", "channels": 2}', SPEECH * 2], "summary"),
    "realtime": ("/v1/realtime?intent=transcription", [APPEND], "completed"),
    "client ends turns": (
        "/v1/realtime?intent=transcription",
        [
            '{"type": "session.update", "session": {"type": "transcription", '
            '"audio": {"input": {"turn_detection": null}}}}',
            APPEND,
        ],
        "completed",
    ),
    "talk": ("/v1/realtime?model=gpt-realtime", [APPEND], "completed"),
    "s2s": ("/stream", [SPEECH], "transcript"),
    "yap": (
        "/api/asr-streaming",
        [
            json.dumps(
                {"type": kind, "session_id": "s", "request_id": "r", "payload": payload}
            )
            for kind, payload in (
                ("input_audio_buffer.commit", {"final": False}),
                ("input_audio_buffer.append", {"audio": base64.b64encode(SPEECH).decode()}),
            )
        ],
        "transcription.done",
    ),
}  # fmt: skip
LIVE_CLOSES = {"idle": 4408, "longest": 4408, "shutdown": 1000, "revoked": 4401, "events": 4408}
YAP_CLOSES = {"idle": 4000, "longest": 4003, "shutdown": 1001, "revoked": 4001, "events": 4003}
S2S_CLOSES = {"idle": 1008, "longest": 1008, "shutdown": 1001, "revoked": 1008, "events": 1008}
CLOSES = {
    "live": LIVE_CLOSES,
    "two channels": LIVE_CLOSES,
    "yap": YAP_CLOSES,
    "s2s": S2S_CLOSES,
}
OTHER_CLOSES = {"idle": 1008, "longest": 1008, "shutdown": 1001, "revoked": 3000, "events": 1008}
TOO_LONG = dict.fromkeys(("longest", "events"), "session_too_long")
CODES = TOO_LONG | {"idle": "session_idle", "shutdown": "shutting_down"}


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_open_utterance_of_a_session_that_the_service_ends_is_sent_before_the_reason(
    client: str, reason: str, open_service: Open
) -> None:
    path, sent, last = CLIENTS[client]
    service = await open_service(**LIMITS, voice_engine="scripted")
    if reason == "events":
        service.live.bounds = replace(service.live.bounds, events=0)
    async with ending_of(service) as ending:
        url = f"ws://127.0.0.1:{ending.port}{path}"
        async with connect(url, proxy=None, ping_interval=None) as socket:
            for message in sent:
                await socket.send(message)
            await until(lambda: any(one.received_s >= 1.0 for one in service.live.going_on()))
            await ending.end(reason)
            said, code = await rest(socket, leave=False)
    kinds = [one["type"] for one in said]
    [at] = [index for index, kind in enumerate(kinds) if kind.endswith(last)][-1:]
    assert '"w' in json.dumps(said[at]), "its words"
    if client in ("live", "two channels"):
        assert "final" in kinds[:at]
        wanted = CODES.get(reason, "token_invalid")
        assert wanted in [one["code"] for one in said if one["type"] == "notice"]
    assert "error" not in kinds[:at], "the reason is the last"
    assert len(service.live) == 0
    assert code == CLOSES.get(client, OTHER_CLOSES)[reason]


async def test_session_without_audio_is_ended_at_once_and_one_whose_engine_hangs_at_the_limit(
    open_service: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    service = await open_service(**LIMITS)
    service.live.now = lambda: now
    silent, hangs = (service.live.open(ANONYMOUS, LiveOptions(keep=True)) for _ in range(2))
    told: list[live_events.LiveEvent] = []
    await until(lambda: service.fleet.live.loaded)
    monkeypatch.setattr(Session, "conclude", lambda *_: asyncio.get_running_loop().create_future())
    await hangs.send(SPEECH)
    now = 100.0
    service.live.check_time_limits()
    assert (silent.over, hangs.over, hangs.finishing) == (True, False, True)
    await until(
        lambda: any(isinstance(one.event, live_events.Final) for one in hangs.event_log.kept)
    )
    now = 100.0 + FINISH_TIMEOUT_S - 1.0
    service.live.check_time_limits()
    assert not hangs.over
    now = 100.0 + FINISH_TIMEOUT_S
    service.live.check_time_limits()
    service.live.check_time_limits()
    with pytest.raises(errors.SessionIdle):
        await listen(hangs, told)
    assert [one.segment.text for one in told if isinstance(one, live_events.Final)]
    assert isinstance(told[-1], live_events.Summary)
    assert told[-1].transcript.segments[0].text.startswith("w")
    assert told[-1].job
    assert len(service.live) == 0


async def listen(session: Session, told: list[live_events.LiveEvent]) -> None:
    async for numbered in session.events():
        told.append(numbered.event)


def kept_session(
    acquire: AcquireLiveEngine,
    save: SaveSession,
    channel_names: Sequence[str] = (),
    now: Callable[[], float] = time.monotonic,
) -> tuple[SessionRegistry, Session]:
    live = SessionRegistry(scripted_engine.SPEC, acquire, Settings(), now=now, save=save)
    options = LiveOptions(keep=True)
    return live, live.open(ANONYMOUS, options, wire="live", channel_names=channel_names)


FINAL = live_events.Final(0, 0, Segment(0.0, 0.5, "Said"))


@pytest.mark.parametrize("end", ["no grace", "late words", "client gone", "longest"])
@pytest.mark.parametrize("channel_names", [(), ("Left", "Right")])
async def test_kept_session_whose_last_words_are_late_is_saved_before_its_engine_stops(
    channel_names: Sequence[str], end: str
) -> None:
    now, stopped, saved = 0.0, asyncio.Event(), list[str]()

    @asynccontextmanager
    async def hang() -> AsyncIterator[Any]:
        try:
            yield await asyncio.get_running_loop().create_future()
        finally:
            await stopped.wait()
            of_engine.handle_event(replace(FINAL, segment_number=1))

    async def save(session: Session, transcript: Transcript) -> str:
        saved.append(transcript.text)
        stopped.set()
        return "a job"

    live, session = kept_session(hang, save, channel_names, lambda: now)
    of_engine = session.sessions[0] if isinstance(session, StereoSession) else session
    await session.send(SPEECH * session.channels)
    await asyncio.sleep(0)
    for event in (live_events.SpeechStarted(0, 0.0), FINAL):
        of_engine.handle_event(event)
    if end in ("client gone", "longest"):
        if end == "longest":
            now = session.touched = live.bounds.longest_s
        else:
            session.finish()
            live.leave(session)
        for passed_s in (live.grace_s, FINISH_TIMEOUT_S, 0.2):
            live.check_time_limits()
            now += passed_s
        live.check_time_limits()
    else:
        async with asyncio.timeout(PATIENCE_S):
            await live.drain(0.0 if end == "no grace" else 0.01)
    told: list[live_events.LiveEvent] = []
    with pytest.raises(errors.SidecarError) as raised:
        await listen(session, told)
    codes = {"client gone": "engine_failed", "longest": "session_too_long"}
    assert raised.value.code == codes.get(end, "shutting_down")
    assert saved == ["Said"]
    assert isinstance(told[-1], live_events.Summary)
    assert (told[-1].transcript.text, told[-1].job) == ("Said", "a job")
    assert [one.code for one in told[-1].transcript.notices] == [raised.value.code]
    await live.close()


async def test_save_in_progress_at_the_end_of_the_grace_is_not_begun_again() -> None:
    saves, ended = list[str](), asyncio.Event()

    async def save(session: Session, transcript: Transcript) -> str:
        saves.append(transcript.text)
        await ended.wait()
        return "a job"

    @asynccontextmanager
    async def fail() -> AsyncIterator[Any]:
        yield await asyncio.get_running_loop().create_task(refuse())

    async def refuse() -> None:
        session.handle_event(FINAL)
        raise errors.EngineCrashed()

    live, session = kept_session(fail, save)
    await session.send(SPEECH)
    await until(lambda: saves)
    draining = asyncio.ensure_future(live.drain(0.0))
    for _ in range(10):
        await asyncio.sleep(0)
    ended.set()
    await draining
    assert saves == ["Said"]
    last = session.event_log.kept[-1].event
    assert isinstance(last, live_events.Summary)
    assert last.job == "a job"


async def test_finish_while_a_session_is_saved_does_not_shorten_the_time_for_that() -> None:
    options, bounds = LiveOptions(keep=True), SessionBounds()
    session = Session("s", "o", options, bounds, InputLogTotals(1 << 20), lambda: 0.0)
    saving = asyncio.Event()

    async def save(*_: object) -> str:
        saving.set()
        return await asyncio.get_running_loop().create_future()

    session.save = save
    await session.send(SPEECH)
    concluding = asyncio.ensure_future(session.conclude(session.transcript()))
    await saving.wait()
    session.finish()
    assert session.end_by == SAVE_TIMEOUT_S
    concluding.cancel()


@pytest.mark.parametrize("channels", [1, 2])
async def test_words_that_were_shown_are_final_if_no_engine_survives_their_audio(
    channels: int,
) -> None:
    parts = ("s", "o", LiveOptions(), SessionBounds(), InputLogTotals(1 << 20))
    session = Session(*parts) if channels == 1 else StereoSession(*parts, channel_names="AB")
    of_engine = session.sessions[0] if isinstance(session, StereoSession) else session
    await session.send(bytes(4 * 32_000 * channels))
    for one in session.sessions if isinstance(session, StereoSession) else (session,):
        one.handle_event(live_events.InputProcessed(3.5, 2.0 if one is of_engine else 3.0))
    for event in (
        live_events.SpeechStarted(0, 2.1),
        live_events.Partial(0, 0, 2.1, 2.9, "I would", "", "like"),
    ):
        of_engine.handle_event(event)
    assert session.event_log.progress_s == (3.5, 2.0)
    await of_engine.fail(errors.EngineCrashed())
    if of_engine is not session:
        await session.fail(errors.EngineCrashed())
    assert isinstance(session.event_log.wrong, errors.EngineCrashed)
    final, ended, summary = [one.event for one in session.event_log.kept][-3:]
    assert isinstance(final, live_events.Final)
    assert (final.segment.text, final.segment.flags) == (
        "I would like", (UNHEARD_FLAG,)
    )  # fmt: skip
    assert isinstance(ended, live_events.TurnEnded)
    assert ended.text == "I would like"
    assert isinstance(summary, live_events.Summary)
    assert [one.text for one in summary.transcript.segments] == ["I would like"]
    assert [one.code for one in summary.transcript.notices] == ["engine_crashed"]
    assert (summary.transcript.duration, summary.transcript.recognized_s) == (4.0, 2.0)


async def test_session_that_fails_before_a_word_has_no_summary() -> None:
    session = Session("s", "o", LiveOptions(), SessionBounds(), InputLogTotals(1 << 20))
    session.handle_event(live_events.SpeechStarted(0, 0.1))
    await session.fail(errors.LiveFull())
    assert not [one for one in session.event_log.kept if isinstance(one.event, live_events.Summary)]


async def test_kept_session_that_fails_before_a_word_has_a_summary_with_its_job() -> None:
    async def save(session: Session, transcript: Transcript) -> str:
        saved.append(transcript)
        return "a job"

    saved: list[Transcript] = []
    options = LiveOptions(keep=True)
    session = Session("s", "o", options, SessionBounds(), InputLogTotals(1 << 20))
    session.save = save
    await session.send(SPEECH)
    await session.fail(errors.EngineCrashed())
    summary = session.event_log.kept[-1].event
    assert summary == live_events.Summary(saved[0], "a job")
    assert (saved[0].recognized_s, saved[0].no_speech) == (0.0, False)
