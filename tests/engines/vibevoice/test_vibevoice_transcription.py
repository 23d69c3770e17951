"""Recordings through the real model: memory that runs out, overflow, loops, and several in step."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tiny_vibevoice
from engine_requests import SampleStream, request_of, transcript_of

pytest.importorskip("torch", reason="the extra 'vibevoice' is not installed")

import weakref
from collections.abc import Sequence

import torch

from sidecar import errors
from sidecar.audio import Block
from sidecar.engines.vibevoice import vibevoice_generation
from sidecar.engines.vibevoice.vibevoice_decoder import KeyValueCache, VibeVoiceDecoder
from sidecar.engines.vibevoice.vibevoice_generation import TokenGeneration, decode_pass
from sidecar.engines.vibevoice.vibevoice_model import VibeVoiceModel, load_vibevoice
from sidecar.engines.vibevoice.vibevoice_transcription import (
    VibeVoiceTranscription,
    transcribe_in_step,
)
from sidecar.interfaces.engine_interface import MemoryPlan, Precision, TranscribeOptions
from sidecar.transcripts.transcript import Finished, SegmentReady, Transcript, TranscriptionEvent

CPU = torch.device("cpu")
SMALL = MemoryPlan(encoder_chunk_s=2.0, prefill_tile=64, evict_encoders=True)


def begun(
    model: VibeVoiceModel, name: str, options: TranscribeOptions | None = None, **rest: Any
) -> VibeVoiceTranscription:
    recording = SampleStream(tiny_vibevoice.clip_24k(name), tiny_vibevoice.RATE)
    asked = {"cancelled": rest.pop("cancelled")} if "cancelled" in rest else {}
    return VibeVoiceTranscription(model, request_of(recording, options, **asked), **rest)


def transcribe(
    model: VibeVoiceModel, name: str, options: TranscribeOptions | None = None
) -> Transcript:
    return transcript_of(begun(model, name, options).events())


def said(transcript: Transcript) -> list[str]:
    return [segment.text for segment in transcript.segments]


def trained(size: str, name: str) -> list[str]:
    return [segment["Content"] for segment in tiny_vibevoice.answers(size)[name]]


@pytest.fixture(scope="module")
def model() -> VibeVoiceModel:
    return VibeVoiceModel(load_vibevoice(tiny_vibevoice.checkpoint("tiny"), Precision.FP32, CPU))


@pytest.fixture(scope="module")
def with_words(model: VibeVoiceModel) -> Transcript:
    return transcribe(model, "beckett", TranscribeOptions(words=True))


def test_requested_words_are_aligned_with_the_recording(
    model: VibeVoiceModel, with_words: Transcript
) -> None:
    plain, found = transcribe(model, "beckett"), with_words
    assert said(found) == said(plain)
    assert not any(one.words for one in plain.segments)
    assert {one.words_by for one in found.segments if one.is_speech} == {"aligned"}
    for segment in found.segments:
        assert " ".join(word.text for word in segment.words) == segment.text
        assert all(segment.start <= one.start < one.end <= segment.end for one in segment.words)


def test_confidence_is_near_1_for_learned_speech_and_lower_for_noise(
    model: VibeVoiceModel, with_words: Transcript
) -> None:
    learned = with_words.segments
    for segment in learned:
        sure = [word.confidence or 0.0 for word in segment.words]
        assert min(sure) <= (segment.confidence or 0.0) <= max(sure)
    noise = 0.2 * np.random.default_rng(1).standard_normal(8 * tiny_vibevoice.RATE)
    heard = request_of(SampleStream(noise.astype(np.float32), tiny_vibevoice.RATE))
    unsure = transcript_of(VibeVoiceTranscription(model, heard).events()).segments
    assert all(one.confidence is None for one in unsure if not one.is_speech)
    lowest = min(one.confidence or 0.0 for one in unsure if one.is_speech)
    assert lowest < min(one.confidence or 0.0 for one in learned)
    assert min(one.confidence or 0.0 for one in learned) > 0.97
    assert [one.language for one in learned] == ["en", ""], "too few letters are not classified"


def failing(times: int, error: Exception, then: Callable[..., Any]) -> Callable[..., Any]:
    """A method that fails a few times before it does its work; it notes what it was called with."""
    left = [times]

    def method(*arguments: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise error
        return then(*arguments)

    return method


@pytest.mark.parametrize("fallback", [None, SMALL])
def test_repeated_out_of_memory_has_text_that_hosts_match(
    model: VibeVoiceModel, monkeypatch: pytest.MonkeyPatch, fallback: MemoryPlan | None
) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory.")
    monkeypatch.setattr(model, "answer", failing(2, error, model.answer))
    with pytest.raises(errors.GpuOutOfMemory, match="CUDA out of memory") as wrong:
        transcribe(model, "beckett", TranscribeOptions(memory_fallback=fallback))
    assert "INT8" in wrong.value.hint
    monkeypatch.undo()
    assert said(transcribe(model, "beckett")) == trained("tiny", "beckett")


def test_lost_gpu_raises_device_lost(
    model: VibeVoiceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setattr(model, "answer", failing(1, error, model.answer))
    with pytest.raises(errors.DeviceLost):
        transcribe(model, "beckett")


@pytest.mark.slow
def test_fp16_overflow_falls_back_to_bf16_with_notice() -> None:
    overflowing = VibeVoiceModel(
        load_vibevoice(tiny_vibevoice.checkpoint("tiny"), Precision.FP16, CPU)
    )
    inner = overflowing.loaded.model
    with torch.no_grad():  # each fits in fp16, their product does not; what is likeliest stays so
        inner.model.language_model.norm.weight.mul_(1_000.0)
        inner.lm_head.weight.mul_(1_000.0)
    found = transcribe(overflowing, "beckett")
    assert said(found) == trained("tiny", "beckett")
    assert [notice.code for notice in found.notices] == ["fp16_overflow"]
    assert found.precision == "bf16"


@pytest.mark.slow_except("plan0-beckett")
@pytest.mark.parametrize("name", ["beckett", "endgame_nagg_nell"])
@pytest.mark.parametrize("plan", [SMALL, dataclasses.replace(SMALL, host_token_table=True)])
def test_every_memory_plan_gives_same_text(
    model: VibeVoiceModel, plan: MemoryPlan, name: str
) -> None:
    options = TranscribeOptions(memory=plan)
    assert said(transcribe(model, name, options)) == trained("tiny", name)


@pytest.mark.slow
def test_repetition_loop_is_cut_with_notice_and_rest_is_kept() -> None:
    looping = VibeVoiceModel(load_vibevoice(tiny_vibevoice.checkpoint("loop"), Precision.FP32, CPU))
    found = transcribe(looping, tiny_vibevoice.LOOPED)
    wanted = trained("loop", tiny_vibevoice.LOOPED)
    assert said(found)[: len(wanted)] == wanted
    assert len(found.segments) <= len(wanted) + 1
    assert next(notice.code for notice in found.notices).startswith("loop_")
    for name in set(tiny_vibevoice.CLIPS) - {tiny_vibevoice.LOOPED}:
        assert said(transcribe(looping, name)) == trained("loop", name)


def test_speech_after_early_end_of_answer_is_transcribed_again_in_window_of_its_own(
    model: VibeVoiceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to the whole is cut: it ends with the first clip."""
    lengths: list[float] = []
    answer = model.answer

    def noting(samples: Block, *rest: Any) -> Any:
        lengths.append(len(samples) / tiny_vibevoice.RATE)
        return answer(samples[: 30 * tiny_vibevoice.RATE], *rest)

    monkeypatch.setattr(model, "answer", noting)
    clips = [tiny_vibevoice.clip_24k(name) for name in ("two_cities", "endgame_nagg_nell")]
    pause = np.zeros(2 * tiny_vibevoice.RATE, np.float32)
    recording = SampleStream(np.concatenate([clips[0], pause, clips[1]]), tiny_vibevoice.RATE)
    found = transcript_of(VibeVoiceTranscription(model, request_of(recording)).events())
    assert said(found) == trained("tiny", "two_cities") + trained("tiny", "endgame_nagg_nell")
    assert found.notices == ()
    assert len(lengths) == 2
    assert lengths[1] < 30.0
    assert found.num_speakers == 3


def test_transcript_cut_at_token_limit_keeps_complete_segments(model: VibeVoiceModel) -> None:
    found = transcribe(model, "endgame_nagg_nell", TranscribeOptions(max_tokens=60))
    wanted = trained("tiny", "endgame_nagg_nell")
    assert 0 < len(found.segments) < len(wanted)
    assert said(found) == wanted[: len(found.segments)]
    assert (found.precision, found.device) == ("fp32", "cpu")
    assert [notice.code for notice in found.notices] == ["output_truncated"]


class Broken(SampleStream):
    """Fails while it is read."""

    def __iter__(self) -> Any:
        yield self.samples[:50_000]
        raise errors.AudioUndecodable()


def all_events(
    work: list[VibeVoiceTranscription],
) -> list[list[TranscriptionEvent | errors.SidecarError]]:
    events: list[list[TranscriptionEvent | errors.SidecarError]] = [[] for _ in work]
    for number, event in transcribe_in_step(work):
        events[number].append(event)
    return events


def test_batched_recordings_have_events_of_single_ones(model: VibeVoiceModel) -> None:
    decoding = model.decoding(MemoryPlan())
    names = ("beckett", "endgame_nagg_nell")
    alone = [list(begun(model, name).events()) for name in names]
    work = [begun(model, name, decoding=decoding) for name in names]
    assert all_events(work) == alone


@pytest.mark.slow
def test_recording_that_leaves_batch_does_not_change_others(model: VibeVoiceModel) -> None:
    heard: list[TranscriptionEvent] = []
    alone = list(begun(model, "two_cities").events())
    names = ("endgame_nagg_nell", "two_cities")
    work = [begun(model, names[0], cancelled=lambda: len(heard) > 0), begun(model, names[1])]
    other: list[Any] = []
    for number, event in transcribe_in_step(work):
        (other if number else heard).append(event)
    assert other == alone
    assert [type(event) for event in heard[:1]] == [SegmentReady]
    assert not any(isinstance(event, Finished) for event in heard)


def test_undecodable_recording_fails_alone_in_batch(model: VibeVoiceModel) -> None:
    sound = Broken(tiny_vibevoice.clip_24k("beckett"), tiny_vibevoice.RATE)
    broken = VibeVoiceTranscription(model, request_of(sound))
    mine, other = all_events([broken, begun(model, "beckett")])
    assert [type(event) for event in mine] == [errors.AudioUndecodable]
    assert transcript_of(other).segments


def full_at(number: int) -> Callable[[Sequence[TokenGeneration]], None]:
    """Passes of which one finds no memory."""
    numbers = itertools.count(1)

    def tight(generations: Sequence[TokenGeneration]) -> None:
        if next(numbers) == number:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        decode_pass(generations)

    return tight


@pytest.mark.slow
def test_out_of_memory_in_batch_moves_all_to_fallback_plan(
    model: VibeVoiceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vibevoice_generation, "decode_pass", full_at(25))
    options = TranscribeOptions(memory_fallback=SMALL)
    names = ("beckett", "two_cities")
    for name, events in zip(
        names, all_events([begun(model, name, options) for name in names]), strict=True
    ):
        expected = transcribe(model, name)
        assert transcript_of(events).segments == expected.segments
        assert [notice.code for notice in transcript_of(events).notices] == ["smaller_memory_plan"]


@pytest.mark.slow
def test_caches_are_freed_before_retry_after_out_of_memory(
    model: VibeVoiceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches: weakref.WeakSet[KeyValueCache] = weakref.WeakSet()
    alive: list[int] = []
    new_cache = VibeVoiceDecoder.new_cache

    def counted(self: VibeVoiceDecoder, *arguments: Any) -> KeyValueCache:
        alive.append(len(caches))
        caches.add(cache := new_cache(self, *arguments))
        return cache

    monkeypatch.setattr(VibeVoiceDecoder, "new_cache", counted)
    monkeypatch.setattr(vibevoice_generation, "decode_pass", full_at(25))
    transcribe(model, "two_cities", TranscribeOptions(memory_fallback=SMALL))
    assert alive == [0, 0]


@pytest.mark.slow
def test_repeated_out_of_memory_in_batch_fails_each_recording(
    model: VibeVoiceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(generations: Sequence[TokenGeneration]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(vibevoice_generation, "decode_pass", full)
    options = TranscribeOptions(memory_fallback=SMALL)
    for events in all_events([begun(model, "beckett", options) for _ in range(2)]):
        assert [type(event) for event in events] == [errors.GpuOutOfMemory]
