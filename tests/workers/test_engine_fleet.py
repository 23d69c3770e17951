"""The engines of a service: one for files and one for live audio, side by side."""

import asyncio
import json
import os
import signal
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from service_process import PATIENCE_S, until

from sidecar import errors
from sidecar.checkpoints.checkpoint import ModelCheckpoint
from sidecar.config.settings import Settings
from sidecar.engines import engine_spec
from sidecar.engines.engine_selection import EngineChoice
from sidecar.interfaces.engine_interface import EngineSpec, Precision, TranscribeOptions
from sidecar.jobs.duration_prediction import DEFAULT_WORK_PER_AUDIO_S
from sidecar.jobs.job_engine import JobEngine
from sidecar.workers import model_registry
from sidecar.workers.engine_fleet import EngineFleet
from sidecar.workers.engine_lease import EngineState
from sidecar.workers.model_registry import ModelLoadRequest, ModelRegistry
from sidecar.workers.role_engine import EngineRole, RoleEngine
from sidecar.workers.worker_process import Heartbeat, PingTimes

SCRIPTED = EngineChoice(replace(engine_spec("scripted"), sessions=100), "")


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[EngineFleet]:
    one = EngineFleet(
        Settings(engine="scripted", data_dir=tmp_path, keep_alive=-1), SCRIPTED, SCRIPTED
    )
    yield one
    await one.close()


async def test_file_and_live_engine_have_own_processes_and_a_reload_of_one_keeps_the_other(
    fleet: EngineFleet,
) -> None:
    slots = [fleet.files, fleet.live]
    assert [one.state for one in slots] == [EngineState.ABSENT] * 2
    async with fleet.files.lease(), fleet.live.lease():
        assert [one.state for one in slots] == [EngineState.BUSY] * 2
        pid = fleet.live.worker_pid
        assert pid != fleet.files.worker_pid
    await fleet.files.reload(fleet.files.spec.precisions[1])
    assert fleet.live.worker_pid == pid
    await fleet.close()
    assert [one.state for one in slots] == [EngineState.ABSENT] * 2
    assert not [one for one in psutil.Process().children() if one.pid == pid]


@pytest.mark.parametrize(
    ("role", "way"),
    [(EngineRole.LIVE, "kill"), (EngineRole.LIVE, "suspend"), (EngineRole.FILES, "suspend")],
)
async def test_engine_that_dies_or_hangs_during_lease_leaves_a_crash_note_file(
    fleet: EngineFleet, tmp_path: Path, role: EngineRole, way: str
) -> None:
    slot = fleet.live if role is EngineRole.LIVE else fleet.files
    # One that was killed is dead and not deaf, however long the system takes to end it.
    second_s = 0.05 if way == "suspend" else PATIENCE_S
    times = PingTimes(0.2, second_s, interval_s=0.05)  # no sooner: it may be busy
    slot.heartbeat = Heartbeat(lambda: slot.worker, times)
    async with fleet.live.lease() if role is EngineRole.LIVE else fleet.files.lease():
        pid = slot.worker_pid
        assert pid is not None
        getattr(psutil.Process(pid), way)()
        await until(lambda: slot.worker_pid is None)
    await fleet.close()
    (note,) = (tmp_path / "crash").glob("*.json")
    written = json.loads(note.read_text("utf-8"))
    code = -9 if os.name == "posix" else {"kill": signal.SIGTERM, "suspend": 1}[way]
    assert (written["role"], written["engine"], written["exit_code"]) == (role, "scripted", code)
    assert ("answered no ping" in str(written)) is (way == "suspend")
    assert fleet.engines[role].crashes == 1


def model_choice(name: str) -> EngineChoice[EngineSpec]:
    """A model of the scripted engine in a folder with an adapter."""
    weights = (Path(f"{name} model") / "model.safetensors",)
    return replace(
        SCRIPTED, checkpoint=ModelCheckpoint(Path(f"{name} adapter"), {}, weights, 1, None)
    )


def other_engine(name: str, _: object = None) -> EngineChoice[EngineSpec]:
    """The scripted engine by another name; no other engine is like it."""
    return EngineChoice(replace(engine_spec("scripted"), name=name), "")


async def test_folders_of_model_registry_include_adapter_and_model_that_are_loading(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        model_registry, "choose_engine", lambda settings: model_choice(settings.whisper_model)
    )
    settings = Settings(engine="scripted", data_dir=tmp_path, keep_alive=-1, device="cpu")
    fleet = EngineFleet(settings, model_choice("first"), None)
    models = ModelRegistry(settings, fleet.recognizers)
    first = {Path("first adapter"), Path("first model")}
    assert set(models.folders()) == first
    async with fleet.files.lease():
        await models.load(ModelLoadRequest("other", size="second"))
        assert set(models.folders()) == first | {Path("second adapter"), Path("second model")}
        await models.close()
        await fleet.close()
    assert set(models.folders()) == first


async def test_engine_that_does_not_load_leaves_the_old_one_loaded(
    fleet: EngineFleet, tmp_path: Path
) -> None:
    engine = fleet.files
    damaged = EngineChoice(engine_spec("whisper"), "", folder=tmp_path)
    await engine.preload()
    pid, model = engine.worker_pid, engine.model
    with pytest.raises(errors.PrecisionUnavailable):
        await engine.change(engine.other("damaged", damaged, Precision.INT4))
    assert engine.worker_pid == pid, "what is known before the load unloads nothing"
    with pytest.raises(errors.ModelLoadFailed):
        await engine.change(engine.other("damaged", damaged))
    assert engine.state is EngineState.READY
    assert engine.model is model


@pytest.fixture
async def models(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[tuple[RoleEngine[EngineSpec], ModelRegistry]]:
    """An engine, and the registry of its models; "first" is loaded."""
    monkeypatch.setattr(model_registry, "choose_installed", other_engine)
    settings = Settings(data_dir=tmp_path, keep_alive=-1)
    fleet = EngineFleet(settings, other_engine("first"), None)
    await fleet.files.preload()
    yield fleet.files, ModelRegistry(settings, fleet.recognizers)
    await fleet.close()


async def test_request_of_a_later_model_supersedes_one_that_still_waits_for_a_job_to_end(
    models: tuple[RoleEngine[EngineSpec], ModelRegistry],
) -> None:
    engine, registry = models
    async with engine.lease():
        other = asyncio.create_task(registry.use("other"))
        await until(lambda: len(engine.models) == 3)
        first = asyncio.create_task(registry.use("first"))
        with pytest.raises(errors.ReloadSuperseded, match="'first' in fp32 was requested"):
            await other
    assert await first is Precision.FP32
    await registry.use("third")
    assert (engine.loader.loads, registry.names, engine.spec.name) == (2, ["third"], "third")


async def test_process_can_end_while_the_disk_of_a_model_that_was_requested_hangs(
    models: tuple[RoleEngine[EngineSpec], ModelRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemons = list[bool]()

    def chosen(name: str, _: Settings) -> EngineChoice[EngineSpec]:
        daemons.append(threading.current_thread().daemon)
        return other_engine(name)

    monkeypatch.setattr(model_registry, "choose_installed", chosen)
    await models[1].use("other")
    assert daemons == [True]


async def test_equal_requests_for_a_model_share_a_load_and_one_for_another_model_waits_for_it(
    models: tuple[RoleEngine[EngineSpec], ModelRegistry],
) -> None:
    engine, registry = models
    async with engine.lease():
        both = [asyncio.create_task(registry.use("other")) for _ in range(2)]
        await until(lambda: len(engine.models) == 3)
    await until(lambda: engine.state is EngineState.LOADING)
    back = asyncio.create_task(registry.use("first"))
    await asyncio.gather(*both, back)
    assert (engine.loader.loads, registry.names) == (3, ["first"])


@pytest.mark.parametrize("alike", [True, False], ids=["same engine", "another engine"])
async def test_predictions_and_stored_durations_follow_the_model_and_stay_if_it_does_not_load(
    alike: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(precision="fp32", data_dir=tmp_path, keep_alive=-1, device="cpu")
    engine = EngineFleet(settings, model_choice("tiny"), None).files
    jobs = JobEngine(settings, engine)
    for audio_s in (60, 600, 3600):
        jobs.predictor.learn(Precision.FP32, audio_s, 0.05 * audio_s)
    other = model_choice("large") if alike else other_engine("other")
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_FAILS", "fp32")
    with pytest.raises(errors.ModelLoadFailed):
        await engine.change(engine.other("large", other))
    assert (jobs.work_s(3600.0), jobs.forecast(3600.0, TranscribeOptions()).seconds) == (180, 180)
    monkeypatch.delenv("VIBEVOICE_SCRIPTED_FAILS")
    await engine.change(engine.other("large", other))
    assert jobs.work_s(3600.0) == 3600.0 * DEFAULT_WORK_PER_AUDIO_S, "nothing was measured of it"
    jobs.predictor.learn(Precision.FP32, 3600, 3600)
    keys = [engine.first.duration_key, engine.model.duration_key]
    assert [*jobs.predictor.fits] == keys
    assert [jobs.predictor.fits[key].per_s for key in keys] == [0.05, 1.0]
    await engine.close()


async def test_waits_of_shared_jobs_are_predicted_by_the_precision_that_is_loaded(
    tmp_path: Path,
) -> None:
    settings = Settings(precision="int8", data_dir=tmp_path, keep_alive=-1, device="cpu")
    engine = EngineFleet(settings, SCRIPTED, None).files
    jobs = JobEngine(settings, engine)
    jobs.predictor.learn(Precision.INT8, 100, 10)
    jobs.predictor.learn(Precision.FP32, 100, 50)
    assert jobs.work_s(1000.0) == 100
    await engine.reload(Precision.FP32)
    assert jobs.work_s(1000.0) == 500
    await engine.close()


async def test_fleet_without_live_engine_has_file_engine_only(tmp_path: Path) -> None:
    fleet = EngineFleet(Settings(engine="scripted", data_dir=tmp_path), SCRIPTED, None)
    assert list(fleet.engines) == [EngineRole.FILES]
    await fleet.close()
