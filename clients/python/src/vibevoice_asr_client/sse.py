"""Server-sent events, read as they come in pieces of any size. Pure."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Iterator, List, Optional

from vibevoice_asr_client.errors import AnswerNotUnderstood

MOST_CHARACTERS = 64 << 20
"""Of one line or one event: ten times the transcript of a day. Nobody needs more."""


@dataclass(frozen=True)
class Frame:
    """One event as it was sent: ``id`` is the last one that was said, '' if none was."""

    event: str
    data: str
    id: str = ""


class Parser:
    """Bytes in, frames out, as the HTML standard has it (section 9.2.6)."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._pieces: List[str] = []
        self._held = 0
        self._cr = False
        self._begun = False
        self._event = ""
        self._data: List[str] = []
        self._id = ""
        self.retry_s: Optional[float] = None
        """How long the server wants to be left alone before a lost connection is made again."""

    def feed(self, piece: bytes) -> Iterator[Frame]:
        """The frames that ``piece`` completes.

        Raises:
            AnswerNotUnderstood: a line or an event has no end.
        """
        for line in self._lines(self._decode(piece)):
            frame = self._took(line)
            if frame is not None:
                yield frame

    def _lines(self, text: str) -> Iterator[str]:
        if not self._begun and text:
            self._begun = True
            text = text[1:] if text.startswith("\ufeff") else text
        if self._cr and text:  # a line ended with \r; a \n that follows belongs to it
            self._cr = False
            text = text[1:] if text.startswith("\n") else text
        if text.endswith("\r"):
            self._cr = True
        whole = text.replace("\r\n", "\n").replace("\r", "\n")
        *ended, rest = whole.split("\n")
        for line in ended:
            yield "".join([*self._pieces, line])
            self._pieces, self._held = [], sum(map(len, self._data))
        self._pieces.append(rest)
        self._held += len(rest)
        if self._held > MOST_CHARACTERS:
            raise AnswerNotUnderstood("An event of the service has no end.")

    def _took(self, line: str) -> Optional[Frame]:
        if not line:
            event, data = self._event or "message", self._data
            self._event, self._data = "", []
            return Frame(event, "\n".join(data), self._id) if data else None
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_s = int(value[:9]) / 1000
        return None
