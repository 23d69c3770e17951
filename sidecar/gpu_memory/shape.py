"""The dimensions of a VibeVoice-ASR checkpoint and what follows from them: parameters, bytes.

Pure arithmetic on `config.json`; the tests hold the counts to the real class.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """One of the two audio encoders: a convolutional stem, stages that shorten, a head.

    Stage 0 is the stem; each further stage shortens by its ratio and doubles the channels. The
    defaults are those of the released encoders.
    """

    latent: int
    channels: int = 1
    filters: int = 32
    kernel: int = 7
    expansion: int = 4
    ratios: tuple[int, ...] = (2, 2, 4, 5, 5, 8)
    depths: tuple[int, ...] = (3, 3, 3, 3, 3, 3, 8)

    @classmethod
    def from_config(cls, config: dict[str, Any], latent: int) -> EncoderShape:
        """From a part of `config.json`; what it leaves out is as in the released encoders."""
        names = {
            "hidden_size": "latent",
            "channels": "channels",
            "num_filters": "filters",
            "kernel_size": "kernel",
            "ffn_expansion": "expansion",
            "downsampling_ratios": "ratios",
            "depths": "depths",
        }
        said = {names[key]: value for key, value in config.items() if key in names}
        lists: dict[str, Any] = {
            key: tuple(said[key]) for key in ("ratios", "depths") if key in said
        }
        return cls(**{"latent": latent, **said, **lists})

    @property
    def hop(self) -> int:
        """Samples to a token (3,200: 7.5 tokens a second)."""
        return prod(self.ratios)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.filters << stage for stage in range(len(self.ratios) + 1))

    @property
    def parameters(self) -> int:
        """How many numbers the encoder has."""
        widths = self.widths
        total = self.channels * widths[0] * self.kernel + widths[0]
        for narrow, wide, ratio in zip(widths, widths[1:], self.ratios, strict=False):
            total += narrow * wide * 2 * ratio + wide
        for width, depth in zip(widths, self.depths, strict=True):
            feed_forward = 2 * width * width * self.expansion + (self.expansion + 1) * width
            mixer = width * self.kernel + width
            norms_and_scales = 4 * width
            total += depth * (feed_forward + mixer + norms_and_scales)
        return total + widths[-1] * self.latent * self.kernel + self.latent


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The whole model. `hidden` … `vocab` are the language model's (Qwen2)."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocab: int
    acoustic: EncoderShape
    semantic: EncoderShape

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ModelShape:
        """From the `config.json` of a checkpoint in the HF layout, as plain values.

        Raises:
            ValueError: it has no language model's dimensions (another model, another layout).
        """
        text = config.get("text_config")
        if not isinstance(text, dict) or "hidden_size" not in text:
            raise ValueError("not the config.json of a VibeVoice-ASR checkpoint in the HF layout")
        heads = text.get("num_attention_heads", 32)
        return cls(
            hidden=text["hidden_size"],
            layers=text.get("num_hidden_layers", 32),
            heads=heads,
            kv_heads=text.get("num_key_value_heads") or heads,
            head_dim=text.get("head_dim") or text["hidden_size"] // heads,
            mlp=text.get("intermediate_size", 22016),
            vocab=text.get("vocab_size", 151936),
            acoustic=EncoderShape.from_config(
                config.get("acoustic_tokenizer_encoder_config") or {}, 64
            ),
            semantic=EncoderShape.from_config(
                config.get("semantic_tokenizer_encoder_config") or {}, 128
            ),
        )

    @property
    def query_width(self) -> int:
        """Width of all queries of a token."""
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Width of all keys of a token, and of all values."""
        return self.kv_heads * self.head_dim

    @property
    def encoder_parameters(self) -> int:
        """Both encoders and the projector: what goes to the host when they are evicted."""
        both = self.acoustic.latent + self.semantic.latent
        projector = both * self.hidden + 2 * self.hidden * self.hidden + 6 * self.hidden
        return self.acoustic.parameters + self.semantic.parameters + projector

    @property
    def table_parameters(self) -> int:
        """The token embeddings; the head has as many."""
        return self.vocab * self.hidden

    @property
    def linear_parameters(self) -> int:
        """The weights that int8 and int4 shrink: the language model's linear layers."""
        attention = 2 * self.hidden * (self.query_width + self.key_width)
        return self.layers * (attention + 3 * self.hidden * self.mlp)

    @property
    def linear_rows(self) -> int:
        """Rows of those weights; int8 keeps a scale for each."""
        attention = self.query_width + 2 * self.key_width + self.hidden
        return self.layers * (attention + 2 * self.mlp + self.hidden)

    @property
    def small_parameters(self) -> int:
        """Biases and norms of the language model, never quantized."""
        per_layer = self.query_width + 2 * self.key_width + 2 * self.hidden
        return self.layers * per_layer + self.hidden

    @property
    def parameters(self) -> int:
        """All of them."""
        return (
            self.encoder_parameters
            + 2 * self.table_parameters
            + self.linear_parameters
            + self.small_parameters
        )

    @property
    def cache_values(self) -> int:
        """Numbers that the KV cache keeps for one position."""
        return 2 * self.layers * self.key_width


FULL = ModelShape(
    hidden=3584,
    layers=28,
    heads=28,
    kv_heads=4,
    head_dim=128,
    mlp=18944,
    vocab=152064,
    acoustic=EncoderShape(latent=64),
    semantic=EncoderShape(latent=128),
)
"""The released model, VibeVoice-ASR-7B: 8.330 billion parameters."""
