"""Requests decoded in step: each gets what it would get alone, whatever befalls another."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import tiny_vibevoice

pytest.importorskip("torch", reason="the extra 'vibevoice' is not installed")

import torch

from sidecar import errors
from sidecar.engines.vibevoice import vibevoice_generation
from sidecar.engines.vibevoice.vibevoice_decoder import KeyValueCache, VibeVoiceDecoder
from sidecar.engines.vibevoice.vibevoice_generation import TokenGeneration, decode_pass
from sidecar.engines.vibevoice.vibevoice_model import VibeVoiceModel, load_vibevoice
from sidecar.engines.vibevoice.vibevoice_transcription import (
    VibeVoiceTranscription,
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


class Broken(tiny_vibevoice.Recording):
    """Fails while it is read."""

    def __iter__(self) -> Any:
        yield self._samples[:50_000]
        raise errors.AudioUndecodable()


@pytest.fixture(scope="module")
def model() -> VibeVoiceModel:
    return VibeVoiceModel(load_vibevoice(tiny_vibevoice.checkpoint("tiny"), Precision.FP32, CPU))


def begun(
    model: VibeVoiceModel, name: str, options: TranscribeOptions | None = None, **rest: Any
) -> VibeVoiceTranscription:
    recording = tiny_vibevoice.Recording(tiny_vibevoice.clip_24k(name))
    cancelled = rest.pop("cancelled", lambda: False)
    return VibeVoiceTranscription(
        model, TranscriptionRequest(recording, options or TranscribeOptions(), cancelled), **rest
    )


def transcript(events: Sequence[TranscriptionEvent | errors.SidecarError]) -> Transcript:
    assert isinstance(events[-1], Finished)
    return events[-1].transcript


def all_events(
    work: list[VibeVoiceTranscription],
) -> list[list[TranscriptionEvent | errors.SidecarError]]:
    events: list[list[TranscriptionEvent | errors.SidecarError]] = [[] for _ in work]
    for number, event in transcribe_in_step(work):
        events[number].append(event)
    return events


def test_each_gets_the_events_that_it_gets_alone(model: VibeVoiceModel) -> None:
    decoding = model.decoding(MemoryPlan())
    alone = [list(begun(model, name).events()) for name in tiny_vibevoice.CLIPS]
    work = [begun(model, name, decoding=decoding) for name in tiny_vibevoice.CLIPS]
    assert all_events(work) == alone


@pytest.mark.slow
def test_who_leaves_early_leaves_the_others_alone(model: VibeVoiceModel) -> None:
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


def test_a_recording_that_breaks_off_fails_on_its_own(model: VibeVoiceModel) -> None:
    broken = VibeVoiceTranscription(
        model,
        TranscriptionRequest(
            Broken(tiny_vibevoice.clip_24k("beckett")), TranscribeOptions(), lambda: False
        ),
    )
    mine, other = all_events([broken, begun(model, "beckett")])
    assert [type(event) for event in mine] == [errors.AudioUndecodable]
    assert transcript(other).segments


@pytest.mark.slow
def test_memory_that_runs_out_in_a_pass_makes_everybody_smaller(
    model: VibeVoiceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [25]

    def tight(generations: Sequence[TokenGeneration]) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        decode_pass(generations)

    monkeypatch.setattr(vibevoice_generation, "decode_pass", tight)
    options = TranscribeOptions(memory_fallback=SMALL)
    names = ("beckett", "two_cities")
    for name, events in zip(
        names, all_events([begun(model, name, options) for name in names]), strict=True
    ):
        expected = transcript(list(begun(model, name).events()))
        assert transcript(events).segments == expected.segments
        assert [notice.code for notice in transcript(events).notices] == ["smaller_memory_plan"]


@pytest.mark.slow
def test_what_ran_out_of_memory_is_gone_before_the_second_try(
    model: VibeVoiceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches: weakref.WeakSet[KeyValueCache] = weakref.WeakSet()
    alive: list[int] = []
    left = [25]
    new_cache = VibeVoiceDecoder.new_cache

    def counted(self: VibeVoiceDecoder, *arguments: Any) -> KeyValueCache:
        alive.append(len(caches))
        caches.add(cache := new_cache(self, *arguments))
        return cache

    def tight(generations: Sequence[TokenGeneration]) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        decode_pass(generations)

    monkeypatch.setattr(VibeVoiceDecoder, "new_cache", counted)
    monkeypatch.setattr(vibevoice_generation, "decode_pass", tight)
    assert transcript(
        list(begun(model, "two_cities", TranscribeOptions(memory_fallback=SMALL)).events())
    )
    assert alive == [0, 0]


@pytest.mark.slow
def test_memory_that_runs_out_twice_is_the_error_of_each(
    model: VibeVoiceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(generations: Sequence[TokenGeneration]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(vibevoice_generation, "decode_pass", full)
    options = TranscribeOptions(memory_fallback=SMALL)
    for events in all_events([begun(model, "beckett", options) for _ in range(2)]):
        assert [type(event) for event in events] == [errors.GpuOutOfMemory]
