"""Recognition by the moonshine-voice library itself, to compare ours with."""

import numpy as np
from moonshine_voice import ModelArch, get_model_path
from moonshine_voice.transcriber import Transcriber

from sidecar.audio import SAMPLE_RATE, Block
from sidecar.transcripts.transcript import collapse_commas, join_texts

OPTIONS = {
    "return_audio_data": "false",
    "vad_threshold": "0",  # all that it is given is speech
    "vad_max_segment_duration": "0",
    "vad_hop_size": "4096",
}
_HOP = 4096
"""Samples; it drops what does not fill a hop."""


class LibraryRecognizer:
    """The library's own recognition: all cores, no drafts."""

    def __init__(self) -> None:
        self._library = Transcriber(get_model_path("tiny-en"), ModelArch.TINY, options=OPTIONS)

    def text(self, audio: Block) -> str:
        """What is said in ``audio``, shape (samples,): one utterance."""
        whole = max(1, -(-len(audio) // _HOP)) * _HOP
        samples = np.pad(audio, (0, whole - len(audio))).astype(np.float32)
        lines = self._library.transcribe_without_streaming(samples.tolist(), SAMPLE_RATE).lines
        return collapse_commas(join_texts(line.text for line in lines))

    def close(self) -> None:
        """Free the model."""
        self._library.close()
