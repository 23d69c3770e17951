"""Recordings through the real model: memory that runs out, overflow, loops, and several in step."""

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
from sidecar.engines.vibevoice.torch_generation import TokenGeneration
from sidecar.engines.vibevoice.vibevoice_decoder import (
    KeyValueCache,
    PlannedDecoder,
    VibeVoiceDecoder,
)
from sidecar.engines.vibevoice.vibevoice_generation import decode_pass
from sidecar.engines.vibevoice.vibevoice_model import (
    VibeVoiceAudioEncoder,
    VibeVoiceModel,
    load_vibevoice,
)
from sidecar.engines.vibevoice.vibevoice_transcription import (
    JoinedTranscriptions,
    VibeVoiceTranscription,
    WindowSlots,
    transcribe_in_step,
)
from sidecar.interfaces.engine_interface import (
    MemoryPlan,
    Precision,
    TranscribeOptions,
    TranscriptionRequest,
)
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
def test_second_out_of_memory_fails_a_recording_with_advice_and_the_next_is_transcribed(
    model: VibeVoiceModel, monkeypatch: pytest.MonkeyPatch, fallback: MemoryPlan | None
) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory.")
    monkeypatch.setattr(model, "answers", failing(2, error, model.answers))
    with pytest.raises(errors.GpuOutOfMemory, match="CUDA out of memory") as wrong:
        transcribe(model, "beckett", TranscribeOptions(memory_fallback=fallback))
    assert "INT8" in wrong.value.hint
    monkeypatch.undo()
    assert said(transcribe(model, "beckett")) == trained("tiny", "beckett")


def test_lost_gpu_raises_device_lost(
    model: VibeVoiceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setattr(model, "answers", failing(1, error, model.answers))
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
def test_memory_plans_that_move_encoders_or_token_table_to_the_host_give_the_same_text(
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
    for name in sorted({*tiny_vibevoice.CLIPS} - {tiny_vibevoice.LOOPED}):
        assert said(transcribe(looping, name)) == trained("loop", name)


def test_speech_after_early_end_of_answer_is_transcribed_again_in_window_of_its_own(
    model: VibeVoiceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to the whole is cut: it ends with the first clip."""
    lengths: list[float] = []
    answers = model.answers

    def noting(samples: list[Block], *rest: Any) -> Any:
        lengths.extend(len(one) / tiny_vibevoice.RATE for one in samples)
        return answers([one[: 30 * tiny_vibevoice.RATE] for one in samples], *rest)

    monkeypatch.setattr(model, "answers", noting)
    clips = [tiny_vibevoice.clip_24k(name) for name in ("two_cities", "endgame_nagg_nell")]
    pause = np.zeros(2 * tiny_vibevoice.RATE, np.float32)
    recording = SampleStream(np.concatenate([clips[0], pause, clips[1]]), tiny_vibevoice.RATE)
    found = transcript_of(VibeVoiceTranscription(model, request_of(recording)).events())
    assert said(found) == trained("tiny", "two_cities") + trained("tiny", "endgame_nagg_nell")
    assert found.notices == ()
    assert len(lengths) == 2
    assert lengths[1] < 30.0
    assert found.num_speakers == 3


def test_transcript_cut_at_token_limit_keeps_complete_segments_with_a_notice(
    model: VibeVoiceModel,
) -> None:
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
    model: VibeVoiceModel, work: list[VibeVoiceTranscription], apart: int = 0
) -> list[list[Any]]:
    events: list[list[Any]] = [[] for _ in work]
    for number, event in in_step(model, work, apart):
        events[number].append(event)
    return events


def in_step(
    model: VibeVoiceModel, work: list[VibeVoiceTranscription], apart: int = 0
) -> Iterator[tuple[int, Any]]:
    """The events of all, which arrive ``apart`` passes of the decoder one after the other."""
    runs = deque((number, one.steps()) for number, one in enumerate(work))
    passes = itertools.count()

    def arrivals() -> Iterator[Any]:
        now = next(passes)
        while runs and runs[0][0] * apart <= now:
            yield runs.popleft()

    return ((key, one) for key, one in transcribe_in_step(model, arrivals) if one is not None)


@pytest.mark.parametrize("apart", [0, 15])
def test_batched_recordings_share_decoder_passes_and_have_the_events_of_single_ones(
    model: VibeVoiceModel, apart: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = list[int]()

    def counted(generations: Sequence[TokenGeneration]) -> None:
        sizes.append(len(generations))
        decode_pass(generations)

    monkeypatch.setattr(vibevoice_generation, "decode_pass", counted)
    alone = [list(begun(model, name).events()) for name in tiny_vibevoice.CLIPS]
    assert {*sizes} == {1}
    tokens = len(sizes)
    sizes.clear()
    work = [begun(model, name) for name in tiny_vibevoice.CLIPS]
    assert all_events(model, work, apart) == alone
    assert sum(sizes) == tokens
    assert max(sizes) == len(work)


def test_short_recordings_that_join_a_long_one_end_first_in_planned_windows_with_unchanged_text(
    model: VibeVoiceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of eight windows, then short ones, each while those before it are decoded."""
    caches: weakref.WeakSet[KeyValueCache] = weakref.WeakSet()
    alive: list[int] = []
    new_cache = VibeVoiceDecoder.new_cache

    def counted(self: VibeVoiceDecoder, *arguments: Any) -> KeyValueCache:
        caches.add(cache := new_cache(self, *arguments))
        alive.append(len(caches))
        return cache

    plan = TranscribeOptions(memory=MemoryPlan(window_s=10.0, together=3, places=3))
    samples = np.tile(tiny_vibevoice.clip_24k("beckett"), 6)

    def long(slots: WindowSlots | None = None) -> VibeVoiceTranscription:
        request = request_of(SampleStream(samples, tiny_vibevoice.RATE), plan)
        return VibeVoiceTranscription(model, request, slots)

    names = ["beckett", "beckett", "beckett"]
    alone = [transcript_of(long().events()), *(transcribe(model, name, plan) for name in names)]
    monkeypatch.setattr(VibeVoiceDecoder, "new_cache", counted)
    slots = WindowSlots()
    work = [long(slots), *(begun(model, name, plan, slots=slots) for name in names)]
    told = [*in_step(model, work, 5)]
    ends = [number for number, event in told if isinstance(event, Finished)]
    assert max(alive) == 3
    assert sorted(ends) == [0, 1, 2, 3]
    assert ends[-1] == 0, "the long one keeps no short one waiting until its end"
    for number, expected in enumerate(alone):
        found = transcript_of(event for at, event in told if at == number)
        assert (found.segments, found.notices) == (expected.segments, expected.notices)


def test_window_slots_are_shared_equally_in_order_of_requests() -> None:
    slots, plan = WindowSlots(), MemoryPlan(together=8, places=8)

    def take(owner: str, **others: Any) -> int:
        taken = slots.take(owner, dataclasses.replace(plan, **others))
        return 0 if taken is None else taken.together

    assert take("a") == 8
    assert [take(one) for one in "bc"] == [0, 0]
    slots.leave("a")
    assert [take(one) for one in "acbac"] == [0, 0, 2, 0, 2]
    assert take("a") == 2
    assert take("d", weight=3) == 0, "they have two places left"
    slots.leave("b")
    assert take("d", weight=3) == 1
    assert take("e", together=2) == 1
    slots.leave("e")
    assert take("f") == 1


def test_transcription_has_its_own_plan_only_while_no_other_runs_or_waits() -> None:
    """The plan beside others has fewer windows at once."""
    slots, plan = WindowSlots(), MemoryPlan(together=4, places=4)
    alone = MemoryPlan(together=5)
    assert slots.take("a", plan, alone) is alone
    assert slots.take("b", plan) is None, "at the border of the other's windows"
    slots.leave("a")
    assert slots.take("a", plan, alone) is None
    assert slots.take("b", plan) == dataclasses.replace(plan, together=2)
    assert slots.take("a", plan, alone) == dataclasses.replace(plan, together=2)
    for owner in "ba":
        slots.leave(owner)
    assert slots.take("a", plan, alone) is alone


def test_recording_without_batch_places_waits_for_running_ones_and_then_runs_alone() -> None:
    """So it is after memory ran out."""
    slots, beside = WindowSlots(), MemoryPlan(together=1, places=8)
    assert slots.take("a", beside) is not None
    assert slots.take("b", SMALL) is None, "it has to be alone"
    slots.leave("a")
    assert slots.take("b", SMALL) == SMALL
    assert slots.take("c", beside) is None
    slots.leave("b")
    assert slots.take("c", beside) == beside


def test_recording_cancelled_while_it_waits_for_window_slots_ends_and_leaves_the_queue(
    model: VibeVoiceModel,
) -> None:
    slots, options = WindowSlots(), TranscribeOptions(memory=MemoryPlan(together=2, places=2))
    assert slots.take("another", options.memory) is not None
    left: list[bool] = []
    run = begun(model, "beckett", options, slots=slots, cancelled=lambda: bool(left)).steps()
    assert next(run) is None
    left.append(True)
    assert [*itertools.islice(run, 2)] == []
    slots.leave("another")
    assert slots.take("next", options.memory) == options.memory


def note_moves(model: VibeVoiceModel, moves: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes the device to which each of the three parts of the encoders is moved."""
    inner = model.loaded.model.model
    encoders = inner.acoustic_tokenizer_encoder, inner.semantic_tokenizer_encoder
    for part in (*encoders, inner.multi_modal_projector):
        monkeypatch.setattr(part, "to", lambda device: moves.append(device.type))


def test_evicted_encoders_return_to_the_device_once_for_all_windows_of_a_batch(
    model: VibeVoiceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Caches of answers that have ended leave before."""
    moves, windows = list[str](), itertools.count()
    encode = VibeVoiceAudioEncoder.encode

    def counted(self: VibeVoiceAudioEncoder, *arguments: Any, **more: Any) -> None:
        next(windows)
        encode(self, *arguments, **more)

    note_moves(model, moves, monkeypatch)
    monkeypatch.setattr(VibeVoiceAudioEncoder, "encode", counted)
    monkeypatch.setattr(PlannedDecoder, "forget", lambda decoding: moves.append("forgets"))
    plan = MemoryPlan(together=3, places=3, evict_encoders=True)
    samples = tiny_vibevoice.clip_24k("beckett")
    answers = model.answers([samples] * 3, plan, lambda: None, model.decoding(plan))
    assert len(answers) == next(windows) == 3
    assert moves == ["forgets", *6 * ["cpu"]], "three parts, in and out"


def test_evicted_encoders_leave_the_device_again_if_recording_is_cancelled_during_encoding(
    model: VibeVoiceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others go on, by a plan without them."""
    moves, samples = list[str](), tiny_vibevoice.clip_24k("beckett")
    note_moves(model, moves, monkeypatch)
    with pytest.raises(InterruptedError):
        model.answers([samples], SMALL, failing(1, InterruptedError(), str), model.decoding(SMALL))
    assert len(moves) == 6, "three parts, in and out"


def test_concurrent_requests_have_text_of_single_ones_beside_a_closed_and_a_broken_one(
    model: VibeVoiceModel,
) -> None:
    joined, plan = (
        JoinedTranscriptions(model),
        TranscribeOptions(memory=MemoryPlan(together=3, places=3)),
    )

    def request(name: str) -> TranscriptionRequest:
        return request_of(SampleStream(tiny_vibevoice.clip_24k(name), tiny_vibevoice.RATE), plan)

    left = joined.events(request("endgame_nagg_nell"))
    assert isinstance(next(left), SegmentReady)
    left.close()
    broken = request_of(Broken(tiny_vibevoice.clip_24k("beckett"), tiny_vibevoice.RATE), plan)
    with ThreadPoolExecutor(3) as threads:
        bad = threads.submit(list, joined.events(broken))
        good = threads.map(
            lambda name: transcript_of(joined.events(request(name))), tiny_vibevoice.CLIPS
        )
        for name, found in zip(tiny_vibevoice.CLIPS, good, strict=True):
            assert said(found) == trained("tiny", name)
        assert isinstance(bad.exception(), errors.AudioUndecodable)


@pytest.mark.slow
def test_recording_cancelled_in_a_batch_does_not_change_the_others(model: VibeVoiceModel) -> None:
    heard: list[TranscriptionEvent] = []
    alone = list(begun(model, "two_cities").events())
    names = ("endgame_nagg_nell", "two_cities")
    work = [begun(model, names[0], cancelled=lambda: len(heard) > 0), begun(model, names[1])]
    other: list[Any] = []
    for number, event in in_step(model, work):
        (other if number else heard).append(event)
    assert other == alone
    assert [type(event) for event in heard[:1]] == [SegmentReady]
    assert not any(isinstance(event, Finished) for event in heard)


def test_undecodable_recording_fails_alone_in_batch(model: VibeVoiceModel) -> None:
    sound = Broken(tiny_vibevoice.clip_24k("beckett"), tiny_vibevoice.RATE)
    broken = VibeVoiceTranscription(model, request_of(sound))
    mine, other = all_events(model, [broken, begun(model, "beckett")])
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
        names, all_events(model, [begun(model, name, options) for name in names]), strict=True
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
    for events in all_events(model, [begun(model, "beckett", options) for _ in range(2)]):
        assert [type(event) for event in events] == [errors.GpuOutOfMemory]
