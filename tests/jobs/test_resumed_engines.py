"""Jobs of real engines whose process is killed: they go on, and end with the same transcript."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import soundfile
import tiny_vibevoice
import tiny_whisper
from instrumented_slot import OverheardSlot, job_of, model_of, queue_on, started
from job_fixtures import Hold
from service_process import until
from tiny_engine_slots import CHECKPOINTS, TinySlot

from sidecar.checkpoints.checkpoint import ModelCheckpoint
from sidecar.engines import moonshine
from sidecar.interfaces.engine_interface import (
    EngineSpec,
    MemoryPlan,
    Precision,
    TranscribeOptions,
)
from sidecar.jobs.job_runner import Job
from sidecar.transcripts.transcript import Finished, to_wire
from sidecar.workers.loaded_model import LoadedModel

KILLS = 3
Model = LoadedModel[EngineSpec]
Change = Callable[[Model], Model]
CLIPS = {
    "vibevoice": tiny_vibevoice.CLIPS[:2],
    "whisper": (tiny_whisper.PLAY, tiny_whisper.PROSE) * 2,
}


async def in_short_windows(job: Job, precision: Precision) -> TranscribeOptions:
    """The plan of a card with little memory."""
    return replace(job.record.options, memory=MemoryPlan(window_s=14.0))


def planned_model() -> Model:
    """VibeVoice-ASR with a checkpoint that is not there."""
    checkpoint = ModelCheckpoint(Path("/models/asr"), {}, (), 16, None)
    model = model_of("vibevoice", Precision.FP32)
    return replace(model, choice=replace(model.choice, checkpoint=checkpoint))


def with_checkpoint(model: Model, **changes: object) -> Model:
    assert model.choice.checkpoint is not None
    checkpoint = replace(model.choice.checkpoint, **changes)
    return replace(model, choice=replace(model.choice, checkpoint=checkpoint))


@pytest.mark.slow
@pytest.mark.parametrize("engine", CHECKPOINTS)
async def test_transcript_of_engine_that_is_killed_three_times_is_that_of_an_undisturbed_one(
    engine: str, tmp_path: Path
) -> None:
    path, slot = tmp_path / "talk.wav", TinySlot(engine)
    with soundfile.SoundFile(path, "w", tiny_vibevoice.RATE, 1, "PCM_16") as file:
        for name in CLIPS[engine]:
            file.write(tiny_vibevoice.clip_24k(name))
    async with queue_on(slot, plan=in_short_windows, max_s=600) as queue:
        (undisturbed,) = await started(queue, job_of(path))
        right = await undisturbed.result()
        assert not slot.points, "nobody wants to go on"
        slot.kills = KILLS
        job = job_of(path, durable=True)
        await queue.submit(job)
        found = await job.result()
    assert (slot.deaths, job.record.attempts) == (KILLS, KILLS + 1)
    assert all(one.audio_s < other.audio_s for one, other in pairwise(slot.points))
    assert to_wire(Finished(found)) == to_wire(Finished(right))
    assert len({one.speaker for one in right.segments if one.is_speech}) > 1


@pytest.mark.parametrize(
    "change",
    [
        lambda model: replace(model, precision=Precision.BF16),
        lambda model: replace(model, spec=replace(model.spec, resumes="vibevoice-2")),
        lambda model: with_checkpoint(model, folder=Path("/models/another")),
        lambda model: with_checkpoint(model, revision="0" * 40),
        lambda model: with_checkpoint(model, bytes=1),
    ],
    ids=["precision", "version", "name", "revision", "size"],
)
def test_form_of_resume_points_differs_between_models_and_precisions(change: Change) -> None:
    model = planned_model()
    assert change(model).resume_form(MemoryPlan()) != model.resume_form(MemoryPlan())


def test_form_of_resume_points_follows_the_length_of_windows_and_nothing_else_of_the_plan() -> None:
    model = planned_model()
    form = model.resume_form(MemoryPlan(window_s=400.0))
    assert form != model.resume_form(MemoryPlan(window_s=300.0))
    assert form == model.resume_form(MemoryPlan(window_s=400.0, together=2, places=4))
    unplanned = replace(model, spec=replace(model.spec, planned=False))
    forms = {unplanned.resume_form(MemoryPlan(window_s=length)) for length in (300.0, 400.0)}
    assert len(forms) == 1


def test_model_without_a_checkpoint_has_the_form_of_its_engine() -> None:
    assert model_of("moonshine").resume_form(MemoryPlan()) == moonshine.SPEC.resumes
    assert model_of("voxtral").resume_form(MemoryPlan()) == ""


async def test_job_begins_anew_in_the_same_attempt_where_its_resume_points_have_another_form(
    new_job: Callable[..., Job], hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SETTLES", "1")
    slot = OverheardSlot()
    async with queue_on(slot) as queue:
        (job,) = await started(queue, new_job(durable=True))
        await until(lambda: job.record.resume_points)
        hold.spare_new_workers()
        slot.set_spec(resumes="scripted-2")
        slot.kill()
        found = await job.result()
    texts = [one.text for one in found.segments]
    assert len(texts) == len({*texts}) == 3
    assert (job.record.attempts, job.record.resumed_s) == (2, 0.0)
