"""The windows of a piece: made where it is heard, told apart where all of the recording is known.

    asked = ...                                   # which windows (`transcripts.local_voices`)
    windows = hear(models, blocks, asked, step_s)  # there
    given = written(windows)
    windows = read(given, begins, at)              # here, or Unusable
    diarizer.take(windows, next_window, end)

A window hangs on the sound of its own blocks and on nothing else. So pieces whose windows begin on
the border of a block give, one behind the other, what one machine makes of the whole recording.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from sidecar.audio import Block
from sidecar.diarization.encoder import SIZE, SpeakerEncoder
from sidecar.diarization.features import FRAME, RATE
from sidecar.diarization.listening import BLOCK, Listening, Window
from sidecar.diarization.models import Models
from sidecar.diarization.segmentation import FRAMES, STEP_S, VOICES, WINDOW
from sidecar.transcripts.local_voices import FORM, LocalVoices, VoicesAsked

_PACKED = -(-FRAMES * VOICES // 8)
_OFF = 0.01
"""So far a vector's length may be from 1: it is told with eleven bits."""


class Unusable(Exception):
    """What is said to be windows is none; the message says why."""


def hear(
    models: Models,
    blocks: Iterable[Block],
    asked: VoicesAsked,
    step_s: float,
    stop: Callable[[], bool] = lambda: False,
) -> list[Window]:
    """The windows of a piece, whose sound comes in ``blocks`` at 16 kHz from its begin on.

    They begin with frame 0 where the recording does, and else are counted from a frame that says
    nothing: `read` and `placed` say when they are. Empty once ``stop()``.
    """
    listening = Listening(models, SpeakerEncoder(models), step_s)
    begin = 0 if asked.begins else BLOCK  # only the first ten seconds are looked at more often
    listening.leap(begin, begin)
    left_out = round(asked.first_s * RATE)
    until = None if asked.until_s is None else begin + round(asked.until_s * RATE) - left_out
    found: list[Window] = []
    for block in blocks:
        if stop():
            return []
        listening.hear(block[left_out:])
        left_out = max(0, left_out - len(block))
        found += listening.windows()
    listening.finish()
    found += listening.windows()
    if until is not None:
        last = round(until / RATE / STEP_S)
        found = [window for window in found if window.start < last]
    return found


def begins_of(asked: VoicesAsked, end: int, step_s: float) -> list[int]:
    """Where the windows begin that `hear` makes of ``end`` samples, in samples of the piece."""
    step, first = round(step_s * RATE), round(asked.first_s * RATE)
    until = end if asked.until_s is None else round(asked.until_s * RATE)
    found, at = [], first
    while at < until and at + WINDOW <= end:
        found.append(at)
        at += step // (2 if asked.begins and at - first < step else 1)
    last = max(first, end - WINDOW)
    if (
        asked.until_s is None
        and at < end
        and end - first >= FRAME
        and (not found or at - step < last)
    ):
        found.append(last)
    return found


def written(windows: Sequence[Window], *, same: bool = False) -> LocalVoices:
    """Windows on their way: of each who speaks when and the vectors; the rest follows from that.
    ``same``: as `LocalVoices`."""
    records = np.zeros(len(windows), _record())
    for record, window in zip(records, windows, strict=True):
        record["packed"], record["vectors"] = window.packed, window.vectors
    return LocalVoices(FORM, b64encode(records.tobytes()).decode(), same)


def read(given: LocalVoices, begins: Sequence[int]) -> list[Window]:
    """What `written` wrote, as windows that begin at these samples of the recording.

    Raises:
        Unusable: it is of another form, not so many, or none: nothing of it is believed then.
    """
    if given.form != FORM:
        raise Unusable("they are of another form")
    size = len(begins) * _record().itemsize
    if len(given.windows) != -(-size // 3) * 4:
        raise Unusable(f"they are not {len(begins)} windows")
    try:
        data = b64decode(given.windows, validate=True)
    except (binascii.Error, ValueError):
        raise Unusable("they are no base64") from None
    if len(data) != size:
        raise Unusable(f"they are not {len(begins)} windows")
    records = np.frombuffer(data, _record())
    if not np.isfinite(records["vectors"]).all():
        raise Unusable("a vector is not finite")
    lengths = np.linalg.norm(records["vectors"].astype(np.float32), axis=2)
    heard = lengths > 0
    if (np.abs(lengths[heard] - 1) > _OFF).any():
        raise Unusable("a vector is not of length 1")
    found = [
        _window(begin, record, one)
        for begin, record, one in zip(begins, records, heard, strict=True)
    ]
    if any((window.heard & ~window.activity.any(axis=0)).any() for window in found):
        raise Unusable("a voice is never heard")
    return found


def placed(windows: Sequence[Window], begins: Sequence[int]) -> list[Window]:
    """The windows that `hear` made, where they begin in the recording, in samples."""
    return [
        Window(_frame(begin), one.packed, one.vectors, one.alone_s, one.heard)
        for begin, one in zip(begins, windows, strict=True)
    ]


def _record() -> np.dtype[np.void]:
    """A window as it is on the wire: 1,757 bytes."""
    return np.dtype([("packed", np.uint8, _PACKED), ("vectors", "<f2", (VOICES, SIZE))])


def _window(begin: int, record: npt.NDArray[np.void], heard: npt.NDArray[np.bool_]) -> Window:
    packed = np.array(record["packed"], np.uint8)
    active = np.unpackbits(packed, count=FRAMES * VOICES).reshape(FRAMES, VOICES).astype(np.bool_)
    alone = active & (active.sum(axis=1) == 1)[:, None]
    alone_s = (alone.sum(axis=0) * STEP_S).astype(np.float32)
    return Window(_frame(begin), packed, np.array(record["vectors"], np.float16), alone_s, heard)


def _frame(begin: int) -> int:
    return round(begin / RATE / STEP_S)
