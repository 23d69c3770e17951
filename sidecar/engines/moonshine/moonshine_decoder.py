"""Moonshine recognition model in onnxruntime, and the ONNX graph of its decoder.

The library runs a small model on all cores, which then wait for each other, and cannot be stopped.
Here a speech segment is the work of one thread. It is decoded token by token, greedily, and can be
cancelled between tokens (docs/decisions/recognition-parameters.md).

The wheel's graph of the decoder computes every shape at every token: 900 steps, of which 50 are the
model. The graph built here does the same arithmetic over the wheel's weights with onnxruntime's
fused attention, in a third of the time. The model is Moonshine tiny (arXiv:2410.15608): pre-norm
layers of self-attention with rotary positions, attention to the frames, and a gated feed-forward.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar import errors
from sidecar.audio import SAMPLE_RATE, Block
from sidecar.checkpoints import onnx_models
from sidecar.checkpoints.onnx_models import CONTRIB_DOMAIN, OnnxGraphBuilder, OrtModelFile
from sidecar.engines.moonshine.hotword_decoding import HotwordDecoding, KvCache
from sidecar.interfaces.engine_interface import CancelCheck
from sidecar.transcripts.word_timing import common_prefix_length

ENCODER, DECODER = "encoder_model.ort", "decoder_model_merged.ort"
TOKENS_PER_S = 6.5
"""Maximum number of tokens per second, the library's: a model with more repeats itself."""
FRAME_SAMPLES = 384
"""Samples of a frame of the encoder's output: 24 ms."""
_START, _END = 1, 2

LAYERS, HEADS, HEAD_SIZE, WIDTH = 6, 8, 36, 288
ALIGNMENT_HEADS = ((2, 0), (3, 7), (4, 1), (5, 2))
"""Heads (layer, head) that attend to the audio of the next token; each head was measured to find
them (docs/decisions/recognition-parameters.md)."""
MAX_POSITIONS = 512
"""Maximum length of a text in tokens (rotary tables): 78 s of speech at the limit of tokens."""
ROTARY, ROTARY_BASE = 32, 10_000.0
SCALE = HEAD_SIZE**-0.5
EPSILON = 1e-5
_PREFIX = "/model/decoder/"
_QUANTIZED_SUFFIX = "MatMul_quant"
_PAST_SHAPE = (1, HEADS, "past", HEAD_SIZE)
_PRESENT_SHAPE = (1, HEADS, "present", HEAD_SIZE)
_FRAMES_SHAPE = (1, HEADS, "frames", HEAD_SIZE)


@dataclass(frozen=True, slots=True, eq=False)
class DecodedTokens:
    """Tokens, and the natural logarithm of each one's likelihood.

    ``attention``, shape (heads, tokens, frames of `FRAME_SAMPLES` samples): the share of each
    head's attention that each frame gets. ``draft``: the tokens without hotwords, which are the
    better draft for more audio; None: the same.
    """

    ids: tuple[int, ...]
    likely: tuple[float, ...]
    attention: npt.NDArray[np.float32] | None = None
    draft: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DecodeRequest:
    """Request to decode ``audio``, shape (samples,), 16 kHz, at least 0.1 s.

    ``draft`` is a guess: its beginning that the model confirms costs one pass. ``given`` is the
    text before, which is not verified: only the tokens after it are decoded. ``align``: with their
    attention, which takes one more pass over all tokens. ``hotwords``: the tokens of each.
    """

    audio: Block
    cancelled: CancelCheck
    draft: Sequence[int] = ()
    given: Sequence[int] = ()
    align: bool = False
    hotwords: Sequence[tuple[int, ...]] = ()


class MoonshineDecoder:
    """Encoder and decoder of the model; any number of threads may use them at once.

    Raises:
        errors.ModelLoadFailed: onnxruntime does not load, or does not accept the files in
            ``folder``.
    """

    def __init__(
        self,
        folder: Path,
        begins_word: Callable[[int], bool],
        continues_word: Callable[[int], bool],
    ) -> None:
        """``begins_word``, ``continues_word``: what a token does, for hotwords."""
        try:
            runtime = onnx_models.load_onnxruntime()
        except (ImportError, OSError) as error:
            raise errors.ModelLoadFailed(f"onnxruntime cannot be loaded: {error}.") from None
        self.tokens_per_s = TOKENS_PER_S
        self._file = folder / DECODER
        self._begins_word, self._continues_word = begins_word, continues_word
        self._late_sessions: dict[Callable[[OrtModelFile], bytes], Any] = {}
        self._building = threading.Lock()
        self._options = options = onnx_models.session_options()
        options.enable_mem_pattern = False  # it keeps one pattern for every length
        options.enable_cpu_mem_arena = False  # keeps the longest segment's memory; no faster
        try:
            model = onnx_models.read_ort_model(self._file)
            self._encoder = onnx_models.create_session(str(folder / ENCODER), options)
            self._frames = onnx_models.create_session(build_frames_graph(model), options)
            self.tokens = onnx_models.create_session(build_tokens_graph(model), options)
        except Exception as error:  # onnxruntime's errors have no common base
            raise errors.ModelLoadFailed(
                f"onnxruntime {runtime.__version__} cannot load the recognition model: "
                f"{type(error).__name__}: {error}"
            ) from None

    def decode(self, request: DecodeRequest) -> DecodedTokens | None:
        """Return the tokens of the audio; `None` if cancelled."""
        if request.cancelled():
            return None
        feed = self._listen(request.audio)
        if request.hotwords:
            found = self._with_hotwords(dict(feed), request)
        else:
            found = self._decode_tokens(dict(feed), request)
        if not request.align or found is None or not found.ids:
            return found
        feed["tokens"] = np.array([[_START, *request.given, *found.ids][:-1]], np.int64)
        feed["position"] = np.array([0], np.int64)
        (attention,) = self._session(build_attention_graph).run(None, feed)
        return replace(found, attention=attention[0][:, len(request.given) :])

    def _session(self, build_graph: Callable[[OrtModelFile], bytes]) -> Any:
        """Return the session of a graph that most processes never need, built at the first use."""
        with self._building:
            if build_graph not in self._late_sessions:
                graph = build_graph(onnx_models.read_ort_model(self._file))
                self._late_sessions[build_graph] = onnx_models.create_session(graph, self._options)
            return self._late_sessions[build_graph]

    def _max_tokens(self, request: DecodeRequest) -> int:
        """Return the maximum of tokens behind the given ones."""
        most = math.ceil(len(request.audio) / SAMPLE_RATE * self.tokens_per_s)
        return min(most, MAX_POSITIONS) - len(request.given)

    def _with_hotwords(
        self, feed: dict[str, npt.NDArray[Any]], request: DecodeRequest
    ) -> DecodedTokens | None:
        session = self._session(build_scores_graph)

        def scores(
            tokens: Sequence[int], position: int, cache: KvCache | None
        ) -> tuple[npt.NDArray[np.float32], KvCache]:
            feed["tokens"] = np.array([tokens], np.int64)
            feed["position"] = np.array([position], np.int64)
            if cache is not None:
                feed.update(zip(cache_tensor_names("past"), cache, strict=True))
            rows, *after = session.run(None, feed)
            return rows[0], after

        decoding = HotwordDecoding(
            scores,
            request.hotwords,
            known=(_START, *request.given),
            end=_END,
            most=self._max_tokens(request),
            begins_word=self._begins_word,
            continues_word=self._continues_word,
            cancelled=request.cancelled,
        )
        greedy = decoding.greedy_path(request.draft)
        path = greedy and decoding.with_hotwords(greedy)
        if greedy is None or path is None:
            return None
        return DecodedTokens(path.text, path.likely[: len(path.text)], draft=greedy.text)

    def _decode_tokens(
        self, feed: dict[str, npt.NDArray[Any]], request: DecodeRequest
    ) -> DecodedTokens | None:
        given, most = request.given, self._max_tokens(request)
        found: list[int] = []
        likely: list[float] = []
        known, ahead = [_START, *given], [*request.draft][: max(0, most - 1)]
        while len(found) < most:
            if request.cancelled():
                return None
            feed["tokens"] = np.array([known + ahead], np.int64)
            feed["position"] = np.array([len(given) + len(found) + 1 - len(known)], np.int64)
            following, likelihood, *cache = self.tokens.run(None, feed)
            confirmed = following[0].tolist()[len(known) - 1 :]
            confirmed = confirmed[
                : common_prefix_length(ahead, confirmed) + 1
            ]  # what the model confirms
            found += confirmed
            likely += np.log(likelihood[0][len(known) - 1 :][: len(confirmed)]).tolist()
            if _END in confirmed:
                end = found.index(_END)
                return DecodedTokens(tuple(found[:end]), tuple(likely[:end]))
            for name, values in zip(cache_tensor_names("past"), cache, strict=True):
                # without those of a draft's rejected tokens
                feed[name] = np.ascontiguousarray(values[:, :, : len(given) + len(found)])
            known, ahead = confirmed[-1:], []
        return DecodedTokens(tuple(found), tuple(likely))

    def _listen(self, audio: Block) -> dict[str, npt.NDArray[Any]]:
        """Return the encoder's output for ``audio``, in the form that every decoder pass needs."""
        samples = np.ascontiguousarray(audio, np.float32)[None]
        everywhere = np.ones(samples.shape, np.int64)
        (frames,) = self._encoder.run(None, {"input_values": samples, "attention_mask": everywhere})
        kept = self._frames.run(None, {"frames": frames})
        nothing = np.zeros((1, HEADS, 0, HEAD_SIZE), np.float32)
        return dict(zip(cache_tensor_names("frames"), kept, strict=True)) | dict.fromkeys(
            cache_tensor_names("past"), nothing
        )


def cache_tensor_names(kind: str) -> list[str]:
    """Return the names of keys and values of all layers; ``kind``: past, present or frames."""
    return [f"{kind}.{layer}.{what}" for layer in range(LAYERS) for what in ("key", "value")]


def build_frames_graph(model: OrtModelFile) -> bytes:
    """Build the graph from frames, shape (1, frames, 288), to the keys and values that every layer
    attends to.

    Raises:
        KeyError: the model is not laid out as expected.
    """
    drawing = _DecoderGraphBuilder(model)
    graph = drawing.graph
    frames = graph.input("frames", "float32", (1, "frames", WIDTH))
    shape = graph.weight("heads", _int64(1, -1, HEADS, HEAD_SIZE))
    for name in cache_tensor_names("frames"):
        _, layer, what = name.split(".")
        values = drawing.product(frames, f"layers.{layer}/encoder_attn/{what[0]}_proj/")
        split = graph.node("Reshape", [values, shape])
        graph.node("Transpose", [split], [name], perm=(0, 2, 1, 3))
        graph.output(name, "float32", _FRAMES_SHAPE)
    return graph.model()


def build_tokens_graph(model: OrtModelFile) -> bytes:
    """Build the graph from tokens, shape (1, tokens), to the token that follows each, its
    likelihood, and keys and values for later passes.

    Raises:
        KeyError: the model is not laid out as expected.
    """
    drawing, logits = _build_logits(model)
    graph = drawing.graph
    graph.node("ArgMax", [logits], ["following"], axis=-1, keepdims=0)
    graph.output("following", "int64", (1, "tokens"))
    last = graph.weight("last_axis", _int64(-1))
    likely = graph.node("Softmax", [logits], axis=-1)  # 2 % of a pass; ReduceLogSumExp takes 14
    graph.node("ReduceMax", [likely, last], ["likelihood"], keepdims=0)
    graph.output("likelihood", "float32", (1, "tokens"))
    drawing.add_cache_outputs()
    return graph.model()


def build_scores_graph(model: OrtModelFile) -> bytes:
    """Build the graph from tokens, shape (1, tokens), to the log-likelihoods of all tokens that may
    follow each, shape (1, tokens, entries), and keys and values for later passes.

    Raises:
        KeyError: the model is not laid out as expected.
    """
    drawing, logits = _build_logits(model)
    drawing.graph.node("LogSoftmax", [logits], ["scores"], axis=-1)
    drawing.graph.output("scores", "float32", (1, "tokens", "entries"))
    drawing.add_cache_outputs()
    return drawing.graph.model()


def _build_logits(model: OrtModelFile) -> tuple[_DecoderGraphBuilder, str]:
    """Return a builder of a graph from tokens to the logits of what follows each, and the logits'
    name."""
    drawing = _DecoderGraphBuilder(model)
    state = drawing.begun()
    for layer in range(LAYERS):
        state = drawing.attended(*drawing.listening(state, layer), layer)
    return drawing, drawing.product(drawing.norm(state, "norm/"), "/proj_out/")


def build_attention_graph(model: OrtModelFile) -> bytes:
    """Build the graph from tokens, shape (1, tokens), to the attention for the token that follows
    each.

    The output is the attention of `ALIGNMENT_HEADS` to each frame, shape (1, heads, tokens,
    frames). The inputs are those of `build_tokens_graph`.

    Raises:
        KeyError: the model is not laid out as expected.
    """
    drawing = _DecoderGraphBuilder(model)
    state = drawing.begun()
    shown = []
    for layer in range(LAYERS):
        query = drawing.listening(state, layer)
        heads = [head for which, head in ALIGNMENT_HEADS if which == layer]
        shown += [drawing.attention(query[1], layer, head) for head in heads]
        state = drawing.attended(*query, layer)
    drawing.graph.node("Concat", shown, ["attention"], axis=1)
    drawing.graph.output("attention", "float32", (1, len(ALIGNMENT_HEADS), "tokens", "frames"))
    return drawing.graph.model()


class _DecoderGraphBuilder:
    """Builder of a graph over the weights of ``model``, found by the nodes of the wheel's graph."""

    def __init__(self, model: OrtModelFile) -> None:
        self.graph = OnnxGraphBuilder()
        self._model = model

    def begun(self) -> str:
        """Add all inputs of a pass over tokens; return the tokens' vectors."""
        tokens = self.graph.input("tokens", "int64", (1, "tokens"))
        self.graph.input("position", "int64", (1,))
        for name in cache_tensor_names("past"):
            self.graph.input(name, "float32", _PAST_SHAPE)
        for name in cache_tensor_names("frames"):
            self.graph.input(name, "float32", _FRAMES_SHAPE)
        # sine and cosine for every position
        speeds = ROTARY_BASE ** (-np.arange(0, ROTARY, 2) / ROTARY)
        angles = np.outer(np.arange(MAX_POSITIONS), speeds)
        self.graph.weight("cosine", np.cos(angles).astype(np.float32))
        self.graph.weight("sine", np.sin(angles).astype(np.float32))
        return self.embedded(tokens)

    def add_cache_outputs(self) -> None:
        """Add the keys and values of all tokens so far as outputs."""
        for name in cache_tensor_names("present"):
            self.graph.output(name, "float32", _PRESENT_SHAPE)

    def listening(self, state: str, layer: int) -> tuple[str, str]:
        """Add a layer up to its attention to the frames; return its state and its query."""
        prefix = f"layers.{layer}/"
        attended = self._self_attention(self.norm(state, f"{prefix}input_layernorm/"), layer)
        state = self.graph.node("Add", [state, attended])
        normal = self.norm(state, f"{prefix}post_attention_layernorm/")
        return state, self.product(normal, f"{prefix}encoder_attn/q_proj/")

    def attended(self, state: str, query: str, layer: int) -> str:
        """Add the rest of a layer, from its attention to the frames on."""
        prefix = f"layers.{layer}/"
        state = self.graph.node("Add", [state, self._frame_attention(query, layer)])
        normal = self.norm(state, f"{prefix}final_layernorm/")
        return self.graph.node("Add", [state, self._feed_forward(normal, prefix)])

    def attention(self, query: str, layer: int, head: int) -> str:
        """Return the attention of one head, shape (1, 1, tokens, frames); each token's sum is 1."""
        one = self.graph.weight(f"head.{head}", _int64(head))
        split = self.graph.weight("heads", _int64(1, -1, HEADS, HEAD_SIZE))
        query = self.graph.node("Reshape", [query, split])
        query = self.graph.node("Transpose", [query], perm=(0, 2, 1, 3))
        query = self.graph.node("Gather", [query, one], axis=1)
        keys = self.graph.node("Gather", [f"frames.{layer}.key", one], axis=1)
        keys = self.graph.node("Transpose", [keys], perm=(0, 1, 3, 2))
        scale = self.graph.weight("scale", np.array(SCALE, np.float32))
        alike = self.graph.node("Mul", [self.graph.node("MatMul", [query, keys]), scale])
        return self.graph.node("Softmax", [alike], axis=-1)

    def product(self, state: str, node: str) -> str:
        """Return ``state`` times the 8-bit matrix of ``node``, plus its bias if it has one."""
        weights = self._weights(f"{node}{_QUANTIZED_SUFFIX}")
        return self.graph.node("DynamicQuantizeMatMul", [state, *weights], domain=CONTRIB_DOMAIN)

    def norm(self, state: str, node: str) -> str:
        """Add a layer normalization."""
        weights = self._weights(f"{node}LayerNormalization")
        return self.graph.node("LayerNormalization", [state, *weights], epsilon=EPSILON)

    def embedded(self, tokens: str) -> str:
        """Return every token's vector, dequantized from 8 bit after the lookup."""
        (table,) = self._weights("embed_tokens/Gather")
        scale = self._weights("embed_tokens/Gather_output_0_DequantizeLinear")
        rows = self.graph.node("Gather", [table, tokens])
        return self.graph.node("DequantizeLinear", [rows, *scale])

    def _self_attention(self, state: str, layer: int) -> str:
        prefix = f"layers.{layer}/self_attn/"
        query, key = (
            self.graph.node(
                "RotaryEmbedding",
                [self.product(state, f"{prefix}{which}_proj/"), "position", "cosine", "sine"],
                domain=CONTRIB_DOMAIN,
                interleaved=1,
                num_heads=HEADS,
                rotary_embedding_dim=ROTARY,
            )
            for which in "qk"
        )
        value = self.product(state, f"{prefix}v_proj/")
        past = [f"past.{layer}.key", f"past.{layer}.value"]
        attended = self.graph.node(
            "MultiHeadAttention",
            [query, key, value, "", "", "", *past],
            [f"attended.{layer}", f"present.{layer}.key", f"present.{layer}.value"],
            domain=CONTRIB_DOMAIN,
            num_heads=HEADS,
            scale=SCALE,
            unidirectional=1,
        )
        return self.product(attended, f"{prefix}o_proj/")

    def _frame_attention(self, query: str, layer: int) -> str:
        attended = self.graph.node(
            "MultiHeadAttention",
            [query, f"frames.{layer}.key", f"frames.{layer}.value"],
            domain=CONTRIB_DOMAIN,
            num_heads=HEADS,
            scale=SCALE,
        )
        return self.product(attended, f"layers.{layer}/encoder_attn/o_proj/")

    def _feed_forward(self, state: str, prefix: str) -> str:
        both = self.product(state, f"{prefix}mlp/fc1/")
        parts = (f"{prefix}up", f"{prefix}gate")
        self.graph.node("Split", [both], parts, axis=-1, num_outputs=2)
        gate = self.graph.node("QuickGelu", parts[1:], domain=CONTRIB_DOMAIN, alpha=1.0)
        return self.product(self.graph.node("Mul", [parts[0], gate]), f"{prefix}mlp/fc2/")

    def _weights(self, node: str) -> list[str]:
        """Return the constants that a node of the wheel's graph takes, in its order."""
        inputs = self._model.inputs[node if node.startswith("/") else f"{_PREFIX}{node}"]
        names = [name for name in inputs if name in self._model.weights]
        return [self.graph.weight(name, self._model.weights[name]) for name in names]


def _int64(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)
