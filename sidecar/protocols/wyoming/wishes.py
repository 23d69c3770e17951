"""What clients ask for: options, and the form of their sound. Pure."""

from __future__ import annotations

import struct
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar import errors
from sidecar.audio.audio_decoder import MAX_CHANNELS, MAX_RATE, MIN_RATE
from sidecar.interfaces.engine import EngineSpec
from sidecar.protocols.wyoming.frames import HINT

RATES, CHANNELS = range(MIN_RATE, MAX_RATE + 1), range(1, MAX_CHANNELS + 1)
WIDTHS = (2, 3, 4)
"""Bytes of a sample, signed; of one byte nobody says whether it is."""
HEAD = 44
_MOST = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Form:
    """How sound is written."""

    rate: int
    width: int
    channels: int

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Form:
        """That of `audio-start` and `audio-chunk`.

        Raises:
            errors.SoundInvalid: there is none, or none that is known.
        """
        rate = _among(data.get("rate"), RATES)
        width = _among(data.get("width"), WIDTHS)
        channels = _among(data.get("channels"), CHANNELS)
        if rate is None or width is None or channels is None:
            raise errors.SoundInvalid(
                "'rate', 'width' and 'channels' say no sound that is understood.",
                hint="Send samples of 2, 3 or 4 bytes, signed and little-endian, such as 16,000 a "
                "second of 2 bytes each, in one channel.",
            )
        return cls(rate, width, channels)

    def head(self, size: int) -> bytes:
        """The head of a wav file with ``size`` bytes of such sound."""
        each = self.width * self.channels
        layout = struct.pack(
            "<HHIIHH", 1, self.channels, self.rate, self.rate * each, each, 8 * self.width
        )
        riff, data = min(HEAD - 8 + size, _MOST), min(size, _MOST)
        return struct.pack("<4sI8sI16s4sI", b"RIFF", riff, b"WAVEfmt ", 16, layout, b"data", data)


def fields_of(data: Mapping[str, Any], spec: EngineSpec) -> dict[str, object]:
    """The fields of `transcribe` as every wire's options have them. Who speaks is not asked: the
    protocol has no word for it.

    Raises:
        errors.ModelNotFound: the model is not the one that is here.
        errors.FieldInvalid: names or terms are no texts.
    """
    check_name(data.get("name"), spec)
    terms = [
        term for name in ("transcript_names", "transcript_terms") for term in _texts(data, name)
    ]
    fields: dict[str, object] = {"language": data.get("language"), "diarize": False}
    return fields | ({"hotwords": ", ".join(terms)} if terms else {})


def check_name(name: object, spec: EngineSpec) -> None:
    """Refuse a program or model that is not here.

    Raises:
        errors.ModelNotFound: it is not.
    """
    if name not in (None, "", spec.name):
        raise errors.ModelNotFound(hint=f"What is loaded here is '{spec.name}'; name no other.")


def _texts(data: Mapping[str, Any], name: str) -> list[str]:
    found = data.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise errors.FieldInvalid(f"'{name}' is no list of texts.", hint=HINT)
    return [text for one in found if (text := " ".join(one.split()))]


def _among(value: object, known: Container[int]) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and value in known:
        return value
    return None
