"""Text out of one stretch of speech.

The library's own line keeping is left out: it decodes an unfinished line anew at every update, cuts
long speech after ten seconds in the middle of a word, and says what lies around the cut twice. Here
a stretch is recognized once, when it has ended, and a long one is cut where it is quietest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.audio import Block
from sidecar.engines.moonshine.library import SAMPLE_RATE, recognize

if TYPE_CHECKING:
    from moonshine_voice.transcriber import Transcriber

OPTIONS = {"vad_threshold": "0", "vad_max_segment_duration": "0", "vad_hop_size": "4096"}
"""No voice detection in this model: all that it is given is speech."""
_HOP = 4096
_FRAME = SAMPLE_RATE // 50


class Recognizer:
    """The loaded recognition model."""

    def __init__(self, library: Transcriber) -> None:
        self._library = library

    def text(self, audio: Block) -> str:
        """What is said in ``audio``, shape (samples,): one utterance."""
        import numpy as np

        whole = -(-len(audio) // _HOP) * _HOP  # the library drops what does not fill a hop
        padded = np.pad(audio, (0, whole - len(audio)))
        lines = recognize(self._library, padded).lines
        return " ".join(filter(None, (line.text.strip() for line in lines)))

    def close(self) -> None:
        """Free the model."""
        self._library.close()


def quietest(audio: Block, start_s: float, end_s: float) -> float:
    """The time between ``start_s`` and ``end_s`` (seconds into ``audio``) with the least energy.

    Energy over 20 ms frames, smoothed over five of them.
    """
    import numpy as np

    stretch = audio[int(start_s * SAMPLE_RATE) : int(end_s * SAMPLE_RATE)]
    frames = len(stretch) // _FRAME
    if frames < 5:
        return end_s
    energy = np.square(stretch[: frames * _FRAME].reshape(frames, _FRAME)).mean(axis=1)
    smooth = np.convolve(energy, np.ones(5) / 5, mode="same")
    smooth[:2] = smooth[-2:] = np.inf
    return start_s + (int(smooth.argmin()) + 0.5) * _FRAME / SAMPLE_RATE
