"""Who plays what the machine says: a loudspeaker, or somebody who reads."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from sidecar import errors
from sidecar.cli.sounds import library


class Player(Protocol):
    """Has the sound of one turn at a time."""

    def playing(self) -> AbstractContextManager[object]:
        """For as long as it is held."""

    def begin(self, turn: int) -> None:
        """What comes now is that turn's; of another's is nothing left."""

    def add(self, pcm: bytes) -> None:
        """More of it: 16-bit mono."""

    def hold(self, *, held: bool) -> None:
        """Stop where it is and keep the rest, or go on."""

    def clear(self) -> None:
        """Drop the rest."""

    def heard(self) -> tuple[int, float]:
        """Whose sound it is, and how many seconds of it were heard."""


class Reader:
    """Reads instead of listening, so all that was said was heard."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._turn = self._samples = 0

    def playing(self) -> AbstractContextManager[object]:
        """It needs nothing."""
        return nullcontext()

    def begin(self, turn: int) -> None:
        """The next."""
        self._turn, self._samples = turn, 0

    def add(self, pcm: bytes) -> None:
        """Read at once."""
        self._samples += len(pcm) // 2

    def hold(self, *, held: bool) -> None:
        """There is nothing to be stopped."""

    def clear(self) -> None:
        """There is no rest."""

    def heard(self) -> tuple[int, float]:
        """All of it."""
        return self._turn, self._samples / self._rate


class Loudspeaker:
    """An output of this machine, by its number or a part of its name; the system's own if None.
    Its own thread asks for sound; what it was given and is not out yet does not count as heard.

    Raises:
        errors.LoudspeakerUnavailable: there is none, or it does not take sound of that rate.
        errors.MicrophoneUnavailable: the library for both is missing.
    """

    def __init__(self, device: str | None, rate: int) -> None:
        sound = library()
        self._rate = rate
        self._lock = threading.Lock()
        self._waiting = bytearray()
        self._turn = self._given = 0
        self._held = False
        try:
            self._stream = sound.RawOutputStream(
                samplerate=rate,
                device=int(device) if device is not None and device.isdecimal() else device,
                channels=1,
                dtype="int16",
                latency="low",
                callback=self._fill,
            )
        except (ValueError, sound.PortAudioError) as error:
            raise errors.LoudspeakerUnavailable(
                f"The loudspeaker cannot be used: {error}."
            ) from None

    def playing(self) -> AbstractContextManager[object]:
        """The device is ours meanwhile."""
        stream: AbstractContextManager[object] = self._stream
        return stream

    def begin(self, turn: int) -> None:
        """The next; what is left of the last one is dropped."""
        with self._lock:
            self._waiting.clear()
            self._turn, self._given, self._held = turn, 0, False

    def add(self, pcm: bytes) -> None:
        """Behind what waits."""
        with self._lock:
            self._waiting += pcm

    def hold(self, *, held: bool) -> None:
        """Silence meanwhile."""
        with self._lock:
            self._held = held

    def clear(self) -> None:
        """Nothing waits any more."""
        with self._lock:
            self._waiting.clear()
            self._held = False

    def heard(self) -> tuple[int, float]:
        """What the device has had for as long as it takes to be heard."""
        with self._lock:
            late = self._stream.latency if self._waiting else 0.0
            return self._turn, max(0.0, self._given / self._rate - late)

    def _fill(self, out: Any, frames: int, *_: Any) -> None:
        with self._lock:
            size = 0 if self._held else min(2 * frames, len(self._waiting))
            out[:size] = bytes(self._waiting[:size])
            out[size : 2 * frames] = bytes(2 * frames - size)
            del self._waiting[:size]
            self._given += size // 2
