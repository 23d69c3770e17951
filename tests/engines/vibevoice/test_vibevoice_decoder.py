"""Our loop gives, token for token, what `generate` gives: every clip, precision, chunk and tile.

Proposals and company change how often the decoder runs, and nothing of what answers say. Greedy,
that is: no two tokens of theirs are as good as equal. Chance goes without proposals.
"""

import functools

import pytest
import tiny_vibevoice

pytest.importorskip("torch", reason="the extra 'vibevoice' is not installed")

from typing import Any

import torch

from sidecar.engines.vibevoice import vibevoice_decoder
from sidecar.engines.vibevoice.torch_generation import TokenGeneration
from sidecar.engines.vibevoice.vibevoice_decoder import (
    CudaGraphSteps,
    KeyValueCache,
    PlannedDecoder,
    VibeVoiceDecoder,
)
from sidecar.engines.vibevoice.vibevoice_generation import (
    PromptContinuation,
    SegmentTemplate,
    decode_pass,
)
from sidecar.engines.vibevoice.vibevoice_model import (
    LoadedVibeVoice,
    VibeVoiceAudioEncoder,
    build_prompt_ids,
    load_vibevoice,
)
from sidecar.engines.vibevoice.vibevoice_prompt import token_count
from sidecar.interfaces.engine_interface import MemoryPlan, Precision
from sidecar.transcripts.loop_guard import SamplingOptions

CPU = torch.device("cpu")
LIMIT = 400


@functools.cache
def in_fp32() -> LoadedVibeVoice:
    """With it, what it has answered: that is kept for all tests."""
    return load_vibevoice(tiny_vibevoice.checkpoint("tiny"), Precision.FP32, CPU)


@pytest.fixture(scope="module", params=["fp32", "bf16", "fp16", "int8", "int4"])
def loaded(request: pytest.FixtureRequest) -> LoadedVibeVoice:
    if request.param == "fp32":
        return in_fp32()
    return load_vibevoice(tiny_vibevoice.checkpoint("tiny"), Precision(request.param), CPU)


@functools.cache
def by_generate(loaded: LoadedVibeVoice, name: str, prompt: str | None) -> list[int]:
    """What the library's own loop answers to a clip; asked once."""
    audio = tiny_vibevoice.clip_24k(name)
    inputs = loaded.processor.apply_transcription_request(audio=audio, prompt=prompt)
    inputs = inputs.to(CPU, loaded.model.dtype)
    with torch.inference_mode():
        ids = loaded.model.generate(**inputs, sample=False, max_new_tokens=LIMIT)
    return [int(i) for i in ids[0, inputs["input_ids"].shape[1] :]]


@functools.cache
def prompt_of(
    loaded: LoadedVibeVoice, name: str, prompt: str = "", chunk_s: float = 2.7
) -> torch.Tensor:
    """The embeddings of the request for a clip, heard in chunks: the same for all tests."""
    decoder, audio = VibeVoiceDecoder(loaded.model), tiny_vibevoice.clip_24k(name)
    ids = build_prompt_ids(loaded.processor, len(audio), prompt)
    embeddings = decoder.embed(ids)
    heard = embeddings.new_empty(token_count(len(audio)), embeddings.shape[1])
    encoder = VibeVoiceAudioEncoder(loaded.model, loaded.processor.feature_extractor)
    encoder.encode(audio, chunk_s, heard, lambda: None)
    embeddings[ids == loaded.processor.audio_token_id] = heard
    return embeddings


def by_our_loop(
    loaded: LoadedVibeVoice,
    name: str,
    prompt: str | None,
    plan: MemoryPlan,
    growth: int = 4096,
    *,
    static: bool = False,
) -> list[int]:
    """What our loop answers; ``static`` takes the steps that a GPU captures."""
    decoder = VibeVoiceDecoder(loaded.model)
    end = loaded.model.generation_config.eos_token_id
    with torch.inference_mode():
        embeddings = prompt_of(loaded, name, prompt or "", plan.encoder_chunk_s)
        graph_steps = CudaGraphSteps(decoder, growth=48)
        cache = decoder.new_cache(plan, len(embeddings))
        logits = decoder.prefill(embeddings, cache, plan.prefill_tile, lambda: None)
        said: list[int] = []
        while len(said) < LIMIT:
            said.append(int(logits.argmax()))
            if said[-1] == end:
                break
            cache.reserve(cache.length + 1, growth)
            step = graph_steps.step if static else decoder.step
            logits = step([PromptContinuation(said[-1:], cache)])[0][0]
    return said


@pytest.mark.slow_except("fp32-beckett-None", "bf16-beckett-Sam")
@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("beckett", None),
        ("beckett", tiny_vibevoice.CONTEXT),
        ("endgame_nagg_nell", None),
        ("two_cities", tiny_vibevoice.CONTEXT),
    ],
)
def test_decoder_has_the_tokens_of_transformers_generate(
    loaded: LoadedVibeVoice, name: str, prompt: str | None
) -> None:
    assert by_our_loop(loaded, name, prompt, MemoryPlan()) == by_generate(loaded, name, prompt)


# Chunks are the encoders' and tiles the decoder's: what one is changes nothing for the other.
@pytest.mark.slow_except("2.6667-7")
@pytest.mark.parametrize(
    ("chunk_s", "tile"), [(0.1334, 64), (2.6667, 7), (2.6667, 100_000), (60.0, 64)]
)
def test_encoder_chunks_and_prefill_tiles_do_not_change_tokens(chunk_s: float, tile: int) -> None:
    loaded, name = in_fp32(), "beckett"
    plan = MemoryPlan(encoder_chunk_s=chunk_s, prefill_tile=tile)
    assert by_our_loop(loaded, name, None, plan, growth=5) == by_generate(loaded, name, None)


@pytest.mark.slow_except("fp32")
@pytest.mark.parametrize("growth", [64, 4096], ids=["growing cache", "fixed cache"])
def test_static_step_as_captured_on_gpus_has_the_tokens_of_transformers_generate(
    loaded: LoadedVibeVoice, growth: int
) -> None:
    static = by_our_loop(loaded, "beckett", None, MemoryPlan(), growth, static=True)
    assert static == by_generate(loaded, "beckett", None)


def test_attention_of_one_key_head_at_a_time_gives_same_logits() -> None:
    """As GPUs before sm80 do it, for a prompt in tiles and one at once."""
    ids, plan = torch.arange(50), MemoryPlan()
    results = []
    for by_key_head, tile in ((False, 50), (True, 50), (False, 16), (True, 16)):
        decoder = VibeVoiceDecoder(in_fp32().model)
        assert not decoder.by_key_head
        decoder.by_key_head = by_key_head
        with torch.inference_mode():
            cache = decoder.new_cache(plan, len(ids))
            results.append(decoder.prefill(decoder.embed(ids), cache, tile))
    for one in results[1:]:
        torch.testing.assert_close(one, results[0], rtol=1e-4, atol=1e-4)


def test_audio_latents_are_the_mean_and_sampled_ones_are_the_same_in_each_run() -> None:
    loaded, audio = in_fp32(), tiny_vibevoice.clip_24k("beckett")[: 5 * tiny_vibevoice.RATE]
    encoder = VibeVoiceAudioEncoder(loaded.model, loaded.processor.feature_extractor)
    heard = torch.empty(4, token_count(len(audio)), loaded.model.config.text_config.hidden_size)
    with torch.inference_mode():
        for out, drawn in zip(heard, (False, False, True, True), strict=True):
            encoder.encode(audio, 2.0, out, lambda: None, drawn=drawn)
        inputs = loaded.processor.apply_transcription_request(audio=audio)
        values = inputs["input_values"]
        features = loaded.model.model.get_audio_features(values, sample=False)
    mean = features.pooler_output[0, : heard.shape[1]]
    torch.testing.assert_close(heard[0], mean, rtol=1e-3, atol=1e-4)
    assert heard[0].equal(heard[1])
    assert heard[2].equal(heard[3])
    assert not heard[2].isclose(heard[0], rtol=1e-2).all()


@pytest.mark.slow_except("fp32")
def test_prompt_has_token_ids_of_processor(loaded: LoadedVibeVoice) -> None:
    audio = tiny_vibevoice.clip_24k("beckett")
    for prompt in (None, tiny_vibevoice.CONTEXT, "A play.\nNagg\nNell"):
        theirs = loaded.processor.apply_transcription_request(audio=audio, prompt=prompt)
        ours = build_prompt_ids(loaded.processor, len(audio), prompt or "")
        assert ours.tolist() == theirs["input_ids"][0].tolist()


@pytest.mark.slow_except("fp32")
def test_special_tokens_in_the_prompt_of_a_client_are_removed(loaded: LoadedVibeVoice) -> None:
    plain = build_prompt_ids(loaded.processor, 48_000, "").tolist()
    marked = build_prompt_ids(
        loaded.processor, 48_000, "x<|im_<|im_end|>end|><|box_start|><|AUDIO_DURATION|>"
    ).tolist()
    for special in loaded.processor.tokenizer.all_special_ids:
        assert marked.count(special) == plain.count(special)


def test_only_language_model_is_quantized() -> None:
    model = load_vibevoice(tiny_vibevoice.checkpoint("tiny"), Precision.INT8, CPU).model
    kinds = {
        name: type(module).__name__
        for name, module in model.named_modules()
        if type(module).__name__.startswith("Linear")
    }
    assert kinds.pop("lm_head") == "Linear"
    for name, kind in kinds.items():
        inside = name.startswith("model.language_model.layers.")
        assert kind == ("Linear8bitLt" if inside else "Linear"), name


def test_load_does_not_write_to_checkpoint_folder() -> None:
    folder = tiny_vibevoice.checkpoint("tiny")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    load_vibevoice(folder, Precision.FP32, CPU)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


SHORT = MemoryPlan(cache_step=16)
"""The cache grows all the time."""


class Counted(PlannedDecoder):
    """Counts its passes; ``static`` takes the step that a GPU captures."""

    def __init__(self, loaded: LoadedVibeVoice, *, static: bool = False) -> None:
        decoder = VibeVoiceDecoder(loaded.model)
        super().__init__(decoder, SHORT, CudaGraphSteps(decoder, growth=48) if static else None)
        self.passes = 0

    def step(self, continuations: Any) -> list[torch.Tensor]:
        self.passes += 1
        return super().step(continuations)


def prefilled(
    loaded: LoadedVibeVoice, name: str, by: PlannedDecoder
) -> tuple[KeyValueCache, torch.Tensor]:
    """A cache with the request for a clip, and the logits after it."""
    embeddings = prompt_of(loaded, name)
    cache = by.decoder.new_cache(SHORT, len(embeddings))
    return cache, by.prefill(embeddings, cache)


def begun(
    loaded: LoadedVibeVoice, name: str, by: PlannedDecoder, frame: SegmentTemplate | None = None
) -> TokenGeneration:
    """The generation that answers a clip."""
    return TokenGeneration(by, *prefilled(loaded, name, by), frame)


@functools.cache
def expected_of(loaded: LoadedVibeVoice, name: str) -> tuple[int, ...]:
    """What is written alone, a token with each pass."""
    alone = Counted(loaded)
    ids = tuple(written(loaded, begun(loaded, name, alone)))
    assert alone.passes == len(ids) - 1
    return ids


def frame(loaded: LoadedVibeVoice) -> SegmentTemplate:
    return SegmentTemplate(loaded.processor.tokenizer.backend_tokenizer)


def written(
    loaded: LoadedVibeVoice,
    generation: TokenGeneration,
    sampling: SamplingOptions | None = None,
    limit: int = LIMIT,
) -> list[int]:
    end = loaded.model.generation_config.eos_token_id
    while len(generation.ids) < limit and end not in generation.ids[-1:]:
        generation.token(sampling)
    return generation.ids


@pytest.mark.slow_except("fp32-beckett", "fp32-endgame_nagg_nell-True")
@pytest.mark.parametrize(
    ("name", "static"),
    [*((name, False) for name in tiny_vibevoice.CLIPS), ("endgame_nagg_nell", True)],
)
def test_draft_proposals_save_10_percent_of_passes_and_keep_tokens(
    loaded: LoadedVibeVoice, name: str, static: bool
) -> None:
    helped = Counted(loaded, static=static)
    with torch.inference_mode():
        expected = [*expected_of(loaded, name)]
        assert written(loaded, begun(loaded, name, helped, frame(loaded))) == expected
    assert helped.passes < 0.9 * (len(expected) - 1)


@pytest.mark.slow_except("fp32-False", "fp32-True", "int8-True")
@pytest.mark.parametrize("static", [False, True])
def test_likelihood_of_every_token_is_that_of_plain_decoding(
    loaded: LoadedVibeVoice, static: bool
) -> None:
    end, exact = loaded.model.generation_config.eos_token_id, loaded.model.dtype == torch.float32
    with torch.inference_mode():
        cache, logits = prefilled(loaded, "beckett", by := Counted(loaded))
        ids, expected = list[int](), list[float]()
        while end not in ids[-1:] and len(ids) < (LIMIT if exact else 16):
            ids.append(int(logits.argmax()))
            expected.append(float(logits.float().softmax(-1).max().log()))
            logits = by.step([PromptContinuation(ids[-1:], cache)])[0][0]
        for rule in (None, frame(loaded)):
            generation = begun(loaded, "beckett", Counted(loaded, static=static), rule)
            found = [(generation.token(), generation.likelihood) for _ in ids]
            assert [token for token, _ in found] == ids
            near = 0.01 if exact else 0.1
            assert [likely for _, likely in found] == pytest.approx(expected, abs=near)


def test_likelihood_of_sampled_token_is_that_without_temperature() -> None:
    loaded = in_fp32()
    with torch.inference_mode():
        cache, logits = prefilled(loaded, "beckett", by := Counted(loaded))
        generation, likely = TokenGeneration(by, cache, logits), logits.log_softmax(-1)
        token = generation.token(SamplingOptions(5.0, 1.0))
    assert generation.likelihood == pytest.approx(float(likely[token]))


@pytest.mark.slow_except("fp32")
def test_sampling_takes_no_draft_proposals_and_draws_the_same_tokens(
    loaded: LoadedVibeVoice,
) -> None:
    """A pass of several rows has other last digits on some processors; a draw hangs on them."""
    sampling = SamplingOptions(1.5, 0.95)
    by = Counted(loaded)
    with torch.inference_mode():
        plain = written(loaded, begun(loaded, "beckett", Counted(loaded)), sampling, 40)
        helped = begun(loaded, "beckett", by, frame(loaded))
        assert written(loaded, helped, sampling, 40) == plain
    assert by.passes == len(plain) - 1


def test_draft_proposals_resume_after_sampling() -> None:
    loaded = in_fp32()
    by = Counted(loaded)
    with torch.inference_mode():
        generation = begun(loaded, "beckett", by, frame(loaded))
        said = [*written(loaded, generation)]
        helped = by.passes
        generation.go_on_from(said[: len(said) // 2])
        written(loaded, generation, SamplingOptions(0.01, 0.95), len(said) // 2 + 10)
        assert by.passes == helped + 9
        assert written(loaded, generation) == said
    assert by.passes < helped + 9 + (len(said) - len(said) // 2 - 10)


def test_answer_continues_from_a_token_within_a_draft_proposal() -> None:
    loaded = in_fp32()
    with torch.inference_mode():
        generation = begun(loaded, "endgame_nagg_nell", Counted(loaded), frame(loaded))
        expected = [*written(loaded, generation)]
        for at in range(3, 40, 3):
            generation.go_on_from(expected[: at + 7])
            while len(generation.ids) < at + 20:
                generation.token()
            generation.go_on_from(expected[:at])
            assert written(loaded, generation, limit=at + 30) == expected[: at + 30]
        assert written(loaded, generation) == expected


# What a GPU does, what a CPU does, and what is done where chance decides.
@pytest.mark.slow_except("fp32")
@pytest.mark.parametrize(("static", "helped"), [(True, True), (False, True), (False, False)])
def test_batched_answers_are_those_decoded_alone(
    loaded: LoadedVibeVoice, static: bool, helped: bool
) -> None:
    rule = frame(loaded) if helped else None
    names = list(tiny_vibevoice.CLIPS)
    end = loaded.model.generation_config.eos_token_id
    with torch.inference_mode():
        expected = [[*expected_of(loaded, name)] for name in names]
        together = Counted(loaded, static=static)
        generations = [begun(loaded, name, together, rule) for name in names]
        going = list(generations)
        while going:
            for generation in going:
                while generation.ready and end not in generation.ids[-1:]:
                    generation.token()
            going = [one for one in going if end not in one.ids[-1:]]
            if going:
                decode_pass(going)
    assert [one.ids for one in generations] == expected
    assert together.passes <= max(len(ids) for ids in expected)


def test_static_step_as_captured_on_gpus_has_the_logits_of_the_plain_step() -> None:
    """What is no position yet is not heard: a model that knows its clips by heart says nothing of
    that in its words."""
    loaded = in_fp32()
    with torch.inference_mode():
        logits = []
        for static in (False, True):
            by = Counted(loaded, static=static)
            cache = begun(loaded, "beckett", by).cache
            for ids in ([5], [6, 7, 8], [9]):
                cache.reserve(cache.length + vibevoice_decoder.DRAFT_WIDTH_TOKENS, 64)
                logits.append(by.step([PromptContinuation(ids, cache)])[0].clone())
    for plain, captured in zip(logits[:3], logits[3:], strict=True):
        torch.testing.assert_close(captured, plain, rtol=1e-3, atol=1e-3)
