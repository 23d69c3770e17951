"""What is said to a service: utterances cut out of a recording, and recordings as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar import errors
from sidecar.cli.sounds import LONGEST_S, look_at
from sidecar.interfaces.live import LIVE_RATE

if TYPE_CHECKING:
    from sidecar.audio import Block

FRAME = LIVE_RATE // 50
"""Samples that are looked at together."""
QUIET = 0.05
"""Of the loudest frame: whoever speaks is louder."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A file, and how long it is."""

    path: Path
    seconds: float


def recordings_of(files: Sequence[Path]) -> list[Recording]:
    """The files with their lengths.

    Raises:
        errors.SidecarError: one is no recording, or not there.
    """
    return [Recording(path, len(_decoded(path)) / LIVE_RATE) for path in files]


def clips_of(path: Path, talk_s: float) -> list[bytes]:
    """Utterances of about ``talk_s`` out of a recording, each from its first sound to its last.

    Raises:
        errors.SidecarError: it is no recording, not there, or has nothing to be heard in it.
    """
    clips = utterances(_decoded(path), talk_s)
    if not clips:
        raise errors.FieldInvalid(
            f"{path} has no utterance of {talk_s:g} s.",
            hint="Give a recording in which somebody speaks, or a shorter --talk.",
        )
    return clips


def utterances(samples: Block, talk_s: float) -> list[bytes]:
    """Stretches of ``samples`` (mono, `LIVE_RATE`) as pcm16 that begin and end with a sound.

    One that is quiet for half of its time or more is left out.
    """
    import numpy as np

    count = len(samples) // FRAME
    frames = samples[: count * FRAME].reshape(count, FRAME)
    loudness = np.sqrt((frames**2).mean(axis=1)) if count else np.zeros(0)
    loud = np.flatnonzero(loudness > QUIET * loudness.max(initial=0.0))
    size, found, at = max(1, round(talk_s * LIVE_RATE / FRAME)), [], 0
    while len(later := loud[loud >= at]):
        begin = int(later[0])
        end = int(later[later < begin + size][-1]) + 1
        if 2 * (end - begin) > size:
            block = samples[begin * FRAME : end * FRAME]
            found.append((block.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
        at = begin + size
    return found


def _decoded(path: Path) -> Block:
    from sidecar.audio.audio_decoder import decode_file

    try:
        look_at(path)
        return decode_file(path, LIVE_RATE, LONGEST_S)
    except errors.SidecarError as error:  # there may be many of them: which one it is
        raise type(error)(f"{path}: {error.detail}", hint=error.hint) from None
