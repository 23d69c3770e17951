"""Model dimensions and memory footprint of a transcription, phase by phase. Pure.

The dimensions come from `config.json`; the tests compare the counts with the real class.

A stream's memory is its keys and values: one position of the decoder and four of the encoder for
each 80 ms, within their sliding windows. The tests compare it with the caches of the real class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from math import ceil, prod
from typing import Any

from sidecar.audio import VIBEVOICE_SAMPLE_RATE
from sidecar.interfaces.engine_interface import MemoryPlan, Precision

WINDOW_S = 3600.0
"""Longest window of the model (64 K positions)."""
PROMPT_TOKENS = 128
"""Text tokens around the audio: the system line, the question, and a few hotwords."""
TOKENS_PER_SECOND = 9.0
"""Maximum output of a dense hour of speech, tokens per second of audio; the cache is planned for
it. The sample of the model page has 8.5."""
MIN_OUTPUT_TOKENS = 64
"""Tokens for the first segment of a very short recording."""
CONTEXT_BYTES = 600_000_000
"""Bytes of the CUDA context and of the workspaces of cuBLAS and cuDNN. An estimate until it is
measured on a GPU."""
FRAGMENTATION = 0.03
"""Share that the allocator loses by rounding and gaps. An estimate until it is measured on a
GPU."""
DRAFT_TOKENS = 12
"""Tokens in a step that verifies a draft forced by the output format
(`DRAFT_WIDTH_TOKENS` of `engines.vibevoice.vibevoice_decoder`)."""
CACHE_ROUND = 64
"""The cache's length is a multiple of this number of positions."""
SMALL_TENSORS_BYTES = 1 << 14
"""Bytes of tensors too small to be counted: positions, angles, statistics."""
NF4_BLOCK, NF4_SCALE_BLOCK = 64, 256
"""Block sizes of bitsandbytes: weights per scale of one byte, scales per float32 constant."""
CPU_PACKED_ROWS = 32
"""Rows that bitsandbytes packs together on a CPU with AVX512-BF16."""
TOKENS_S = 12.5
"""Positions of the decoder per second of audio."""
PROMPT_POSITIONS = 33 + 30
"""Prompt positions of a new stream with the longest delay; about as many follow at the end."""


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """Dimensions of an audio encoder: a convolutional stem, downsampling stages, a head.

    Stage 0 is the stem; each further stage downsamples by its ratio and doubles the channels. The
    names are those of `config.json`, the defaults those of the released encoders.
    """

    hidden_size: int
    channels: int = 1
    num_filters: int = 32
    kernel_size: int = 7
    ffn_expansion: int = 4
    downsampling_ratios: tuple[int, ...] = (2, 2, 4, 5, 5, 8)
    depths: tuple[int, ...] = (3, 3, 3, 3, 3, 3, 8)

    @classmethod
    def from_config(cls, config: dict[str, Any], latent: int) -> EncoderShape:
        """Return the shape by a part of `config.json`; defaults: the released encoders."""
        names = {one.name for one in fields(cls)}
        said = {key: value for key, value in config.items() if key in names}
        lists = {key: tuple(value) for key, value in said.items() if isinstance(value, list)}
        return cls(**{"hidden_size": latent, **said, **lists})

    @property
    def hop(self) -> int:
        """Return the samples per token (3,200: 7.5 tokens a second)."""
        return prod(self.downsampling_ratios)

    @property
    def widths(self) -> tuple[int, ...]:
        """Return the channels of each stage."""
        return tuple(
            self.num_filters << stage for stage in range(len(self.downsampling_ratios) + 1)
        )

    @property
    def parameters(self) -> int:
        """Return the number of parameters of the encoder."""
        widths = self.widths
        total = self.channels * widths[0] * self.kernel_size + widths[0]
        for narrow, wide, ratio in zip(widths, widths[1:], self.downsampling_ratios, strict=False):
            total += narrow * wide * 2 * ratio + wide
        for width, depth in zip(widths, self.depths, strict=True):
            feed_forward = 2 * width * width * self.ffn_expansion + (self.ffn_expansion + 1) * width
            mixer = width * self.kernel_size + width
            norms_and_scales = 4 * width
            total += depth * (feed_forward + mixer + norms_and_scales)
        return total + widths[-1] * self.hidden_size * self.kernel_size + self.hidden_size


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Dimensions of the whole model. `hidden` … `vocab` are the language model's (Qwen2).
    ``tied``: its head is the table of token embeddings."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocab: int
    acoustic: EncoderShape
    semantic: EncoderShape
    tied: bool = False

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ModelShape:
        """Return the shape by the `config.json` of a checkpoint in the HF layout.

        Raises:
            ValueError: the dimensions of the language model are missing (other model or layout).
        """
        text = config.get("text_config")
        if not isinstance(text, dict) or "hidden_size" not in text:
            raise ValueError("not the config.json of a VibeVoice-ASR checkpoint in the HF layout")
        heads = text.get("num_attention_heads", 32)
        acoustic = config.get("acoustic_tokenizer_encoder_config") or {}
        semantic = config.get("semantic_tokenizer_encoder_config") or {}
        return cls(
            hidden=text["hidden_size"],
            layers=text.get("num_hidden_layers", 32),
            heads=heads,
            kv_heads=text.get("num_key_value_heads") or heads,
            head_dim=text.get("head_dim") or text["hidden_size"] // heads,
            mlp=text.get("intermediate_size", 22016),
            vocab=text.get("vocab_size", 151936),
            acoustic=EncoderShape.from_config(acoustic, 64),
            semantic=EncoderShape.from_config(semantic, 128),
            tied=bool(text.get("tie_word_embeddings")),
        )

    @property
    def query_width(self) -> int:
        """Return the width of all queries of a token."""
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Return the width of all keys of a token, which is also that of all values."""
        return self.kv_heads * self.head_dim

    @property
    def int4_obstacle(self) -> str:
        """Return why a CPU cannot compute the linear layers in int4; '' if it can.

        On a CPU bitsandbytes needs inputs of whole blocks of 64 weights. Otherwise it fails when it
        packs a layer (AVX512-BF16), or takes scales of other rows (other CPUs) without an error.
        """
        widths = (self.hidden, self.query_width, self.mlp)
        odd = [width for width in widths if width % NF4_BLOCK]
        if odd:
            return f"on a CPU it needs widths that are multiples of {NF4_BLOCK}, not {odd[0]}"
        if self.key_width % CPU_PACKED_ROWS:
            return f"on a CPU it needs keys in multiples of {CPU_PACKED_ROWS}, not {self.key_width}"
        return ""

    @property
    def encoder_parameters(self) -> int:
        """Return the number of parameters of both encoders and the projector.

        These go to the host's memory if the encoders are evicted.
        """
        both = self.acoustic.hidden_size + self.semantic.hidden_size
        projector = both * self.hidden + 2 * self.hidden * self.hidden + 6 * self.hidden
        return self.acoustic.parameters + self.semantic.parameters + projector

    @property
    def table_parameters(self) -> int:
        """Return the number of parameters of the token embeddings; a head of its own has as
        many."""
        return self.vocab * self.hidden

    @property
    def linear_parameters(self) -> int:
        """Return the number of weights that int8 and int4 quantize: the LLM's linear layers."""
        attention = 2 * self.hidden * (self.query_width + self.key_width)
        return self.layers * (attention + 3 * self.hidden * self.mlp)

    @property
    def linear_rows(self) -> int:
        """Return the number of rows of those weights; int8 has a scale for each."""
        attention = self.query_width + 2 * self.key_width + self.hidden
        return self.layers * (attention + 2 * self.mlp + self.hidden)

    @property
    def small_parameters(self) -> int:
        """Return the number of biases and norms of the language model, never quantized."""
        per_layer = self.query_width + 2 * self.key_width + 2 * self.hidden
        return self.layers * per_layer + self.hidden

    @property
    def parameters(self) -> int:
        """Return the number of all parameters."""
        return (
            self.encoder_parameters
            + (1 if self.tied else 2) * self.table_parameters
            + self.linear_parameters
            + self.small_parameters
        )


VIBEVOICE_7B_SHAPE = ModelShape(
    hidden=3584,
    layers=28,
    heads=28,
    kv_heads=4,
    head_dim=128,
    mlp=18944,
    vocab=152064,
    acoustic=EncoderShape(hidden_size=64),
    semantic=EncoderShape(hidden_size=128),
)
"""Dimensions of the released model, VibeVoice-ASR-7B: 8.330 billion parameters."""


@dataclass(frozen=True, slots=True)
class RecordingWork:
    """Work of a recording of ``audio_s`` seconds: prompt positions (audio, text) and output tokens.

    If the recording is longer than a window of ``window_s`` seconds, positions and tokens are those
    of one window.
    """

    audio_s: float
    prompt_tokens: int
    output_tokens: int
    window_s: float = WINDOW_S

    @classmethod
    def of(
        cls,
        shape: ModelShape,
        audio_s: float,
        *,
        text_tokens: int = PROMPT_TOKENS,
        window_s: float = WINDOW_S,
    ) -> RecordingWork:
        """Return the work of a recording, with the most output that its length can have."""
        longest_s = min(audio_s, window_s)
        prompt_tokens = _audio_positions(shape, longest_s) + text_tokens
        output_tokens = MIN_OUTPUT_TOKENS + ceil(TOKENS_PER_SECOND * longest_s)
        return cls(audio_s, prompt_tokens, output_tokens, window_s)

    def text_tokens(self, shape: ModelShape) -> int:
        """Return the positions of the prompt that are not audio."""
        return self.prompt_tokens - _audio_positions(shape, min(self.audio_s, self.window_s))

    def in_windows(self, shape: ModelShape, window_s: float) -> RecordingWork:
        """Return the same recording's work in windows of ``window_s`` seconds at most."""
        text_tokens = self.text_tokens(shape)
        work = RecordingWork.of(shape, self.audio_s, text_tokens=text_tokens, window_s=window_s)
        return replace(work, output_tokens=min(work.output_tokens, self.output_tokens))

    @property
    def positions(self) -> int:
        """Return the number of positions in the cache at the end."""
        return self.prompt_tokens + self.output_tokens


def _audio_positions(shape: ModelShape, audio_s: float) -> int:
    return ceil(audio_s * VIBEVOICE_SAMPLE_RATE / shape.acoustic.hop)


@dataclass(frozen=True, slots=True)
class MemoryBreakdown:
    """Bytes of a phase by purpose. ``reserve``: bytes outside of tensors."""

    phase: str
    weights: int
    cache: int
    activations: int

    @property
    def tensors(self) -> int:
        """Return the bytes of all tensors, which a simulation counts."""
        return self.weights + self.cache + self.activations

    @property
    def reserve(self) -> int:
        """Return the bytes of the context, the workspaces and fragmentation."""
        return reserve_bytes(self.tensors)

    @property
    def total(self) -> int:
        """Return the bytes that have to be free on the card."""
        return self.tensors + self.reserve


def reserve_bytes(tensors: int) -> int:
    """Return the bytes of a process on the card in addition to ``tensors`` bytes of tensors."""
    return CONTEXT_BYTES + round(FRAGMENTATION * tensors)


def first_positions(plan: MemoryPlan, work: RecordingWork) -> int:
    """Return the initial positions of the cache: the plan's, or more if the prompt needs them."""
    return ceil(max(plan.cache_tokens, work.prompt_tokens + 1) / CACHE_ROUND) * CACHE_ROUND


def last_positions(plan: MemoryPlan, work: RecordingWork) -> int:
    """Return the positions of the cache at the end: it grows by whole steps."""
    first = first_positions(plan, work)
    return first + ceil(max(0, work.positions - first) / plan.cache_step) * plan.cache_step


@dataclass(frozen=True, slots=True)
class ModelFootprint:
    """Bytes of a model of this ``shape`` at a ``precision``: of its parts, and of each phase.
    ``fused``: the device has flash attention; before sm80 a kernel may hold all scores.
    """

    shape: ModelShape
    precision: Precision
    fused: bool = True

    @property
    def value_bytes(self) -> int:
        """Return the bytes of an activation, a value in the cache, or a weight without
        quantization."""
        return 4 if self.precision is Precision.FP32 else 2

    def weights_bytes(self, plan: MemoryPlan) -> int:
        """Return the bytes of weights on the device while decoding.

        Encoding also needs the evicted encoders.
        """
        shape = self.shape
        plain = shape.small_parameters + shape.table_parameters
        if not plan.evict_encoders:
            plain += shape.encoder_parameters
        if not plan.host_token_table and not shape.tied:
            plain += shape.table_parameters
        return plain * self.value_bytes + self._linear_bytes()

    def cache_bytes(self, positions: int) -> int:
        """Return the bytes of ``positions`` positions (57,344 bytes each at full size in 16
        bit)."""
        values = 2 * self.shape.layers * self.shape.key_width
        return values * self.value_bytes * positions

    def phases(self, plan: MemoryPlan, work: RecordingWork) -> tuple[MemoryBreakdown, ...]:
        """Return the peaks of loading, encoding, prefill and decoding.

        What ``plan`` keeps on the host is loaded there directly, not through the card. If the plan
        has several windows in one batch, ``plan`` and ``work`` have the positions of all of them.
        """
        weights = self.weights_bytes(plan)
        encoders = self.shape.encoder_parameters * self.value_bytes if plan.evict_encoders else 0
        first = first_positions(plan, work)
        last = last_positions(plan, work)
        embeddings = work.prompt_tokens * self.shape.hidden * self.value_bytes
        chunk = self._encoder_chunk_bytes(plan, work)
        tile = self._prefill_tile_bytes(plan, work, first)
        step = self._decoding_bytes(plan, first, last)
        # All windows of a batch are encoded before the first has a cache; those of a recording that
        # joins others, beside caches that have grown.
        joins = plan.together if plan.places else 1
        beside = self.cache_bytes(last) * (joins - 1) // joins
        filled = beside + self.cache_bytes(first) // joins
        return (
            self.loading(plan),
            # The audio's embeddings, and those of the whole prompt that they are copied into.
            _breakdown("encode", weights + encoders, beside, 2 * embeddings + chunk),
            _breakdown("prefill", weights, filled, embeddings + tile),
            _breakdown("decode", weights, self.cache_bytes(last), step),
        )

    def loading(self, plan: MemoryPlan) -> MemoryBreakdown:
        """Return the bytes while loading: weights on the device, and the largest one in 16 bit,
        which is being quantized; int8 needs another copy in float16."""
        copies = {Precision.INT8: 4, Precision.INT4: 2}.get(self.precision, 0)
        quantized = copies * self.shape.hidden * self.shape.mlp
        return _breakdown("load", self.weights_bytes(plan), 0, quantized)

    def peak(self, plan: MemoryPlan, work: RecordingWork) -> MemoryBreakdown:
        """Return the phase that needs the most bytes."""
        return max(self.phases(plan, work), key=lambda phase: phase.tensors)

    def _linear_bytes(self) -> int:
        weights = self.shape.linear_parameters
        if self.precision is Precision.INT8:
            return weights + 4 * self.shape.linear_rows
        if self.precision is Precision.INT4:
            scales = weights // NF4_BLOCK
            constants = 4 * (16 + 256 + 1) * 7 * self.shape.layers
            return weights // 2 + scales + 4 * ceil(scales / NF4_SCALE_BLOCK) + constants
        return weights * self.value_bytes

    def _encoder_chunk_bytes(self, plan: MemoryPlan, work: RecordingWork) -> int:
        """Return the bytes of one chunk at the GELU of the widest stage, in the larger encoder.

        They include the states of the convolutions and the results of the last chunk.
        """
        shape, hop = self.shape, self.shape.acoustic.hop
        whole = ceil(work.audio_s * VIBEVOICE_SAMPLE_RATE / hop) * hop
        chunk = max(1, round(plan.encoder_chunk_s * VIBEVOICE_SAMPLE_RATE / hop)) * hop
        samples = min(chunk, whole)
        widest = max(_widest_stage(shape.acoustic, samples), _widest_stage(shape.semantic, samples))
        states = 64 * sum(shape.semantic.widths)
        results = 3 * shape.hidden * (samples // hop)
        return (widest + samples + states + results) * self.value_bytes

    def _prefill_tile_bytes(self, plan: MemoryPlan, work: RecordingWork, positions: int) -> int:
        """Return the bytes of a tile in an MLP.

        They include the tensors of the layer's attention, the result of the previous tile, and the
        rotary table.
        """
        shape, size, tile = self.shape, self.value_bytes, min(plan.prefill_tile, work.prompt_tokens)
        hidden, mlp = shape.hidden, shape.mlp
        beside = tile * size * (3 * hidden + 2 * shape.query_width + 2 * shape.key_width)
        inside = tile * size * 3 * mlp  # gate, up, their product
        if self.precision is Precision.INT8:
            # gate; a byte per input; int32, float16, result per output
            inside = tile * (size * mlp + hidden + 8 * mlp)
        elif self.precision is Precision.INT4:  # gate, up, and the weight in 16 bit
            inside = max(inside, tile * size * 2 * mlp + size * hidden * mlp)
        if work.prompt_tokens > tile:
            beside += tile * size * hidden
        kept = self._rotary_cache_bytes(positions)
        inside = max(inside, self._scores_bytes(tile, work.prompt_tokens // plan.together))
        return max(kept + beside + inside, _rotary_temporary_bytes(shape, positions))

    def _decoding_bytes(self, plan: MemoryPlan, first: int, last: int) -> int:
        """Return the bytes of a step with the whole cache, or of the last growth, whichever is
        more.

        The step: attention scores in float32 before, masked and after, and their mask. They count
        for a draft and for a single token, because each is a graph that keeps its memory. The
        growth: the old copy of one tensor, or the longer rotary table beside the old one.
        """
        rows = DRAFT_TOKENS + 1
        shares = rows * (12 * self.shape.heads + 1) * last + 16 * last
        little = rows * (self.shape.vocab + 4 * self.shape.mlp) * self.value_bytes
        if self.precision is Precision.INT8:  # not captured: the prompt's attention
            shares = max(shares, self._scores_bytes(DRAFT_TOKENS, last // plan.together))
        step = self._rotary_cache_bytes(last) + shares + little
        if last == first:
            return step
        copied = self.cache_bytes(last) // (2 * self.shape.layers)
        before = self._rotary_cache_bytes(last - plan.cache_step)
        return max(step, before + max(copied, _rotary_temporary_bytes(self.shape, last)))

    def _scores_bytes(self, rows: int, positions: int) -> int:
        """Return the bytes of an attention that is not fused, for the heads of one key head.

        In float32: scores before and after the softmax, values, and keys before and after scaling.
        The mask is a byte and a 16-bit value.
        """
        if self.fused:
            return 0
        shared = self.shape.heads // self.shape.kv_heads
        scores, copy = (4 * shared * positions * one for one in (rows, self.shape.head_dim))
        queries = 8 * shared * rows * self.shape.head_dim
        return 3 * rows * positions + queries + scores + 2 * copy + max(scores, copy)

    def _rotary_cache_bytes(self, positions: int) -> int:
        """Return the bytes of a cosine and a sine for each position and dimension of a head."""
        return positions * 2 * self.shape.head_dim * self.value_bytes


def _breakdown(phase: str, weights: int, cache: int, activations: int) -> MemoryBreakdown:
    return MemoryBreakdown(phase, weights, cache, SMALL_TENSORS_BYTES + activations)


def _widest_stage(encoder: EncoderShape, samples: int) -> int:
    """Return the number of values alive at once in the stage that has the most.

    They are the stage's input and, at its own width, the block's input, the residual, the norm's
    result, and twice the feed-forward's.
    """
    most, before, length = 0, 0, samples
    for stage, width in enumerate(encoder.widths):
        length //= encoder.downsampling_ratios[stage - 1] if stage else 1
        own = width * length
        most = max(most, before + own * (3 + 2 * encoder.ffn_expansion))
        before = own
    return most


def _rotary_temporary_bytes(shape: ModelShape, positions: int) -> int:
    """Return the bytes needed to compute the rotary table.

    They are the angles (half and whole) and both results twice, all in float32.
    """
    return positions * (18 * shape.head_dim + 8)


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Dimensions of a stack of layers; ``window``: positions that each attends to, with itself."""

    layers: int
    heads: int
    head: int
    window: int

    def bytes(self, positions: int, width: int) -> int:
        """Return the bytes of keys and values; ``width``: bytes of a value."""
        return 2 * self.layers * self.heads * self.head * width * min(positions, self.window - 1)


@dataclass(frozen=True, slots=True)
class StreamShape:
    """Dimensions of the two stacks with a cache per stream; ``factor``: frames per token."""

    decoder: AttentionShape
    encoder: AttentionShape
    factor: int

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> StreamShape:
        """Return the shape by `config.json`; defaults: the released model."""
        text, audio = config.get("text_config") or {}, config.get("audio_config") or {}
        return cls(
            AttentionShape(
                text.get("num_hidden_layers", 26),
                text.get("num_key_value_heads", 8),
                text.get("head_dim", 128),
                text.get("sliding_window", 8192),
            ),
            AttentionShape(
                audio.get("num_hidden_layers", 32),
                audio.get("num_key_value_heads") or audio.get("num_attention_heads", 32),
                audio.get("head_dim", 64),
                audio.get("sliding_window", 750),
            ),
            config.get("downsample_factor", 4),
        )

    def bytes(self, tokens: int, width: int = 2) -> int:
        """Return the bytes of a stream with ``tokens`` positions of the decoder."""
        return self.decoder.bytes(tokens, width) + self.encoder.bytes(self.factor * tokens, width)

    def peak_bytes(self, longest_s: float, width: int = 2) -> int:
        """Return the bytes of a stream at the end of an utterance of ``longest_s`` seconds."""
        return self.bytes(math.ceil(longest_s * TOKENS_S) + 2 * PROMPT_POSITIONS, width)

    def most(self, free_bytes: int, longest_s: float, width: int = 2) -> int:
        """Return the maximum number of streams that fit."""
        return max(0, free_bytes // self.peak_bytes(longest_s, width))
