"""One engine's life when precisions change: who stands, who goes, and what a failure leaves."""

import asyncio
import dataclasses
import errno
import math
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import psutil
import pytest
from instrumented_slot import scripted_model
from service_process import PATIENCE_S, halt, new_file, runs, settle, until, worker_pids

from sidecar import errors
from sidecar.audio.audio_info import AudioInfo
from sidecar.audio.audio_source import open_recording_file
from sidecar.gpu_memory.memory_admission import LoadPlacement, LoadPlan
from sidecar.interfaces.engine_interface import (
    EngineSpec,
    LoadOptions,
    MemoryPlan,
    Precision,
    TranscribeOptions,
)
from sidecar.workers.engine import Engine, Wanted
from sidecar.workers.engine_lease import EngineState, RecordingRequest, Sharing
from sidecar.workers.engine_loading import WorkerLoader
from sidecar.workers.engine_memory import AnyModel, MemoryAccount
from sidecar.workers.worker_environment import WorkerOptions
from sidecar.workers.worker_process import WorkerProcess

FP32, INT8 = Precision.FP32, Precision.INT8
SLOW_TO_EXIT = Sharing(worker=WorkerOptions(exit_grace_s=PATIENCE_S))


class Looker(MemoryAccount):
    """Decides like a planner, and notes what it was asked about."""

    def __init__(self, placement: LoadPlacement = LoadPlacement.BESIDE) -> None:
        self.placement: LoadPlacement | errors.SidecarError = placement
        self.asked: list[Precision] = []

    def place(self, model: AnyModel) -> LoadPlan:
        self.asked.append(model.precision)
        if isinstance(self.placement, errors.SidecarError):
            raise self.placement
        return LoadPlan(self.placement)


class Gate:
    """Loads begin, and go on once they are let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._open, start = asyncio.Event(), WorkerLoader.start_worker

        async def held(loader: WorkerLoader, *given: Any) -> WorkerProcess:
            await self._open.wait()
            return await start(loader, *given)

        monkeypatch.setattr(WorkerLoader, "start_worker", held)

    def open_soon(self) -> None:
        """Behind what the test does next."""
        asyncio.get_running_loop().call_soon(self._open.set)


Build = Callable[..., Engine]


@pytest.fixture
async def build() -> AsyncIterator[Build]:
    """Slots of the scripted engine, closed in the end."""
    slots: list[Engine] = []

    def make(account: MemoryAccount | None = None, keep_alive_s: float = -1, **more: Any) -> Engine:
        model = scripted_model(FP32)
        slots.append(Engine(model, keep_alive_s, account or Looker(), **more))
        return slots[-1]

    yield make
    for slot in slots:
        await slot.close()


async def preloaded(slot: Engine) -> Engine:
    """A slot once its engine is there."""
    await slot.preload()
    return slot


async def loading(slot: Engine) -> None:
    """Wait until it is. Looked at in each turn of the loop: none is missed, however late we are."""
    while slot.state is not EngineState.LOADING:  # noqa: ASYNC110
        await asyncio.sleep(0)


@pytest.mark.parametrize("placement", LoadPlacement)
async def test_old_engine_runs_during_load_only_if_both_fit(
    placement: LoadPlacement, build: Build
) -> None:
    slot = await preloaded(build(looker := Looker(placement)))
    old = slot.worker_pid
    reload = asyncio.ensure_future(slot.reload(INT8))
    await loading(slot)
    assert runs(old) is (placement is LoadPlacement.BESIDE)
    await reload
    assert not runs(old)
    assert (slot.precision, slot.state) == (INT8, EngineState.READY)
    assert looker.asked == [FP32, INT8]


@pytest.mark.parametrize("placement", LoadPlacement)
async def test_after_failed_reload_old_precision_serves_and_a_lease_of_the_new_one_fails(
    placement: LoadPlacement, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_FAILS", "int8")
    slot = await preloaded(build(Looker(placement)))
    old = slot.worker_pid
    with pytest.raises(errors.ModelLoadFailed, match="set to fail in int8"):
        await slot.reload(INT8)
    assert (slot.precision, slot.state, slot.loader.loading) == (FP32, EngineState.READY, None)
    assert (slot.worker_pid == old) is (placement is LoadPlacement.BESIDE)
    async with slot.lease() as engine:
        assert engine.precision is FP32
    with pytest.raises(errors.ModelLoadFailed):
        async with slot.lease(INT8):
            pytest.fail("it cannot be lent")
    assert slot.loaded


async def test_after_failed_restore_of_old_engine_next_lease_loads_it(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = await preloaded(build(Looker(LoadPlacement.INSTEAD)))
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", "no number")
    with pytest.raises(errors.ModelLoadFailed):
        await slot.reload(INT8)
    assert (slot.state, slot.worker_pid, slot.loader.loading) == (EngineState.ABSENT, None, None)
    monkeypatch.delenv("VIBEVOICE_SCRIPTED_SPEED")
    async with slot.lease() as engine:
        assert engine.precision is FP32


async def test_reload_that_does_not_fit_in_memory_is_refused_and_old_engine_stays(
    build: Build,
) -> None:
    slot = await preloaded(build(looker := Looker()))
    old = slot.worker_pid
    looker.placement = errors.WontFit("there is no room")
    with pytest.raises(errors.WontFit):
        await slot.reload(INT8)
    assert (slot.worker_pid, slot.precision, slot.state) == (old, FP32, EngineState.READY)


async def test_engine_kept_by_failed_load_is_unloaded_when_idle(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_FAILS", "int8")
    slot = await preloaded(build(keep_alive_s=0.05))
    with pytest.raises(errors.ModelLoadFailed):
        await slot.reload(INT8)
    await until(lambda: slot.state is EngineState.ABSENT)


async def test_concurrent_reloads_to_one_precision_load_once_and_a_later_one_loads_again(
    build: Build,
) -> None:
    slot = await preloaded(build(looker := Looker()))
    await asyncio.gather(*(slot.reload(INT8) for _ in range(4)))
    assert looker.asked == [FP32, INT8]
    await slot.reload(INT8)
    assert looker.asked[2:] == [INT8], "a reload that comes later is one"


async def test_reload_waits_for_lease_and_precedes_next_lease(build: Build) -> None:
    looker, seen = Looker(), []
    slot = build(looker)
    async with slot.lease() as engine:
        reload = asyncio.ensure_future(slot.reload(INT8))
        await asyncio.sleep(0)
        following = asyncio.ensure_future(precision_of_a_lease(slot))
        await settle()
        assert (looker.asked, slot.loader.loading) == ([FP32], None)
        seen.append(engine.precision)
    await reload
    assert [*seen, await following] == [FP32, INT8]


async def precision_of_a_lease(slot: Engine, wanted: Precision = Precision.AUTO) -> Precision:
    async with slot.lease(wanted) as engine:
        return engine.precision


async def given_up_while_it_loads(slot: Engine, precision: Precision) -> None:
    """Somebody asks for the engine, and hangs up once it is being loaded."""
    lease = asyncio.ensure_future(slot.lease(precision).__aenter__())
    await loading(slot)
    lease.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lease


@pytest.mark.parametrize("placement", LoadPlacement)
async def test_load_goes_on_after_its_caller_is_cancelled(
    placement: LoadPlacement, build: Build
) -> None:
    looker, others = Looker(placement), worker_pids()
    slot = await preloaded(build(looker))
    await given_up_while_it_loads(slot, INT8)
    await until(lambda: slot.state is EngineState.READY)
    assert slot.precision is INT8
    await until(lambda: worker_pids() - others == {slot.worker_pid})
    assert await precision_of_a_lease(slot) is INT8
    assert looker.asked == [FP32, INT8]


async def test_lease_and_reload_during_a_load_share_that_load(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, looker = Gate(monkeypatch), Looker()
    slot = build(looker)
    for _ in range(4):
        await given_up_while_it_loads(slot, FP32)
    reload = asyncio.ensure_future(slot.reload(FP32))
    gate.open_soon()
    assert await precision_of_a_lease(slot) is FP32
    await reload
    assert looker.asked == [FP32]


async def test_abandoned_load_is_cancelled_for_lease_at_other_precision(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    others, slot = worker_pids(), await preloaded(build())
    old = slot.worker_pid
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_LOAD", "60")
    await given_up_while_it_loads(slot, INT8)
    async with slot.lease(FP32) as engine:
        assert (engine.precision, slot.precision, slot.worker_pid) == (FP32, FP32, old)
        assert worker_pids() - others == {old}


async def test_lease_at_any_precision_takes_load_in_progress(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = await preloaded(build(looker := Looker(LoadPlacement.INSTEAD)))
    gate = Gate(monkeypatch)
    await given_up_while_it_loads(slot, INT8)
    gate.open_soon()
    assert await precision_of_a_lease(slot) is INT8
    assert looker.asked == [FP32, INT8]


@pytest.mark.parametrize("placement", LoadPlacement)
async def test_failed_abandoned_load_fails_no_other_lease(
    placement: LoadPlacement, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = await preloaded(build(Looker(placement)))
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_FAILS", "int8")
    gate = Gate(monkeypatch)
    await given_up_while_it_loads(slot, INT8)
    gate.open_soon()
    assert await precision_of_a_lease(slot) is FP32


async def test_lease_cancelled_while_old_engine_exits_keeps_new_engine(build: Build) -> None:
    others, slot = worker_pids(), await preloaded(build(sharing=SLOW_TO_EXIT))
    old = slot.worker_pid
    assert old is not None
    halt(old)
    lease = asyncio.ensure_future(slot.lease(INT8).__aenter__())
    await loading(slot)
    await until(lambda: slot.state is not EngineState.LOADING)
    assert runs(old)
    lease.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lease
    assert (slot.state, slot.precision) == (EngineState.READY, INT8)
    psutil.Process(old).resume()  # then it leaves by itself
    await until(lambda: worker_pids() - others == {slot.worker_pid})


async def test_memory_is_queried_only_after_old_engine_has_exited(build: Build) -> None:
    stood: list[bool] = []
    old: int | None = None

    class Watched(MemoryAccount):
        async def query_memory(self, _: AnyModel) -> None:
            stood.append(old is not None and runs(old))

    slot = build(Watched(), keep_alive_s=0, sharing=SLOW_TO_EXIT)
    async with slot.lease():
        old = slot.worker_pid
        assert old is not None
        halt(old)
    await until(lambda: slot.state is EngineState.ABSENT)
    assert runs(old), "who had it does not wait for its end"
    lease = asyncio.ensure_future(precision_of_a_lease(slot))
    await settle()
    psutil.Process(old).resume()  # now it leaves
    assert await lease is FP32
    assert stood == [False, False, False, False]


async def test_last_load_spans_the_seconds_that_the_load_took_and_ended_in_the_past(
    build: Build,
) -> None:
    slot, now = build(), 1_700_000_000.0
    assert slot.loader.last_load(now)[1] == -math.inf
    start, end = (await preloaded(slot)).loader.last_load(now)
    assert end <= now
    assert end - start == pytest.approx(slot.loader.load_s, abs=1e-3)


async def test_preloaded_engine_without_keep_alive_waits_for_first_lease(build: Build) -> None:
    slot = build(keep_alive_s=0)
    for ahead in (slot.preload(), slot.reload(INT8)):
        await ahead
        await settle()
        assert slot.state is EngineState.READY
    async with slot.lease():
        pass
    await until(lambda: slot.state is EngineState.ABSENT)


async def test_unused_preloaded_engine_without_keep_alive_is_unloaded(build: Build) -> None:
    slot = build(keep_alive_s=0, preloaded_keep_s=0.05)
    await slot.reload(INT8)
    await until(lambda: slot.state is EngineState.ABSENT)
    await given_up_while_it_loads(slot, INT8)
    await until(lambda: slot.loader.loads == 2)
    await until(lambda: slot.state is EngineState.ABSENT)


async def test_last_of_many_reloads_wins_those_between_are_superseded_and_a_lease_has_its_turn(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = await preloaded(build(looker := Looker()))
    gate, reloads = Gate(monkeypatch), []
    for number in range(20):
        reloads.append(asyncio.ensure_future(slot.reload((INT8, FP32)[number % 2])))
        if not number:
            await loading(slot)
        for _ in range(3):  # it takes its place in line
            await asyncio.sleep(0)
    loads_before_its_turn = []
    gate.open_soon()
    async with slot.lease() as engine:
        assert engine.precision is FP32
        loads_before_its_turn = looker.asked[1:]
    outcomes = await asyncio.gather(*reloads, return_exceptions=True)
    assert loads_before_its_turn == [INT8, FP32]
    assert (outcomes[0], outcomes[-1]) == (INT8, FP32)
    assert {type(outcome) for outcome in outcomes[1:-1]} == {errors.ReloadSuperseded}


async def test_reload_goes_on_after_its_caller_is_cancelled(build: Build) -> None:
    slot = build()
    async with slot.lease():
        gone, patient = [asyncio.ensure_future(slot.reload(INT8)) for _ in range(2)]
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
    assert await precision_of_a_lease(slot) is INT8
    assert await patient is INT8


@pytest.mark.parametrize("waits", ["reload", "lease", "next lease", "nobody"])
async def test_slot_closed_during_load_leaves_no_worker_and_ends_waiters_with_shutting_down(
    waits: str, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    others, slot = worker_pids(), await preloaded(build())
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_LOAD", "60")
    waiting: list[asyncio.Future[Precision]] = []
    if waits in ("next lease", "nobody"):
        await given_up_while_it_loads(slot, INT8)
    if waits == "next lease":
        waiting.append(asyncio.ensure_future(precision_of_a_lease(slot)))
        await asyncio.sleep(0)
    if waits in ("reload", "lease"):
        change = slot.reload(INT8) if waits == "reload" else precision_of_a_lease(slot, INT8)
        waiting.append(asyncio.ensure_future(change))
        await until(lambda: slot.state is EngineState.LOADING)
        waiting += [asyncio.ensure_future(one) for one in (slot.reload(FP32), slot.reload(INT8))]
        await asyncio.sleep(0)
    await slot.close()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    for late in (slot.reload(FP32), precision_of_a_lease(slot), slot.preload()):
        with pytest.raises(errors.ShuttingDown):
            await late
    assert not worker_pids() - others
    assert slot.state is EngineState.ABSENT
    expected = [errors.ShuttingDown, errors.ReloadSuperseded, errors.ShuttingDown]
    assert [type(outcome) for outcome in outcomes] == expected[: len(waiting)]


async def test_crash_callback_runs_once_for_a_crash_and_never_for_a_kill_by_the_service(
    build: Build,
) -> None:
    noted: list[int] = []
    slot = await preloaded(build(on_worker_crash=lambda worker: noted.append(worker.pid)))
    await slot.reload(INT8)
    killed = await until(lambda: slot.worker_pid)
    psutil.Process(killed).kill()
    await until(lambda: slot.state is EngineState.ABSENT)
    assert await precision_of_a_lease(slot) is INT8
    assert slot.worker is not None
    slot.worker.kill()  # as one is that does not stop
    assert await precision_of_a_lease(slot) is INT8
    await slot.close()
    assert noted == [killed]


async def test_engine_loads_again_while_the_disk_of_crash_notes_hangs(build: Build) -> None:
    disk, noted = threading.Event(), list[int]()

    def note(worker: WorkerProcess) -> None:
        assert threading.current_thread().daemon, "the process can end meanwhile"
        disk.wait(PATIENCE_S)
        noted.append(worker.pid)

    slot, killed = await preloaded(build(on_worker_crash=note)), list[int]()
    try:
        for _ in range(2):
            assert slot.worker_pid is not None
            killed.append(slot.worker_pid)
            psutil.Process(slot.worker_pid).kill()
            await until(lambda: slot.state is EngineState.ABSENT)
            await precision_of_a_lease(slot)
            assert noted == []
    finally:
        disk.set()
    await slot.close()
    assert noted == killed


@pytest.mark.usefixtures("fresh_workers")
@pytest.mark.parametrize("stands", [False, True])
@pytest.mark.parametrize("lacks", ["EAGAIN", "EMFILE", "ENOSPC", "EDQUOT", "EROFS", "a thread"])
async def test_worker_that_cannot_start_raises_machine_busy_leaks_nothing_and_old_engine_stays(
    stands: bool, lacks: str, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = build()
    if stands:
        await slot.preload()
    expected = (slot.state, slot.worker_pid, None)

    def refused(*arguments: Any, **options: Any) -> Any:
        if lacks == "a thread":
            raise RuntimeError("can't start new thread")
        raise OSError(getattr(errno, lacks), "not now")

    with monkeypatch.context() as full:
        if lacks == "a thread":
            full.setattr("sidecar.workers.worker_process.threading.Thread", refused)
        else:
            full.setattr("subprocess.Popen", refused)
        open_before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
        for _ in range(3):
            with pytest.raises(errors.MachineBusy, match=r"not now|new thread"):
                await precision_of_a_lease(slot, INT8)
        if sys.platform == "linux":
            assert len(os.listdir("/proc/self/fd")) <= open_before
        assert (slot.state, slot.worker_pid, slot.loader.loading) == expected
    assert await precision_of_a_lease(slot) is FP32


async def test_check_room_raises_what_reload_would_raise_and_loads_nothing(build: Build) -> None:
    looker = Looker()
    slot = build(looker)
    await slot.check_room(INT8)
    with pytest.raises(errors.PrecisionUnavailable):
        await slot.check_room(Precision.INT4)
    looker.placement = errors.WontFit("there is no room")
    with pytest.raises(errors.WontFit):
        await slot.check_room(INT8)
    assert slot.state is EngineState.ABSENT


@pytest.mark.skipif(sys.platform != "linux", reason="counts what is open in /proc")
async def test_loads_and_unloads_leak_no_descriptor_thread_or_task(build: Build) -> None:
    slot, here = build(keep_alive_s=0), psutil.Process()

    def held() -> tuple[int, int, int]:
        return here.num_fds(), here.num_threads(), len(asyncio.all_tasks())

    async def come_and_go() -> None:
        async with slot.lease():
            pid = slot.worker_pid
        await until(lambda: not runs(pid) and slot.state is EngineState.ABSENT)

    before = held()
    for _ in range(6):
        await come_and_go()
        # Who relayed what it wrote has a thread, which hears of the end a moment later.
        await until(lambda: all(now <= then for now, then in zip(held(), before, strict=True)))


async def test_job_from_before_reload_takes_reloaded_precision_and_a_later_job_its_own(
    build: Build,
) -> None:
    """`resolve`: asked for before the reload: what is there; after it: what was asked for."""
    slot = build()
    before = time.monotonic()  # real time: only which reading is the earlier one counts
    await slot.reload(INT8)
    after = time.monotonic()  # real time: only which reading is the later one counts
    rows = [
        (Precision.AUTO, before, INT8),
        (FP32, before, INT8),
        (FP32, after, FP32),
        (INT8, after, INT8),
    ]
    for wanted, since, expected in rows:
        assert slot.resolve(wanted, since) is expected


async def test_memory_is_queried_before_each_load_and_each_lease(build: Build) -> None:
    seen: list[str] = []

    class Noted(MemoryAccount):
        async def query_memory(self, _: AnyModel) -> None:
            seen.append("query")

        def place(self, model: AnyModel) -> LoadPlan:
            seen.append(model.precision)
            return LoadPlan()

    slot = build(Noted())
    async with slot.lease():
        assert seen == ["query", "fp32", "query"]
    async with slot.lease():
        assert seen[3:] == ["query"]
    await slot.reload(INT8)
    assert seen[4:] == ["query", "int8"]


FRUGAL = MemoryPlan(evict_encoders=True, host_token_table=True)


@pytest.mark.parametrize("placement", LoadPlacement)
async def test_load_gets_memory_plan_and_slot_keeps_it_after_a_failed_reload(
    placement: LoadPlacement, monkeypatch: pytest.MonkeyPatch, build: Build
) -> None:
    told: list[tuple[str, bool, bool]] = []
    calling = WorkerProcess.calling

    def watched(self: WorkerProcess, operation: str, *args: Any, **kwargs: Any) -> Any:
        if operation == "load":
            options = LoadOptions.from_wire(kwargs["options"])
            told.append((options.precision, options.evict_encoders, options.host_token_table))
        return calling(self, operation, *args, **kwargs)

    class Frugal(MemoryAccount):
        def place(self, model: AnyModel) -> LoadPlan:
            return LoadPlan(placement, FRUGAL if model.precision is FP32 else MemoryPlan())

    monkeypatch.setattr(WorkerProcess, "calling", watched)
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_FAILS", "int8")
    slot = await preloaded(build(Frugal()))
    assert slot.memory_plan == FRUGAL
    with pytest.raises(errors.ModelLoadFailed):
        await slot.reload(INT8)
    assert slot.memory_plan == FRUGAL, "the old one is as it was"
    back = [("fp32", True, True)] if placement is LoadPlacement.INSTEAD else []
    assert told == [("fp32", True, True), ("int8", False, False), *back]


async def test_slot_keeps_memory_plan_of_last_job_and_shares_it_only_while_that_runs(
    voice: bytes, tmp_path: Any, build: Build
) -> None:
    slot, shared = build(), dataclasses.replace(FRUGAL, places=2)
    path = new_file(tmp_path / "voice.wav", voice)
    with open_recording_file(str(path)) as source:
        async with slot.lease() as engine:
            assert slot.memory_plan == MemoryPlan()
            options = TranscribeOptions(memory=shared)
            facts = AudioInfo("wav", "sndfile", 3.0)
            async with aclosing(
                engine.transcribe(RecordingRequest(source, facts, options), 60.0)
            ) as events:
                async for _ in events:
                    assert slot.memory_plan == shared
    assert slot.memory_plan == FRUGAL, "the next job plans by the memory that is free then"


async def test_reload_whose_engine_dies_twice_fails_and_the_old_engine_stays(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = await preloaded(build())
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_LOAD", "60")
    old = slot.worker_pid
    known = worker_pids()
    reload = asyncio.ensure_future(slot.reload(INT8))
    for _ in range(2):
        (new,) = await until(lambda: worker_pids() - known)
        known.add(new)
        psutil.Process(new).kill()
    with pytest.raises(errors.ModelLoadFailed):
        await reload
    assert (slot.worker_pid, slot.precision) == (old, FP32)


def named(name: str, precision: Precision) -> Wanted[EngineSpec]:
    return lambda model: dataclasses.replace(model.checked_at(precision), name=name)


@pytest.mark.parametrize("loaded", [FP32, INT8])
async def test_model_asked_for_by_name_while_a_lease_loads_one_comes_under_that_name(
    loaded: Precision, build: Build
) -> None:
    slot = build()
    lease = asyncio.ensure_future(precision_of_a_lease(slot, loaded))
    await loading(slot)
    assert (await slot.change(named("other", FP32))).name == "other"
    assert await lease is loaded
    assert slot.model.title == "'other' in fp32"


async def test_model_asked_for_under_two_names_while_it_loads_has_the_last(build: Build) -> None:
    slot = await preloaded(build(looker := Looker()))
    first = asyncio.ensure_future(slot.change(named("first", INT8)))
    await loading(slot)
    assert (await slot.change(named("last", INT8))).name == "last"
    await first
    assert slot.model.name == "last"
    assert looker.asked == [FP32, INT8]


async def test_reload_of_a_model_that_comes_under_a_name_keeps_the_name(build: Build) -> None:
    slot = await preloaded(build(looker := Looker()))
    async with slot.lease():
        change = asyncio.ensure_future(slot.change(named("named", INT8)))
        await settle()
        reload = asyncio.ensure_future(slot.reload(INT8))
        await settle()
    assert ((await change).name, await reload) == ("named", INT8)
    assert slot.model.name == "named"
    assert looker.asked == [FP32, INT8]


async def test_name_asked_for_as_a_change_ends_is_not_lost(build: Build) -> None:
    slot, late = await preloaded(build()), list[asyncio.Task[object]]()
    seen = list[str]()

    def changed() -> None:
        seen.append(slot.model.name)
        if seen == ["first", "first"]:  # loaded, and about to end
            late.append(asyncio.get_running_loop().create_task(slot.change(named("late", INT8))))

    slot.watch(changed)
    await slot.change(named("first", INT8))
    await asyncio.gather(*late)
    assert (len(late), slot.model.name) == (1, "late")
