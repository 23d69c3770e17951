"""One engine's life when precisions change: who stands, who goes, and what a failure leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import psutil
import pytest

from sidecar import errors
from sidecar.audio.decode import AudioFacts
from sidecar.engine import LoadOptions, MemoryPlan, Precision, TranscribeOptions
from sidecar.engines import spec_of
from sidecar.runtime.placement import LoadPlan, Placement
from sidecar.runtime.slot import EngineSlot, SlotState
from sidecar.runtime.worker import Worker

FP32, INT8 = Precision.FP32, Precision.INT8


def alive(pid: int | None) -> bool:
    return (
        pid is not None
        and psutil.pid_exists(pid)
        and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    )


async def until(condition: Callable[[], Any]) -> Any:
    """Look again and again, for 10 s at most, until ``condition`` is true; its value."""
    for _ in range(5000):
        if value := condition():
            return value
        await asyncio.sleep(0.002)
    raise AssertionError("it did not come to that")


class Looker:
    """Decides like a planner, and notes what it was asked about."""

    def __init__(self, placement: Placement = Placement.BESIDE) -> None:
        self.placement: Placement | errors.SidecarError = placement
        self.asked: list[Precision] = []

    def __call__(self, precision: Precision) -> LoadPlan:
        self.asked.append(precision)
        if isinstance(self.placement, errors.SidecarError):
            raise self.placement
        return LoadPlan(self.placement)


Build = Callable[..., EngineSlot]


@pytest.fixture
async def build() -> AsyncIterator[Build]:
    """Slots of the scripted engine, closed in the end."""
    slots: list[EngineSlot] = []

    def make(looker: Looker | None = None, keep_alive_s: float = -1) -> EngineSlot:
        load, place = LoadOptions(FP32), looker or Looker()
        slots.append(EngineSlot(spec_of("scripted"), load, keep_alive_s, place))
        return slots[-1]

    yield make
    for slot in slots:
        await slot.close()


async def stood_while_loading(slot: EngineSlot, precision: Precision) -> bool:
    """Whether the old engine lived while the new one was loaded."""
    old, stood = slot.worker_pid, False
    reload = asyncio.ensure_future(slot.reload(precision))
    while not reload.done():
        if slot.state is SlotState.LOADING:
            stood = stood or alive(old)
        await asyncio.sleep(0.002)
    await reload
    assert not alive(old)
    return stood


@pytest.mark.parametrize("placement", Placement)
async def test_the_old_engine_stands_beside_the_new_one_only_where_there_is_room(
    placement: Placement, build: Build
) -> None:
    looker = Looker(placement)
    slot = build(looker)
    await slot.preload()
    assert await stood_while_loading(slot, INT8) is (placement is Placement.BESIDE)
    assert (slot.precision, slot.state) == (INT8, SlotState.READY)
    assert looker.asked == [FP32, INT8]


@pytest.mark.parametrize("placement", Placement)
async def test_after_a_load_that_fails_the_old_precision_serves(
    placement: Placement, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_FAILS", "int8")
    slot = build(Looker(placement))
    await slot.preload()
    old = slot.worker_pid
    with pytest.raises(errors.ModelLoadFailed, match="told to fail in int8"):
        await slot.reload(INT8)
    assert (slot.precision, slot.state, slot.loading) == (FP32, SlotState.READY, None)
    assert (slot.worker_pid == old) is (placement is Placement.BESIDE)
    async with slot.lease() as engine:
        assert engine.precision is FP32
    with pytest.raises(errors.ModelLoadFailed):
        async with slot.lease(INT8):
            pytest.fail("it cannot be lent")
    assert slot.loaded


async def test_where_the_old_one_does_not_come_back_either_the_next_lease_tries_again(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = build(Looker(Placement.INSTEAD))
    await slot.preload()
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", "no number")
    with pytest.raises(errors.ModelLoadFailed):
        await slot.reload(INT8)
    assert (slot.state, slot.worker_pid, slot.loading) == (SlotState.ABSENT, None, None)
    monkeypatch.delenv("VIBEVOICE_SCRIPTED_SPEED")
    async with slot.lease() as engine:
        assert engine.precision is FP32


async def test_a_precision_that_has_no_room_is_refused_before_the_old_engine_goes(
    build: Build,
) -> None:
    looker = Looker()
    slot = build(looker)
    await slot.preload()
    old = slot.worker_pid
    looker.placement = errors.WontFit("there is no room")
    with pytest.raises(errors.WontFit):
        await slot.reload(INT8)
    assert (slot.worker_pid, slot.precision, slot.state) == (old, FP32, SlotState.READY)


async def test_an_engine_that_is_left_standing_by_a_failed_load_still_leaves_when_idle(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_FAILS", "int8")
    slot = build(keep_alive_s=0.05)
    await slot.preload()
    with pytest.raises(errors.ModelLoadFailed):
        await slot.reload(INT8)
    await until(lambda: slot.state is SlotState.ABSENT)


async def test_reloads_at_once_load_once_for_all(build: Build) -> None:
    looker = Looker()
    slot = build(looker)
    await slot.preload()
    await asyncio.gather(*(slot.reload(INT8) for _ in range(4)))
    assert looker.asked == [FP32, INT8]
    await asyncio.gather(slot.reload(FP32), slot.reload(INT8), slot.reload(INT8))
    assert looker.asked == [FP32, INT8, FP32, INT8]
    await slot.reload(INT8)
    assert looker.asked[4:] == [INT8], "a reload that comes later is one"


async def test_a_reload_waits_for_the_lease_and_goes_before_the_next(build: Build) -> None:
    slot = build()
    seen = []
    async with slot.lease() as engine:
        reload = asyncio.ensure_future(slot.reload(INT8))
        await asyncio.sleep(0)
        following = asyncio.ensure_future(precision_of_a_lease(slot))
        await asyncio.sleep(0.05)
        assert not reload.done()
        seen.append(engine.precision)
    await reload
    assert [*seen, await following] == [FP32, INT8]


async def precision_of_a_lease(slot: EngineSlot) -> Precision:
    async with slot.lease() as engine:
        return engine.precision


@pytest.mark.parametrize("placement", Placement)
async def test_a_lease_that_is_given_up_while_it_loads_leaves_no_process(
    placement: Placement, build: Build
) -> None:
    slot = build(Looker(placement))
    await slot.preload()
    before = {child.pid for child in psutil.Process().children()}
    lease = asyncio.ensure_future(slot.lease(INT8).__aenter__())
    await until(lambda: slot.state is SlotState.LOADING)
    lease.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lease
    assert {child.pid for child in psutil.Process().children()} <= before
    assert (slot.loaded, slot.loading) == (placement is Placement.BESIDE, None)
    assert await precision_of_a_lease(slot) is FP32


async def test_who_waited_through_a_reload_takes_what_it_brought(build: Build) -> None:
    """`resolve`: asked for before the reload: what is there; after it: what was asked for."""
    slot = build()
    before = time.monotonic()
    await slot.reload(INT8)
    rows = [
        (Precision.AUTO, before, INT8),
        (FP32, before, INT8),
        (FP32, time.monotonic(), FP32),
        (INT8, time.monotonic(), INT8),
    ]
    for wanted, since, expected in rows:
        assert slot.resolve(wanted, since) is expected


async def test_memory_is_looked_at_before_each_load_and_each_lease() -> None:
    seen: list[str] = []

    async def look() -> None:
        seen.append("look")

    def place(precision: Precision) -> LoadPlan:
        seen.append(precision)
        return LoadPlan()

    slot = EngineSlot(spec_of("scripted"), LoadOptions(FP32), -1, place, look)
    try:
        async with slot.lease():
            assert seen == ["look", "fp32", "look"]
        async with slot.lease():
            assert seen[3:] == ["look"]
        await slot.reload(INT8)
        assert seen[4:] == ["look", "int8"]
    finally:
        await slot.close()


FRUGAL = MemoryPlan(evict_encoders=True, host_token_table=True)


@pytest.mark.parametrize("placement", Placement)
async def test_the_worker_is_told_what_stays_on_the_host_and_the_slot_remembers(
    placement: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, bool, bool]] = []
    call = Worker.call

    def watched(self: Worker, operation: str, *args: Any, **kwargs: Any) -> Any:
        if operation == "load":
            options = LoadOptions.from_wire(kwargs["options"])
            told.append((options.precision, options.evict_encoders, options.host_token_table))
        return call(self, operation, *args, **kwargs)

    def place(precision: Precision) -> LoadPlan:
        return LoadPlan(placement, FRUGAL if precision is FP32 else MemoryPlan())

    monkeypatch.setattr(Worker, "call", watched)
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_FAILS", "int8")
    slot = EngineSlot(spec_of("scripted"), LoadOptions(FP32), -1, place)
    try:
        await slot.preload()
        assert slot.memory == FRUGAL
        with pytest.raises(errors.ModelLoadFailed):
            await slot.reload(INT8)
        assert slot.memory == FRUGAL, "the old one is as it was"
    finally:
        await slot.close()
    back = [("fp32", True, True)] if placement is Placement.INSTEAD else []
    assert told == [("fp32", True, True), ("int8", False, False), *back]


async def test_after_a_job_the_engine_lies_as_the_job_s_plan_says(
    voice: bytes, tmp_path: Any
) -> None:
    slot = EngineSlot(spec_of("scripted"), LoadOptions(FP32), keep_alive_s=-1)
    path = tmp_path / "voice.wav"
    path.write_bytes(voice)
    try:
        with path.open("rb") as file:
            async with slot.lease() as engine:
                assert slot.memory == MemoryPlan()
                options = TranscribeOptions(memory=FRUGAL)
                facts = AudioFacts("wav", "sndfile", 3.0)
                async with aclosing(
                    engine.transcribe(file.fileno(), facts, options, 60.0)
                ) as events:
                    async for _ in events:
                        pass
        assert slot.memory == FRUGAL
    finally:
        await slot.close()


@pytest.mark.skipif(os.name == "nt", reason="kills with POSIX signals")
async def test_an_engine_that_dies_while_it_loads_is_a_failed_load(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = build()
    await slot.preload()
    old = slot.worker_pid
    known = {child.pid for child in psutil.Process().children()}
    reload = asyncio.ensure_future(slot.reload(INT8))
    new = await until(lambda: {child.pid for child in psutil.Process().children()} - known)
    os.kill(new.pop(), signal.SIGKILL)
    with pytest.raises(errors.ModelLoadFailed):
        await reload
    assert (slot.worker_pid, slot.precision) == (old, FP32)
