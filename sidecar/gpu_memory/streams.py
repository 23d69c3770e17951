"""What streams of Voxtral Realtime take beside its weights, from `config.json` alone. Pure.

A stream's memory is its keys and values: of the decoder a position for each 80 ms, of the encoder
four, none beyond their sliding windows. The tests hold it to the caches of the real class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

TOKENS_S = 12.5
"""Positions of the decoder for a second."""
BEFORE = 33 + 30
"""Of a stream that begins, with the longest delay: the prompt; and behind it about as many."""


@dataclass(frozen=True, slots=True)
class Attention:
    """A stack of layers; ``window``: positions that each sees, itself included."""

    layers: int
    heads: int
    head: int
    window: int

    def bytes(self, positions: int, width: int) -> int:
        """Keys and values of so many positions; ``width``: bytes of a number."""
        return 2 * self.layers * self.heads * self.head * width * min(positions, self.window - 1)


@dataclass(frozen=True, slots=True)
class StreamShape:
    """The two stacks whose past a stream keeps; ``factor``: frames to a token."""

    decoder: Attention
    encoder: Attention
    factor: int

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> StreamShape:
        """From `config.json`; what it leaves out is as in the released model."""
        text, audio = config.get("text_config") or {}, config.get("audio_config") or {}
        return cls(
            Attention(
                text.get("num_hidden_layers", 26),
                text.get("num_key_value_heads", 8),
                text.get("head_dim", 128),
                text.get("sliding_window", 8192),
            ),
            Attention(
                audio.get("num_hidden_layers", 32),
                audio.get("num_key_value_heads") or audio.get("num_attention_heads", 32),
                audio.get("head_dim", 64),
                audio.get("sliding_window", 750),
            ),
            config.get("downsample_factor", 4),
        )

    def bytes(self, tokens: int, width: int = 2) -> int:
        """Of a stream with so many positions of the decoder."""
        return self.decoder.bytes(tokens, width) + self.encoder.bytes(self.factor * tokens, width)

    def peak_bytes(self, longest_s: float, width: int = 2) -> int:
        """Of one that hears a stretch of speech of that length to its end."""
        return self.bytes(math.ceil(longest_s * TOKENS_S) + 2 * BEFORE, width)

    def most(self, free_bytes: int, longest_s: float, width: int = 2) -> int:
        """Streams that there is room for."""
        return max(0, free_bytes // self.peak_bytes(longest_s, width))
