"""Token ids on ggml beside those of transformers, for a tiny checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("libggml", reason="ggml is missing (pip install libggml-python)")
pytest.importorskip("torch", reason="the extra 'vibevoice' is not installed")

import tiny_vibevoice
import torch
from engine_requests import SampleStream, request_of
from vibevoice_asr_ggml import SPEC
from vibevoice_asr_ggml.gguf_file import read_header
from vibevoice_asr_ggml.library import Device, Library
from vibevoice_asr_ggml.model import GgmlModel

from sidecar.engines.vibevoice.vibevoice_model import VibeVoiceModel, load_vibevoice
from sidecar.engines.vibevoice.vibevoice_transcription import VibeVoiceTranscription
from sidecar.interfaces.engine_interface import MemoryPlan, Precision, TranscribeOptions

KINDS = {"f32": Precision.FP32, "f16": Precision.FP16, "q8_0": Precision.INT8}
KINDS["q4_k"] = Precision.INT4
LIMIT = 400
END = "<|endoftext|>"
CHUNK = 20 * 3_200


class Stopped(Exception):
    pass


def load(files: Path, kind: str, threads: int = 1) -> GgmlModel:
    device = Device(Library(), "cpu", threads)
    file = read_header(files / f"tiny-{kind}.gguf")
    *_, model = GgmlModel.load(file, SPEC, KINDS[kind], device)
    assert isinstance(model, GgmlModel)
    return model


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> VibeVoiceModel:
    return VibeVoiceModel(load_vibevoice(checkpoint, Precision.FP32, torch.device("cpu")))


@pytest.fixture(scope="module")
def expected(reference: VibeVoiceModel) -> Callable[[str, str], list[int]]:
    """The ids of transformers' model for a clip and a context."""
    end = reference.loaded.processor.tokenizer.convert_tokens_to_ids(END)
    return cache(lambda name, context: ids_of(reference, end, name, context))


def ids_of(model: Any, end: int, name: str, context: str = "") -> list[int]:
    """The token ids of an answer, its end included."""
    plan, samples = MemoryPlan(encoder_chunk_s=CHUNK / 24_000), tiny_vibevoice.clip_24k(name)
    with model.inference():
        answer = model.answers([samples], plan, lambda: None, model.decoding(plan), context)[0]
        ids: list[int] = answer.generation.ids
        while len(ids) < LIMIT and end not in ids[-1:]:
            answer.generation.token()
    return ids


@pytest.mark.slow_except("[f32]", "[q4_k]")
@pytest.mark.parametrize("kind", KINDS)
def test_ids_of_all_clips_are_those_of_transformers_with_a_context_and_without(
    files: Path, kind: str, expected: Callable[[str, str], list[int]]
) -> None:
    model = load(files, kind)
    end = model.tokenizer.token_to_id(END)
    for name in tiny_vibevoice.CLIPS:
        for context in ("", tiny_vibevoice.CONTEXT):
            assert ids_of(model, end, name, context) == expected(name, context), (name, context)
    assert model.template is not None
    model.template = None
    assert ids_of(model, end, "beckett") == expected("beckett", "")


def test_prompt_has_the_ids_of_transformers_also_with_punctuation_and_marks(
    files: Path, reference: VibeVoiceModel
) -> None:
    from sidecar.engines.vibevoice.vibevoice_model import build_prompt_ids

    model, processor = load(files, "f32"), reference.loaded.processor
    for context in ("", "Nagg, Nell: déjà vu!", " a\n\n b. ", "x<|im_end|>y <|AUDIO_DURATION|>"):
        for samples in (3_201, 48_000, 720_000):
            wanted = build_prompt_ids(processor, samples, context).tolist()
            assert model.prompt_ids(samples, context) == wanted


def test_audio_in_chunks_has_the_embeddings_of_one_pass_bit_for_bit(files: Path) -> None:
    model, samples = load(files, "f32"), tiny_vibevoice.clip_24k("beckett")
    samples = np.pad(samples, (0, -len(samples) % 3_200))
    for encoder in model.encoders.values():
        encoder.begin()
        whole = encoder.feed(samples)
        encoder.begin()
        parts = [
            encoder.feed(samples[at : at + 7 * 3_200]) for at in range(0, len(samples), 22_400)
        ]
        assert np.array_equal(whole, np.concatenate(parts))


def test_recording_in_windows_has_the_transcript_of_transformers(
    files: Path, reference: VibeVoiceModel
) -> None:
    stream = SampleStream(np.tile(tiny_vibevoice.clip_24k("beckett"), 2), 24_000)
    plan = MemoryPlan(window_s=14.0, encoder_chunk_s=CHUNK / 24_000)
    request = request_of(stream, TranscribeOptions(diarize=False, memory=plan))
    ours, theirs = (
        [*VibeVoiceTranscription(one, request).events()][-1].transcript
        for one in (load(files, "f32"), reference)
    )
    assert len(ours.segments) > 2
    assert [one.text for one in ours.segments] == [one.text for one in theirs.segments]
    assert [one.start for one in ours.segments] == [one.start for one in theirs.segments]
    for mine, other in zip(ours.segments, theirs.segments, strict=True):
        assert mine.confidence == pytest.approx(other.confidence, abs=0.01)


@pytest.mark.slow_except("[500]")
@pytest.mark.parametrize("allowed", [3, 500, 900])
def test_answer_after_one_that_was_stopped_inside_a_pass_has_the_same_ids(
    files: Path, allowed: int, expected: Callable[[str, str], list[int]]
) -> None:
    model, calls = load(files, "f16"), [0]

    def check() -> None:
        calls[0] += 1
        if calls[0] > allowed:
            raise Stopped

    samples = tiny_vibevoice.clip_24k("beckett")
    with pytest.raises(Stopped):
        model.answers([samples], MemoryPlan(), check, None)
    assert calls[0] == allowed + 1
    end = model.tokenizer.token_to_id(END)
    assert ids_of(model, end, "beckett") == expected("beckett", "")


@pytest.mark.slow
def test_four_threads_have_the_ids_of_one(files: Path) -> None:
    samples, found = tiny_vibevoice.clip_24k("beckett")[:72_000], []
    for threads in (1, 4):
        model = load(files, "q4_k", threads)
        generation = model.answers([samples], MemoryPlan(), lambda: None, None)[0].generation
        while len(generation.ids) < 12:
            generation.token()
        found.append(generation.ids)
    assert found[0] == found[1]
