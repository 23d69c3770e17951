"""Live sessions on a real engine's process: sound in, a story out, whatever happens between."""

import asyncio
import dataclasses
import functools
import os
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from scripted_speech import sound
from service_process import PATIENCE_S, new_file, until, workers

from sidecar import errors
from sidecar.auth.identity import ANONYMOUS, AuthMethod, Identity, OwnerLimits
from sidecar.config.settings import Settings
from sidecar.engines import engine_spec
from sidecar.interfaces.live_events import (
    RECOGNITION_FAILED,
    Final,
    InputProcessed,
    LiveEvent,
    NoticeRaised,
    Partial,
    SpeechStopped,
    Summary,
    TurnDropped,
    TurnEnded,
)
from sidecar.interfaces.live_options import (
    EndpointingOptions,
    LiveOptions,
    SampleEncoding,
    TurnControl,
)
from sidecar.live.sessions.input_log import FREE_PARTS, InputItem, InputLogTotals
from sidecar.live.sessions.session import AUDIO_LOST_NOTICE, SAVE_TIMEOUT_S, Session
from sidecar.live.sessions.session_limits import SessionBounds
from sidecar.live.sessions.session_registry import SessionRegistry
from sidecar.service.facade import Service
from sidecar.transcripts.transcript import Segment, SpeakerCandidate
from sidecar.workers.engine_loading import WorkerLoader
from sidecar.workers.worker_process import WorkerProcess

RATE = 16_000
OTHER = Identity("other", AuthMethod.TOKEN)
Open = Callable[..., Awaitable[Service]]


CHUNK = 32_000
"""A second."""
SPEECH = sound((0.5, 0.0), (2.0, 0.3), (1.0, 0.0), (1.5, 0.1), (1.0, 0.0), (10.0, 0.2), (1.0, 0.0))


async def say(session: Session, said: bytes, *form: Any, step: int = 3200) -> None:
    for at in range(0, len(said), step):
        await session.send(said[at : at + step], *form)


async def story(session: Session) -> list[LiveEvent]:
    return [one.event async for one in session.events()]


async def heard(session: Session, said: bytes, *form: Any, step: int = 3200) -> list[LiveEvent]:
    reading = asyncio.create_task(story(session))
    await say(session, said, *form, step=step)
    session.finish()
    return await reading


def of(told: list[LiveEvent], kind: type[Any]) -> list[Any]:
    return [one for one in told if isinstance(one, kind)]


async def test_speech_gives_partials_turns_and_a_summary_and_then_frees_the_sessions_place(
    open_service: Open,
) -> None:
    service = await open_service()
    session = service.live.open(ANONYMOUS, LiveOptions(words=True, diarize=False))
    told: list[LiveEvent] = []

    async def read() -> None:
        async for one in session.events():
            told.append(one.event)

    reading = asyncio.create_task(read())
    await say(session, SPEECH[: 2 * CHUNK])
    await until(lambda: of(told, Partial), "in the middle of a turn there are words")
    await say(session, SPEECH[2 * CHUNK :])
    session.finish()
    await reading
    finals: list[Final] = of(told, Final)
    assert [one.turn for one in finals] == [0, 1, 2, 2]
    assert [one.turn for one in of(told, TurnEnded)] == [0, 1, 2]
    [summary] = of(told, Summary)
    assert summary is told[-1]
    assert [one.segment for one in finals] == list(summary.transcript.segments)
    assert finals[0].segment.words[0].text.startswith("w")
    assert summary.transcript.duration == pytest.approx(17.0, abs=0.05)
    assert session.received_s == 17.0
    assert len(service.live) == 0, "what has said all takes nobody's place"
    service.live.end(session)
    with pytest.raises(errors.SessionNotFound):
        service.live.find(ANONYMOUS, session.id)


@pytest.mark.parametrize(("wire", "first"), [("live", ["engine_loading"]), ("yap", [])])
async def test_loading_notice_is_sent_while_the_engine_loads_except_on_yap_and_no_overload_notice(
    wire: str, first: list[str], open_service: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hold = new_file(tmp_path / "hold", b"")
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_LOAD_HOLD", str(hold))
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_HEAR", "0.005")
    service = await open_service(live_delay=1.0)
    session = service.live.open(ANONYMOUS, LiveOptions(), wire=wire)
    reading = asyncio.create_task(story(session))
    await say(session, SPEECH)
    session.finish()
    await until(lambda: codes(session) == first, "it is told")
    assert not service.fleet.live.loaded, "before the engine is there"
    hold.unlink()
    told = await reading
    assert [one.notice.code for one in of(told, NoticeRaised)] == first
    assert of(told, Summary)
    warm = await heard(service.live.open(ANONYMOUS, LiveOptions(), wire=wire), SPEECH[:CHUNK])
    assert "engine_loading" not in {one.notice.code for one in of(warm, NoticeRaised)}


async def test_duration_of_the_summary_is_exact_to_the_sample(open_service: Open) -> None:
    service = await open_service()
    for seconds in (10.0, 1.2345):
        session = service.live.open(ANONYMOUS, LiveOptions())
        [summary] = of(await heard(session, sound((seconds, 0.0))), Summary)
        assert summary.transcript.duration == session.received_s


@pytest.mark.slow_except("[1]")
@pytest.mark.parametrize("kills", [1, 3])
async def test_killed_engine_costs_a_notice_and_at_most_a_few_words_and_no_turn(
    open_service: Open, kills: int
) -> None:
    service = await open_service()
    options = LiveOptions(partials=False, turns=TurnControl.CLIENT)

    async def session(*, dies: bool) -> list[LiveEvent]:
        one = service.live.open(ANONYMOUS, options)
        reading = asyncio.create_task(story(one))

        def is_in(part: int) -> bool:
            return one.input_log.settled > 17.0 * part + 4.0

        for part in range(kills + 1):
            await say(one, SPEECH)
            one.commit()
            if dies and part < kills:
                await until(functools.partial(is_in, part), "it hears")
                for worker in workers():
                    worker.kill()
        one.finish()
        return await reading

    whole, told = await session(dies=False), await session(dies=True)
    assert [one.notice.code for one in of(told, NoticeRaised)].count("engine_restarted") == kills
    [before], [after] = of(whole, Summary), of(told, Summary)
    words = [" ".join(one.text for one in each.transcript.segments) for each in (before, after)]
    assert len(words[1].split()) == pytest.approx(len(words[0].split()), abs=6)
    assert [one.turn for one in of(told, TurnEnded)] == list(range(kills + 1))
    counts = [[len(one.text.split()) for one in of(each, TurnEnded)] for each in (whole, told)]
    assert counts[0] == [pytest.approx(count, abs=2) for count in counts[1]]
    starts = [one.segment.start for one in of(told, Final)]
    assert starts == sorted(starts)


async def test_forgiving_session_survives_killed_engines_without_their_audio_and_ends_its_turns(
    open_service: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its client ended and dropped meanwhile is told in its order, all of it; that the next
    engine hears is seen in `tests/plugins/conversation/test_conversation_failures.py`."""
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_HEAR", "60")
    service = await open_service()
    options = LiveOptions(turns=TurnControl.CLIENT)
    session = service.live.open(ANONYMOUS, options, forgiving=True)
    begun, begins = list[bool](), session.begins_anew
    taken, take = list[InputItem | None](), session.input_log.take
    monkeypatch.setattr(
        session, "begins_anew", lambda: (taken.clear(), begun.append(True), begins())[-1]
    )
    monkeypatch.setattr(session.input_log, "take", lambda: (taken.append(take()), taken[-1])[1])
    reading = asyncio.create_task(story(session))
    await say(session, SPEECH[: 2 * RATE])
    session.commit()
    await say(session, SPEECH[2 * RATE : 4 * RATE])
    session.cancel()
    lost_s = session.received_s

    times = 0

    def hears() -> bool:
        return len(begun) > times and taken[-1:] == [None]

    while AUDIO_LOST_NOTICE.code not in codes(
        session
    ):  # how much was settled may differ between two of them
        await until(lambda: AUDIO_LOST_NOTICE.code in codes(session) or hears(), "it hears")
        if AUDIO_LOST_NOTICE.code not in codes(session):
            times = len(begun)
            for worker in workers():
                worker.kill()
    assert times >= 2
    assert (session.over, session.input_log.bytes, session.input_log.settled) == (False, 0, lost_s)
    service.live.end(session)
    told = await reading
    notices = [(at, one) for at, one in enumerate(told) if isinstance(one, NoticeRaised)]
    [(lost, notice)] = [one for one in notices if one[1].notice == AUDIO_LOST_NOTICE]
    assert session.event_log.progress_s[1] == notice.missing_from
    assert notice.missing_from < lost_s
    ends = [one for one in told[lost:] if isinstance(one, TurnEnded | TurnDropped)]
    assert [type(one) for one in ends] == [TurnEnded, TurnEnded, TurnDropped]
    assert [one.turn for one in ends] == sorted({one.turn for one in ends})
    assert [getattr(one, "committed", None) for one in ends] == [False, True, None]


def codes(session: Session) -> list[str]:
    return [
        one.event.notice.code
        for one in session.event_log.kept
        if isinstance(one.event, NoticeRaised)
    ]


async def test_sessions_are_limited_in_all_and_per_owner_and_ids_are_separate_for_each_owner(
    open_service: Open,
) -> None:
    service = await open_service(live_sessions=3, live_sessions_per_owner=2)
    first = service.live.open(ANONYMOUS, LiveOptions(), "mine")
    with pytest.raises(errors.SessionTaken):
        service.live.open(ANONYMOUS, LiveOptions(), "mine")
    service.live.open(ANONYMOUS, LiveOptions())
    with pytest.raises(errors.LiveLimited):
        service.live.open(ANONYMOUS, LiveOptions())
    theirs = service.live.open(OTHER, LiveOptions(), "mine")
    with pytest.raises(errors.LiveFull):
        service.live.open(OTHER, LiveOptions())
    assert service.live.find(ANONYMOUS, "mine") is first
    assert (await service.erase(ANONYMOUS))["live_sessions"] == 2
    assert service.live.find(OTHER, "mine") is theirs
    with pytest.raises(errors.SessionNotFound):
        service.live.find(OTHER, first.id + "x")
    service.live.end(first)
    service.live.open(ANONYMOUS, LiveOptions(), "mine")


@pytest.mark.parametrize(
    ("limits", "said", "hers"),
    [
        (OwnerLimits(), {}, 8),
        (OwnerLimits(shares=True), {}, 6),
        (OwnerLimits(shares=True, live_sessions=2), {}, 2),
        (OwnerLimits(shares=True, live_sessions=2), {"live_sessions_per_owner": 0}, 8),
        (OwnerLimits(shares=True), {"live_sessions_per_owner": 3}, 3),
    ],
    ids=["local", "shared", "token limit", "setting 0 over token limit", "setting"],
)
async def test_setting_or_else_token_limits_the_sessions_of_an_owner_and_leaves_room_for_others(
    open_service: Open, limits: OwnerLimits, said: dict[str, int], hers: int
) -> None:
    service = await open_service(live_sessions=8, **said)
    ada = Identity("ada", AuthMethod.JWT, frozenset(), limits)
    for _ in range(hers):
        service.live.open(ada, LiveOptions())
    with pytest.raises(errors.LiveFull if hers == 8 else errors.LiveLimited):
        service.live.open(ada, LiveOptions())
    if hers < 8:
        service.live.open(OTHER, LiveOptions())


async def test_deletion_of_an_owner_deletes_its_ended_sessions_and_not_those_of_others(
    open_service: Open,
) -> None:
    service = await open_service(live_grace=60.0)
    for owner in (ANONYMOUS, OTHER):
        session = service.live.open(owner, LiveOptions(), "mine")
        assert of(await heard(session, SPEECH), Summary)
        service.live.leave(session)  # its client may come for its last words
    assert (await service.erase(ANONYMOUS))["live_sessions"] == 0
    with pytest.raises(errors.SessionNotFound):
        service.live.find(ANONYMOUS, "mine")
    assert service.live.find(OTHER, "mine") is session


async def test_second_end_of_a_session_does_not_end_a_new_one_of_the_same_id(
    open_service: Open,
) -> None:
    service = await open_service(live_sessions_per_owner=1)
    gone = service.live.open(ANONYMOUS, LiveOptions(), "mine")
    gone.end()  # its client is still on the line
    assert (await service.erase(ANONYMOUS))["live_sessions"] == 0
    comes = service.live.open(ANONYMOUS, LiveOptions(), "mine")
    service.live.end(gone)
    assert service.live.find(ANONYMOUS, "mine") is comes
    with pytest.raises(errors.LiveLimited):
        service.live.open(ANONYMOUS, LiveOptions())


async def test_sessions_together_buffer_little_more_audio_than_the_limit_and_lose_no_turn(
    open_service: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_HEAR", "0.1")
    service = await open_service(live_buffer_mb=1)
    service.live.held.turn_s = PATIENCE_S  # nobody falls silent
    sessions = [service.live.open(ANONYMOUS, LiveOptions(partials=False)) for _ in range(4)]
    for one in sessions:
        one.bounds = dataclasses.replace(one.bounds, buffer_s=20.0)
    most = 0

    async def speak(session: Session) -> list[LiveEvent]:
        nonlocal most
        reading = asyncio.create_task(story(session))
        for at in range(0, len(SPEECH), CHUNK):
            await session.send(SPEECH[at : at + CHUNK])
            most = max(most, service.live.held.bytes)
        session.finish()
        return await reading

    stories = await asyncio.gather(*map(speak, sessions))
    alone = 20 * CHUNK  # of the one who may go on
    own = (1 << 20) * FREE_PARTS // (FREE_PARTS + 1)
    assert own <= most <= own + alone + len(sessions) * CHUNK
    assert [len(of(told, TurnEnded)) for told in stories] == [3] * len(sessions)


@pytest.mark.slow
async def test_recognition_timeout_costs_the_words_of_its_utterance_and_not_the_session(
    open_service: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_HEAR", "60")
    service = await open_service(live_timeout=0.2)
    session = service.live.open(ANONYMOUS, LiveOptions(partials=False))
    told = await heard(session, sound((0.5, 0.0), (1.0, 0.3), (1.0, 0.0), (1.0, 0.3), (1.0, 0.0)))
    assert not of(told, Final)
    assert [one.notice.code for one in of(told, NoticeRaised)] == [RECOGNITION_FAILED] * 2
    assert len(of(told, TurnEnded)) == 2
    [summary] = of(told, Summary)
    assert [one.code for one in summary.transcript.notices] == [RECOGNITION_FAILED]
    assert summary.transcript.recognized_s == pytest.approx(0.5, abs=0.3), "where speech begins"
    assert not summary.transcript.no_speech


async def test_idle_overlong_and_abandoned_sessions_are_ended_and_a_kept_one_is_saved(
    open_service: Open,
) -> None:
    now = 0.0
    service = await open_service(live_idle=100.0, live_longest=300.0, live_grace=100.0)
    service.live.now = lambda: now
    idle = service.live.open(ANONYMOUS, LiveOptions())
    left, kept = (service.live.open(ANONYMOUS, LiveOptions(keep=keep)) for keep in (False, True))
    await kept.send(bytes(3200))
    service.live.leave(left)
    service.live.leave(kept)
    now = 99.0
    service.live.check_time_limits()
    assert [one.over for one in (idle, left, kept)] == [False, False, False]
    await kept.send(bytes(3200))
    service.live.leave(kept)
    now = 100.0
    service.live.check_time_limits()
    with pytest.raises(errors.SessionIdle):
        await story(idle)
    assert left.over, "nobody came back"
    assert not kept.finishing
    now = 199.0
    service.live.check_time_limits()
    assert of(await story(kept), Summary)[0].job
    busy = service.live.open(ANONYMOUS, LiveOptions())
    while not busy.finishing:
        await busy.send(bytes(3200))
        now += 10.0
        service.live.check_time_limits()
    with pytest.raises(errors.SessionOver):
        await busy.send(bytes(3200))
    for ended in (story(busy), busy.send(bytes(3200))):
        with pytest.raises(errors.SessionTooLong):
            await ended
    assert now >= 499.0
    with pytest.raises(errors.SessionNotFound):
        service.live.find(ANONYMOUS, left.id)


async def test_left_session_is_not_ended_while_it_is_saved(open_service: Open) -> None:
    now = 0.0
    service = await open_service(live_grace=100.0)
    service.live.now = lambda: now
    session = service.live.open(ANONYMOUS, LiveOptions(keep=True))
    asked, answered = asyncio.Event(), asyncio.Event()

    async def save(*_: object) -> str:
        asked.set()
        await answered.wait()
        return "a job"

    session.save = save
    await session.send(bytes(3200))
    session.finish()
    await asked.wait()
    service.live.leave(session)
    now = SAVE_TIMEOUT_S - 1.0
    service.live.check_time_limits()
    assert not session.over
    answered.set()
    assert of(await story(session), Summary)[0].job == "a job"


async def test_left_session_whose_save_hangs_is_ended_at_the_save_timeout(
    open_service: Open,
) -> None:
    now = 0.0
    service = await open_service(live_grace=100.0)
    service.live.now = lambda: now
    session = service.live.open(ANONYMOUS, LiveOptions(keep=True))
    asked = asyncio.Event()

    async def hang(*_: object) -> str:
        asked.set()
        return await asyncio.get_running_loop().create_future()

    session.save = hang
    await session.send(bytes(3200))
    session.finish()
    await asked.wait()
    service.live.leave(session)
    now = SAVE_TIMEOUT_S
    service.live.check_time_limits()
    assert session.over


async def test_left_session_is_not_ended_while_its_engine_is_loaded(
    open_service: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    service = await open_service(live_grace=100.0)
    service.live.now = lambda: now
    loads, start_worker = asyncio.Event(), WorkerLoader.start_worker

    async def start_later(*given: Any, **named: Any) -> WorkerProcess:
        await loads.wait()
        return await start_worker(*given, **named)

    monkeypatch.setattr(WorkerLoader, "start_worker", start_later)
    session = service.live.open(ANONYMOUS, LiveOptions(keep=True))
    await session.send(bytes(3200))
    session.finish()
    service.live.leave(session)
    now = 1000.0
    service.live.check_time_limits()
    assert not session.over
    loads.set()
    assert of(await story(session), Summary)[0].job


@pytest.mark.parametrize("channel_names", [(), ("Left", "Right")])
async def test_time_to_idle_begins_at_the_answer_to_a_commit_that_waited_for_the_engine(
    open_service: Open, monkeypatch: pytest.MonkeyPatch, channel_names: tuple[str, ...]
) -> None:
    now = 0.0
    service = await open_service(live_idle=100.0)
    service.live.now = lambda: now
    loads, start_worker = asyncio.Event(), WorkerLoader.start_worker

    async def start_later(*given: Any, **named: Any) -> WorkerProcess:
        await loads.wait()
        return await start_worker(*given, **named)

    monkeypatch.setattr(WorkerLoader, "start_worker", start_later)
    session = service.live.open(ANONYMOUS, LiveOptions(), channel_names=channel_names)
    await session.send(SPEECH[: 6 * RATE])
    session.commit()
    now = 1000.0
    service.live.check_time_limits()
    assert not session.over, "it is we who are slow"
    loads.set()
    ended = 0
    async for numbered in session.events():
        ended += isinstance(numbered.event, TurnEnded) and numbered.event.committed
        if ended == session.channels:
            break
    now = 1099.0
    service.live.check_time_limits()
    assert not session.over, "its client has just got the answer"
    now = 1100.0
    service.live.check_time_limits()
    assert session.finishing
    with pytest.raises(errors.SessionIdle):
        await story(session)


async def test_error_in_the_time_limit_check_of_one_session_does_not_stop_that_of_the_others(
    open_service: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    service = await open_service(live_idle=100.0)
    service.live.now = lambda: now
    broken, idle = (service.live.open(ANONYMOUS, LiveOptions()) for _ in range(2))
    monkeypatch.setattr(broken, "overdue", {}.__getitem__)
    now = 100.0
    service.live.check_time_limits()
    assert (idle.over, broken.over) == (True, False)


async def test_shutdown_sends_the_remaining_events_of_sessions_and_refuses_new_ones(
    open_service: Open,
) -> None:
    service = await open_service()
    session = service.live.open(ANONYMOUS, LiveOptions())
    reading = asyncio.create_task(story(session))
    await say(session, SPEECH)
    session.commit()
    await service.drain(PATIENCE_S)
    with pytest.raises(errors.ShuttingDown):
        await reading
    *_, last = session.event_log.kept
    assert isinstance(last.event, Summary)
    assert last.event.transcript.segments
    assert session.received_orders == 1, "clients count theirs, and believe no other number"
    with pytest.raises(errors.ShuttingDown):
        service.live.open(ANONYMOUS, LiveOptions())


def live_tasks() -> list[asyncio.Task[Any]]:
    return [one for one in asyncio.all_tasks() if one.get_name() == "live"]


@pytest.mark.slow
async def test_thousand_sessions_leave_no_task_open_file_or_buffered_audio(
    open_service: Open,
) -> None:
    service = await open_service(live_sessions=50)
    first = service.live.open(ANONYMOUS, LiveOptions())
    await heard(first, SPEECH[: 3 * RATE])
    service.live.end(first)
    await until(lambda: not live_tasks(), "its task ends")
    tasks, files = len(asyncio.all_tasks()), os_files()
    for number in range(1000):
        session = service.live.open(ANONYMOUS, LiveOptions())
        if number % 3:
            await session.send(SPEECH[:3200])
        service.live.end(session)
        if number % 50 == 49:
            await until(lambda: not live_tasks(), "their tasks end")
    await until(lambda: len(asyncio.all_tasks()) <= tasks, "all of theirs end")
    await until(lambda: os_files() <= files + 2, "all of theirs are closed")
    assert service.live.held.bytes == 0
    told = await heard(service.live.open(ANONYMOUS, LiveOptions()), SPEECH)
    assert of(told, InputProcessed)
    assert of(told, Summary)


def os_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_session_can_become_idle_if_its_client_left_while_audio_waited_for_the_buffer() -> (
    None
):
    now = 0.0
    session = Session(
        "s", "", LiveOptions(), SessionBounds(idle_s=9, buffer_s=1), InputLogTotals(1), lambda: now
    )
    await session.send(bytes(4 * RATE))
    waiting = asyncio.ensure_future(session.send(bytes(2)))
    await asyncio.sleep(0)
    now = 10.0
    assert session.overdue(now) is None, "it is we who are slow"
    waiting.cancel()
    await asyncio.wait({waiting})
    assert isinstance(session.overdue(now), errors.SessionIdle)


async def test_session_takes_the_longest_utterance_and_its_silence_before_anything_is_settled() -> (
    None
):
    """An engine that waits for the end of that silence settles nothing before."""
    patient = LiveOptions(endpointing=EndpointingOptions(longest_s=30, silence_s=60))
    begun, changed = (
        Session("s", "o", options, SessionBounds(), InputLogTotals(1 << 30))
        for options in (patient, LiveOptions())
    )
    changed.change(patient)
    for session in (begun, changed):
        session.change(LiveOptions())  # the open utterance has the other options yet
        bounds = session.bounds
        for _ in range(round(30 + 60 + bounds.chunk_s)):
            sending = asyncio.ensure_future(session.send(bytes(2 * RATE)))
            await asyncio.sleep(0)
            assert sending.done(), f"it waits at {session.received_s} s"


async def test_configured_silence_of_a_minute_ends_a_turn_and_the_next_turn_is_recognized(
    open_service: Open,
) -> None:
    service = await open_service()
    patient = LiveOptions(
        partials=False, diarize=False, endpointing=EndpointingOptions(silence_s=60)
    )
    session = service.live.open(ANONYMOUS, patient)
    async with asyncio.timeout(PATIENCE_S):
        told = await heard(session, sound((2.0, 0.3), (61.0, 0.0), (2.0, 0.2)))
    assert [one.turn for one in of(told, SpeechStopped)] == [0]
    assert [one.turn for one in of(told, Final)] == [0, 1]
    assert session.received_s == 65.0


@pytest.mark.parametrize(
    ("wished", "code"),
    [
        ({"language": "de"}, "language_unsupported"),
        ({"language": "no language"}, "language_invalid"),
        ({"language": "x" * 100_000}, "language_invalid"),
        ({"endpointing": EndpointingOptions(pre_roll_s=20, longest_s=50)}, "field_invalid"),
        ({"endpointing": EndpointingOptions(longest_s=120)}, ""),
        ({"endpointing": EndpointingOptions(pre_roll_s=14, longest_s=3600)}, ""),
        ({"language": "en_GB"}, ""),
    ],
)
async def test_live_options_are_checked_alike_at_the_begin_and_at_a_change(
    open_service: Open, wished: dict[str, Any], code: str
) -> None:
    service = await open_service(engine="moonshine")
    usual = LiveOptions(language="en")
    session = service.live.open(ANONYMOUS, usual)
    before = session.options
    wish = dataclasses.replace(usual, **wished)
    if code:
        for take in (functools.partial(service.live.open, ANONYMOUS), session.change):
            with pytest.raises(errors.BadRequest) as refused:
                take(wish)
            assert refused.value.code == code
        assert session.options == before
        assert not len(session.input_log)
        return
    begun = service.live.open(ANONYMOUS, wish).options
    session.change(wish)
    assert session.options == begun
    assert begun.endpointing.longest_s <= session.bounds.buffer_s / 2
    assert session.input_log.take() == begun


def waiting_for_an_engine(seconds: float = 2.0) -> Session:
    """One whose engine has taken all of its sound, and settled nothing yet."""
    session = Session("s", "o", LiveOptions(), SessionBounds(), InputLogTotals(1 << 30))
    for _ in range(round(seconds * 10)):
        session.input_log.add(bytes(3200), SampleEncoding.PCM16, RATE)
    while session.input_log.take() is not None:
        pass
    return session


async def test_answered_commit_keeps_the_audio_that_the_next_engine_needs() -> None:
    session = waiting_for_an_engine()
    session.commit()
    assert session.input_log.take() is not None
    session.handle_event(InputProcessed(2.0, 2.0, 0, 0.5))
    session.handle_event(TurnEnded(0, 0.5, 2.0, "words", True))
    session.handle_event(InputProcessed(2.0, 2.0, 1, 0.5))
    session.begins_anew()
    assert session.input_log.lead == pytest.approx(0.5)


async def test_engine_restarted_after_a_final_does_not_repeat_its_words() -> None:
    """It had no time to say how much of the sound that final was."""
    session = waiting_for_an_engine()
    session.handle_event(Final(0, 0, Segment(0.1, 1.5, "some words", None), "en", 0.0, 0.1))
    session.begins_anew()
    begin = session.event_log.so_far(session.input_log.settled, session.input_log.lead)
    assert (begin.at, begin.lead, begin.segment_number) == (1.5, 0.0, 1)


async def test_option_change_while_enrolled_speakers_load_keeps_the_change_and_the_speakers() -> (
    None
):
    anna = SpeakerCandidate("a", "Anna", ())
    asked, answers, engines = list[str](), asyncio.Event(), list[LiveOptions]()

    async def acquaint(options: LiveOptions, owner: str) -> LiveOptions:
        asked.append(owner)
        await answers.wait()
        return dataclasses.replace(options, known_voices=(anna,), voiceprints=True)

    @asynccontextmanager
    async def share() -> Any:
        engines.append(session.options)
        await asyncio.Event().wait()
        yield

    sessions = SessionRegistry(
        engine_spec("scripted"), share, Settings(), add_known_speakers=acquaint
    )
    session = sessions.open(ANONYMOUS, LiveOptions())
    await until(lambda: asked)
    session.change(LiveOptions(language="de"))
    assert not engines
    answers.set()
    await until(lambda: engines)
    (told,) = engines
    assert (told.language, told.known_voices, told.voiceprints) == ("de", (anna,), True)
    session.change(LiveOptions(language="en"))
    assert session.options.known_voices == (anna,)
    assert asked == [ANONYMOUS.owner]
    await sessions.close()
