"""A recording on its way up: opened when it is sent, counted as it goes."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Callable, Optional, Union

Source = Union[str, "os.PathLike[str]", bytes, BinaryIO]
"""A path, the bytes themselves, or an open file that can seek."""
Sent = Callable[[int, int], None]
"""Told of bytes sent, and of those in all."""
CONTENT_TYPE = "application/octet-stream"
"""The service judges a recording by what is in it."""


def name_of(source: Source) -> str:
    """The last part of a path, with ? for what is not valid Unicode, as it could not be sent; what
    has no path is called so."""
    if not isinstance(source, (str, os.PathLike)):
        return "recording"
    return Path(source).name.encode("utf-8", "replace").decode()


class Upload:
    """One recording, opened for one attempt after the other; a context manager.

    What grows while it is sent is sent as long as it was. A file that was handed in stays open.

    Raises:
        OSError: a path cannot be opened.
    """

    def __init__(self, source: Source, name: str = "", sent: Optional[Sent] = None) -> None:
        self.name = name or name_of(source)
        self._ours = not hasattr(source, "read")
        if isinstance(source, bytes):
            self._file: BinaryIO = BytesIO(source)
        elif isinstance(source, (str, os.PathLike)):
            self._file = open(source, "rb")  # noqa: SIM115 - closed below
        else:
            self._file = source
        self._sent = sent
        self._begin = 0 if self._ours else self._file.tell()
        self.total = self._file.seek(0, os.SEEK_END) - self._begin
        self._at = 0
        self.rewind()

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *_: object) -> None:
        if self._ours:
            self._file.close()

    def rewind(self) -> None:
        """To its beginning, for another attempt."""
        self.seek(0)

    def read(self, size: int = -1) -> bytes:
        """As files do; what is read counts as sent."""
        left = self.total - self._at
        piece = self._file.read(left if size < 0 else min(size, left))
        self._at += len(piece)
        if piece and self._sent is not None:
            self._sent(self._at, self.total)
        return piece

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As files do."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.total}[whence]
        self._at = max(0, min(base + offset, self.total))
        self._file.seek(self._begin + self._at)
        return self._at

    def tell(self) -> int:
        """As files do."""
        return self._at
