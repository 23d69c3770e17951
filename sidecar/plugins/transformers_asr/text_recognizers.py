"""Recognizers whose model writes text token by token, without times: encoder and decoder."""

from __future__ import annotations

import torch
from transformers import LogitsProcessorList

from sidecar.audio import SAMPLE_RATE, Block
from sidecar.interfaces.engine_interface import CancelCheck
from sidecar.interfaces.language_tags import language_code
from sidecar.interfaces.recognition import RecognitionHypothesis
from sidecar.plugins.transformers_asr.recognizer import (
    RecognitionOptions,
    Recognizer,
    UtteranceCancelled,
    hypothesis,
)
from sidecar.transcripts.loop_guard import tokens_before_loop

TOKENS_PER_S, MORE_TOKENS = 15, 24
"""Maximum of an utterance: tokens for a second of it, and more for what the model writes around
its text."""


class TextRecognizer(Recognizer):
    """Recognizer by `generate`, greedily."""

    usual_language = ""
    """Language without one in the request, if the model has to be told it."""

    def _recognize(
        self, audio: Block, options: RecognitionOptions, cancelled: CancelCheck
    ) -> RecognitionHypothesis:
        inputs = self.inputs(audio, options)
        seconds = len(audio) / SAMPLE_RATE
        limit = MORE_TOKENS + round(TOKENS_PER_S * seconds)
        steps = GenerationSteps(cancelled)
        found = self.model.generate(
            **inputs,
            max_new_tokens=limit,
            do_sample=False,
            num_beams=1,
            logits_processor=LogitsProcessorList([steps]),
        )
        likely = steps.logarithms()
        count = len(likely)
        tokens = found[0].tolist()[-count:] if count else []
        text = self._decode(tokens)
        kept = tokens_before_loop(tokens, text, seconds, ended=count < limit)
        if kept is not None:
            text, likely = self._decode(tokens[:kept]), likely[:kept]
        unheard = kept is not None or count == limit
        text, language = self._parse(text)
        if self.architecture.told:
            language = language or language_code(options.language) or self.usual_language
        return hypothesis(text, likely, language=language, unheard=unheard)

    def _decode(self, tokens: list[int]) -> str:
        return str(self.processor.tokenizer.decode(tokens, skip_special_tokens=True)).strip()

    def _parse(self, text: str) -> tuple[str, str]:
        """Return what was said, and its language, '' if the model does not say it."""
        return text, ""


class GenerationSteps:
    """Steps of `generate`, which calls it as a logits processor: it changes nothing."""

    def __init__(self, cancelled: CancelCheck) -> None:
        self._cancelled = cancelled
        self._likely: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Note one step; return ``scores`` as they are."""
        if self._cancelled():
            raise UtteranceCancelled
        self._likely.append(scores[0].float().log_softmax(-1).max())
        return scores

    def logarithms(self) -> list[float]:
        """Return the logarithms of the likelihoods of the tokens."""
        return [float(one) for one in self._likely]
