"""Decoder of VibeVoice-ASR: prefill, static KV cache, CUDA graph, batched steps.

transformers' `generate` takes no embeddings for this class, holds the logits of a whole prompt's
MLP at once and cannot be stopped before its first token. This decoder runs the same modules in the
same order with the same arithmetic, and gives the same tokens
(tests/engines/vibevoice/test_vibevoice_decoder.py).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right

from sidecar.engines.vibevoice.vibevoice_generation import PromptContinuation
from sidecar.gpu_memory.memory_footprint import CACHE_ROUND
from sidecar.interfaces.engine_interface import MemoryPlan

_FEW, _ROWS = 32, 128
"""On a CPU more than `_FEW` rows are padded to a multiple of `_ROWS`. oneDNN keeps the kernels of a
16-bit matrix product for every number of rows, some for good: 2.5 MB per length of a prompt."""
StepCheck = Callable[[], None]
"""Called between steps; raises to stop."""
GRAPH_POSITIONS = 2_048
"""Step by which the attended span of a cache grows. Each growth captures the graph anew (well below
a second, some sixteen times in an hour); in between up to this many positions are read in vain."""
DRAFT_WIDTH_TOKENS = 12
"""Tokens per sequence in a step that verifies a draft: the longest of `DraftProposals` and the
token before it. Shorter drafts are padded, which costs nothing while weights bound the step."""
_WARM_UP_RUNS = 2
"""Runs before a capture, in which libraries allocate their workspaces."""


class KeyValueCache:
    """One pair of tensors per layer, each of shape ``(1, kv_heads, capacity, head_dim)``.

    ``length`` is the number of filled positions. Positions after it are never read, so setting
    ``length`` goes back. A step that is a CUDA graph masks them instead, so they begin as zeros:
    they must be finite numbers.
    """

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        head_dim: int,
        capacity: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        shape = (1, kv_heads, capacity, head_dim)
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(layers)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(layers)]
        self.length = 0

    @property
    def capacity(self) -> int:
        """Return the number of positions."""
        return self.keys[0].shape[2]

    def reserve(self, positions: int, step: int) -> None:
        """Extend the capacity to ``positions`` in steps of ``step``.

        Only one layer is in memory twice at a time.
        """
        if positions <= self.capacity:
            return
        more = -(-(positions - self.capacity) // step) * step
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                new = old.new_zeros((*old.shape[:2], old.shape[2] + more, old.shape[3]))
                new[:, :, : self.length] = old[:, :, : self.length]
                tensors[layer] = new
                del old


class VibeVoiceDecoder:
    """Decoder of the next token's logits; the caller provides `torch.inference_mode`.

    Several sequences go through the layers as rows of one matrix, so that the weights are read
    once for all of them. Each attends to its own cache, so no padding is needed.
    """

    def __init__(self, model: Any) -> None:
        language = model.model.language_model
        config = model.config.text_config
        self.layers = list(language.layers)
        self._norm = language.norm
        self._head = model.lm_head
        self._rotary = language.rotary_emb
        self._table = language.embed_tokens
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.head_dim = self.layers[0].self_attn.head_dim
        self.device: torch.device = self._norm.weight.device
        self.dtype: torch.dtype = self._norm.weight.dtype
        self.by_key_head = self.device.type == "cuda" and not has_bf16(self.device)
        """Whether a prompt's attention runs for one key head at a time. Flash attention needs sm80;
        without it, shared key heads leave only the matrix of all scores: 5.8 GiB for an hour."""
        self._cos = self._sin = torch.empty(0)

    @property
    def capturable(self) -> bool:
        """Return whether a step can be a CUDA graph. LLM.int8 cannot: it reads outliers on the
        host."""
        kind = type(self.layers[0].self_attn.q_proj).__name__
        return self.device.type == "cuda" and kind != "Linear8bitLt"

    def new_cache(self, plan: MemoryPlan, prompt_tokens: int) -> KeyValueCache:
        """Return an empty cache for a prompt and the tokens that ``plan`` provides for after it."""
        capacity = max(plan.cache_tokens, prompt_tokens + 1)
        return KeyValueCache(
            len(self.layers),
            self.kv_heads,
            self.head_dim,
            -(-capacity // CACHE_ROUND) * CACHE_ROUND,
            device=self.device,
            dtype=self.dtype,
        )

    def embed(self, ids: Tensor) -> Tensor:
        """Return the embeddings ``(n, hidden)`` of token ids ``(n,)``, on whatever device the table
        is."""
        table = self._table.weight
        return functional.embedding(ids.to(table.device), table).to(self.device, self.dtype)

    def prefill(
        self, embeddings: Tensor, cache: KeyValueCache, tile: int, check: StepCheck | None = None
    ) -> Tensor:
        """Add embeddings ``(n, hidden)`` after those that the cache holds, ``tile`` at a time.

        Returns:
            The logits ``(vocabulary,)`` after the last of them.
        """
        hidden = embeddings.new_empty(0)
        for part in embeddings.split(tile):
            hidden = self._run(part, [(len(part), cache)], check)
        return self.logits(hidden[-1:])[0]

    def step(self, continuations: Sequence[PromptContinuation]) -> list[Tensor]:
        """Add tokens to each cache; return the logits ``(n, vocabulary)`` after each of its ``n``
        tokens."""
        counts = [len(one.ids) for one in continuations]
        ids = torch.tensor([id_ for one in continuations for id_ in one.ids])
        parts = [(len(one.ids), one.cache) for one in continuations]
        return list(self.logits(self._run(self.embed(ids), parts, None)).split(counts))

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits ``(n, vocabulary)`` from the last layer's output ``(n, hidden)``."""
        logits: Tensor = self._head(self._norm(hidden.unsqueeze(0)))[0]
        return logits

    def _run(
        self,
        embeddings: Tensor,
        caches: Sequence[tuple[int, KeyValueCache]],
        check: StepCheck | None,
    ) -> Tensor:
        """Return the last layer's output ``(n, hidden)``; add keys and values to the caches.

        ``caches``: the number of rows that belong to each cache, in order.
        """
        cos, sin = self._rotations(caches)
        total = len(embeddings)
        filling = 0
        if total > _FEW and self.device.type == "cpu" and self.dtype != torch.float32:
            filling = -total % _ROWS
        if filling:
            embeddings, cos, sin = (
                functional.pad(one, (0, 0, 0, filling)) for one in (embeddings, cos, sin)
            )
        hidden = embeddings.unsqueeze(0)
        del embeddings  # the first layer's input, which no other one needs
        for index, layer in enumerate(self.layers):
            if check is not None:
                check()
            query, key, value = self.project(layer, hidden, cos, sin)
            attended, at = [], 0
            for count, cache in caches:
                rows, end = slice(at, at + count), cache.length + count
                keys, values = cache.keys[index], cache.values[index]
                keys[:, :, cache.length : end] = key[:, :, rows]
                values[:, :, cache.length : end] = value[:, :, rows]
                attended.append(
                    self.attend(query[:, :, rows], keys[:, :, :end], values[:, :, :end])
                )
                at += count
            if filling:
                attended.append(query.new_zeros(1, self.heads, filling, self.head_dim))
            hidden = self.conclude(layer, hidden, concatenate(attended, dim=2))
        for count, cache in caches:
            cache.length += count
        return hidden[0, :total]

    def _rotations(self, caches: Sequence[tuple[int, KeyValueCache]]) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines ``(n, dim)`` of the rows' positions."""
        table = self.rotation(max(cache.capacity for _, cache in caches))
        cos, sin = (
            concatenate(
                [half[cache.length : cache.length + count] for count, cache in caches], dim=0
            )
            for half in table
        )
        return cos, sin

    def project(
        self, layer: Any, hidden: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values ``(1, heads, n, dim)`` of a layer, at their positions."""
        attention = layer.self_attn
        normed = layer.input_layernorm(hidden)
        query = self._split(attention.q_proj(normed), self.heads)
        key = self._split(attention.k_proj(normed), self.kv_heads)
        value = self._split(attention.v_proj(normed), self.kv_heads)
        return apply_rotary(query, cos, sin), apply_rotary(key, cos, sin), value

    def conclude(self, layer: Any, hidden: Tensor, attended: Tensor) -> Tensor:
        """Return a layer's output from its input and its attention's output."""
        count = hidden.shape[1]
        hidden = hidden + layer.self_attn.o_proj(attended.transpose(1, 2).reshape(1, count, -1))
        result: Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return result

    def rotation(self, positions: int) -> tuple[Tensor, Tensor]:
        """Return cosines and sines ``(positions or more, dim)``; cached, as every step needs
        them."""
        if len(self._cos) < positions:
            like = torch.empty(0, device=self.device, dtype=self.dtype)
            where = torch.arange(positions, device=self.device).unsqueeze(0)
            cos, sin = self._rotary(like, where)
            self._cos, self._sin = cos[0], sin[0]
        return self._cos, self._sin

    def _split(self, projected: Tensor, heads: int) -> Tensor:
        return projected.view(1, -1, heads, self.head_dim).transpose(1, 2)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return the attention of ``(1, heads, n, dim)`` queries to all positions before them."""
        count = query.shape[2]
        if count == 1:  # queries that share a key head are treated as a sequence: no copies
            packed = query.view(1, self.kv_heads, -1, self.head_dim)
            out = functional.scaled_dot_product_attention(packed, keys, values)
            return out.reshape(1, self.heads, 1, self.head_dim)
        if self.by_key_head and self.kv_heads > 1:
            heads = self.heads // self.kv_heads
            shares = zip(query.split(heads, 1), keys.split(1, 1), values.split(1, 1), strict=True)
            return torch.cat([self._attend_together(*one) for one in shares], dim=1)
        return self._attend_together(query, keys, values)

    def _attend_together(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return the causal attention of several queries; heads share keys."""
        count, shared = query.shape[2], keys.shape[1] < query.shape[1]
        if shared and self.by_key_head:  # views: nothing is copied
            keys, values = (one.expand(-1, query.shape[1], -1, -1) for one in (keys, values))
            shared = False
        if count == keys.shape[2]:
            return functional.scaled_dot_product_attention(
                query, keys, values, is_causal=True, enable_gqa=shared
            )
        total = keys.shape[2]
        mask: Tensor
        if query.device.type == "cuda":
            mask = causal_lower_right(count, total)  # no tensor if flash attention is available
        else:
            ones = torch.ones(count, total, dtype=torch.bool, device=query.device)
            mask = ones.tril(total - count)
        return functional.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, enable_gqa=shared
        )


def has_bf16(device: torch.device) -> bool:
    """Return whether a GPU computes in bf16 and has flash attention: compute capability 8.0."""
    return torch.cuda.get_device_capability(device)[0] >= 8


def concatenate(parts: list[Tensor], dim: int) -> Tensor:
    """Return the parts as one tensor; a single part is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)


def apply_rotary(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return the rotary position embedding (Su et al. 2021) of ``(1, heads, n, dim)``, halves
    layout."""
    half = states.shape[-1] // 2
    turned = torch.cat((-states[..., half:], states[..., :half]), dim=-1)
    return states * cos + turned * sin


class CudaGraphStep:
    """Step of ``width`` tokens after each of some caches, over their first ``span`` positions.

    All its tensors keep their addresses.
    """

    def __init__(
        self, decoder: VibeVoiceDecoder, caches: Sequence[KeyValueCache], width: int, span: int
    ) -> None:
        device = decoder.device
        self.width = width
        self._span = span
        self._decoder = decoder
        self._caches = [
            [
                (keys[:, :, :span], values[:, :, :span])
                for keys, values in zip(cache.keys, cache.values, strict=True)
            ]
            for cache in caches
        ]
        self._known = [cache.keys[0] for cache in caches]
        self._cos, self._sin = decoder.rotation(max(cache.capacity for cache in caches))
        self._where = torch.arange(span, device=device)
        rows = len(caches) * width
        self._positions = torch.zeros(rows, dtype=torch.long, device=device)
        self._embeddings = decoder.embed(torch.zeros(rows, dtype=torch.long))
        self._logits: Tensor | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def serves(self, caches: Sequence[KeyValueCache]) -> bool:
        """Return whether this step fits the caches: the same tensors, and enough positions in the
        span."""
        return len(caches) == len(self._known) and all(
            cache.length + self.width <= min(self._span, cache.capacity) and cache.keys[0] is known
            for cache, known in zip(caches, self._known, strict=True)
        )

    def __call__(self, continuations: Sequence[PromptContinuation]) -> list[Tensor]:
        """Add up to ``width`` tokens to each cache; return the logits ``(n, vocabulary)`` after its
        tokens.

        They are valid until the next call.
        """
        ids = [[*one.ids, *[0] * (self.width - len(one.ids))] for one in continuations]
        self._embeddings.copy_(self._decoder.embed(torch.tensor(ids).flatten()))
        self._place([one.cache for one in continuations])
        if self._graph is None:
            self._logits = self._run()
        else:
            self._graph.replay()
        assert self._logits is not None
        rows = self._logits.split(self.width)
        for one in continuations:
            one.cache.length += len(one.ids)
        return [part[: len(one.ids)] for part, one in zip(rows, continuations, strict=True)]

    def capture(self, caches: Sequence[KeyValueCache]) -> None:
        """Capture the step. Its writes meanwhile go to the next free positions."""
        self._place(caches)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_RUNS):
                self._run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._logits = self._run()
        self._graph = graph

    def _place(self, caches: Sequence[KeyValueCache]) -> None:
        starts = torch.tensor([[cache.length] for cache in caches])
        self._positions.copy_((starts + torch.arange(self.width)).flatten())

    def _run(self) -> Tensor:
        decoder, positions = self._decoder, self._positions
        cos, sin = self._cos.index_select(0, positions), self._sin.index_select(0, positions)
        masked = self._where > positions.unsqueeze(1)
        hidden = self._embeddings.unsqueeze(0)
        for index, layer in enumerate(decoder.layers):
            query, key, value = decoder.project(layer, hidden, cos, sin)
            attended = []
            for at, cache in enumerate(self._caches):
                rows = slice(at * self.width, (at + 1) * self.width)
                keys, values = cache[index]
                keys.index_copy_(2, positions[rows], key[:, :, rows])
                values.index_copy_(2, positions[rows], value[:, :, rows])
                seen = masked[rows, : keys.shape[2]]
                attended.append(self._attend(query[:, :, rows], keys, values, seen))
            hidden = decoder.conclude(layer, hidden, concatenate(attended, dim=2))
        return decoder.logits(hidden[0])

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, masked: Tensor) -> Tensor:
        """Return the attention as two matrix products over the heads that share a key head.

        Fused kernels split their work by heads and queries. Here are 4 heads and few queries, which
        would leave most of a GPU idle at 30 000 positions.
        """
        decoder = self._decoder
        packed = query.reshape(decoder.kv_heads, -1, decoder.head_dim) * decoder.head_dim**-0.5
        scores = (packed @ keys[0].transpose(1, 2)).float()
        by_row = scores.view(decoder.kv_heads, -1, *masked.shape)
        shares = by_row.masked_fill(masked, float("-inf")).softmax(dim=-1).view_as(scores)
        attended: Tensor = shares.to(values.dtype) @ values[0]
        return attended.view(1, decoder.heads, -1, decoder.head_dim)


class CudaGraphSteps:
    """Steps that fit the caches, one for single tokens and one for drafts; captured on a GPU.

    Call `forget` before a cache grows: a step holds the tensors of the old one.
    """

    def __init__(self, decoder: VibeVoiceDecoder, *, growth: int = GRAPH_POSITIONS) -> None:
        """``growth``: positions by which the attended span of a cache grows."""
        self.growth = growth
        self._decoder = decoder
        self._steps: dict[int, CudaGraphStep] = {}

    def step(self, continuations: Sequence[PromptContinuation]) -> list[Tensor]:
        """Run a step as `VibeVoiceDecoder.step`; the logits are valid until the next call."""
        caches = [one.cache for one in continuations]
        width = 1 if all(len(one.ids) == 1 for one in continuations) else DRAFT_WIDTH_TOKENS
        step = self._steps.get(width)
        if step is None or not step.serves(caches):
            self._steps.pop(width, None)
            step = self._steps[width] = self._new(caches, width)
        return step(continuations)

    def forget(self) -> None:
        """Release the steps and the caches' tensors."""
        self._steps.clear()

    def _new(self, caches: Sequence[KeyValueCache], width: int) -> CudaGraphStep:
        needed = max(cache.length for cache in caches) + width
        step = CudaGraphStep(self._decoder, caches, width, -(-needed // self.growth) * self.growth)
        if self._decoder.device.type == "cuda":
            step.capture(caches)
        return step


class PlannedDecoder:
    """Decoder with its graphs and a memory plan, by which caches grow."""

    def __init__(
        self, decoder: VibeVoiceDecoder, plan: MemoryPlan, graph_steps: CudaGraphSteps | None = None
    ) -> None:
        """``graph_steps``: None for its own steps, if they can be captured."""
        self.decoder = decoder
        self._plan = plan
        if graph_steps is None and decoder.capturable:
            graph_steps = CudaGraphSteps(decoder)
        self._graph_steps = graph_steps

    def prefill(
        self, embeddings: Tensor, cache: KeyValueCache, check: StepCheck | None = None
    ) -> Tensor:
        """Add embeddings ``(n, hidden)``; return the logits ``(vocabulary,)`` after the last."""
        self._make_room(cache, len(embeddings))
        return self.decoder.prefill(embeddings, cache, self._plan.prefill_tile, check)

    def step(self, continuations: Sequence[PromptContinuation]) -> list[Tensor]:
        """Add up to `DRAFT_WIDTH_TOKENS` tokens to each cache; return the logits ``(n,
        vocabulary)`` after its tokens.

        They are valid until the next call.
        """
        wide = any(len(one.ids) > 1 for one in continuations)
        for one in continuations:
            self._make_room(one.cache, DRAFT_WIDTH_TOKENS if wide else 1)
        step = self.decoder.step if self._graph_steps is None else self._graph_steps.step
        return step(continuations)

    def forget(self) -> None:
        """Release the graphs, with the caches of answers that have ended."""
        if self._graph_steps is not None:
            self._graph_steps.forget()

    def _make_room(self, cache: KeyValueCache, tokens: int) -> None:
        needed = cache.length + tokens
        if needed > cache.capacity:
            self.forget()
            cache.reserve(needed, self._plan.cache_step)
