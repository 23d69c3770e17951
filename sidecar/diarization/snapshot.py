"""What a diarizer knows, as plain values: in parts, each with the windows that came since the last.

Two kilobytes a window; the rest of a part is the state by then, and replaces that of those before.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.diarization.encoder import SIZE
from sidecar.diarization.listening import Window
from sidecar.diarization.segmentation import VOICES


def window_values(window: Window) -> dict[str, Any]:
    """A window as plain values."""
    return {
        "start": window.start,
        "packed": _text(window.packed),
        "vectors": _text(window.vectors),
        "alone_s": window.alone_s.tolist(),
        "heard": window.heard.tolist(),
    }


def window_of(values: Mapping[str, Any]) -> Window:
    """The window that `window_values` wrote."""
    return Window(
        values["start"],
        _bytes(values["packed"], np.uint8),
        _bytes(values["vectors"], np.float16).reshape(VOICES, SIZE),
        np.array(values["alone_s"], np.float32),
        np.array(values["heard"], np.bool_),
    )


def persons_values(
    persons: npt.NDArray[np.int64], known: Mapping[int, npt.NDArray[np.float32]]
) -> dict[str, Any]:
    """Who the voices of all windows are, and the direction of each person's."""
    return {
        "persons": _text(persons.astype(np.int16)),
        "known": [[number, _text(vector)] for number, vector in known.items()],
    }


def known_persons(
    values: Mapping[str, Any],
) -> tuple[npt.NDArray[np.int64], dict[int, npt.NDArray[np.float32]]]:
    """What `persons_values` wrote."""
    persons = _bytes(values["persons"], np.int16).astype(np.int64).reshape(-1, VOICES)
    return persons, {number: _bytes(text, np.float32) for number, text in values["known"]}


def _text(array: npt.NDArray[Any]) -> str:
    return b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _bytes(text: str, kind: type[Any]) -> npt.NDArray[Any]:
    return np.frombuffer(b64decode(text), kind).copy()
