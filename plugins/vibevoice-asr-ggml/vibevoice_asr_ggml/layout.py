"""Names and sizes of the tensors of VibeVoice-ASR in a GGUF file, by its metadata. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from sidecar.engines.vibevoice.vibevoice_prompt import HOP_SAMPLES
from sidecar.errors import CheckpointUnsupported
from vibevoice_asr_ggml.gguf_file import ARCHITECTURE, ARCHITECTURES, GgufFile, damaged

KERNEL = 7
"""Samples of a convolution that does not reduce them."""
ENCODERS = {"at": "acoustic_tokenizer_encoder", "st": "semantic_tokenizer_encoder"}
PROJECTORS = {"at": "at_conn", "st": "se_conn"}
TOKENIZER, PROMPT, CONTEXT_PROMPT = (
    "tokenizer.huggingface.json",
    "vibevoice.prompt",
    "vibevoice.prompt_with_context",
)
CONTEXT_MARK, AUDIO_MARK = "<|CONTEXT|>", "<|AUDIO|>"
"""Where a prompt has the client's text, and one token for each frame of audio."""
_MOST = 1 << 20


@dataclass(frozen=True, slots=True)
class VibeVoiceLayout:
    """Dimensions of a model, as its metadata names them; ``ratios``: of the stages in order."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocabulary: int
    rope_theta: float
    latents: dict[str, int]
    filters: int
    ratios: tuple[int, ...]
    depths: tuple[int, ...]
    epsilon: float
    encoder_epsilon: float
    noise: float
    loudness: tuple[float, float] | None
    """Level of a recording in dBFS, and what is added to its amplitude; `None`: as it is."""
    ends: frozenset[int]
    audio_token: int

    @classmethod
    def of(cls, file: GgufFile) -> VibeVoiceLayout:
        """Return the layout of a file whose tensors are those that it names.

        Raises:
            errors.CheckpointUnsupported: it is of another model.
            errors.CheckpointDamaged: metadata or a tensor are missing or do not fit.
        """
        fields = file.fields
        if (kind := fields.get(ARCHITECTURE)) not in ARCHITECTURES:
            raise CheckpointUnsupported(
                f"{file.path.name} is not VibeVoice-ASR: its architecture is {str(kind)[:40]!r}."
            )

        def number(name: str, kind: type[float], most: float = _MOST, usual: float = 0.0) -> Any:
            value: Any = fields.get(f"vibevoice.{name}", usual)
            if not isinstance(value, kind) or not 0 < value < most:
                raise damaged(file.path, f"has no usable vibevoice.{name}")
            return value

        def numbers(name: str, least: int, most: int) -> list[int]:
            values = fields.get(f"vibevoice.{name}")
            found: list[Any] = values if isinstance(values, list) and len(values) < 16 else []
            if not found or not all(isinstance(one, int) and least <= one < most for one in found):
                raise damaged(file.path, f"has no usable vibevoice.{name}")
            return found

        for name in (TOKENIZER, PROMPT, CONTEXT_PROMPT):
            if not isinstance(fields.get(name), str):
                raise damaged(
                    file.path,
                    f"has no {name}: the tokenizer must be exact, and files of other converters "
                    "lack it; convert the checkpoint with 'vibevoice-asr convert-ggml'",
                )
        level = fields.get("vibevoice.target_dbfs", -25.0)
        loud = isinstance(level, float) and -100 < level <= 0
        layout = cls(
            hidden=number("d_lm", int),
            layers=number("n_lm_layers", int),
            heads=number("n_heads", int),
            kv_heads=number("n_kv_heads", int),
            head_dim=number("head_dim", int),
            mlp=number("d_ffn", int),
            vocabulary=number("vocab_size", int),
            rope_theta=number("rope_theta", float, 1e12),
            latents={"at": number("vae_dim_acoustic", int), "st": number("vae_dim_semantic", int)},
            filters=number("n_filters", int),
            ratios=tuple(numbers("encoder_ratios", 1, 64))[::-1],
            depths=tuple(numbers("encoder_depths", 1, 64)),
            epsilon=number("rms_norm_eps", float, 1.0, 1e-6),
            encoder_epsilon=number("encoder_rms_norm_eps", float, 1.0, 1e-5),
            noise=number("vae_std", float, 1e3, 0.625),
            loudness=(level, number("loudness_eps", float, 1.0, 1e-6)) if loud else None,
            ends=frozenset(numbers("eos_token_ids", 0, _MOST)),
            audio_token=numbers("audio_token_ids", 0, _MOST)[0],
        )
        layout._check(file)
        return layout

    @property
    def key_width(self) -> int:
        """Return the width of all keys of a token."""
        return self.kv_heads * self.head_dim

    @property
    def widths(self) -> tuple[int, ...]:
        """Return the channels of the encoders' stages."""
        return tuple(self.filters << stage for stage in range(len(self.depths)))

    @property
    def strides(self) -> tuple[int, ...]:
        """Return the samples that each stage makes one of."""
        return (1, *self.ratios)

    def _check(self, file: GgufFile) -> None:
        if len(self.depths) != len(self.strides) or prod(self.ratios) != HOP_SAMPLES:
            raise damaged(file.path, "has stages that do not make a token of 3,200 samples")
        if self.heads % self.kv_heads or self.head_dim % 2 or self.head_dim > 256:
            raise damaged(file.path, "has heads that cannot share keys")
        if max(self.ends | {self.audio_token}) >= self.vocabulary:
            raise damaged(file.path, "has marks outside of its vocabulary")
        for name, sizes in self.tensors():
            found = file.tensors.get(name)
            if found is None and name == "lm_head.weight":
                continue  # it is the table
            if found is None:
                raise damaged(file.path, f"lacks {name}")
            if found.sizes != sizes:
                raise damaged(file.path, f"has {name} in {found.sizes} instead of {sizes}")
            if found.kind > 1 and (len(sizes) != 2 or "norm" in name):
                raise damaged(file.path, f"has {name} quantized")

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the names of all tensors and their sizes, the quickest first."""
        hidden, queries = self.hidden, self.heads * self.head_dim
        yield "lm.tok_emb.weight", (hidden, self.vocabulary)
        yield "lm_head.weight", (hidden, self.vocabulary)
        yield "lm.norm.weight", (hidden,)
        for layer in range(self.layers):
            at = f"lm.layers.{layer}."
            yield from ((f"{at}{one}.weight", (hidden,)) for one in ("attn_ln", "ffn_ln"))
            for part, rows in (("q", queries), ("k", self.key_width), ("v", self.key_width)):
                yield f"{at}attn.{part}_proj.weight", (hidden, rows)
                yield f"{at}attn.{part}_proj.bias", (rows,)
            yield f"{at}attn.o_proj.weight", (queries, hidden)
            yield from ((f"{at}ffn.{one}.weight", (hidden, self.mlp)) for one in ("gate", "up"))
            yield f"{at}ffn.down.weight", (self.mlp, hidden)
        for encoder, latents in self.latents.items():
            yield from self._encoder(f"{encoder}_enc.", latents)
            at = f"{PROJECTORS[encoder]}."
            yield f"{at}fc1.weight", (latents, hidden)
            yield f"{at}fc2.weight", (hidden, hidden)
            yield from ((f"{at}{one}", (hidden,)) for one in ("fc1.bias", "fc2.bias"))
            yield f"{at}norm.weight", (hidden,)

    def _encoder(self, at: str, latents: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        before = 1
        for stage, (width, stride) in enumerate(zip(self.widths, self.strides, strict=True)):
            kernel = KERNEL if stride == 1 else 2 * stride
            yield f"{at}ds.{stage}.0.conv.weight", (kernel, before, width)
            yield f"{at}ds.{stage}.0.conv.bias", (width,)
            for block in range(self.depths[stage]):
                name = f"{at}s.{stage}.{block}."
                yield f"{name}dw_conv.weight", (KERNEL, 1, width)
                for one in ("norm.weight", "dw_conv.bias", "gamma", "ffn_ln.weight", "ffn_gamma"):
                    yield f"{name}{one}", (width,)
                yield f"{name}ffn.up.weight", (width, 4 * width)
                yield f"{name}ffn.up.bias", (4 * width,)
                yield f"{name}ffn.down.weight", (4 * width, width)
                yield f"{name}ffn.down.bias", (width,)
            before = width
        yield f"{at}head.weight", (KERNEL, before, latents)
        yield f"{at}head.bias", (latents,)


_STAGED = r"conv_layers\.(\d+)\.(conv\.conv|stage)\."
_PARTS = """
stem.conv.conv.:ds.0.0.conv. stem.stage.:s.0. mixer.conv.:dw_conv. ffn.linear1.:ffn.up.
ffn.linear2.:ffn.down. ffn_norm.:ffn_ln. head.conv.:head. embed_tokens.:tok_emb.
post_attention_layernorm.:ffn_ln. input_layernorm.:attn_ln. self_attn.:attn.
mlp.gate_proj.:ffn.gate. mlp.up_proj.:ffn.up. mlp.down_proj.:ffn.down.
"""
"""Parts of names of transformers, and what files have in their place."""


def name_of(name: str) -> str:
    """Return the name in a file of a tensor that transformers names ``name``."""
    for short, long in ENCODERS.items():
        if name.startswith(f"{long}."):
            return f"{short}_enc.{_renamed(name.removeprefix(f'{long}.'))}"
    if found := re.match(
        r"multi_modal_projector\.(acoustic|semantic)_(linear_1|linear_2|norm)", name
    ):
        part = {"linear_1": "fc1", "linear_2": "fc2"}.get(found[2], found[2])
        return f"{'at' if found[1] == 'acoustic' else 'se'}_conn.{part}{name[found.end() :]}"
    if name.startswith("language_model.lm_head."):
        return name.removeprefix("language_model.")
    inner = name.removeprefix("language_model.model.")
    return f"lm.{_renamed(inner)}"


def _renamed(name: str) -> str:
    def staged(found: re.Match[str]) -> str:
        stage = int(found[1]) + 1
        return f"s.{stage}." if found[2] == "stage" else f"ds.{stage}.0.conv."

    name = re.sub(_STAGED, staged, name)
    for part in _PARTS.split():
        old, new = part.split(":")
        name = name.replace(old, new)
    return name
