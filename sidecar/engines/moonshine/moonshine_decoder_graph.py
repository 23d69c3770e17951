"""ONNX graph of the Moonshine decoder over the wheel's weights.

The wheel's graph computes every shape at every token: 900 steps, of which 50 are the model. The
same arithmetic with onnxruntime's fused attention takes a third of the time
(docs/decisions/recognition-parameters.md). The model is Moonshine tiny (arXiv:2410.15608): pre-norm
layers of self-attention with rotary positions, attention to the frames, and a gated feed-forward.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sidecar.checkpoints.onnx_models import CONTRIB_DOMAIN, OnnxGraphBuilder, OrtModelFile

LAYERS, HEADS, HEAD_SIZE, WIDTH = 6, 8, 36, 288
ALIGNMENT_HEADS = ((2, 0), (3, 7), (4, 1), (5, 2))
"""Heads (layer, head) that attend to the audio of the next token; each head was measured to find
them (docs/decisions/recognition-parameters.md)."""
MAX_POSITIONS = 512
"""Maximum length of a text in tokens, for the rotary tables; 78 s of speech at the limit of
tokens."""
ROTARY, ROTARY_BASE = 32, 10_000.0
SCALE = HEAD_SIZE**-0.5
EPSILON = 1e-5
_PREFIX = "/model/decoder/"
_QUANTIZED_SUFFIX = "MatMul_quant"
_PAST_SHAPE = (1, HEADS, "past", HEAD_SIZE)
_PRESENT_SHAPE = (1, HEADS, "present", HEAD_SIZE)
_FRAMES_SHAPE = (1, HEADS, "frames", HEAD_SIZE)


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
    drawing = _DecoderGraphBuilder(model)
    graph = drawing.graph
    state = drawing.begun()
    for layer in range(LAYERS):
        state = drawing.layer(state, layer)
    logits = drawing.product(drawing.norm(state, "norm/"), "/proj_out/")
    graph.node("ArgMax", [logits], ["following"], axis=-1, keepdims=0)
    graph.output("following", "int64", (1, "tokens"))
    last = graph.weight("last_axis", _int64(-1))
    likely = graph.node("Softmax", [logits], axis=-1)  # 2 % of a pass; ReduceLogSumExp takes 14
    graph.node("ReduceMax", [likely, last], ["likelihood"], keepdims=0)
    graph.output("likelihood", "float32", (1, "tokens"))
    for name in cache_tensor_names("present"):
        graph.output(name, "float32", _PRESENT_SHAPE)
    return graph.model()


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
        state = drawing.heard(*query, layer)
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
        self.rotary_tables()
        return self.embedded(tokens)

    def layer(self, state: str, layer: int) -> str:
        """Add one layer of the decoder."""
        return self.heard(*self.listening(state, layer), layer)

    def listening(self, state: str, layer: int) -> tuple[str, str]:
        """Add a layer up to its attention to the frames; return its state and its query."""
        prefix = f"layers.{layer}/"
        heard = self._self_attention(self.norm(state, f"{prefix}input_layernorm/"), layer)
        state = self.graph.node("Add", [state, heard])
        normal = self.norm(state, f"{prefix}post_attention_layernorm/")
        return state, self.product(normal, f"{prefix}encoder_attn/q_proj/")

    def heard(self, state: str, query: str, layer: int) -> str:
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

    def rotary_tables(self) -> None:
        """Add sine and cosine for every position."""
        speeds = ROTARY_BASE ** (-np.arange(0, ROTARY, 2) / ROTARY)
        angles = np.outer(np.arange(MAX_POSITIONS), speeds)
        self.graph.weight("cosine", np.cos(angles).astype(np.float32))
        self.graph.weight("sine", np.sin(angles).astype(np.float32))

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
        heard = self.graph.node(
            "MultiHeadAttention",
            [query, key, value, "", "", "", *past],
            [f"heard.{layer}", f"present.{layer}.key", f"present.{layer}.value"],
            domain=CONTRIB_DOMAIN,
            num_heads=HEADS,
            scale=SCALE,
            unidirectional=1,
        )
        return self.product(heard, f"{prefix}o_proj/")

    def _frame_attention(self, query: str, layer: int) -> str:
        heard = self.graph.node(
            "MultiHeadAttention",
            [query, f"frames.{layer}.key", f"frames.{layer}.value"],
            domain=CONTRIB_DOMAIN,
            num_heads=HEADS,
            scale=SCALE,
        )
        return self.product(heard, f"layers.{layer}/encoder_attn/o_proj/")

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
