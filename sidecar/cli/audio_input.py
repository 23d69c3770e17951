"""Audio inputs: files, folders, standard input, microphone."""

import asyncio
import glob
import hashlib
import json
import math
import os
import re
import sys
from collections.abc import (
    AsyncGenerator,
    Callable,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import ExitStack, aclosing, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from sidecar import errors
from sidecar.audio.audio_source import AudioSource, open_recording_file
from sidecar.cli.output import print_error_line
from sidecar.concurrency import ThreadLimiter, cancel_after, running
from sidecar.files import size_and_dates
from sidecar.installation import install_command
from sidecar.interfaces.engine_interface import abbreviate_names
from sidecar.interfaces.live_options import LIVE_RATE, WholeSamples
from sidecar.limit_overrides import limit
from sidecar.transcripts.transcript_formats import FORMATS

ENDINGS = (
    ".3gp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".avi", ".awb", ".bwf",
    ".caf", ".dss", ".dts", ".eac3", ".flac", ".flv", ".m2ts", ".m4a", ".m4b", ".m4v", ".mka",
    ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".oga", ".ogg",
    ".opus", ".qta", ".rf64", ".tta", ".voc", ".w64", ".wav", ".wave", ".weba", ".webm", ".wma",
    ".wmv", ".wv",
)  # fmt: skip
"""Suffixes of recordings in a folder; a file that is named itself is judged by its content."""
TRANSCRIPT_ENDINGS = frozenset({*FORMATS, "txt"})
PATH_ERRORS: Mapping[type[errors.SidecarError], tuple[str, str]] = {
    errors.AudioPathNotFound: ("There is no such file.", "Check the path."),
    errors.AudioPathNotAFile: (
        "This is not a regular file.",
        "Name recordings, or folders of recordings.",
    ),
    errors.AudioPathForbidden: ("This file may not be read.", "Check its permissions."),
    errors.AudioPathInvalid: ("This is not the path of a file.", "Check the path."),
}
"""Details and hints of `open_file`: those of a request name its field."""
CLOUD_PLACEHOLDERS = (".{}.icloud", "{}.nextcloud", "{}.owncloud")
"""Names of the files that stand for one that is not downloaded yet."""
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
"""Start of an address as a path has it; the letter of a Windows drive is none."""
Opens = Callable[[Path], AudioSource]
"""Function that opens a recording that the user named, as `open_file` does."""

PIECE_S = 0.1
"""Seconds of audio in one chunk."""
MICROPHONE_GONE_S = limit("microphone_gone", 5.0)
"""Seconds without a chunk after which a microphone counts as unplugged; not all systems report it,
and a silent one sends zeros."""
OVERFLOW = "This machine is too busy to take all audio of the microphone: words may be missing."
LAST_WRITE_S = 1.0
"""Seconds that a recorder has after Ctrl-C to write what it holds: the buffer of arecord has half a
second."""
PIPE_BYTES = 1 << 16
"""What a pipe holds on Linux, where it holds most: more than that was written after Ctrl-C."""
MONO_16_BIT = {"channels": 1, "dtype": "int16"}
"""Form of the audio of both devices."""
_CHANNELS = {1: "mono", 2: "stereo"}
LONGEST_S = 24 * 3600.0
"""Maximum length of a recording in seconds; a session ends before that."""
METER = 10
"""Characters of the level meter."""
STANDARD_INPUT = Path("/dev/stdin")
"""Path of standard input on every system, whatever name the user gave."""


def expand_folders(named: Iterable[Path]) -> list[Path]:
    """Return the named files, each once; a folder is replaced by the recordings in it and below,
    sorted by path, a pattern on Windows by what it stands for. A folder without recordings stays in
    the list, and is reported like any file that is no recording."""
    files: dict[str, Path] = {}
    for path in chain.from_iterable(map(_expand_pattern, named)):
        found = [path]
        if path.is_dir():
            contents = list_folder(path)
            report_skipped(path, contents.skipped, contents.in_cloud)
            found = contents.recordings or [path]
        for one in found:
            files.setdefault(os.path.abspath(one), one)
    return list(files.values())


def _expand_pattern(path: Path) -> list[Path]:
    """Return what the ``*`` and ``?`` of a path stand for, sorted, or the path if that is nothing.
    No name on Windows has these characters, and its shells leave them to programs."""
    if sys.platform == "win32" and re.search("[*?]", str(path)[len(path.drive) :]):
        return sorted(map(Path, glob.iglob(str(path).replace("[", "[[]")))) or [path]
    return [path]


@dataclass(frozen=True, slots=True)
class FolderContents:
    """Files in a folder, sorted by path. ``skipped``: files that are neither recordings nor
    transcripts by their endings, hidden recordings, and folders that are links or cannot be read,
    or are not looked into. ``in_cloud``: recordings that have to be downloaded first."""

    recordings: list[Path]
    skipped: list[Path]
    in_cloud: list[Path]


def list_folder(folder: Path, *, below: bool = True) -> FolderContents:
    """Return what is in a folder; ``below``: also in its subfolders."""
    contents = FolderContents([], [], [])

    def skip(error: OSError) -> None:
        contents.skipped.append(Path(error.filename))

    for parent, folders, files in os.walk(folder, onerror=skip):
        seen = [name for name in folders if not name.startswith(".")]
        folders[:] = seen if below else []
        unread = [one for one in seen if not below or os.path.islink(os.path.join(parent, one))]
        for name in [*files, *unread]:
            path, ending = Path(parent, name), Path(name).suffix.lower()
            if (recording := _in_cloud(path)) is not None:
                contents.in_cloud.append(recording)
            elif name.startswith("."):
                if ending in ENDINGS and not name.startswith("._"):  # macOS's beside each file
                    contents.skipped.append(path)
            elif ending in ENDINGS and os.path.isfile(path):
                contents.recordings.append(path)
            elif ending[1:] not in TRANSCRIPT_ENDINGS:
                contents.skipped.append(path)
    for paths in (contents.recordings, contents.skipped, contents.in_cloud):
        paths.sort()
    return contents


def _in_cloud(placeholder: Path) -> Path | None:
    """Return the recording for which a file of this name stands, if it is the name of one."""
    for pattern in CLOUD_PLACEHOLDERS:
        before, after = pattern.split("{}")
        name = placeholder.name.removeprefix(before).removesuffix(after)
        if pattern.format(name) == placeholder.name and Path(name).suffix.lower() in ENDINGS:
            return placeholder.with_name(name)
    return None


def report_skipped(folder: Path, skipped: Sequence[Path], in_cloud: Sequence[Path]) -> None:
    """Print which files of a folder are not transcribed, if there are any."""

    def names(paths: Sequence[Path]) -> str:
        return abbreviate_names([str(path.relative_to(folder)) for path in paths])

    if folder in skipped:
        print_error_line(f"{folder}: the folder cannot be read now.")
    elif skipped:
        print_error_line(
            f"{folder}: skipped, as they are hidden, no recordings by their endings, cannot be "
            f"read, or are folders that are not looked into: {names(skipped)}. To transcribe one, "
            "name it itself."
        )
    if in_cloud:
        print_error_line(
            f"{folder}: skipped, as they are still in the cloud: {names(in_cloud)}. Download them."
        )


def open_file(path: Path) -> AudioSource:
    """Open a recording that the user named.

    Raises:
        errors.BadRequest: it does not exist, is not readable, or is no regular file.
    """
    placeholders = (path.with_name(one.format(path.name)) for one in CLOUD_PLACEHOLDERS)
    if _in_cloud(path) or (not os.path.exists(path) and any(map(os.path.exists, placeholders))):
        raise errors.AudioPathNotFound("This file is still in the cloud.", hint="Download it.")
    try:
        return open_recording_file(os.path.abspath(path))
    except tuple(PATH_ERRORS) as error:
        detail, hint = PATH_ERRORS[type(error)]
        if isinstance(error, errors.AudioPathNotFound) and _URL.match(path.as_posix()):
            detail, hint = "This is an address, not a file.", "Download it, and name the file."
        raise type(error)(detail, hint=hint) from None


def idempotency_key(path: Path, source: AudioSource, options: Mapping[str, str]) -> str:
    """Return the key by which a service recognizes a repeated submission: same file, same size and
    dates, same options. The key reveals nothing of the path."""
    recording = size_and_dates(source.fd, os.fstat(source.fd))
    identifying = [os.path.abspath(path), *recording, sorted(options.items())]
    return hashlib.sha256(json.dumps(identifying).encode()).hexdigest()


def check_recording(path: Path) -> int:
    """Check that a file is a recording, before anything is done for it; return how many
    channels it has.

    Raises:
        errors.SidecarError: it is no recording, or does not exist.
    """
    from sidecar.audio.audio_decoder import probe_audio

    with open_file(path) as source:
        return probe_audio(source.fd, LONGEST_S).channels


async def stream_file(
    path: Path, pace: float, channels: int, ended: asyncio.Event
) -> AsyncGenerator[bytes, None]:
    """Yield a recording until ``ended`` as pcm16 at `LIVE_RATE`, at ``pace`` times real time; 0:
    without pauses. Two ``channels`` are interleaved; for one they are mixed.

    Raises:
        errors.SidecarError: it is no recording, or does not exist.
    """
    loop = asyncio.get_running_loop()
    pieces = _decoded(path, channels)
    sent, began = 0, loop.time()
    try:
        while (
            not ended.is_set()
            and (piece := await asyncio.to_thread(next, pieces, None)) is not None
        ):
            yield piece
            sent += len(piece) // 2 // channels
            if pace:
                await cancel_after(began + sent / LIVE_RATE / pace - loop.time(), ended.wait())
    finally:
        with suppress(ValueError):  # its thread is still running it, and ends it
            pieces.close()


async def stream_stdin(
    rate: int, channels: int, ended: asyncio.Event
) -> AsyncGenerator[bytes, None]:
    """Yield raw pcm16 from standard input, as it arrives, until ``ended`` as `read_stdin`; of two
    channels interleaved."""
    samples = WholeSamples(2 * channels)
    async with aclosing(read_stdin(round(PIECE_S * rate) * 2 * channels, ended)) as pieces:
        with suppress(OSError):  # the same as its end
            async for raw in pieces:
                if whole := samples.add(raw):
                    yield whole


def open_input(
    file: Path | None,
    device: str | None,
    ended: asyncio.Event,
    pace: float = 1.0,
    channels: int = 1,
) -> tuple[int, AsyncGenerator[bytes, None]]:
    """Return the sample rate in Hz and the audio, until ``ended``, of a recording at ``pace``, else
    of a microphone; two ``channels`` are interleaved. A line on stderr says if a recording does not
    have them.

    Raises:
        errors.SidecarError: as `check_recording` and `_open_microphone`.
    """
    if file is None:
        return _open_microphone(device, channels, ended)
    count = check_recording(file)
    if channels > count:
        from sidecar.workers.channel_transcription import CHANNEL_SINGLE

        print_error_line(CHANNEL_SINGLE.message)
    elif count > channels > 1:
        print_error_line(
            f"The recording has {count} channels: the first is sent, and a mix of the others."
        )
    return LIVE_RATE, stream_file(file, pace, channels, ended)


def _open_microphone(
    device: str | None, channels: int, ended: asyncio.Event
) -> tuple[int, AsyncGenerator[bytes, None]]:
    """Return the sample rate and the audio of an input device of this machine, by its number or a
    part of its name; `None`: the system's default. All that it took until ``ended`` is yielded.

    Raises:
        errors.MicrophoneUnavailable: there is no such device, it has one channel instead of two,
            or a library for it is missing.
    """
    library = import_sounddevice()
    key = device_key(device)
    try:
        found = library.query_devices(key, "input")
    except (ValueError, library.PortAudioError) as error:
        raise errors.MicrophoneUnavailable(
            f"There is no such microphone: {error}.",
            hint="'vibevoice-asr live --devices' lists the microphones.",
        ) from None
    if channels > found["max_input_channels"]:
        raise errors.MicrophoneUnavailable(
            f"The microphone '{found['name']}' has one channel, so there are none to separate.",
            hint="Omit '--channels separate', or name a stereo input with --device "
            "('vibevoice-asr live --devices' lists the inputs).",
        )
    rate = round(found["default_samplerate"])

    loop: asyncio.AbstractEventLoop
    blocks = asyncio.Queue[bytes]()
    begun = told = False

    def take(block: Any, _frames: int, _times: Any, status: Any) -> None:
        nonlocal begun, told
        if begun and not told and status and status.input_overflow:
            told = True
            loop.call_soon_threadsafe(print_error_line, OVERFLOW)
        begun = True  # what was lost before is of no session
        loop.call_soon_threadsafe(blocks.put_nowait, bytes(block))

    try:
        block = round(PIECE_S * rate)
        form = MONO_16_BIT | {"channels": channels}
        stream = library.RawInputStream(
            samplerate=rate, blocksize=block, device=key, callback=take, **form
        )
    except library.PortAudioError as error:
        raise errors.MicrophoneUnavailable(
            f"The microphone cannot be used: {error}.",
            hint="Check whether another program uses it, and whether this one may use it.",
        ) from None

    async def sound() -> AsyncGenerator[bytes, None]:
        nonlocal loop
        loop = asyncio.get_running_loop()
        with stream:
            while not ended.is_set():
                try:
                    async with asyncio.timeout(MICROPHONE_GONE_S):
                        piece = await blocks.get()
                except TimeoutError:
                    raise errors.MicrophoneUnavailable(
                        f"The microphone '{found['name']}' has gone: no audio comes from it.",
                        hint="Check its plug or its connection.",
                    ) from None
                yield piece
        await asyncio.sleep(0)  # what the device's thread handed over is in the queue then
        while not blocks.empty():
            yield blocks.get_nowait()

    return rate, sound()


def device_key(device: str | None) -> int | str | None:
    """Return what the library knows a device by, as the user named it: a number or a name."""
    return int(device) if device is not None and device.isdecimal() else device


def import_sounddevice() -> Any:
    """Import sounddevice, which needs PortAudio.

    Raises:
        errors.MicrophoneUnavailable: one of them is not installed.
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
    """Return a line for each input device, or each ``"output"`` device; the default one is marked.

    Raises:
        errors.MicrophoneUnavailable: a library for it is missing.
    """
    sounddevice = import_sounddevice()
    chosen = sounddevice.default.device[way == "output"]
    return [
        f"{'*' if number == chosen else ' '} {number}: {one['name']} "
        f"({round(one['default_samplerate'])} Hz, "
        f"{_CHANNELS.get(channels, f'{channels} channels')})"
        for number, one in enumerate(sounddevice.query_devices())
        if (channels := one[f"max_{way}_channels"]) > 0
    ]


def loudness(piece: bytes) -> float:
    """Return the peak of a chunk of pcm16, 0 to 1."""
    samples = memoryview(piece).cast("h")
    return max(max(samples), -min(samples)) / 32768 if samples else 0.0


def level_meter(loud: float) -> str:
    """Return a bar for a `loudness`."""
    filled = round(min(1.0, math.sqrt(loud)) * METER)
    return "█" * filled + "·" * (METER - filled)


def _decoded(path: Path, channels: int) -> Generator[bytes, None, None]:
    """Yield the chunks of a recording as pcm16. Each of two channels is decoded for itself."""
    import numpy as np

    from sidecar.audio.audio_decoder import equal_blocks, open_audio, probe_audio
    from sidecar.audio.channel_survey import ChannelSurvey
    from sidecar.audio.selected_channel import SelectedChannel

    with ExitStack() as stack:
        blocks = []
        for channel in range(channels):
            source = stack.enter_context(open_file(path))
            facts = probe_audio(source.fd, LONGEST_S)
            mixer = None if channels == 1 else SelectedChannel(channel, ChannelSurvey(channels))
            audio = stack.enter_context(
                open_audio(source.fd, facts, rate=LIVE_RATE, max_s=LONGEST_S, channel=mixer)
            )
            blocks.append(equal_blocks(audio, round(PIECE_S * LIVE_RATE)))
        for frames in zip(*blocks, strict=True):
            samples = np.stack(frames, axis=1)
            yield (samples.clip(-1, 1) * 32767).round().astype("<i2").tobytes()


async def read_stdin(
    most: int, ended: asyncio.Event | None = None, left: int = PIPE_BYTES
) -> AsyncGenerator[bytes, None]:
    """Yield standard input as it arrives, up to ``most`` bytes at once; after ``ended``, up to
    ``left`` bytes that come within `LAST_WRITE_S` of waiting: what writes to it may end with the
    same Ctrl-C, and write its rest.

    Raises:
        OSError: it cannot be read.
    """
    # Without sys.stdin: a thread that blocks on it would hold its lock until the end of the
    # process. The thread is not joined: Ctrl-C may come during a read.
    if sys.stdin is None:  # closed: the same as empty
        return
    pipe = sys.stdin.fileno()
    reader = ThreadLimiter("standard input", 1)
    clock, left_s = asyncio.get_running_loop().time, LAST_WRITE_S
    async with running((ended or asyncio.Event()).wait()) as (ending,):
        while left > 0:
            async with running(reader.run(os.read, pipe, most)) as (reading,):
                await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
                began = clock()
                await asyncio.wait({reading}, timeout=left_s)
                left_s -= clock() - began if ending.done() else 0
                if not reading.done() or not reading.result():
                    return
            yield reading.result()
            left -= len(reading.result()) if ending.done() else 0
