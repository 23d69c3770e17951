"""The recognition model of the moonshine-voice wheel, run with onnxruntime.

The library spreads a small model over all cores, which then wait for each other, and cannot be
stopped. Here a stretch of speech is one thread's work and is decoded token by token, greedily, so
that it ends when nobody wants it any more (docs/performance.md, "Recognition").
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar import errors
from sidecar.audio import Block
from sidecar.checkpoints import inference, ort_file
from sidecar.engines.moonshine import decoder_graph
from sidecar.engines.moonshine.decoder_graph import HEAD_SIZE, HEADS, POSITIONS, memory_names
from sidecar.interfaces.engine import Cancelled

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SAMPLE_RATE = 16_000
ENCODER, DECODER = "encoder_model.ort", "decoder_model_merged.ort"
TOKENS_PER_S = 6.5
"""The library's limit: a model that says more repeats itself."""
FRAME = 384
"""Samples of a frame that the encoder hands out: 24 ms."""
_START, _END = 1, 2


class Decoder:
    """Both halves of the model, loaded; any number of threads may ask it at once.

    Raises:
        errors.ModelLoadFailed: when it is made where onnxruntime does not load, or does not take
            the files in ``folder``.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        try:
            runtime = inference.load_runtime()
        except (ImportError, OSError) as error:
            raise errors.ModelLoadFailed(f"onnxruntime does not load: {error}.") from None
        self._file = folder / DECODER
        self._attention: Any = None
        self._drawing = threading.Lock()
        self._options = options = inference.session_options(threads)
        options.enable_mem_pattern = False  # one is kept for every length that was ever seen
        options.enable_cpu_mem_arena = False  # it keeps what the longest stretch took; no faster
        try:
            model = ort_file.read(self._file)
            self._encoder = inference.session(str(folder / ENCODER), options)
            self._frames = inference.session(decoder_graph.frames_graph(model), options)
            self._tokens = inference.session(decoder_graph.tokens_graph(model), options)
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise errors.ModelLoadFailed(
                f"onnxruntime {runtime.__version__} does not take the recognition model: "
                f"{type(error).__name__}: {error}"
            ) from None

    def tokens(
        self,
        audio: Block,
        draft: Sequence[int],
        cancelled: Cancelled,
        given: Sequence[int] = (),
    ) -> tuple[int, ...] | None:
        """What is said in ``audio``, shape (samples,), 16 kHz, at least 0.1 s; None if cancelled.

        ``draft`` is what may be said: the part of it that the model would have said itself costs
        one pass. ``given`` is what was said before, whatever the model makes of it: what follows
        that is asked for alone.
        """
        if cancelled():
            return None
        return self._said(self._listen(audio), len(audio), draft, cancelled, given)

    def aligned(
        self,
        audio: Block,
        draft: Sequence[int],
        cancelled: Cancelled,
        given: Sequence[int] = (),
    ) -> tuple[tuple[int, ...], npt.NDArray[np.float32]] | None:
        """As `tokens`, and where in the sound each was heard: one more pass, over all at once.

        The other part has the shape (heads, tokens, frames of `FRAME` samples): of each token, how
        much of a head's attention was where.
        """
        import numpy as np

        if cancelled():
            return None
        feed = self._listen(audio)
        tokens = self._said(dict(feed), len(audio), draft, cancelled, given)
        if tokens is None:
            return None
        feed["tokens"] = np.array([[_START, *given, *tokens][:-1]], np.int64)
        feed["position"] = np.array([0], np.int64)
        if not tokens:
            return tokens, np.zeros((1, 0, 1), np.float32)
        (attention,) = self._aligning().run(None, feed)
        return tokens, attention[0][:, len(given) :]

    def _aligning(self) -> Any:
        """The graph that shows attention, drawn when it is first wanted: most never need it."""
        with self._drawing:
            if self._attention is None:
                graph = decoder_graph.attention_graph(ort_file.read(self._file))
                self._attention = inference.session(graph, self._options)
            return self._attention

    def _said(
        self,
        feed: dict[str, npt.NDArray[Any]],
        samples: int,
        draft: Sequence[int],
        cancelled: Cancelled,
        given: Sequence[int],
    ) -> tuple[int, ...] | None:
        import numpy as np

        most = min(math.ceil(samples / SAMPLE_RATE * TOKENS_PER_S), POSITIONS) - len(given)
        found: list[int] = []
        known, ahead = [_START, *given], [*draft][: max(0, most - 1)]
        while len(found) < most:
            if cancelled():
                return None
            feed["tokens"] = np.array([known + ahead], np.int64)
            feed["position"] = np.array([len(given) + len(found) + 1 - len(known)], np.int64)
            following, *memory = self._tokens.run(None, feed)
            said = following[0].tolist()[len(known) - 1 :]
            said = said[: _agreed(ahead, said) + 1]
            found += said
            if _END in said:
                return tuple(found[: found.index(_END)])
            self._remember(feed, memory, len(given) + len(found))
            known, ahead = said[-1:], []
        return tuple(found)

    def _listen(self, audio: Block) -> dict[str, npt.NDArray[Any]]:
        """What the decoder hears of ``audio`` in every pass, and that it has said nothing yet."""
        import numpy as np

        samples = np.ascontiguousarray(audio, np.float32)[None]
        everywhere = np.ones(samples.shape, np.int64)
        (frames,) = self._encoder.run(None, {"input_values": samples, "attention_mask": everywhere})
        heard = self._frames.run(None, {"frames": frames})
        nothing = np.zeros((1, HEADS, 0, HEAD_SIZE), np.float32)
        return dict(zip(memory_names("frames"), heard, strict=True)) | dict.fromkeys(
            memory_names("past"), nothing
        )

    @staticmethod
    def _remember(
        feed: dict[str, npt.NDArray[Any]], memory: Sequence[npt.NDArray[np.float32]], tokens: int
    ) -> None:
        """Keys and values for the next pass: those of ``tokens``, without a draft's that failed."""
        import numpy as np

        for name, values in zip(memory_names("past"), memory, strict=True):
            feed[name] = np.ascontiguousarray(values[:, :, :tokens])


def _agreed(draft: Sequence[int], said: Sequence[int]) -> int:
    """How many tokens of ``draft`` the model says too; ``said[i]`` follows ``draft[:i]``."""
    for count, (wanted, token) in enumerate(zip(draft, said, strict=False)):
        if wanted != token:
            return count
    return len(draft)
