"""Whose fault a fault in a live engine's process is: that session ends, and no other."""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest
from scripted_speech import tone
from service_process import PATIENCE_S, until, wait_until, workers
from virtual_time import virtual_time

from sidecar import errors
from sidecar.auth.identity import AuthMethod, Identity
from sidecar.interfaces.live_events import (
    Final,
    InputProcessed,
    LiveEvent,
    LiveSessionStart,
    NoticeRaised,
    Summary,
    to_wire,
)
from sidecar.interfaces.live_options import LIVE_RATE, LiveOptions, SampleEncoding
from sidecar.live.sessions.engine_relay import (
    MAX_BUSY_LOADS,
    MAX_SOLE_DEATHS,
    MAX_UNEXPLAINED_DEATHS,
    EngineDeathCounter,
    relay_session,
)
from sidecar.live.sessions.input_log import InputLogTotals
from sidecar.live.sessions.session import Session
from sidecar.live.sessions.session_limits import SessionBounds
from sidecar.service.facade import Service
from sidecar.transcripts.transcript import Transcript
from sidecar.workers.rpc_server import BegunCalls, BegunCallsPage, RpcRequest, RpcSender
from sidecar.workers.worker_live_session import WorkerLiveSession
from sidecar.workers.worker_process import WorkerDied

RATE = 16_000
POISON = 0.5
ASKED_AT_LAST = errors.EngineFailed("it was asked at last")
Open = Callable[..., Awaitable[Service]]


class Client:
    """Somebody who says one thing again and again until told to stop, and listens."""

    def __init__(self, service: Service, name: str, level: float, prompt: str = "") -> None:
        caller = Identity(name, AuthMethod.TOKEN)
        options = LiveOptions(partials=False, diarize=False, prompt=prompt)
        self.session = service.live.open(caller, options)
        self.level, self.said = level, 0
        self.told: list[LiveEvent] = []
        self.enough = asyncio.Event()
        self.listening = asyncio.ensure_future(self._listen())
        self.speaking = asyncio.ensure_future(self._speak())

    async def _listen(self) -> errors.SidecarError | None:
        try:
            async for one in self.session.events():
                self.told.append(one.event)
        except errors.SidecarError as wrong:
            return wrong
        return None

    async def _speak(self) -> None:
        with contextlib.suppress(errors.SidecarError):
            while not self.enough.is_set():
                await self.session.send(tone(0.704, 0.0))  # whole frames, so that all are alike
                await self.session.send(tone(1.024, self.level))
                self.said += 1
                await asyncio.sleep(0.2)  # real time: a pause between two utterances, however long
            await self.session.send(tone(0.704, 0.0))
            self.session.finish()

    async def outcome(self) -> errors.SidecarError | None:
        self.enough.set()
        async with asyncio.timeout(PATIENCE_S):
            await self.speaking
            return await self.listening

    def codes(self) -> list[str]:
        return [one.notice.code for one in self.told if isinstance(one, NoticeRaised)]

    def heard(self) -> list[str]:
        return [one.segment.text for one in self.told if isinstance(one, Final)]

    def summed_up(self) -> list[str]:
        [summary] = [one for one in self.told if isinstance(one, Summary)]
        return [one.text for one in summary.transcript.segments]


async def all_heard(client: Client) -> None:
    """All that an innocent said was heard once, whatever happened to the engine meanwhile."""
    assert await client.outcome() is None
    assert len(client.heard()) == client.said
    assert client.heard() == client.summed_up()
    assert len(set(client.heard())) == 1, "and always the same"


async def test_exception_in_one_sessions_recognition_fails_that_session_and_not_the_process(
    open_service: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_FAULT", "add_hypothesis")
    service = await open_service()
    innocents = [Client(service, f"innocent-{number}", 0.3) for number in range(2)]
    await until(lambda: all(one.heard() for one in innocents))
    before = workers()
    faulty = Client(service, "faulty", 0.4, prompt="fault")
    wrong = await asyncio.wait_for(faulty.listening, PATIENCE_S)
    assert isinstance(wrong, errors.EngineFailed)
    assert "MemoryError" in wrong.detail
    after = [len(one.heard()) for one in innocents]
    await until(lambda: all(len(one.heard()) > n for one, n in zip(innocents, after, strict=True)))
    for one in innocents:
        await all_heard(one)
        assert one.codes() == []
    assert workers() == before, "the process goes on"


@pytest.mark.slow
async def test_session_that_kills_the_engine_twice_fails_and_other_sessions_lose_nothing(
    open_service: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_POISON", "w499,w500")
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_HEAR", "0.1")  # so that several are recognized at once
    service = await open_service()
    innocents = [Client(service, f"innocent-{number}", 0.3) for number in range(3)]
    await until(lambda: all(one.heard() for one in innocents))
    deaths = 0
    for number in range(2):
        poison = Client(service, f"poison-{number}", POISON)
        wrong = await asyncio.wait_for(poison.listening, PATIENCE_S)
        assert isinstance(wrong, errors.EngineCrashed)
        deaths += 1 + poison.codes().count("engine_restarted")
        known = [len(one.heard()) for one in innocents]
        await until(
            lambda: all(len(one.heard()) > n for one, n in zip(innocents, known, strict=True))  # noqa: B023
        )
    assert deaths == 4, "two attempts each"
    for one in innocents:
        assert one.codes().count("engine_restarted") == deaths
        await all_heard(one)


def test_session_is_ended_by_its_second_engine_crash_at_one_position_and_never_by_others() -> None:
    deaths = EngineDeathCounter()
    for _ in range(100):
        assert not deaths.add(WorkerDied("of another", began=False), 1.0)
    assert not deaths.suspects(1.0)
    assert not deaths.add(WorkerDied("its own"), 1.0)
    assert deaths.suspects(1.0)
    assert not deaths.suspects(2.0), "what it said since was heard"
    assert deaths.add(WorkerDied("its own"), 1.0)


def test_session_that_was_the_only_one_running_at_several_engine_crashes_is_ended() -> None:
    deaths = EngineDeathCounter()
    alone = [WorkerDied("its own", sole=True) for _ in range(MAX_SOLE_DEATHS)]
    assert [deaths.add(died, float(place)) for place, died in enumerate(alone)] == [
        False
    ] * MAX_SOLE_DEATHS
    assert deaths.add(WorkerDied("its own", sole=True), 99.0)
    deaths = EngineDeathCounter()
    for place in range(100):
        assert not deaths.add(WorkerDied("its own or another's"), float(place))


def test_session_is_ended_by_unexplained_engine_crashes_over_a_limit_at_one_audio_position() -> (
    None
):
    deaths, died = EngineDeathCounter(), WorkerDied("by itself", began=False, explained=False)
    for place in (1.0, 2.0):
        assert [deaths.add(died, place) for _ in range(MAX_UNEXPLAINED_DEATHS)] == [
            False
        ] * MAX_UNEXPLAINED_DEATHS
    assert deaths.add(died, 2.0)


def waiting_session() -> Session:
    return Session("patient", "owner", LiveOptions(), SessionBounds(), InputLogTotals(1 << 30))


async def fault_after(session: Session, faults: Iterable[Exception]) -> Exception | None:
    """What a session ends with that meets these one after the other when it asks for an engine."""
    ahead = iter(faults)

    @contextlib.asynccontextmanager
    async def share() -> AsyncIterator[Any]:
        raise next(ahead)
        yield

    await relay_session(session, share)
    return session.event_log.wrong


@pytest.mark.parametrize("sent", [0, 32_000], ids=["at the opening", "on audio"])
async def test_session_fails_with_engine_crashed_if_the_engine_keeps_crashing(sent: int) -> None:
    session = waiting_session()
    session.input_log.add(bytes(sent), SampleEncoding.PCM16, RATE)
    died = WorkerDied("by itself", began=False, explained=False)
    deaths = iter([died] * (MAX_UNEXPLAINED_DEATHS + 1))
    assert isinstance(await fault_after(session, deaths), errors.EngineCrashed)
    assert not [*deaths]


async def test_engine_death_after_the_summary_is_no_error_and_asks_for_no_other_engine() -> None:
    session, leases = waiting_session(), 0

    class Call:
        async def answers(self) -> AsyncIterator[tuple[dict[str, Any], bytes]]:
            yield to_wire(Summary(Transcript((), "en", 0.0, "made-up", ""))), b""
            raise WorkerDied("by itself", began=True, explained=False)

        async def send(self, message: dict[str, Any], raw: bytes = b"") -> None:
            pass

    @contextlib.asynccontextmanager
    async def calling(*_: object, **__: object) -> AsyncIterator[Call]:
        yield Call()

    @contextlib.asynccontextmanager
    async def share() -> AsyncIterator[Any]:
        nonlocal leases
        leases += 1
        yield SimpleNamespace(calling=calling)

    session.finish()
    await relay_session(session, share)
    assert (leases, session.event_log.wrong) == (1, None)
    assert [type(one.event) for one in session.event_log.kept] == [Summary]


@virtual_time
@pytest.mark.parametrize("busy", [MAX_BUSY_LOADS, MAX_BUSY_LOADS + 1])
async def test_session_retries_an_engine_load_on_a_busy_machine_a_limited_number_of_times(
    busy: int,
) -> None:
    loads = iter([errors.MachineBusy()] * busy)
    wrong = await fault_after(waiting_session(), chain(loads, [ASKED_AT_LAST]))
    assert isinstance(wrong, type(ASKED_AT_LAST) if busy == MAX_BUSY_LOADS else errors.MachineBusy)
    assert not [*loads]


@virtual_time
async def test_retries_of_engine_loads_on_a_busy_machine_begin_anew_after_each_engine_crash() -> (
    None
):
    busy = [errors.MachineBusy()] * MAX_BUSY_LOADS
    died = WorkerDied("by itself", began=False, explained=True)
    wrong = await fault_after(waiting_session(), [*busy, died, *busy, ASKED_AT_LAST])
    assert isinstance(wrong, errors.EngineFailed)


@pytest.mark.posix("forks")
def test_executing_calls_are_known_after_the_worker_process_was_killed() -> None:
    page = BegunCallsPage()
    there, here = os.pipe()
    child = os.fork()
    if not child:
        executing = BegunCalls(page.fd)
        with executing.of(7), executing.of(9):
            os.write(here, b"!")
            os.kill(os.getpid(), 9)
    assert os.read(there, 1) == b"!"
    os.waitpid(child, 0)
    assert page.calls() == {7, 9}
    page.close()
    os.close(there)
    os.close(here)


async def test_exclusive_rpc_call_executes_while_no_other_does() -> None:
    executing, at_work, most = BegunCalls(None), set[int](), dict[int, set[int]]()

    def work(call: int, *, alone: bool) -> None:
        for _ in range(20):
            with executing.of(call, alone=alone):
                at_work.add(call)
                most[call] = most.get(call, set()) | at_work
                at_work.discard(call)

    works = [asyncio.to_thread(work, call, alone=call in (1, 2)) for call in range(1, 7)]
    await asyncio.gather(*works)
    assert (most[1], most[2]) == ({1}, {2})


def test_rpc_calls_begin_in_the_order_of_their_requests_exclusive_ones_too() -> None:
    executing, begun = BegunCalls(None), list[int]()

    def waiting(count: int) -> None:
        wait_until(lambda: len(executing.queue) == count, f"{count} calls wait")

    def work(call: int) -> None:
        for others in (2, 2, 0):
            with executing.of(call, alone=call != 9):
                begun.append(call)
                if others:
                    waiting(others)

    threads = [threading.Thread(target=work, args=(call,)) for call in (1, 2, 9)]
    with executing.of(8):
        for count, one in enumerate(threads, 1):
            one.start()
            waiting(count)
    for one in threads:
        one.join(PATIENCE_S)
    assert begun == [1, 2, 9] * 3


def test_session_is_exclusive_until_its_suspect_audio_is_processed() -> None:
    executing, tells = BegunCalls(None), list[Callable[[LiveEvent], None]]()

    def open_one(
        options: LiveOptions, begin: LiveSessionStart, tell: Callable[[LiveEvent], None]
    ) -> Any:
        tells.append(tell)
        return SimpleNamespace(backlog_s=0.0)

    begin, options = LiveSessionStart(at=1.0).to_wire(), LiveOptions().to_wire()
    message = {"options": options, "begin": begin, "alone": True}
    ours, theirs = socket.socketpair()
    engine: Any = SimpleNamespace(open=open_one, sample_rate=LIVE_RATE)
    seated = WorkerLiveSession(RpcRequest(7, message, [], RpcSender(theirs)), engine, executing)
    known = []
    for heard in (InputProcessed(1.5, 1.0), InputProcessed(9.0, 8.0)):  # no words: music, perhaps
        tells[0](heard)
        known.append(seated.alone)
    assert known == [True, False]
    ours.close()
    theirs.close()
