"""Two engines of ours on one card: a driver made up, processes real, weights as of the real one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from instrumented_slot import FACTS
from released_vibevoice_config import TEXT
from service_process import new_file, until

from sidecar import errors
from sidecar.audio.audio_source import open_recording_file
from sidecar.checkpoints.checkpoint import ModelCheckpoint
from sidecar.config.settings import Settings
from sidecar.engines import engine_spec
from sidecar.engines.engine_selection import EngineChoice
from sidecar.errors import Fault
from sidecar.gpu_memory.gpu_devices import GpuMemory, GpuMonitor
from sidecar.gpu_memory.memory_admission import LoadPlacement
from sidecar.gpu_memory.streaming_memory import STREAMING_SHAPES, StreamingFootprint
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.plugins.conversation.tts import tts_spec as voice_of
from sidecar.workers import engine_lease
from sidecar.workers.engine_lease import EXCLUSIVE, EngineState
from sidecar.workers.engine_memory import MemoryDevices
from sidecar.workers.role_engine import RoleEngine

GIB = 1 << 30
WEIGHTS = 33
"""GiB of the released model in 32 bit, about."""
FILES, LIVE = "files", "live"


@dataclass
class Card:
    """A card, of 80 GiB unless said: engines that are there have their weights, strangers 2, too,
    unless said."""

    tells: bool
    gigabytes: int = 80
    strangers: int = 2
    engines: dict[RoleEngine[Any], Callable[[Precision], int]] = field(default_factory=dict)
    """The bytes of each at a precision, while it is there."""

    def __call__(self) -> GpuMemory:
        ours: dict[int, int] = {}
        for one, size_at in self.engines.items():
            if (pid := one.worker_pid) is not None:
                ours[pid] = size_at(one.precision)
        used = (self.strangers << 10) + (sum(ours.values()) >> 20)
        return GpuMemory("a card", used, self.gigabytes << 10, processes=ours if self.tells else {})


@dataclass
class House:
    """The card, and two engines that may live there."""

    card: Card
    devices: MemoryDevices
    files: RoleEngine[Any]
    live: RoleEngine[Any]

    async def room(self, one: RoleEngine[Any]) -> float:
        """GiB that an engine may take in all, by a look just now."""
        await self.devices.gpu.query()
        assert one.model.admission is not None
        return one.model.admission.available_bytes(one.memory.now(one.model)) / GIB


@pytest.fixture(params=[True, False], ids=["driver report", "no driver report"])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    card = Card(request.param)
    devices = MemoryDevices(GpuMonitor(card))
    settings = Settings(precision="fp32", keep_alive=-1, data_dir=tmp_path)
    checkpoint = ModelCheckpoint(tmp_path, {"text_config": TEXT}, (), 0, None)
    choice = EngineChoice(replace(engine_spec("scripted"), planned=True), "", checkpoint)
    files, live = (RoleEngine(who, settings, choice, devices, EXCLUSIVE) for who in (FILES, LIVE))
    assert files.model.admission is not None
    card.engines = dict.fromkeys((files, live), files.model.admission.loaded_bytes)
    yield House(card, devices, files, live)
    for one in (files, live):
        await one.close()


async def test_memory_of_loading_engine_is_reserved_before_driver_reports_it_and_freed_on_cancel(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await house.room(house.files), await house.room(house.live)) == (78, 78)
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_LOAD", "60")
    loading = asyncio.ensure_future(house.files.preload())
    await until(lambda: house.files.state is EngineState.LOADING)
    assert await house.room(house.live) == pytest.approx(78 - WEIGHTS, abs=1)
    loading.cancel()
    await house.files.close()
    assert await house.room(house.live) == 78, "one that was given up takes nothing"


async def test_memory_of_other_engine_in_driver_report_is_counted_once(house: House) -> None:
    await house.files.preload()
    assert await house.room(house.live) == pytest.approx(78 - WEIGHTS, abs=1)
    assert await house.room(house.files) == pytest.approx(78, abs=1)


async def test_largest_planned_memory_of_jobs_in_a_lease_is_reserved_against_another_engine(
    house: House,
) -> None:
    await house.files.preload()
    async with house.files.lease():
        for beside in (5, 3):  # the second joins, and takes less
            house.files.memory.expect_peak((WEIGHTS + beside) * GIB)
            await house.files.check_room(Precision.FP32)  # a reload is asked for
        assert await house.room(house.live) == pytest.approx(78 - WEIGHTS - 5, abs=2)
    async with house.files.lease():
        house.files.memory.expect_peak((WEIGHTS + 5) * GIB)
        assert await house.room(house.live) == pytest.approx(78 - WEIGHTS - 5, abs=1)


async def test_memory_reserved_for_engine_shrinks_with_its_precision_and_is_freed_as_it_unloads(
    house: House,
) -> None:
    await house.files.preload()
    await house.files.reload(Precision.INT8)
    lighter = await house.room(house.live)
    assert lighter > 78 - WEIGHTS + 10, "the one in 32 bit is gone"
    await house.files.close()
    assert await house.room(house.live) == 78


async def test_memory_reserved_by_one_engine_is_refused_to_other_and_a_failed_load_reserves_none(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.files.preload()
    house.files.memory.expect_peak(70 * GIB)
    with pytest.raises(errors.WontFit, match=r"8\.\d GB are free"):
        await house.live.preload()
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_FAILS", "fp32")
    await house.files.close()
    with pytest.raises(errors.ModelLoadFailed):
        await house.live.preload()
    assert await house.room(house.files) == 78, "a load that fails leaves none either"


@pytest.mark.parametrize("strangers", [2, 60])
async def test_gpu_memory_that_ran_out_is_the_recordings_fault_only_if_its_plan_still_has_room(
    house: House, strangers: int, tmp_path: Path, voice: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    raises = new_file(tmp_path / "raises", b"GpuOutOfMemory 0")
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_RAISES", str(raises))
    await house.files.preload()
    with open_recording_file(str(new_file(tmp_path / "voice.wav", voice))) as source:
        async with house.files.lease() as engine:
            house.files.memory.expect_peak((WEIGHTS + 5) * GIB)
            house.card.strangers = strangers
            request = engine_lease.RecordingRequest(source, FACTS, TranscribeOptions())
            with pytest.raises(errors.GpuOutOfMemory) as met:
                _ = [event async for event in engine.transcribe(request, 60.0)]
    has_room = strangers == 2 and house.card.tells
    assert met.value.fault is (Fault.RECORDING if has_room else Fault.DEVICE)


@pytest.mark.parametrize("gigabytes", [4, 16])
async def test_model_that_does_not_fit_is_the_recordings_fault_only_if_the_card_is_too_small(
    house: House, gigabytes: int, tmp_path: Path
) -> None:
    house.card.gigabytes, house.card.strangers = gigabytes, gigabytes
    await house.devices.gpu.query()
    settings = Settings(precision="int8", data_dir=tmp_path)
    footprint = StreamingFootprint(STREAMING_SHAPES["vibevoice-streaming"], Precision.INT4)
    spec = replace(engine_spec("scripted"), precisions=(Precision.INT8,))
    checkpoint = ModelCheckpoint(tmp_path, {}, (), 9 * GIB, None)
    choice = EngineChoice(spec, "", checkpoint, footprints={Precision.INT8: footprint})
    engine = RoleEngine("typing", settings, choice, house.devices, EXCLUSIVE)
    with pytest.raises(errors.WontFit) as refused:
        await engine.preload()
    await engine.close()
    assert refused.value.fault is (Fault.RECORDING if gigabytes == 4 else Fault.DEVICE)


async def test_memory_of_live_sessions_is_reserved_while_they_run(
    house: House, tmp_path: Path
) -> None:
    settings = Settings(precision="fp32", keep_alive=-1, data_dir=tmp_path)
    checkpoint = ModelCheckpoint(tmp_path, {}, (), 9 * GIB, None)
    choice = EngineChoice(engine_spec("scripted"), "", checkpoint, session_bytes=4 * GIB)
    talking = RoleEngine("talking", settings, choice, house.devices, engine_lease.LIVE, live=True)
    house.card.engines[talking] = lambda _: 9 * GIB
    async with talking.lease():
        assert await house.room(house.files) == 78 - 9 - 4
        async with talking.lease():
            assert await house.room(house.files) == 78 - 9 - 8
        assert await house.room(house.files) == 78 - 9 - 4
    assert await house.room(house.files) == 78 - 9
    await talking.close()
    assert await house.room(house.files) == 78


async def test_session_memory_is_reserved_while_a_file_lease_of_streaming_engine_lasts(
    house: House, tmp_path: Path
) -> None:
    settings = Settings(precision="fp32", keep_alive=-1, data_dir=tmp_path)
    checkpoint = ModelCheckpoint(tmp_path, {}, (), 9 * GIB, None)
    choice = EngineChoice(engine_spec("scripted"), "", checkpoint, session_bytes=4 * GIB)
    reading = RoleEngine("reading", settings, choice, house.devices, EXCLUSIVE)
    house.card.engines[reading] = lambda _: 9 * GIB
    async with reading.lease():
        assert await house.room(house.live) == 78 - 9 - 4
    await reading.close()


async def test_engine_loaded_before_the_gpu_is_known_frees_its_host_memory_on_close(
    tmp_path: Path,
) -> None:
    says: list[GpuMemory | None] = [None]
    devices = MemoryDevices(GpuMonitor(lambda: says[0]))
    settings = Settings(precision="fp32", keep_alive=-1, data_dir=tmp_path)
    checkpoint = ModelCheckpoint(tmp_path, {"text_config": TEXT}, (), 33 * GIB, None)
    files = RoleEngine(
        FILES, settings, EngineChoice(engine_spec("scripted"), "", checkpoint), devices, EXCLUSIVE
    )
    await files.preload()
    assert devices.host.ledger.committed_bytes(LIVE) == 33 * GIB
    says[0] = GpuMemory("a card", 2 << 10, 80 << 10)
    await devices.gpu.query()
    await files.close()
    assert (
        devices.host.ledger.committed_bytes(LIVE) == devices.gpu.ledger.committed_bytes(LIVE) == 0
    )


@pytest.mark.parametrize(
    ("asked", "seen", "used"),
    [("auto", True, "cuda"), ("cpu", True, "cpu"), ("auto", False, "cpu")],
)
async def test_reported_device_is_the_one_that_the_engine_uses(
    asked: str, seen: bool, used: str, tmp_path: Path
) -> None:
    devices = MemoryDevices(GpuMonitor(Card(tells=True) if seen else lambda: None))
    settings = Settings(device=asked, precision="fp32", data_dir=tmp_path)
    checkpoint = ModelCheckpoint(tmp_path, {"text_config": TEXT}, (), 0, None)
    spec = replace(engine_spec("scripted"), planned=True)
    host = RoleEngine(FILES, settings, EngineChoice(spec, "", checkpoint), devices, EXCLUSIVE)
    assert (host.device, host.memory.now(host.model).on_gpu) == (used, used == "cuda")


async def test_tts_on_cpu_takes_memory_of_host_not_of_gpu(house: House, tmp_path: Path) -> None:
    choice = EngineChoice(voice_of("scripted"), "", folder=tmp_path, folder_bytes=3 * GIB)
    settings = Settings(keep_alive=-1, data_dir=tmp_path)
    voice = RoleEngine("voice", settings, choice, house.devices, engine_lease.LIVE, speaks=True)
    assert await house.room(house.files) == 78, "and the card has been seen"
    await voice.preload()
    assert (voice.on_gpu, voice.memory.reserved_bytes) == (False, 3 * GIB)
    assert await house.room(house.files) == 78
    assert house.devices.host.ledger.committed_bytes(FILES) in (0, 3 * GIB)
    await voice.close()
    assert voice.memory.reserved_bytes == 0


@pytest.mark.parametrize(("gigabytes", "best"), [(80, Precision.BF16), (16, Precision.INT4)])
def test_first_precision_is_best_that_fits_on_gpu(
    tmp_path: Path, gigabytes: int, best: Precision
) -> None:
    precisions = (Precision.BF16, Precision.INT8, Precision.INT4)
    spec = replace(engine_spec("scripted"), planned=True, precisions=precisions)
    checkpoint = ModelCheckpoint(tmp_path, {"text_config": TEXT}, (), 0, None)
    devices = MemoryDevices(GpuMonitor(Card(tells=True, gigabytes=gigabytes)))
    choice = EngineChoice(spec, "", checkpoint)
    one = RoleEngine(FILES, Settings(data_dir=tmp_path), choice, devices, EXCLUSIVE)
    assert one.precision is best


@pytest.mark.parametrize("gigabytes", [12, 16])
async def test_streaming_model_that_the_card_does_not_hold_twice_is_refused_until_the_other_leaves(
    house: House, gigabytes: int, tmp_path: Path
) -> None:
    house.card.gigabytes = gigabytes
    await house.devices.gpu.query()
    settings = Settings(precision="int8", keep_alive=-1, data_dir=tmp_path)
    checkpoint = ModelCheckpoint(tmp_path, {}, (), 9 * GIB, None)
    footprint = StreamingFootprint(STREAMING_SHAPES["vibevoice-streaming"], Precision.INT4)
    spec = replace(engine_spec("scripted"), precisions=(Precision.INT8,))
    choice = EngineChoice(spec, "", checkpoint, footprints={Precision.INT8: footprint})
    files, live = (
        RoleEngine(role, settings, choice, house.devices, EXCLUSIVE, live=role == "talking")
        for role in ("typing", "talking")
    )
    house.card.engines |= dict.fromkeys((files, live), lambda _: footprint.loaded_bytes)
    await files.preload()
    with pytest.raises(errors.WontFit, match=r"in int8 needs at least .* GB are free") as refused:
        await live.preload()
    assert "keep_alive" in refused.value.hint
    assert refused.value.fault is Fault.DEVICE
    assert files.memory.place(files.model).placement is LoadPlacement.INSTEAD
    await files.close()
    await live.preload()
    await live.close()
