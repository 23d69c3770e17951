"""The recognition model's vocabulary, as the wheel has it: `tokenizer.bin`.

Entries stand one after the other, in the order of the token ids: a length, then so many bytes. A
length from 128 up takes two bytes, the low seven bits first. ``▁`` stands for a space; an entry in
angle brackets is a mark and no text. The first 256 after the three marks are single bytes.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from pathlib import Path

from sidecar import errors

_SPACE = b"\xe2\x96\x81"  # ▁ in UTF-8
_TWO_BYTES = 0x80


class Tokenizer:
    """Token ids into text; ``len()`` is the number of entries."""

    def __init__(self, entries: list[bytes]) -> None:
        self._entries = [b"" if _is_mark(entry) else entry for entry in entries]

    @classmethod
    def read(cls, file: Path) -> Tokenizer:
        """The vocabulary in ``file``.

        Raises:
            errors.ModelLoadFailed: it cannot be read, or ends inside an entry.
        """
        try:
            return cls(_entries(file.read_bytes()))
        except OSError as error:
            raise errors.ModelLoadFailed(f"{file.name} cannot be read: {error.strerror}.") from None
        except IndexError:
            raise errors.ModelLoadFailed(f"{file.name} ends inside an entry.") from None

    def __len__(self) -> int:
        return len(self._entries)

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """The characters that each token completes; together they are `text` before it is
        stripped."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        found = [decoder.decode(self._entries[token].replace(_SPACE, b" ")) for token in tokens]
        if found:
            found[-1] += decoder.decode(b"", True)
        return found

    def text(self, tokens: Iterable[int]) -> str:
        """What ``tokens`` say, without the space in front; half a character becomes ``�``."""
        joined = b"".join(self._entries[token] for token in tokens)
        return joined.replace(_SPACE, b" ").decode("utf-8", "replace").strip()


def _entries(data: bytes) -> list[bytes]:
    """Raises IndexError where the last entry is cut off."""
    entries = []
    at = 0
    while at < len(data):
        length = data[at]
        at += 1
        if length >= _TWO_BYTES:
            length += (data[at] - 1) * _TWO_BYTES
            at += 1
        if at + length > len(data):
            raise IndexError
        entries.append(data[at : at + length])
        at += length
    return entries


def _is_mark(entry: bytes) -> bool:
    return len(entry) > 2 and entry.startswith(b"<") and entry.endswith(b">")
