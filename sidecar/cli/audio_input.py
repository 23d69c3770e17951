"""Audio inputs: files, folders, standard input, microphone."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar import errors
from sidecar.audio.audio_source import AudioSource, open_recording_file
from sidecar.audio.upload_spool import UploadSpool
from sidecar.installation import install_command
from sidecar.interfaces.live_options import LIVE_RATE

if TYPE_CHECKING:
    from sidecar.audio import Block


ENDINGS = (
    ".3gp", ".aac", ".aif", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".m4b", ".mka",
    ".mkv", ".mov", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".w64", ".wav", ".webm", ".wma",
)  # fmt: skip
"""Suffixes of recordings in a folder; a file that is named is judged by its content."""
Opens = Callable[[Path], AudioSource]
"""Opens a recording that somebody named, as `open_file` does."""


def expand_folders(named: Iterable[Path]) -> list[Path]:
    """Files as they were named; for a folder the recordings in it and below, by name. One that has
    none stays as it is, to be complained of like any other that is no recording."""
    files: list[Path] = []
    for path in named:
        files += (path.is_dir() and list_recordings(path)) or [path]
    return files


def list_recordings(folder: Path, *, below: bool = True) -> list[Path]:
    """The recordings in a folder, hidden ones left out."""
    found = folder.rglob("*") if below else folder.glob("*")
    return sorted(
        path
        for path in found
        if path.suffix.lower() in ENDINGS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def open_file(path: Path) -> AudioSource:
    """Open a recording that somebody named.

    The errors of a path speak of the wire's field; here they speak of a file.

    Raises:
        errors.BadRequest: it is not there, not readable, or no regular file.
    """
    try:
        return open_recording_file(os.path.abspath(path))
    except errors.AudioPathNotFound:
        raise errors.AudioPathNotFound("There is no such file.", hint="Check the path.") from None
    except errors.AudioPathNotAFile:
        raise errors.AudioPathNotAFile(
            "This is not a regular file.", hint="Name recordings, or folders of recordings."
        ) from None
    except errors.AudioPathForbidden:
        raise errors.AudioPathForbidden(
            "This file may not be read.", hint="Check its permissions."
        ) from None
    except errors.AudioPathInvalid:
        raise errors.AudioPathInvalid(
            "This is not the path of a file.", hint="Check the path."
        ) from None


def idempotency_key(path: Path, source: AudioSource, options: Mapping[str, str]) -> str:
    """By what a service knows that this was sent before: same file, same size and date, same
    options. Who knows it learns nothing of the path."""
    status = os.fstat(source.fd)
    said = [os.path.abspath(path), status.st_size, status.st_mtime_ns, sorted(options.items())]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


PIECE_S = 0.1
"""Seconds of sound in one piece."""
LONGEST_S = 24 * 3600.0
"""Of a recording; a session ends before that."""


def check_recording(path: Path) -> None:
    """See that it is a recording, before anything is done for it.

    Raises:
        errors.SidecarError: it is none, or not there.
    """
    from sidecar.audio.audio_decoder import probe_audio

    with open_file(path) as source:
        probe_audio(source.fd, LONGEST_S)


async def stream_file(path: Path, pace: float) -> AsyncGenerator[bytes, None]:
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


async def stream_stdin(rate: int) -> AsyncIterator[bytes]:
    """Raw pcm16 on standard input, as it comes."""
    # Not by sys.stdin, whose lock a thread that waits for ever takes with it to the end.
    pipe, rest, most = sys.stdin.fileno(), b"", round(PIECE_S * rate) * 2
    # A thread of its own, that nobody waits for: Ctrl-C comes while it reads.
    while raw := await run_in_thread(lambda: os.read(pipe, most)):
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
        self._library = import_sounddevice()
        self._device = int(device) if device is not None and device.isdecimal() else device
        try:
            found = self._library.query_devices(self._device, "input")
        except (ValueError, self._library.PortAudioError) as error:
            raise errors.MicrophoneUnavailable(
                f"There is no such microphone: {error}.",
                hint="'vibevoice-asr live --devices' lists the microphones.",
            ) from None
        self.rate = round(found["default_samplerate"])

    async def sound(self) -> AsyncGenerator[bytes, None]:
        """Yield the audio, for ever, as pcm16 at `rate`."""
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
                hint="Check whether another program uses it, and whether this one may use it.",
            ) from None
        with stream:
            while True:
                yield await heard.get()


def import_sounddevice() -> Any:
    """sounddevice, with PortAudio below it.

    Raises:
        errors.MicrophoneUnavailable: one of them is not here.
    """
    try:
        import sounddevice
    except ImportError:
        raise errors.MicrophoneUnavailable(
            "The library for microphones is not installed.", hint=install_command("microphone")
        ) from None
    except OSError:
        raise errors.MicrophoneUnavailable(
            "PortAudio, the library for microphones, is not installed on this machine.",
            hint="Install it: 'apt install libportaudio2', 'dnf install portaudio' or "
            "'brew install portaudio'; for Windows and macOS it comes along: "
            + install_command("microphone"),
        ) from None
    return sounddevice


def devices(way: str = "input") -> list[str]:
    """A line for each input that there is, or each ``"output"``, the system's own marked.

    Raises:
        errors.MicrophoneUnavailable: nobody can say.
    """
    sound = import_sounddevice()
    chosen = sound.default.device[way == "output"]
    return [
        f"{'*' if number == chosen else ' '} {number}: {one['name']} "
        f"({round(one['default_samplerate'])} Hz)"
        for number, one in enumerate(sound.query_devices())
        if one[f"max_{way}_channels"] > 0
    ]


def loudness(piece: bytes) -> float:
    """Return the peak of a chunk of pcm16, 0 to 1."""
    samples = memoryview(piece).cast("h")
    return max(max(samples), -min(samples)) / 32768 if samples else 0.0


def _decoded(path: Path) -> Generator[bytes, None, None]:
    """Pieces of a recording."""
    import numpy as np

    from sidecar.audio.audio_decoder import open_audio, probe_audio

    size = round(PIECE_S * LIVE_RATE)
    with open_file(path) as source:
        facts = probe_audio(source.fd, LONGEST_S)
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


async def run_in_thread(work: Callable[[], bytes]) -> bytes:
    """Return the result of ``work``, b"" if it fails; the end of the command does not wait for
    it."""
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


STANDARD_INPUT = Path("/dev/stdin")
"""Path of standard input on every system, whatever it was named by."""
NAMES = frozenset({"-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"})
CHUNK = 1 << 20
MB = 1 << 20


def normalize_stdin_names(files: Sequence[Path]) -> list[Path]:
    """The same files, with one name for standard input.

    Raises:
        errors.SettingsInvalid: it is named twice; it can be read once.
    """
    files = [STANDARD_INPUT if path.as_posix() in NAMES else path for path in files]
    if files.count(STANDARD_INPUT) > 1:
        raise errors.SettingsInvalid(
            "Standard input ('-') is named twice.", hint="Name it once: it is one recording."
        )
    return files


@contextmanager
def open_recordings(files: Sequence[Path]) -> Iterator[Opens]:
    """Open ``files``. If standard input is among them it is read to its end here, into a file
    without a name: a recording is probed before it is transcribed, and a pipe can be read once.

    Raises:
        errors.BadRequest: it is a terminal, a folder, or larger than an upload may be.
        errors.DiskFull, errors.SpoolUnwritable: there is no room for it.
    """
    if STANDARD_INPUT not in files:
        yield open_file
        return
    with spool_stdin() as source:

        def opens(path: Path) -> AudioSource:
            if path != STANDARD_INPUT:
                return open_file(path)
            return AudioSource(os.dup(source.fd), spooled=True)

        yield opens


def spool_stdin() -> AudioSource:
    """All of standard input."""
    from sidecar.config.settings import load_settings

    if sys.stdin is None or sys.stdin.isatty():
        raise errors.AudioPathNotAFile(
            "There is no recording on standard input.",
            hint="Pipe a recording into the command, or name a file.",
        )
    settings = load_settings()
    spool = UploadSpool(settings.spool_dir)
    try:
        while data := _more():
            spool.add(data)
            if spool.size > settings.max_upload_mb * MB:
                raise errors.UploadTooLarge(
                    "The recording on standard input is larger than the limit."
                )
            if spool.pending >= UploadSpool.MEMORY_BYTES:
                spool.spill()
        return spool.finish()
    except BaseException:
        spool.close()
        raise


def _more() -> bytes:
    try:
        return os.read(sys.stdin.fileno(), CHUNK)
    except OSError as error:
        raise errors.AudioPathNotAFile(
            f"Standard input cannot be read: {error.strerror}.",
            hint="Pipe a recording into the command, or name a file.",
        ) from None
