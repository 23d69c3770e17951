"""Reader of captured live sessions: what was sent, what was told, and both as plain files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar import errors
from sidecar.audio.audio_format import WAV_HEAD_BYTES
from sidecar.errors import CaptureUnreadable
from sidecar.interfaces.live_events import LiveEvent, from_wire
from sidecar.interfaces.live_options import LiveOptions, SampleEncoding
from sidecar.live.sessions.capture_files import EVENTS, SOUND, EncryptedCaptureReader, capture_head


@dataclass(frozen=True, slots=True)
class Sent:
    """What a client did: bytes of ``sound``, or an ``order``; ``at`` in seconds of the session."""

    at: float
    sound: int = 0
    order: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Captured:
    """A capture. ``whole``: whether all of it is there; ``finished``: whether its client had said
    that nothing more comes; ``left_out``: chunks of sound that are silence instead."""

    session: str
    options: LiveOptions
    encoding: SampleEncoding
    rate: int
    sent: Sequence[Sent]
    told: Sequence[LiveEvent]
    whole: bool
    finished: bool
    left_out: int


class CaptureReader:
    """The two files of a capture, of which one is named."""

    def __init__(self, path: Path, secret: str) -> None:
        """Look at both.

        Raises:
            errors.CaptureUnreadable: they are none, not there, of another key, or of two captures.
        """
        name = path.name.removesuffix(SOUND).removesuffix(EVENTS)
        self.stem = name
        self._events = EncryptedCaptureReader(path.with_name(name + EVENTS), secret, EVENTS)
        self._sound = EncryptedCaptureReader(path.with_name(name + SOUND), secret, SOUND)
        if self._events.capture != self._sound.capture:
            raise CaptureUnreadable(f"The two files of {name} are of two captures.")

    def lines(self) -> list[dict[str, Any]]:
        """All that passed.

        Raises:
            errors.CaptureUnreadable: it is no such file.
        """
        text = b"".join(self._events.pieces())
        if not self._events.whole:
            text = text[: text.rfind(b"\n") + 1]
        try:
            return [json.loads(line) for line in text.splitlines()]
        except ValueError:
            raise CaptureUnreadable(f"The events of {self.stem} are no lines of JSON.") from None

    def sound(self) -> Iterator[bytes]:
        """The samples."""
        skipped = 0
        for piece in self._sound.pieces():
            samples = piece[max(0, WAV_HEAD_BYTES - skipped) :]
            skipped += len(piece) - len(samples)
            yield samples

    def read(self) -> Captured:
        """What it holds, but the samples.

        Raises:
            errors.CaptureUnreadable: it holds nothing that could be sent.
        """
        lines = self.lines()
        try:
            first, rest = lines[0], lines[1:]
            chunks = [line for line in rest if "sound" in line and not line.get("unlike")]
            return Captured(
                session=str(first["session"]),
                options=LiveOptions.from_wire(first["options"]),
                encoding=SampleEncoding(chunks[0]["encoding"]),
                rate=int(chunks[0]["rate"]),
                sent=[one for line in rest if (one := _sent(line)) is not None],
                told=[from_wire(line["event"]) for line in rest if "event" in line],
                whole=self._events.whole and "ended" in lines[-1],
                finished=any("finish" in line.get("order", ()) for line in rest),
                left_out=sum(line["left_out"]["chunks"] for line in rest if "left_out" in line),
            )
        except (LookupError, TypeError, ValueError, errors.EngineFailed):
            raise CaptureUnreadable(f"The capture {self.stem} holds nothing to be sent.") from None

    def save(self, folder: Path) -> list[Path]:
        """Write both as plain files, which others may read: a WAV, and lines of JSON.

        Raises:
            errors.CaptureUnreadable: they cannot be written.
        """
        captured = self.read()
        wav, events = folder / f"{self.stem}.wav", folder / f"{self.stem}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with wav.open("wb") as file:
                file.write(capture_head(captured.encoding, captured.rate))
                size = sum(file.write(piece) for piece in self.sound())
                file.seek(0)
                file.write(capture_head(captured.encoding, captured.rate, size))
            with events.open("w", encoding="utf-8") as lines:
                for line in self.lines():
                    lines.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            raise CaptureUnreadable(
                f"{error.filename} cannot be written: {error.strerror}.",
                hint="Name another folder.",
            ) from None
        return [wav, events]


def _sent(line: Mapping[str, Any]) -> Sent | None:
    if "order" in line:
        return Sent(line["t"], order=line["order"])
    if "sound" in line and not line.get("unlike"):
        return Sent(line["t"], sound=line["sound"])
    if "left_out" in line and line["left_out"]["sound"]:
        return Sent(line["t"], sound=line["left_out"]["sound"])
    return None
