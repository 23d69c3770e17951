"""The language model, run by hand: the branch with a text and those without in one pass.

Their rows go through the layers as one matrix, so that the weights are read once for all; each
attends to what came before it in its own branch. Of the 151,936 words that the model knows four may
follow, and only these are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sidecar.tts.vibevoice_denoiser import Check


class Branch:
    """The keys and values of what was said in a branch so far; ``length`` positions are filled.

    What lies behind it is never read, so going back is setting ``length``.
    """

    def __init__(self, shape: tuple[int, int, int, int], like: Tensor) -> None:
        """``shape``: layers, heads, positions that there is room for, size of a head."""
        layers, *rest = shape
        self.keys = [like.new_empty((1, *rest)) for _ in range(layers)]
        self.values = [like.new_empty((1, *rest)) for _ in range(layers)]
        self.length = 0


class Language:
    """Qwen2 without its head; `torch.inference_mode` is the caller's."""

    def __init__(self, model: Any, words: Sequence[int]) -> None:
        """``words``: the ids that may follow."""
        language, config = model.model.language_model, model.config.text_config
        self._layers = list(language.layers)
        self._norm = language.norm
        self._rotary = language.rotary_emb
        self._table: Tensor = language.embed_tokens.weight
        self._heads = config.num_attention_heads
        self._kv_heads = config.num_key_value_heads
        self._head_dim = self._layers[0].self_attn.head_dim
        self._words = sorted(words)
        self._rows: Tensor = model.lm_head.weight[self._words]
        self._cos = self._sin = torch.empty(0)

    def branch(self, positions: int) -> Branch:
        """An empty one with room for so many positions."""
        if len(self._cos) < positions:
            where = torch.arange(positions, device=self._table.device).unsqueeze(0)
            cos, sin = self._rotary(self._table[:1], where)
            self._cos, self._sin = cos[0], sin[0]
        shape = (len(self._layers), self._kv_heads, positions, self._head_dim)
        return Branch(shape, self._table)

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Embeddings ``(n, hidden)``."""
        return self._table[torch.tensor(ids).to(self._table.device)]

    def word(self, outputs: Tensor, guidance: float) -> int:
        """The one that follows the output ``(hidden,)`` with a text, the first of ``outputs``; led
        away from what would follow without, where there is a second."""
        scores = functional.linear(outputs, self._rows).float()
        led = torch.lerp(scores[-1], scores[0], guidance) if len(scores) > 1 else scores[0]
        return self._words[int(led.argmax())]

    def run(self, parts: Sequence[tuple[Tensor, Branch]], check: Check) -> Tensor:
        """Take in embeddings ``(n, hidden)`` in their branches.

        Returns:
            The output ``(branches, hidden)`` after the last of each.
        """
        rows = torch.cat([part for part, _ in parts])
        cos, sin = self._rotations(parts)
        for index in range(len(self._layers)):
            check()
            rows = self._through(index, rows, cos, sin, parts)
        ends, at = [], -1
        for part, branch in parts:
            branch.length += len(part)
            ends.append(at := at + len(part))
        return self._normed(self._norm, rows[ends])

    def _through(
        self,
        index: int,
        rows: Tensor,
        cos: Tensor,
        sin: Tensor,
        parts: Sequence[tuple[Tensor, Branch]],
    ) -> Tensor:
        """A layer's output ``(n, hidden)``; keys and values go to the branches."""
        layer = self._layers[index]
        attention = layer.self_attn
        normed = self._normed(layer.input_layernorm, rows)
        query = _rotated(self._split(attention.q_proj(normed), self._heads), cos, sin)
        key = _rotated(self._split(attention.k_proj(normed), self._kv_heads), cos, sin)
        value = self._split(attention.v_proj(normed), self._kv_heads)
        heard, at = [], 0
        for part, branch in parts:
            mine, end = slice(at, at + len(part)), branch.length + len(part)
            branch.keys[index][:, :, branch.length : end] = key[:, :, mine]
            branch.values[index][:, :, branch.length : end] = value[:, :, mine]
            keys, values = branch.keys[index][:, :, :end], branch.values[index][:, :, :end]
            heard.append(self._attend(query[:, :, mine], keys, values))
            at += len(part)
        rows = rows + attention.o_proj(torch.cat(heard))
        result: Tensor = rows + layer.mlp(self._normed(layer.post_attention_layernorm, rows))
        return result

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """What ``(1, heads, n, dim)`` queries hear, as ``(n, heads * dim)``: one that comes after
        all the others, or all that there are."""
        count = query.shape[2]
        if count == 1:  # the queries that share a key head stand in for a sequence: no copies
            packed = query.view(1, self._kv_heads, -1, self._head_dim)
            return functional.scaled_dot_product_attention(packed, keys, values).view(1, -1)
        assert count == keys.shape[2]
        heard = functional.scaled_dot_product_attention(
            query, keys, values, is_causal=True, enable_gqa=True
        )
        return heard[0].transpose(0, 1).reshape(count, -1)

    def _rotations(self, parts: Sequence[tuple[Tensor, Branch]]) -> tuple[Tensor, Tensor]:
        """Cosines and sines ``(n, dim)`` of the rows' positions."""
        spans = [slice(branch.length, branch.length + len(part)) for part, branch in parts]
        return (
            torch.cat([self._cos[span] for span in spans]),
            torch.cat([self._sin[span] for span in spans]),
        )

    def _split(self, projected: Tensor, heads: int) -> Tensor:
        return projected.view(1, -1, heads, self._head_dim).transpose(1, 2)

    @staticmethod
    def _normed(norm: Any, rows: Tensor) -> Tensor:
        return functional.rms_norm(rows, rows.shape[-1:], norm.weight, norm.variance_epsilon)


def _rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021) of ``(1, heads, n, dim)`` in the halves layout."""
    half = states.shape[-1] // 2
    turned = torch.cat((-states[..., half:], states[..., :half]), dim=-1)
    return states * cos + turned * sin
