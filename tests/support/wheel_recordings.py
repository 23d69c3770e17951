"""The recordings inside the moonshine-voice wheel."""

from pathlib import Path

import numpy as np

from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file

RATE = 16_000


def clip(name: str) -> Block:
    """A recording of the wheel's at 16 kHz."""
    from moonshine_voice import get_assets_path

    return np.ascontiguousarray(decode_audio_file(Path(get_assets_path()) / f"{name}.wav", RATE))


def clip_wav(name: str) -> bytes:
    """The file of a recording of the wheel's."""
    from moonshine_voice import get_assets_path

    return (Path(get_assets_path()) / f"{name}.wav").read_bytes()
