"""Kyutai's recognizer: a text token for each 80 ms of sound, some time after it was heard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from transformers import LogitsProcessorList

from sidecar.audio import SAMPLE_RATE, Block
from sidecar.audio.signal_conditioning import Resampler
from sidecar.interfaces.engine_interface import CancelCheck
from sidecar.plugins.transformers_asr.frame_recognizers import FrameRecognizer, TimedToken
from sidecar.plugins.transformers_asr.recognizer import RecognitionOptions
from sidecar.plugins.transformers_asr.text_recognizers import GenerationSteps


class KyutaiRecognizer(FrameRecognizer):
    """Kyutai speech-to-text, at its own sample rate."""

    @property
    def _extractor(self) -> Any:
        return self.processor.feature_extractor

    @property
    def _frame_s(self) -> float:
        return float(self.model.config.frame_size / self._extractor.sampling_rate)

    def inputs(self, audio: Block, options: RecognitionOptions) -> Any:
        """Return the inputs of the model for an utterance."""
        rate = self._extractor.sampling_rate
        resampled = Resampler(SAMPLE_RATE, rate).take(audio, last=True)
        return self._inputs(np.ascontiguousarray(resampled), sampling_rate=rate)

    def _tokens(self, inputs: Any, cancelled: CancelCheck) -> Iterator[TimedToken]:
        steps = GenerationSteps(cancelled)
        found = self.model.generate(
            **inputs, do_sample=False, num_beams=1, logits_processor=LogitsProcessorList([steps])
        )[0, 1:]
        before_s = self._extractor.audio_silence_prefix_seconds
        late = round((before_s + self._extractor.audio_delay_seconds) / self._frame_s)
        silent = {*self.processor.tokenizer.all_special_ids, self.model.config.pad_token_id}
        for at, (token, likely) in enumerate(zip(found.tolist(), steps.logarithms(), strict=True)):
            if token not in silent:
                begin = max(0, at - late)
                yield TimedToken(token, begin, begin + 1, likely)
