"""Recognizer of one utterance by a model of transformers: options, inputs, result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sidecar.audio import SAMPLE_RATE, Block
from sidecar.engines.torch_inference import inference
from sidecar.interfaces.engine_interface import (
    CancelCheck,
    TranscribeOptions,
)
from sidecar.interfaces.live_options import LiveOptions
from sidecar.interfaces.recognition import RecognitionHypothesis
from sidecar.plugins.transformers_asr.architectures import Architecture
from sidecar.transcripts.language_detection import Confidence
from sidecar.transcripts.transcript import Word

MIN_SAMPLES = SAMPLE_RATE // 2
"""Shorter utterances are filled with silence: some encoders need so many frames."""


RecognitionOptions = TranscribeOptions | LiveOptions
"""Options of a request, of which a recognizer takes language, context and translation."""


class UtteranceCancelled(Exception):
    """The result is not wanted any more."""


class Recognizer:
    """Loaded model with its processor. Use it from one thread at a time."""

    def __init__(self, model: Any, processor: Any, architecture: Architecture) -> None:
        self.model, self.processor, self.architecture = model, processor, architecture

    def recognize(
        self,
        audio: Block,
        options: RecognitionOptions,
        cancelled: CancelCheck,
        *,
        words: bool = False,
    ) -> RecognitionHypothesis | None:
        """Recognize an utterance, shape (samples,) at 16 kHz; `None` if it was cancelled.
        ``words``: with word times, if the model says them.

        Raises:
            errors.GpuOutOfMemory, errors.DeviceLost: see `torch_inference.inference`.
        """
        if not audio.any():  # for digital silence a model invents words
            return RecognitionHypothesis("")
        padded = np.pad(audio, (0, max(0, MIN_SAMPLES - len(audio))))
        try:
            with inference():
                found = self._recognize(padded, options, cancelled)
        except UtteranceCancelled:
            return None
        length_s = len(audio) / SAMPLE_RATE
        timed = (
            replace(word, start=min(word.start, length_s), end=min(word.end, length_s))
            for word in (found.words if words else ())
        )
        return replace(found, words=tuple(timed))

    def _recognize(
        self, audio: Block, options: RecognitionOptions, cancelled: CancelCheck
    ) -> RecognitionHypothesis:
        """Recognize an utterance; raise `UtteranceCancelled` between two steps."""
        raise NotImplementedError

    def inputs(self, audio: Block, options: RecognitionOptions) -> Any:
        """Return the inputs of the model for an utterance."""
        return self._inputs(audio)

    def _inputs(self, audio: Block, **options: Any) -> Any:
        """Return what the processor makes of an utterance, for the model."""
        options = {"sampling_rate": SAMPLE_RATE, "return_tensors": "pt", **options}
        return self._placed(self.processor(audio=audio, **options))

    def _placed(self, inputs: Any) -> Any:
        """Return inputs on the device of the model, in its width."""
        return inputs.to(self.model.device, self.model.dtype)


def hypothesis(
    text: str,
    likely: Sequence[float],
    words: tuple[Word, ...] = (),
    *,
    language: str = "",
    unheard: bool = False,
) -> RecognitionHypothesis:
    """Return the result of an utterance. ``likely``: the logarithms of its tokens' likelihoods."""
    sure = Confidence(sum(likely), len(likely))
    return RecognitionHypothesis(
        text, words, language=language, confidence=sure, likelihood=sure.mean, unheard=unheard
    )
