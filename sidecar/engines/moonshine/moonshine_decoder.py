"""Moonshine recognition model in onnxruntime, and its tokenizer.

The library runs a small model on all cores, which then wait for each other, and cannot be stopped.
Here a speech segment is the work of one thread. It is decoded token by token, greedily, and can be
cancelled between tokens (docs/decisions/recognition-parameters.md).
"""

from __future__ import annotations

import codecs
import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar import errors
from sidecar.audio import Block
from sidecar.checkpoints import onnx_models
from sidecar.engines.moonshine import moonshine_decoder_graph
from sidecar.engines.moonshine.moonshine_decoder_graph import (
    HEAD_SIZE,
    HEADS,
    MAX_POSITIONS,
    cache_tensor_names,
)
from sidecar.interfaces.engine_interface import CancelCheck

SAMPLE_RATE = 16_000
ENCODER, DECODER = "encoder_model.ort", "decoder_model_merged.ort"
TOKENS_PER_S = 6.5
"""Maximum number of tokens per second, the library's: a model with more repeats itself."""
FRAME_SAMPLES = 384
"""Samples of a frame of the encoder's output: 24 ms."""
_START, _END = 1, 2


@dataclass(frozen=True, slots=True)
class DecodedTokens:
    """Tokens, and the natural logarithm of each one's likelihood."""

    ids: tuple[int, ...]
    likely: tuple[float, ...]


class MoonshineDecoder:
    """Encoder and decoder of the model; any number of threads may use them at once.

    Raises:
        errors.ModelLoadFailed: onnxruntime does not load, or does not accept the files in
            ``folder``.
    """

    def __init__(self, folder: Path) -> None:
        try:
            runtime = onnx_models.load_onnxruntime()
        except (ImportError, OSError) as error:
            raise errors.ModelLoadFailed(f"onnxruntime cannot be loaded: {error}.") from None
        self._file = folder / DECODER
        self._attention: Any = None
        self._drawing = threading.Lock()
        self._options = options = onnx_models.session_options()
        options.enable_mem_pattern = False  # it keeps one pattern for every length
        options.enable_cpu_mem_arena = False  # keeps the longest segment's memory; no faster
        try:
            model = onnx_models.read_ort_model(self._file)
            self._encoder = onnx_models.create_session(str(folder / ENCODER), options)
            self._frames = onnx_models.create_session(
                moonshine_decoder_graph.build_frames_graph(model), options
            )
            self._tokens = onnx_models.create_session(
                moonshine_decoder_graph.build_tokens_graph(model), options
            )
        except Exception as error:  # onnxruntime's errors have no common base
            raise errors.ModelLoadFailed(
                f"onnxruntime {runtime.__version__} cannot load the recognition model: "
                f"{type(error).__name__}: {error}"
            ) from None

    def tokens(
        self,
        audio: Block,
        draft: Sequence[int],
        cancelled: CancelCheck,
        given: Sequence[int] = (),
    ) -> DecodedTokens | None:
        """Return the tokens of ``audio``, shape (samples,), 16 kHz, at least 0.1 s; `None` if
        cancelled.

        ``draft`` is a guess: its beginning that the model confirms costs one pass. ``given`` is the
        text before, which is not verified: only the tokens after it are decoded.
        """
        if cancelled():
            return None
        return self._said(self._listen(audio), len(audio), draft, cancelled, given)

    def aligned(
        self,
        audio: Block,
        draft: Sequence[int],
        cancelled: CancelCheck,
        given: Sequence[int] = (),
    ) -> tuple[DecodedTokens, npt.NDArray[np.float32]] | None:
        """Return the result of `tokens`, and its attention, which takes one more pass over all
        tokens.

        The attention has the shape (heads, tokens, frames of `FRAME_SAMPLES` samples): the share of
        each head's attention that each frame gets.
        """
        if cancelled():
            return None
        feed = self._listen(audio)
        tokens = self._said(dict(feed), len(audio), draft, cancelled, given)
        if tokens is None:
            return None
        feed["tokens"] = np.array([[_START, *given, *tokens.ids][:-1]], np.int64)
        feed["position"] = np.array([0], np.int64)
        if not tokens.ids:
            return tokens, np.zeros((1, 0, 1), np.float32)
        (attention,) = self._aligning().run(None, feed)
        return tokens, attention[0][:, len(given) :]

    def _aligning(self) -> Any:
        """Return the attention graph, built at the first use: most processes never need it."""
        with self._drawing:
            if self._attention is None:
                graph = moonshine_decoder_graph.build_attention_graph(
                    onnx_models.read_ort_model(self._file)
                )
                self._attention = onnx_models.create_session(graph, self._options)
            return self._attention

    def _said(
        self,
        feed: dict[str, npt.NDArray[Any]],
        samples: int,
        draft: Sequence[int],
        cancelled: CancelCheck,
        given: Sequence[int],
    ) -> DecodedTokens | None:
        most = min(math.ceil(samples / SAMPLE_RATE * TOKENS_PER_S), MAX_POSITIONS) - len(given)
        found: list[int] = []
        likely: list[float] = []
        known, ahead = [_START, *given], [*draft][: max(0, most - 1)]
        while len(found) < most:
            if cancelled():
                return None
            feed["tokens"] = np.array([known + ahead], np.int64)
            feed["position"] = np.array([len(given) + len(found) + 1 - len(known)], np.int64)
            following, likelihood, *memory = self._tokens.run(None, feed)
            said = following[0].tolist()[len(known) - 1 :]
            said = said[: _accepted_tokens(ahead, said) + 1]
            found += said
            likely += np.log(likelihood[0][len(known) - 1 :][: len(said)]).tolist()
            if _END in said:
                end = found.index(_END)
                return DecodedTokens(tuple(found[:end]), tuple(likely[:end]))
            self._remember(feed, memory, len(given) + len(found))
            known, ahead = said[-1:], []
        return DecodedTokens(tuple(found), tuple(likely))

    def _listen(self, audio: Block) -> dict[str, npt.NDArray[Any]]:
        """Return the encoder's output for ``audio``, in the form that every decoder pass needs."""
        samples = np.ascontiguousarray(audio, np.float32)[None]
        everywhere = np.ones(samples.shape, np.int64)
        (frames,) = self._encoder.run(None, {"input_values": samples, "attention_mask": everywhere})
        heard = self._frames.run(None, {"frames": frames})
        nothing = np.zeros((1, HEADS, 0, HEAD_SIZE), np.float32)
        return dict(zip(cache_tensor_names("frames"), heard, strict=True)) | dict.fromkeys(
            cache_tensor_names("past"), nothing
        )

    @staticmethod
    def _remember(
        feed: dict[str, npt.NDArray[Any]], memory: Sequence[npt.NDArray[np.float32]], tokens: int
    ) -> None:
        """Set the keys and values for the next pass: those of ``tokens``, without a draft's
        rejected ones."""
        for name, values in zip(cache_tensor_names("past"), memory, strict=True):
            feed[name] = np.ascontiguousarray(values[:, :, :tokens])


def _accepted_tokens(draft: Sequence[int], said: Sequence[int]) -> int:
    """Return the number of tokens of ``draft`` that the model confirms; ``said[i]`` follows
    ``draft[:i]``."""
    for count, (wanted, token) in enumerate(zip(draft, said, strict=False)):
        if wanted != token:
            return count
    return len(draft)


_SPACE_MARK = b"\xe2\x96\x81"  # ▁ in UTF-8
_TWO_BYTES = 0x80


class MoonshineTokenizer:
    """Tokenizer of the wheel, from ids to text; ``len()`` is the number of entries."""

    def __init__(self, entries: list[bytes]) -> None:
        self._entries = [b"" if _is_control_token(entry) else entry for entry in entries]

    @classmethod
    def read(cls, file: Path) -> MoonshineTokenizer:
        """Read the vocabulary in ``file``.

        Raises:
            errors.ModelLoadFailed: it cannot be read, or ends inside an entry.
        """
        try:
            return cls(_parse_entries(file.read_bytes()))
        except OSError as error:
            raise errors.ModelLoadFailed(f"{file.name} cannot be read: {error.strerror}.") from None
        except IndexError:
            raise errors.ModelLoadFailed(f"{file.name} is truncated.") from None

    def __len__(self) -> int:
        return len(self._entries)

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """Return the characters that each token completes; together they are `text` before it is
        stripped."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        found = [
            decoder.decode(self._entries[token].replace(_SPACE_MARK, b" ")) for token in tokens
        ]
        if found:
            found[-1] += decoder.decode(b"", True)
        return found

    def text(self, tokens: Iterable[int]) -> str:
        """Return the text of ``tokens``, without the leading space; an incomplete character becomes
        ``�``."""
        joined = b"".join(self._entries[token] for token in tokens)
        return joined.replace(_SPACE_MARK, b" ").decode("utf-8", "replace").strip()


def _parse_entries(data: bytes) -> list[bytes]:
    """Return the entries; raise IndexError if the last one is truncated."""
    entries = []
    at = 0
    while at < len(data):
        length = data[at]
        at += 1
        if length >= _TWO_BYTES:
            length += (data[at] - 1) * _TWO_BYTES
            at += 1
        if at + length > len(data):
            raise IndexError
        entries.append(data[at : at + length])
        at += length
    return entries


def _is_control_token(entry: bytes) -> bool:
    return len(entry) > 2 and entry.startswith(b"<") and entry.endswith(b">")
