"""What a session says last that the service ends: its words, its summary, and then why."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
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
from sidecar.interfaces import live_events
from sidecar.interfaces.live_options import LiveOptions
from sidecar.live.sessions.input_log import InputLogTotals
from sidecar.live.sessions.session import FINISH_TIMEOUT_S, Session
from sidecar.live.sessions.session_limits import SessionBounds
from sidecar.live.sessions.stereo_session import StereoSession
from sidecar.server.http_app import create_whole_app
from sidecar.service.facade import Service

Open = Callable[..., Awaitable[Service]]
REASONS = ("idle", "longest", "shutdown", "revoked")
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
LIVE_CLOSES = {"idle": 4408, "longest": 4408, "shutdown": 1000, "revoked": 4401}
YAP_CLOSES = {"idle": 4000, "longest": 4003, "shutdown": 1001, "revoked": 4001}
S2S_CLOSES = {"idle": 1008, "longest": 1008, "shutdown": 1001, "revoked": 1008}
CLOSES = {
    "live": LIVE_CLOSES,
    "two channels": LIVE_CLOSES,
    "yap": YAP_CLOSES,
    "s2s": S2S_CLOSES,
}
OTHER_CLOSES = {"idle": 1008, "longest": 1008, "shutdown": 1001, "revoked": 3000}
CODES = {"idle": "session_idle", "longest": "session_too_long", "shutdown": "shutting_down"}


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_open_utterance_of_a_session_that_the_service_ends_is_sent_before_the_reason(
    client: str, reason: str, open_service: Open
) -> None:
    path, sent, last = CLIENTS[client]
    service = await open_service(**LIMITS, voice_engine="scripted")
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
    silent, hangs = (service.live.open(ANONYMOUS, LiveOptions()) for _ in range(2))
    await until(lambda: service.fleet.live.loaded)
    monkeypatch.setattr(Session, "conclude", lambda *_: asyncio.get_running_loop().create_future())
    await hangs.send(SPEECH)
    now = 100.0
    service.live.check_time_limits()
    assert (silent.over, hangs.over, hangs.finishing) == (True, False, True)
    now = 100.0 + FINISH_TIMEOUT_S - 1.0
    service.live.check_time_limits()
    assert not hangs.over
    now = 100.0 + FINISH_TIMEOUT_S
    service.live.check_time_limits()
    assert isinstance(hangs.event_log.wrong, errors.SessionIdle)


@pytest.mark.parametrize("channels", [1, 2])
async def test_words_that_were_shown_are_final_if_no_engine_survives_their_audio(
    channels: int,
) -> None:
    parts = ("s", "o", LiveOptions(), SessionBounds(), InputLogTotals(1 << 20))
    session = Session(*parts) if channels == 1 else StereoSession(*parts, channel_names="AB")
    of_engine = session.sessions[0] if isinstance(session, StereoSession) else session
    await session.send(bytes(32_000 * channels))
    for event in (
        live_events.SpeechStarted(0, 0.1),
        live_events.Partial(0, 0, 0.1, 0.9, "I would", "", "like"),
    ):
        of_engine.handle_event(event)
    await of_engine.fail(errors.EngineCrashed())
    if of_engine is not session:
        await session.fail(errors.EngineCrashed())
    assert isinstance(session.event_log.wrong, errors.EngineCrashed)
    final, ended, summary = [one.event for one in session.event_log.kept][-3:]
    assert isinstance(final, live_events.Final)
    assert (final.segment.text, final.segment.flags) == (
        "I would like", (live_events.AUDIO_UNHEARD,)
    )  # fmt: skip
    assert isinstance(ended, live_events.TurnEnded)
    assert ended.text == "I would like"
    assert isinstance(summary, live_events.Summary)
    assert [one.text for one in summary.transcript.segments] == ["I would like"]
    assert [one.code for one in summary.transcript.notices] == ["engine_crashed"]


async def test_session_that_fails_before_a_word_has_no_summary() -> None:
    session = Session("s", "o", LiveOptions(), SessionBounds(), InputLogTotals(1 << 20))
    session.handle_event(live_events.SpeechStarted(0, 0.1))
    await session.fail(errors.LiveFull())
    assert not [one for one in session.event_log.kept if isinstance(one.event, live_events.Summary)]
