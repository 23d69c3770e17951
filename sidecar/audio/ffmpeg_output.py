"""Readers of what ffmpeg writes, and the time that they wait for it.

Its log has the length, the audio tracks and the faults of a recording. Its pipe has samples with
their times: one track of PCM in Matroska blocks without lacing (RFC 9559).
"""

import os
import re
import select
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from sidecar import errors
from sidecar.audio.channel_layout import ChannelLayout, named_layout

STALL_TIMEOUT_S = 12.0
"""Seconds without output after which a running decoder is stopped."""
_READ_BYTES = 1 << 17
_WHITELIST_REFUSAL = "not on whitelist"
"""Message of ffmpeg about images and video beside the audio, which are excluded on purpose."""
_NO_DECODER = re.compile(
    rf"Codec \((\w+)\) {_WHITELIST_REFUSAL}|no decoder found for: (?!none)(\w+)"
)
"""A damaged header names a codec that ffmpeg calls none."""
_CODEC = re.compile(r"\w+")
"""Codec of a track, and its decoder in brackets if that has another name."""
_DURATION = re.compile(r"Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)")
_AUDIO_STREAM = re.compile(r"Stream #0:\d{1,4}([^:]{0,60}): Audio: (.*)")
_LANGUAGE = re.compile(r"\((\w+)\)")
_START = re.compile(r"Duration: .*, start: (-?\d+\.\d+)")
_LAYOUT = re.compile(r" Hz, ([^,]+)")
_TITLE = re.compile(r"^\[\w+\]\s+title\s*: (.*)")
_LAYOUTS = {"mono": 1, "stereo": 2, "downmix": 2, "quad": 4, "hexagonal": 6, "octagonal": 8}
_MAX_TITLE_CHARACTERS = 200
_TRACK_START = re.compile(r", start (-?\d+\.\d+)")
_ESTIMATE = "Estimating duration from bitrate"
_NO_INDEX = "moov atom not found"
_NO_TRACK = "matches no streams"
_NO_MEMORY = "Cannot allocate memory"
_STOPPED = "[info] Exiting normally, received signal"
"""Its exit code is 255 then; but that is also the code of a demuxer that returns -1."""

_CHANNELS, _CLUSTER_TIME, _BLOCKS = 0x9F, 0xE7, (0xA1, 0xA3)
_WITH_CHILDREN = (0x18538067, 0x1654AE6B, 0xAE, 0xE1, 0x1F43B675, 0xA0)
"""Segment, Tracks, TrackEntry, Audio, Cluster, BlockGroup."""
_BLOCK_HEADER_BYTES = 4
"""Number of the track, time after that of the cluster, flags."""
_TICKS_PER_S = 1000
MAX_JITTER_S = 0.1
"""Deviation of a timestamp that is no hole."""


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """Audio track of a container.

    ``language``: ISO 639-2, None if unknown. ``is_default``: whether the file marks it as the one
    to play. ``start_s``: its first timestamp. ``channels``: 0 if unknown. ``title``: '' if it has
    none.
    """

    language: str | None
    is_default: bool
    start_s: float
    channels: int = 0
    title: str = ""


def track_names(tracks: Sequence[AudioTrack]) -> list[str]:
    """Return the number of each track, from 1, with its language."""
    return [
        f"{number} ({track.language})" if track.language else str(number)
        for number, track in enumerate(tracks, 1)
    ]


def _count_channels(layout: str) -> int:
    """Return the channels of a layout such as ``5.1(side)`` or ``3 channels``; 0 if unknown."""
    name = layout.split("(")[0].removesuffix(" channels").strip()
    counts = name.split(".")
    return _LAYOUTS.get(name) or (sum(map(int, counts)) if all(map(str.isdigit, counts)) else 0)


@dataclass(frozen=True, slots=True)
class LostAudio:
    """What is missing or destroyed in a recording. ``seconds``: 0 if nobody knows how many.
    ``early``: whether what follows a gap is decoded as if there were none."""

    seconds: float = 0.0
    early: bool = False

    def __add__(self, other: "LostAudio") -> "LostAudio":
        return LostAudio(self.seconds + other.seconds, self.early or other.early)


@dataclass
class RecordingHeader:
    """Header of a recording: the length that it claims, in seconds, and the audio tracks of its
    container, if that can have several.

    ``is_estimate``: whether it claims no length, and ffmpeg divided the file's size by the bit rate
    of its first frames.
    """

    total_s: float | None = None
    tracks: list[AudioTrack] = field(default_factory=list)
    is_estimate: bool = False


@dataclass
class FfmpegLog(RecordingHeader):
    """Reader of ffmpeg's log, line by line.

    ``start_s``: the first timestamp of all tracks, those of the picture too. ``described``: whether
    the header has been read. ``complaints``: number of errors about the audio. ``input_failed``:
    whether one is ffmpeg's own, about its input, and not of a demuxer or decoder. ``lacks_memory``:
    whether it had too little. ``was_stopped``: whether a signal ended it.
    """

    start_s: float = 0.0
    described: bool = False
    complaints: int = 0
    input_failed: bool = False
    lacks_memory: bool = False
    was_stopped: bool = False
    _reason: str | None = None
    _codecs: set[str] = field(default_factory=set)
    _no_decoder: str | None = None
    _in_track: bool = False
    _layouts: list[str] = field(default_factory=list)

    def layout_of(self, track: int, channels: int) -> ChannelLayout:
        """Return the layout of a track, from 0, that has so many channels."""
        known = track < len(self._layouts)
        return named_layout(self._layouts[track] if known else "", channels)

    def read(self, line: str) -> None:
        """Take a line with its level, such as ``[error] moov atom not found``."""
        if _ESTIMATE in line:
            self.is_estimate = True
        if found := _DURATION.search(line):
            hours, minutes, seconds = found.groups()
            self.total_s = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        if (start := _START.search(line)) and not self.described:
            self.start_s = float(start[1])
        self._in_track &= "Stream #" not in line
        if self._in_track and not self.described and (title := _TITLE.match(line)):
            self.tracks[-1] = replace(self.tracks[-1], title=title[1][:_MAX_TITLE_CHARACTERS])
        if (stream := _AUDIO_STREAM.search(line)) and not self.described:
            self._in_track = True
            named = _LANGUAGE.search(stream[1])
            language = named[1] if named and named[1] != "und" else None
            start = _TRACK_START.search(stream[2])
            layout = _LAYOUT.search(stream[2])
            self._layouts.append(layout[1].strip() if layout else "")
            self._codecs.update(_CODEC.findall(stream[2].split(",")[0]))
            self.tracks.append(
                AudioTrack(
                    language,
                    "(default)" in stream[2],
                    float(start[1]) if start else 0.0,
                    _count_channels(layout[1]) if layout else 0,
                )
            )
        if no_decoder := _NO_DECODER.search(line):
            self._no_decoder = no_decoder[1] or no_decoder[2]
        if ("[error]" in line or "[fatal]" in line) and _WHITELIST_REFUSAL not in line:
            self.complaints += 1
            self.input_failed |= line.startswith(("[error]", "[fatal]", "[in#"))
            for sign in (_NO_INDEX, _NO_TRACK):
                if sign in line:
                    self._reason = sign
        self.lacks_memory |= _NO_MEMORY in line
        self.was_stopped |= line.startswith(_STOPPED)
        if line.lstrip().startswith(("[info] Stream mapping", "[info] Output #0")):
            self.described = True

    @property
    def error(self) -> errors.BadAudio:
        """Return the reason why there are no samples."""
        if self._no_decoder in self._codecs:
            return errors.AudioFormatUnsupported(
                f"The codec of the recording ({self._no_decoder}) is not supported.",
                hint="Convert it to 16-bit wav.",
            )
        if self._reason == _NO_INDEX:
            return errors.AudioUndecodable(
                "The recording has no index ('moov'): the recorder did not finish the file.",
                hint="Repair it with a program for unfinished mp4 files, or send another copy.",
            )
        if self._reason == _NO_TRACK:
            return errors.AudioUndecodable(
                "The recording has no audio track.", hint="Send a file that has audio."
            )
        return errors.AudioUndecodable()


class OutputPipe:
    """Pipe of ffmpeg's output.

    After ``stall_timeout_s`` seconds without output, ``read_input`` reads what ffmpeg was to read,
    which waits as long as the disk of the file does; ffmpeg then has as much time again.
    ``selects``: whether select() works on pipes, which it does not on Windows: there ffmpeg is
    killed at once.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        read_input: Callable[[], None],
        stall_timeout_s: float,
        *,
        selects: bool,
    ) -> None:
        self._process, self._read_input = process, read_input
        self._stall_timeout_s, self._selects = stall_timeout_s, selects
        self._pending = b""

    def read(self, count: int) -> bytes:
        """Return the next ``count`` bytes of output, fewer at its end.

        Raises:
            errors.AudioDecodeTimeout: there is none for too long.
            OSError: there is none for too long, and the file cannot be read.
        """
        parts = [self._pending]
        left = count - len(self._pending)
        while left > 0 and (data := self._read_next()):
            parts.append(data)
            left -= len(data)
        data = b"".join(parts)
        self._pending = data[count:]
        return data[:count]

    def _read_next(self) -> bytes:
        """Return the next output, empty at the end."""
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        if self._selects:
            if not select.select([pipe], [], [], self._stall_timeout_s)[0]:
                self._read_input()
                if not select.select([pipe], [], [], self._stall_timeout_s)[0]:
                    raise errors.AudioDecodeTimeout()
            return os.read(pipe, _READ_BYTES)
        stalled = threading.Event()

        def stop() -> None:
            stalled.set()
            self._process.kill()  # its death ends the read

        timer = threading.Timer(self._stall_timeout_s, stop)
        timer.start()
        try:
            data = os.read(pipe, _READ_BYTES)
        finally:
            timer.cancel()
        if stalled.is_set():
            raise errors.AudioDecodeTimeout()
        return data


class TimedOutput:
    """Reader of a stream by ``read``, which returns that many bytes, fewer at the end.

    ``channels``: number of channels; 0 if the stream ends before it says that.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._elements = self._leaves()
        channels = (int.from_bytes(body) for name, body in self._elements if name == _CHANNELS)
        self.channels = next(channels, 0)

    def blocks(self) -> Iterator[tuple[float, bytes]]:
        """Yield the samples of each block behind its time in seconds."""
        cluster = 0
        for name, body in self._elements:
            if name == _CLUSTER_TIME:
                cluster = int.from_bytes(body)
            elif name in _BLOCKS:
                after = int.from_bytes(body[1:3], signed=True)
                yield (cluster + after) / _TICKS_PER_S, body[_BLOCK_HEADER_BYTES:]

    def _leaves(self) -> Iterator[tuple[int, bytes]]:
        """Yield the name and the content of each element that has no others in it."""
        while first := self._read(1):
            name = int.from_bytes(first + self._read(_length(first[0]) - 1))
            first = self._read(1)
            if not first:
                return
            length = _length(first[0])
            size = int.from_bytes(first + self._read(length - 1)) & (1 << 7 * length) - 1
            if name not in _WITH_CHILDREN:
                yield name, self._read(size)


def _length(first: int) -> int:
    """Return the bytes of a number of variable length by its first one."""
    return 9 - first.bit_length()


class HoleFinder:
    """Finder of the silence between blocks, so that times stay those of a film.

    A hole of more than ``max_s`` seconds, and time that goes back, is a clock that was set.
    """

    def __init__(self, rate: int, max_s: float) -> None:
        self._rate, self._max = rate, max_s * rate
        self._end, self._shift = 0, 0

    def before(self, time_s: float, samples: int) -> int:
        """Return the samples of silence before the next block, which has that time and number of
        samples."""
        step = round(time_s * self._rate) + self._shift - self._end
        jitter = MAX_JITTER_S * self._rate
        if step < -jitter or step > self._max:
            self._shift -= step
        hole = step if jitter < step <= self._max else 0
        self._end += hole + samples
        return hole
