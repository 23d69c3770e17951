"""Where sound comes from that is heard live: a microphone, a recording in real time, a pipe."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar import errors
from sidecar.cli.recordings import open_file
from sidecar.interfaces.live import LIVE_RATE

if TYPE_CHECKING:
    from sidecar.audio import Block

PIECE_S = 0.1
"""Seconds of sound in one piece."""
LONGEST_S = 24 * 3600.0
"""Of a recording; a session ends before that."""
INSTALL = "pip install 'vibevoice-asr[microphone]'"


def look_at(path: Path) -> None:
    """See that it is a recording, before anything is done for it.

    Raises:
        errors.SidecarError: it is none, or not there.
    """
    from sidecar.audio.audio_decoder import probe

    with open_file(path) as source:
        probe(source.fd, LONGEST_S)


async def of_file(path: Path, pace: float) -> AsyncGenerator[bytes, None]:
    """A recording at `LIVE_RATE` as pcm16, ``pace`` seconds of it in a second; 0: without a pause.

    Raises:
        errors.SidecarError: it is none, or not there.
    """
    loop = asyncio.get_running_loop()
    pieces = _decoded(path)
    sent, began = 0, loop.time()
    try:
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece
            sent += len(piece) // 2
            if pace:
                await asyncio.sleep(began + sent / LIVE_RATE / pace - loop.time())
    finally:
        with suppress(ValueError):  # it is at work in its thread, and ends there
            pieces.close()


async def of_pipe(rate: int) -> AsyncIterator[bytes]:
    """Raw pcm16 on standard input, as it comes."""
    # Not by sys.stdin, whose lock a thread that waits for ever takes with it to the end.
    pipe, rest, most = sys.stdin.fileno(), b"", round(PIECE_S * rate) * 2
    # A thread of its own, that nobody waits for: Ctrl-C comes while it reads.
    while raw := await in_a_thread(lambda: os.read(pipe, most)):
        whole = rest + raw
        rest = whole[len(whole) & ~1 :]
        if whole[: len(whole) & ~1]:
            yield whole[: len(whole) & ~1]


class Microphone:
    """An input of this machine, by its number or a part of its name; the system's own if None.

    Raises:
        errors.MicrophoneUnavailable: there is none, or what it takes to use it is missing.
    """

    def __init__(self, device: str | None) -> None:
        self._library = library()
        self._device = int(device) if device is not None and device.isdecimal() else device
        try:
            found = self._library.query_devices(self._device, "input")
        except (ValueError, self._library.PortAudioError) as error:
            raise errors.MicrophoneUnavailable(
                f"There is no such microphone: {error}.",
                hint="'vibevoice-asr live --devices' lists those that there are.",
            ) from None
        self.rate = round(found["default_samplerate"])

    async def sound(self) -> AsyncGenerator[bytes, None]:
        """What it hears, for ever, as pcm16 at `rate`."""
        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        def take(block: Any, *_: Any) -> None:
            loop.call_soon_threadsafe(heard.put_nowait, bytes(block))

        try:
            stream = self._library.RawInputStream(
                samplerate=self.rate,
                blocksize=round(PIECE_S * self.rate),
                device=self._device,
                channels=1,
                dtype="int16",
                callback=take,
            )
        except self._library.PortAudioError as error:
            raise errors.MicrophoneUnavailable(
                f"The microphone cannot be used: {error}.",
                hint="See whether another program has it, and whether this one may use it.",
            ) from None
        with stream:
            while True:
                yield await heard.get()


def library() -> Any:
    """sounddevice, with PortAudio below it.

    Raises:
        errors.MicrophoneUnavailable: one of them is not here.
    """
    try:
        import sounddevice
    except ImportError:
        raise errors.MicrophoneUnavailable(
            "The library for microphones is not installed.", hint=f"Install it: {INSTALL}"
        ) from None
    except OSError:
        raise errors.MicrophoneUnavailable(
            "PortAudio, which speaks to microphones, is not on this machine.",
            hint="Install it: 'apt install libportaudio2', 'dnf install portaudio' or "
            f"'brew install portaudio'; for Windows and macOS it comes along: {INSTALL}",
        ) from None
    return sounddevice


def devices(way: str = "input") -> list[str]:
    """A line for each input that there is, or each ``"output"``, the system's own marked.

    Raises:
        errors.MicrophoneUnavailable: nobody can say.
    """
    sound = library()
    chosen = sound.default.device[way == "output"]
    return [
        f"{'*' if number == chosen else ' '} {number}: {one['name']} "
        f"({round(one['default_samplerate'])} Hz)"
        for number, one in enumerate(sound.query_devices())
        if one[f"max_{way}_channels"] > 0
    ]


def loudness(piece: bytes) -> float:
    """How loud a piece of pcm16 is at its loudest, 0 to 1."""
    samples = memoryview(piece).cast("h")
    return max(max(samples), -min(samples)) / 32768 if samples else 0.0


def _decoded(path: Path) -> Generator[bytes, None, None]:
    """Pieces of a recording."""
    import numpy as np

    from sidecar.audio.audio_decoder import open_audio, probe

    size = round(PIECE_S * LIVE_RATE)
    with open_file(path) as source:
        facts = probe(source.fd, LONGEST_S)
        with open_audio(source.fd, facts, rate=LIVE_RATE, max_s=LONGEST_S) as audio:
            rest: Block = np.zeros(0, np.float32)
            for block in audio:
                rest = np.concatenate([rest, block])
                whole = len(rest) // size * size
                for at in range(0, whole, size):
                    yield _pcm16(rest[at : at + size])
                rest = rest[whole:]
            if len(rest):
                yield _pcm16(rest)


def _pcm16(block: Block) -> bytes:
    found: bytes = (block.clip(-1, 1) * 32767).round().astype("<i2").tobytes()
    return found


async def in_a_thread(work: Callable[[], bytes]) -> bytes:
    """What ``work`` gives, b"" where it fails; nobody waits for it who has to go."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()

    def finish(found: bytes) -> None:
        if not done.done():
            done.set_result(found)

    def run() -> None:
        found = b""
        with suppress(OSError, ValueError):
            found = work()
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(finish, found)

    threading.Thread(target=run, name="standard input", daemon=True).start()
    return await done
