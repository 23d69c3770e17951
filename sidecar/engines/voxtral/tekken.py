"""What a checkpoint's `tekken.json` says: which token is which text, and how a stream is padded.

Mistral's own library reads it too; it keeps numpy below 2.4 on Python up to 3.12 and brings eight
packages, for a list of bytes. Equal to it, as the tests hold (where it is installed).
"""

from __future__ import annotations

import base64
import codecs
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar import errors

FILE = "tekken.json"
SPECIAL = 1000
"""Tokens before those of text, where the file does not say it."""
BUFFER_TOKENS = 10
"""Silence behind a stream in which the longest word is written out (mistral-common's
OFFLINE_STREAMING_BUFFER_TOKENS)."""
BEGIN, PAD = "<s>", "[STREAMING_PAD]"


@dataclass(frozen=True, slots=True)
class Tekken:
    """``texts``: the bytes of each token behind the ``special`` first ones. ``step``: samples that
    a token is written for. ``left``: tokens of silence before a stream. ``delay``: tokens that the
    words are behind, where nobody asks for another."""

    texts: tuple[bytes, ...]
    special: int
    begin: int
    pad: int
    step: int
    left: int
    delay: int

    def prompt(self, delay: int) -> list[int]:
        """What a stream begins with."""
        return [self.begin, *[self.pad] * (self.left + delay)]

    def right(self, delay: int) -> int:
        """Tokens of silence behind a stream, in which its last words are written."""
        return delay + 1 + BUFFER_TOKENS

    def text(self, tokens: Iterable[int]) -> str:
        """What tokens say; a letter of which the last bytes have not come is left out."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        known = (at - self.special for at in tokens)
        return decoder.decode(b"".join(self.texts[at] for at in known if 0 <= at < len(self.texts)))


def read(folder: Path) -> Tekken:
    """The one of a checkpoint.

    Raises:
        errors.ModelLoadFailed: it is not there, or no good.
    """
    try:
        return _read(json.loads((folder / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.ModelLoadFailed(
            f"{FILE} of the Voxtral model cannot be read: {type(error).__name__}."
        ) from None


def _read(said: dict[str, Any]) -> Tekken:
    special = int(said["config"].get("default_num_special_tokens", SPECIAL))
    size = int(said["config"]["default_vocab_size"])
    rows = sorted(said["vocab"], key=lambda row: row["rank"])[: size - special]
    named = {row["token_str"]: int(row["rank"]) for row in said["special_tokens"]}
    audio = said["audio"]
    step = int(audio["sampling_rate"] / audio["frame_rate"])
    return Tekken(
        tuple(base64.b64decode(row["token_bytes"]) for row in rows),
        special,
        named[BEGIN],
        named[PAD],
        step,
        int(audio["streaming_n_left_pad_tokens"]),
        math.ceil(audio["transcription_delay_ms"] / 1000 * audio["sampling_rate"] / step),
    )
