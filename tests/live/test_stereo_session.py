"""Live sessions with two channels on a scripted engine: limits, buffers, faults of one channel.

Two people who talk: `tests/api/test_live_channels.py`."""

import array
import asyncio
import dataclasses
import gc
import itertools
import weakref
from collections.abc import Awaitable, Callable

import pytest
from scripted_speech import sound, talk
from service_process import PATIENCE_S, until

from sidecar import errors
from sidecar.api.gauges import gauges, metrics_nested
from sidecar.auth.identity import ANONYMOUS, Identity, OwnerLimits
from sidecar.interfaces.live_events import (
    RECOGNITION_FAILED,
    UTTERANCE_DROPPED,
    Final,
    InputProcessed,
    NoticeRaised,
    SpeechStarted,
    Summary,
    TurnEnded,
)
from sidecar.interfaces.live_options import LiveOptions, TurnControl
from sidecar.live.runtime.load_shedding import PARTIALS_LATE_NOTICE
from sidecar.live.sessions import engine_relay
from sidecar.live.sessions.event_log import NumberedEvent
from sidecar.live.sessions.input_log import InputLogTotals
from sidecar.live.sessions.session import ENGINE_RESTARTED_NOTICE, Session
from sidecar.live.sessions.session_limits import SessionBounds
from sidecar.live.sessions.stereo_session import StereoSession
from sidecar.service.facade import Service
from sidecar.transcripts.transcript import Notice, Segment, Transcript

Open = Callable[..., Awaitable[Service]]
NAMES = "Left", "Right"
SECOND = 64_000
"""Bytes of both channels."""
LONG = sound((0.5, 0.0), (2.0, 0.3), (1.0, 0.0), (1.5, 0.1), (1.0, 0.0), (10.0, 0.2), (1.0, 0.0))


def both(left: bytes, right: bytes) -> bytes:
    """Two channels of the same length, interleaved."""
    samples = array.array("h", bytes(len(left) + len(right)))
    samples[0::2], samples[1::2] = array.array("h", left), array.array("h", right)
    return samples.tobytes()


def opened(service: Service, identity: Identity = ANONYMOUS, **options: object) -> StereoSession:
    given = LiveOptions(**options)  # type: ignore[arg-type]
    session = service.live.open(identity, given, channel_names=NAMES)
    assert isinstance(session, StereoSession)
    return session


def unserved(totals: InputLogTotals | None = None, **options: object) -> StereoSession:
    """A session without an engine."""
    totals = totals or InputLogTotals(1 << 20)
    given = LiveOptions(**options)  # type: ignore[arg-type]
    return StereoSession("one", "me", given, SessionBounds(), totals, channel_names=NAMES)


async def told(
    session: Session, raw: bytes, sent: Callable[[], object] = lambda: None
) -> list[NumberedEvent]:
    """All events of a session that hears this; ``sent``: called after each second."""

    async def read() -> list[NumberedEvent]:
        return [one async for one in session.events()]

    reading = asyncio.create_task(read())
    for at in range(0, len(raw), SECOND):
        await session.send(raw[at : at + SECOND])
        sent()
    session.finish()
    return await reading


def of(events: list[NumberedEvent], kind: type, channel: int) -> list[NumberedEvent]:
    return [one for one in events if isinstance(one.event, kind) and one.channel == channel]


async def test_stereo_session_counts_as_two_in_the_limit_of_its_owners_sessions(
    open_service: Open,
) -> None:
    service = await open_service(live_sessions=4, live_sessions_per_owner=3)
    first = opened(service)
    with pytest.raises(errors.LiveLimited):
        opened(service)
    service.live.open(ANONYMOUS, LiveOptions())
    service.live.end(first)
    opened(service)


@pytest.mark.parametrize("limit", ["live_sessions", "live_sessions_per_owner"])
async def test_stereo_session_under_a_limit_of_one_session_is_refused_as_field_invalid(
    open_service: Open, limit: str
) -> None:
    service = await open_service(**{"live_sessions": 4, limit: 1})
    with pytest.raises(errors.FieldInvalid):
        opened(service)
    limited = dataclasses.replace(ANONYMOUS, limits=OwnerLimits(live_sessions=1))
    with pytest.raises(errors.FieldInvalid):
        opened(await open_service(), limited)


async def test_mono_or_stereo_session_alone_on_a_slow_machine_loses_no_utterance(
    open_service: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_HEAR", "1.0")
    service = await open_service(live_delay=1)
    left = sound((0.5, 0.0), (2.0, 0.3), (4.5, 0.0))
    right = sound((4.0, 0.0), (2.0, 0.2), (1.0, 0.0))
    mono = service.live.open(ANONYMOUS, LiveOptions())
    for session, raw in ((mono, left), (None, both(left, right))):  # the first measures the cost
        events = await told(session or opened(service), raw)
        assert isinstance(events[-1].event, Summary)
        finals = [one.event for one in events if isinstance(one.event, Final)]
        assert len(finals) == (1 if session else 2)
        codes = [one.event.notice.code for one in events if isinstance(one.event, NoticeRaised)]
        assert UTTERANCE_DROPPED not in codes


async def test_stereo_sessions_together_buffer_little_more_audio_than_the_limit_and_lose_no_turn(
    open_service: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_HEAR", "0.1")
    service = await open_service(live_buffer_mb=1)
    service.live.held.turn_s = PATIENCE_S  # nobody falls silent
    sessions = [opened(service, partials=False) for _ in range(2)]
    buffer_s = 12.0
    for one in sessions:
        one.bounds = dataclasses.replace(one.bounds, buffer_s=buffer_s)
    held = list[tuple[int, float]]()

    def see() -> None:
        held.append((service.live.held.bytes, max(one.input_log.seconds for one in sessions)))

    stories = await asyncio.gather(*(told(one, both(LONG, LONG), see) for one in sessions))
    most, seconds = map(max, zip(*held, strict=True))
    alone = int(buffer_s) * SECOND  # of the one who may go on
    assert 1 << 20 <= most <= (1 << 20) + alone + len(sessions) * SECOND
    silence_s = sessions[0].options.endpointing.silence_s
    assert 1.0 < seconds < buffer_s + silence_s + 1.0
    for events in stories:
        for channel in (0, 1):
            assert len(of(events, TurnEnded, channel)) == 3
    assert service.live.held.bytes == 0


async def test_channels_have_the_words_of_mono_sessions_and_their_names_and_leave_no_turn_open(
    open_service: Open,
) -> None:
    service = await open_service()
    left, right = talk(0.3, 0.2), talk(0.1, 0.4)
    events = await told(opened(service), both(left, right))
    texts = [[one.event.segment.text for one in of(events, Final, channel)] for channel in (0, 1)]
    for mono, text in zip((left, right), texts, strict=True):
        session = service.live.open(ANONYMOUS, LiveOptions())
        await session.send(mono)
        session.finish()
        found = [one.event async for one in session.events()]
        assert text == [one.segment.text for one in found if isinstance(one, Final)]
    summary = events[-1].event
    assert isinstance(summary, Summary)
    assert [one.name for one in summary.transcript.voices] == list(NAMES)
    assert service.metrics.live.speaking == 0
    assert service.metrics.live.orphaned.total == 0
    assert service.metrics.live.ended.total == 3
    assert [one.event.turn for one in of(events, SpeechStarted, 1)] == [1, 3]


async def test_engine_killed_by_one_channel_ends_the_session_and_its_job_has_finals_of_both(
    open_service: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_POISON", "w699,w700")
    service = await open_service()
    session = opened(service, partials=False, keep=True)
    before = both(talk(0.3), talk(0.2))
    await session.send(before)
    await until(lambda: sum(isinstance(one.event, Final) for one in session.event_log.kept) == 2)
    await session.send(both(talk(0.7), talk(0.2)))
    with pytest.raises(errors.EngineCrashed):
        [one async for one in session.events()]
    await until(lambda: service.live.held.bytes == 0)
    (record,) = await service.owned.jobs(ANONYMOUS)
    assert (record.audio_info.channels, record.options.diarize) == (2, False)
    _, transcript = await service.owned.transcript(ANONYMOUS, record.id)
    assert {one.speaker for one in transcript.segments[:2]} == {0, 1}
    assert [one.name for one in transcript.voices] == list(NAMES)
    assert [one.code for one in transcript.notices] == ["engine_crashed"]


async def test_job_of_a_failed_session_has_all_finals_that_were_sent_and_no_audio_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = unserved(keep=True)
    jobs = list[Transcript]()

    async def relay(channel: Session, *_: object, **__: object) -> None:
        if channel is session.sessions[0]:
            channel.end(errors.EngineCrashed())
            return
        for piece in itertools.count():
            channel.handle_event(Final(0, piece, Segment(piece, piece + 1.0, "hello")))
            await asyncio.sleep(0)

    async def save(_: Session, transcript: Transcript) -> str:
        jobs.append(transcript)
        for _ in range(9):
            await asyncio.sleep(0)
        with pytest.raises(errors.SessionOver):
            await session.send(bytes(SECOND))
        return "job"

    monkeypatch.setattr(engine_relay, "relay_session", relay)
    session.save = save
    await session.send(bytes(SECOND))
    await engine_relay.relay_channels(session, lambda: pytest.fail("no engine is needed"))
    sent = [
        one.event.segment.start for one in session.event_log.kept if isinstance(one.event, Final)
    ]
    (job,) = jobs
    assert sent
    assert sent == [one.start for one in job.segments]
    assert isinstance(session.event_log.wrong, errors.EngineCrashed)


def test_change_of_a_stereo_session_to_one_turn_is_refused() -> None:
    session = unserved()
    with pytest.raises(errors.FieldInvalid):
        session.change(LiveOptions(turns=TurnControl.ONE))
    assert session.options.turns is TurnControl.SILENCE


def test_each_channel_counts_as_speaking_and_processed_time_is_that_of_the_slower() -> None:
    session = unserved()
    metrics = session.event_metrics.live_metrics
    for one in session.sessions:
        one.handle_event(SpeechStarted(0, 0.5))
    assert metrics.speaking == 2
    session.sessions[0].handle_event(TurnEnded(0, 0.5, 1.0, "hello"))
    assert metrics.speaking == 1
    for one, at in zip(session.sessions, (2.0, 1.0), strict=True):
        one.handle_event(InputProcessed(at, at))
    assert session.event_log.progress_s[0] == 1.0
    session.end()
    assert metrics.speaking == 0
    assert metrics.orphaned.total == 1


async def test_stereo_session_counts_as_two_in_the_gauges(open_service: Open) -> None:
    service = await open_service()
    opened(service)
    service.live.open(ANONYMOUS, LiveOptions(), wire="realtime")
    assert len(service.live) == 3
    assert metrics_nested(service)["active_sessions"] == 3
    (gauge,) = (one for one in gauges(service) if one.name.endswith("live_sessions"))
    assert gauge.values == {("",): 2, ("realtime",): 1}


def test_notice_of_the_whole_session_is_sent_once_and_one_of_a_segment_for_its_channel() -> None:
    session = unserved()
    first, second = session.sessions
    restarted = NoticeRaised(ENGINE_RESTARTED_NOTICE)
    failed = NoticeRaised(Notice(RECOGNITION_FAILED, ""))
    late = NoticeRaised(PARTIALS_LATE_NOTICE)
    for one in (first, second, second, first, first):
        one.handle_event(restarted)
    for one in (first, first, second):
        one.handle_event(late)
    for one in (first, second):
        one.handle_event(failed)
    sent = [(one.event, one.channel) for one in session.event_log.kept]
    assert sent == [
        *[(restarted, None)] * 3,
        *((late, 0), (late, 0), (late, 1)),
        *((failed, 0), (failed, 1)),
    ]


def test_ended_session_that_had_the_turn_to_add_to_a_full_buffer_is_not_kept_in_memory() -> None:
    totals = InputLogTotals(1 << 20)
    session = unserved(totals)
    totals.bytes = totals.most
    assert totals.may_add(session.input_log, 0.0)
    session.end()
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None
