"""One recording through the real model: memory that runs out, numbers that overflow, loops."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import tiny_vibevoice

pytest.importorskip("torch", reason="the extra 'vibevoice' is not installed")

import torch

from sidecar import errors
from sidecar.audio import Block
from sidecar.engines.vibevoice.vibevoice_decoder import PlannedDecoder
from sidecar.engines.vibevoice.vibevoice_generation import DecoderPass, decode_in_step, decode_pass
from sidecar.engines.vibevoice.vibevoice_model import VibeVoiceModel, load_vibevoice
from sidecar.engines.vibevoice.vibevoice_transcription import VibeVoiceTranscription
from sidecar.interfaces.engine_interface import (
    MemoryPlan,
    Precision,
    TranscribeOptions,
    TranscriptionRequest,
)
from sidecar.transcripts.transcript import Finished, Segment, Transcript

CPU = torch.device("cpu")
SMALL = MemoryPlan(encoder_chunk_s=2.0, prefill_tile=64, evict_encoders=True)


def transcribe(
    model: VibeVoiceModel, name: str, options: TranscribeOptions | None = None
) -> Transcript:
    recording = tiny_vibevoice.Recording(tiny_vibevoice.clip_24k(name))
    work = VibeVoiceTranscription(
        model, TranscriptionRequest(recording, options or TranscribeOptions(), lambda: False)
    )
    *_, last = work.events()
    assert isinstance(last, Finished)
    return last.transcript


def said(transcript: Transcript) -> list[str]:
    return [segment.text for segment in transcript.segments]


def trained(size: str, name: str) -> list[str]:
    return [segment["Content"] for segment in tiny_vibevoice.answers(size)[name]]


@pytest.fixture(scope="module")
def model() -> VibeVoiceModel:
    return VibeVoiceModel(load_vibevoice(tiny_vibevoice.checkpoint("tiny"), Precision.FP32, CPU))


@pytest.mark.slow
def test_answers_in_step_are_those_given_alone(model: VibeVoiceModel) -> None:
    clips = [tiny_vibevoice.clip_24k(name) for name in tiny_vibevoice.CLIPS]

    def answered(decoding: PlannedDecoder, clips: list[Block]) -> list[tuple[int, list[Segment]]]:
        answers = [model.answer(clip, MemoryPlan(), lambda: None, decoding) for clip in clips]
        ended = []
        for step in decode_in_step(answers, None, [600] * len(clips), lambda: False):
            if isinstance(step, DecoderPass):
                decode_pass(step.generations)
            elif step[1] is None:
                ended.append(step[0])
        return [(number, answers[number].segments) for number in ended]

    with torch.inference_mode():
        alone = [answered(model.decoding(SMALL), [clip])[0][1] for clip in clips]
        together = answered(model.decoding(SMALL), clips)
    assert [alone[number] for number, _ in together] == [segments for _, segments in together]
    assert [number for number, _ in together] != sorted(range(3)), "each ends when it ends"


def failing(times: int, error: Exception, then: Callable[..., Any]) -> Callable[..., Any]:
    """A method that fails a few times before it does its work; it notes what it was called with."""
    left = [times]

    def method(*arguments: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise error
        return then(*arguments)

    return method


def test_memory_that_runs_out_once_costs_a_second_try_with_the_smaller_plan(
    model: VibeVoiceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[MemoryPlan] = []
    answer = model.answer

    def noting(samples: Block, plan: MemoryPlan, *rest: Any) -> Any:
        plans.append(plan)
        if len(plans) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return answer(samples, plan, *rest)

    monkeypatch.setattr(model, "answer", noting)
    options = TranscribeOptions(memory_fallback=SMALL)
    transcript = transcribe(model, "beckett", options)
    assert plans == [options.memory, SMALL]
    assert said(transcript) == trained("tiny", "beckett")
    assert [notice.code for notice in transcript.notices] == ["smaller_memory_plan"]


@pytest.mark.parametrize("fallback", [None, SMALL])
def test_memory_that_runs_out_for_good_is_told_in_the_words_that_hosts_look_for(
    model: VibeVoiceModel, monkeypatch: pytest.MonkeyPatch, fallback: MemoryPlan | None
) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory.")
    monkeypatch.setattr(model, "answer", failing(2, error, model.answer))
    with pytest.raises(errors.GpuOutOfMemory, match="CUDA out of memory") as wrong:
        transcribe(model, "beckett", TranscribeOptions(memory_fallback=fallback))
    assert "INT8" in wrong.value.hint
    monkeypatch.undo()
    assert said(transcribe(model, "beckett")) == trained("tiny", "beckett")


def test_a_lost_device_is_not_an_error_of_the_request(
    model: VibeVoiceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setattr(model, "answer", failing(1, error, model.answer))
    with pytest.raises(errors.DeviceLost):
        transcribe(model, "beckett")


@pytest.mark.slow
def test_fp16_that_overflows_falls_back_to_bf16_and_says_so() -> None:
    overflowing = VibeVoiceModel(
        load_vibevoice(tiny_vibevoice.checkpoint("tiny"), Precision.FP16, CPU)
    )
    inner = overflowing.loaded.model
    with torch.no_grad():  # each fits in fp16, their product does not; what is likeliest stays so
        inner.model.language_model.norm.weight.mul_(1_000.0)
        inner.lm_head.weight.mul_(1_000.0)
    transcript = transcribe(overflowing, "beckett")
    assert said(transcript) == trained("tiny", "beckett")
    assert [notice.code for notice in transcript.notices] == ["fp16_overflow"]
    assert transcript.precision == "bf16"


@pytest.mark.slow_except("plan0")
@pytest.mark.parametrize("plan", [SMALL, dataclasses.replace(SMALL, host_token_table=True)])
def test_every_plan_gives_the_same_words(model: VibeVoiceModel, plan: MemoryPlan) -> None:
    options = TranscribeOptions(memory=plan)
    for name in tiny_vibevoice.CLIPS:
        assert said(transcribe(model, name, options)) == trained("tiny", name)


@pytest.mark.slow
def test_a_loop_is_cut_and_told_and_the_sound_part_is_whole() -> None:
    looping = VibeVoiceModel(load_vibevoice(tiny_vibevoice.checkpoint("loop"), Precision.FP32, CPU))
    transcript = transcribe(looping, tiny_vibevoice.LOOPED)
    wanted = trained("loop", tiny_vibevoice.LOOPED)
    assert said(transcript)[: len(wanted)] == wanted
    assert len(transcript.segments) <= len(wanted) + 1
    assert next(notice.code for notice in transcript.notices).startswith("loop_")
    for name in set(tiny_vibevoice.CLIPS) - {tiny_vibevoice.LOOPED}:
        assert said(transcribe(looping, name)) == trained("loop", name)


def test_the_answer_that_reaches_its_limit_keeps_its_whole_segments(model: VibeVoiceModel) -> None:
    transcript = transcribe(model, "endgame_nagg_nell", TranscribeOptions(max_tokens=60))
    wanted = trained("tiny", "endgame_nagg_nell")
    assert 0 < len(transcript.segments) < len(wanted)
    assert said(transcript) == wanted[: len(transcript.segments)]
    assert [notice.code for notice in transcript.notices] == ["output_truncated"]
