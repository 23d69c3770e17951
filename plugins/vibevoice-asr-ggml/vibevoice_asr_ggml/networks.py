"""Graphs of VibeVoice-ASR: both audio encoders with their projectors, and the language model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from vibevoice_asr_ggml.gguf_file import GgufFile
from vibevoice_asr_ggml.layout import KERNEL, PROJECTORS, VibeVoiceLayout
from vibevoice_asr_ggml.library import F16, F32, Device, Graph

Floats = npt.NDArray[np.float32]
_Part = tuple[str, int, tuple[int, ...], Callable[[], npt.NDArray[Any]]]
_PROJECTOR_EPSILON = 1e-6
_NEOX = 2
"""Rotary embedding of halves (ggml.h)."""


class Weights:
    """Tensors of a file on a device, by their names; convolutions as matrices.

    A convolution over (channels, time) is a product with an overlapping view for each `stride`
    samples of its kernel, so nothing is unfolded. A depthwise one is a sum of shifted products.
    """

    def __init__(self, file: GgufFile, layout: VibeVoiceLayout, device: Device) -> None:
        self._file, self._device = file, device
        self._strides = {
            f"{at}_enc.ds.{stage}.0.conv.weight": stride
            for at in PROJECTORS
            for stage, stride in enumerate(layout.strides)
        } | {f"{at}_enc.head.weight": 1 for at in PROJECTORS}
        self._names = [name for name, _ in layout.tensors() if name in file.tensors]
        self._tensors: dict[str, int] = {}

    def __getitem__(self, name: str) -> int:
        return self._tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def linear(self, graph: Graph, name: str, x: int) -> int:
        """Return a layer of a graph: a matrix product with a bias."""
        return graph.add(graph.mul_mat(self[f"{name}.weight"], x), self[f"{name}.bias"])

    def load(self) -> Iterator[float]:
        """Load them; yield the share that is loaded.

        Raises:
            MemoryError: they do not fit.
            errors.CheckpointDamaged: the file was shortened.
        """
        library = self._device.library
        context = library.context(2 * KERNEL * len(self._names))
        for name in self._names:
            for key, kind, sizes, _ in self._parts(name):
                self._tensors[key] = library.tensor(context, kind, sizes)
        self._device.allocate(context)
        done, total = 0, sum(self._file.tensors[name].bytes for name in self._names)
        for name in self._names:
            for key, _, _, values in self._parts(name):
                library.send(self._tensors[key], values())
            done += self._file.tensors[name].bytes
            yield done / total

    def _parts(self, name: str) -> Iterator[_Part]:
        """Yield what a stored tensor becomes: key, type, sizes, values."""
        file, stored = self._file, self._file.tensors[name]
        if (stride := self._strides.get(name)) is not None:
            kernel, before, width = stored.sizes
            exact = stored.kind != F16 or before == 1
            kind, kept = (F32, np.float32) if exact else (F16, np.float16)

            def values(part: int) -> npt.NDArray[Any]:
                rows = file.floats(name).transpose(0, 2, 1)  # (out, kernel, in)
                return rows[:, part * stride : (part + 1) * stride].astype(kept)

            for part in range(kernel // stride):
                yield f"{name}.{part}", kind, (stride * before, width), partial(values, part)
        elif "dw_conv.weight" in name:
            yield name, F32, (stored.sizes[2], KERNEL), lambda: file.floats(name)[:, 0].T
        elif len(stored.sizes) == 1:
            yield name, F32, stored.sizes, lambda: file.floats(name)
        else:
            yield name, stored.kind, stored.sizes, lambda: file.read(name)


class AudioEncoder:
    """One encoder with its projector. It is fed in chunks, and keeps what its convolutions need of
    the audio before: the result is that of one pass."""

    def __init__(self, at: str, weights: Weights, layout: VibeVoiceLayout, device: Device) -> None:
        """``at``: 'at' for the acoustic one, 'st' for the semantic one."""
        self._at, self._weights, self._layout, self._device = at, weights, layout, device
        self.begin()

    def begin(self) -> None:
        """Forget the audio before."""
        self._past: dict[str, Floats] = {}

    def feed(self, samples: Floats, noise: Floats | None = None) -> Floats:
        """Return the embeddings (tokens, hidden) of samples, whole tokens of them. ``noise``: is
        added to the latents, (tokens, latents)."""
        layout, name = self._layout, f"{self._at}_enc."
        with self._device.graph() as graph:
            work = _Convolutions(graph, self._weights, self._past, layout)
            x = graph.input(samples.reshape(-1, 1))
            channels, length = 1, len(samples)
            stages = zip(layout.widths, layout.strides, layout.depths, strict=True)
            for stage, (width, stride, depth) in enumerate(stages):
                x = work.convolve(x, f"{name}ds.{stage}.0.conv.", channels, length, stride)
                channels, length = width, length // stride
                for block in range(depth):
                    x = work.block(x, f"{name}s.{stage}.{block}.", channels, length)
            x = work.convolve(x, f"{name}head.", channels, length, 1)
            if noise is not None:
                x = graph.add(x, graph.input(noise))
            at, get = PROJECTORS[self._at], self._weights
            x = get.linear(graph, f"{at}.fc1", x)
            x = graph.normed(x, get[f"{at}.norm.weight"], _PROJECTOR_EPSILON)
            x = graph.also(get.linear(graph, f"{at}.fc2", x), kept=True)
            graph.compute()
            self._past = {key: graph.floats(*end) for key, end in work.ends.items()}
            return graph.floats(x, (length, layout.hidden))


@dataclass
class _Convolutions:
    """Causal convolutions of a graph; ``ends``: what the next chunk needs of their inputs."""

    graph: Graph
    weights: Weights
    past: dict[str, Floats]
    layout: VibeVoiceLayout

    def __post_init__(self) -> None:
        self.ends: dict[str, tuple[int, tuple[int, int]]] = {}

    def _after_past(self, x: int, name: str, channels: int, length: int, needed: int) -> int:
        """Return ``x`` (channels, length) behind the ``needed`` samples before it."""
        graph = self.graph
        before = self.past.get(name, np.zeros((needed, channels), np.float32))
        joined = graph.concat(graph.input(before), x, 1)
        row = 4 * channels
        end = graph.cont(graph.view_2d(joined, channels, needed, row, length * row))
        self.ends[name] = graph.also(end, kept=True), (needed, channels)
        return joined

    def convolve(self, x: int, name: str, channels: int, length: int, stride: int) -> int:
        """Return a convolution of ``x`` (channels, length), of one result for ``stride`` inputs."""
        graph, parts = self.graph, KERNEL if stride == 1 else 2
        x = self._after_past(x, name, channels, length, (parts - 1) * stride)
        sizes, row = (stride * channels, length // stride), 4 * channels * stride
        seen = (graph.view_2d(x, *sizes, row, part * row) for part in range(parts))
        weights = (self.weights[f"{name}weight.{part}"] for part in range(parts))
        return graph.add(
            reduce(graph.add, map(graph.mul_mat, weights, seen)), self.weights[f"{name}bias"]
        )

    def block(self, x: int, name: str, width: int, length: int) -> int:
        """Return a block: a depthwise convolution and a feed-forward network."""
        graph, get, epsilon = self.graph, self.weights, self.layout.encoder_epsilon
        normed = graph.normed(x, get[f"{name}norm.weight"], epsilon)
        seen = self._after_past(normed, name, width, length, KERNEL - 1)
        weight, row = get[f"{name}dw_conv.weight"], 4 * width
        places = [part * row for part in range(KERNEL)]
        shifted = (graph.view_2d(seen, width, length, row, place) for place in places)
        weights = (graph.view_1d(weight, width, place) for place in places)
        mixed = graph.add(
            reduce(graph.add, map(graph.mul, shifted, weights)), get[f"{name}dw_conv.bias"]
        )
        x = graph.add(x, graph.mul(mixed, get[f"{name}gamma"]))
        inner = graph.normed(x, get[f"{name}ffn_ln.weight"], epsilon)
        inner = graph.gelu_erf(get.linear(graph, f"{name}ffn.up", inner))
        inner = get.linear(graph, f"{name}ffn.down", inner)
        return graph.add(x, graph.mul(inner, get[f"{name}ffn_gamma"]))


class KeyValueCache:
    """Keys and values of an answer in fp16, for ``positions`` tokens; ``length`` are filled."""

    def __init__(self, layout: VibeVoiceLayout, device: Device, positions: int) -> None:
        """Raises `MemoryError`: it does not fit."""
        self.length, self.positions, self._library = 0, positions, device.library
        self._buffer: int | None = None
        self._context = 0  # `__del__` runs also if the next line raises
        self._context = self._library.context(2 * layout.layers)
        sizes = (layout.head_dim, positions, layout.kv_heads)
        self.keys, self.values = (
            [self._library.tensor(self._context, F16, sizes) for _ in range(layout.layers)]
            for _ in "kv"
        )
        self._buffer = device.allocate(self._context)

    def __del__(self) -> None:
        if self._buffer is not None:
            self._library.backend_buffer_free(self._buffer)
        self._library.free(self._context)


class LanguageModel:
    """Decoder, a Qwen2, which adds tokens to a cache."""

    def __init__(self, weights: Weights, layout: VibeVoiceLayout, device: Device) -> None:
        self._weights, self._layout, self._device = weights, layout, device
        self._head = "lm_head.weight" if "lm_head.weight" in weights else "lm.tok_emb.weight"

    def embed(self, ids: Sequence[int]) -> Floats:
        """Return the embeddings (tokens, hidden) of token ids."""
        with self._device.graph() as graph:
            rows = graph.get_rows(self._weights["lm.tok_emb.weight"], graph.input(_numbers(ids)))
            graph.also(rows, kept=True)
            graph.compute()
            return graph.floats(rows, (len(ids), self._layout.hidden))

    def add(
        self, cache: KeyValueCache, tokens: Sequence[int] | Floats, *, last: bool = False
    ) -> Floats:
        """Add ids or embeddings to a cache; return the logits (tokens, vocabulary) after each, or
        after the ``last`` only."""
        layout, get, count = self._layout, self._weights, len(tokens)
        if cache.length + count > cache.positions:
            raise MemoryError
        with self._device.graph() as graph:
            if isinstance(tokens, np.ndarray):
                x = graph.input(tokens)
            else:
                x = graph.get_rows(get["lm.tok_emb.weight"], graph.input(_numbers(tokens)))
            places = graph.input(_numbers(range(cache.length, cache.length + count)))
            mask = graph.input(_causal_mask(count, cache.length)) if count > 1 else None
            for layer in range(layout.layers):
                x = self._layer(graph, x, layer, cache, count, places, mask)
            rows = 1 if last else count
            row = 4 * layout.hidden
            x = graph.view_2d(x, layout.hidden, rows, row, (count - rows) * row)
            x = graph.normed(x, get["lm.norm.weight"], layout.epsilon)
            logits = graph.also(graph.mul_mat(get[self._head], x), kept=True)
            graph.compute()
            cache.length += count
            return graph.floats(logits, (rows, layout.vocabulary))

    def _layer(
        self,
        graph: Graph,
        x: int,
        layer: int,
        cache: KeyValueCache,
        count: int,
        places: int,
        mask: int | None,
    ) -> int:
        layout, get, name = self._layout, self._weights, f"lm.layers.{layer}."
        dim, theta, epsilon = layout.head_dim, layout.rope_theta, layout.epsilon
        normed = graph.normed(x, get[f"{name}attn_ln.weight"], epsilon)

        def heads(part: str, many: int) -> int:
            made = get.linear(graph, f"{name}attn.{part}_proj", normed)
            return graph.reshape_3d(made, dim, many, count)

        def turned(states: int) -> int:
            numbers = (theta, 1.0, 0.0, 1.0, 0.0, 0.0)
            return graph.rope_ext(states, places, None, dim, _NEOX, 0, *numbers)

        query, key = turned(heads("q", layout.heads)), turned(heads("k", layout.kv_heads))
        row, end = 2 * dim, cache.length + count
        seen = []
        for new, kept in ((key, cache.keys[layer]), (heads("v", layout.kv_heads),
                                                     cache.values[layer])):  # fmt: skip
            sizes, step = (dim, count, layout.kv_heads), row * cache.positions
            place = graph.view_3d(kept, *sizes, row, step, cache.length * row)
            graph.also(graph.cpy(graph.permute(new, 0, 2, 1, 3), place))
            seen.append(graph.view_3d(kept, dim, end, layout.kv_heads, row, step, 0))
        query = graph.permute(query, 0, 2, 1, 3)
        attended = graph.flash_attn_ext(query, *seen, mask, dim**-0.5, 0.0, 0.0)
        attended = graph.reshape_2d(attended, layout.heads * dim, count)
        x = graph.add(x, graph.mul_mat(get[f"{name}attn.o_proj.weight"], attended))
        normed = graph.normed(x, get[f"{name}ffn_ln.weight"], epsilon)
        gate = graph.silu(graph.mul_mat(get[f"{name}ffn.gate.weight"], normed))
        inner = graph.mul(gate, graph.mul_mat(get[f"{name}ffn.up.weight"], normed))
        return graph.add(x, graph.mul_mat(get[f"{name}ffn.down.weight"], inner))


def _numbers(values: Any) -> npt.NDArray[np.int32]:
    return np.asarray(values, np.int32)


def _causal_mask(count: int, before: int) -> npt.NDArray[np.float16]:
    """Return what is added to the scores (tokens, positions): nothing, or minus infinity."""
    later = np.arange(before + count)[None] > before + np.arange(count)[:, None]
    return np.where(later, -np.inf, 0).astype(np.float16)
