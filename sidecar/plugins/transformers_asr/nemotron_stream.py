"""Incremental recognition by Nemotron's streaming models: each chunk of sound is encoded once.

`generate` of transformers keeps the end of a stream on the model, and blocks its thread until more
audio comes, so it serves one stream. Here the state of a stream is its caches.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sidecar.audio import Block
from sidecar.engines.torch_inference import inference
from sidecar.interfaces.engine_interface import CancelCheck
from sidecar.interfaces.live_options import LiveOptions
from sidecar.interfaces.recognition import RecognitionHypothesis
from sidecar.plugins.transformers_asr.frame_recognizers import (
    TimedToken,
    Transducer,
    TransducerRecognizer,
)


class NemotronStream:
    """Recognition of one segment of live speech, which grows."""

    def __init__(self, recognizer: TransducerRecognizer, options: LiveOptions) -> None:
        self._recognizer, self._options = recognizer, options
        self._ahead = lookahead(recognizer.processor, options.delay_s)
        self._transducer = Transducer(recognizer.model)
        self._tokens: list[TimedToken] = []
        self.caches: dict[str, Any] = {}
        """What the model keeps of the stream, by the names of its arguments."""
        self._frames = 0
        """Spectra that are encoded."""
        self._fed = 0
        """Samples that were fed."""
        self._whole = True

    def goes_on(self, samples: int) -> bool:
        """Return whether it can go on with the segment, which has ``samples`` now; a failed step
        leaves no usable state."""
        return self._whole and self._fed <= samples

    def recognize(
        self, audio: Block, cancelled: CancelCheck, *, ended: bool
    ) -> RecognitionHypothesis:
        """Recognize the segment ``audio``, all of it if it has ``ended``, else what suffices for a
        chunk. Return the result so far if it was cancelled."""
        extractor = self._recognizer.processor.feature_extractor
        hop, half = extractor.hop_length, extractor.n_fft // 2
        self._fed, self._whole = len(audio), False
        ready = (len(audio) - half) // hop + 1
        if ended:
            last = self._frames
            while last * hop < len(audio):
                last += self._chunk(last)
            ready = last
            audio = np.pad(audio, (0, max(0, ready * hop + half - len(audio))))
        if self._frames + self._chunk(self._frames) <= ready:
            with inference():
                self._encode(audio, ready, cancelled)
        self._whole = not ended
        return self._recognizer.hypothesis(self._tokens)

    def _chunk(self, frames: int) -> int:
        """Return the spectra of the chunk that begins after so many."""
        factor = self._recognizer.model.config.encoder_config.subsampling_factor
        return int(factor * (self._ahead + 1) if frames else 1 + factor * self._ahead)

    def _encode(self, audio: Block, ready: int, cancelled: CancelCheck) -> None:
        # Each spectrum hangs on its own samples only, so that those of before come out the same.
        inputs = self._recognizer.inputs(audio, self._options)
        prompt = {name: inputs[name] for name in ("prompt_ids",) if name in inputs}
        while self._frames + (size := self._chunk(self._frames)) <= ready:
            if cancelled():
                return
            found = self._recognizer.model.get_audio_features(
                input_features=inputs["input_features"][:, self._frames : self._frames + size],
                num_lookahead_tokens=self._ahead,
                use_cache=True,
                output_attention_mask=False,
                **self.caches,
                **prompt,
            )
            self.caches = {"cache": found.cache, "padding_cache": found.padding_cache}
            self._tokens += self._transducer.tokens(found.pooler_output, lambda: False)
            self._frames += size


def lookahead(processor: Any, delay_s: float | None) -> int:
    """Return the lookahead, in frames of the encoder, whose delay is nearest to ``delay_s``."""
    if delay_s is None:
        return int(processor.default_num_lookahead_tokens)
    delays = processor.supported_streaming_latencies_ms
    return int(min(delays, key=lambda frames: abs(delays[frames] - 1000 * delay_s)))
