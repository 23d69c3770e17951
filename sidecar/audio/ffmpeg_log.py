"""Reader of ffmpeg's log: length, audio tracks and faults of a recording. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from sidecar import errors

_WHITELIST_REFUSAL = "not on whitelist"
"""Message of ffmpeg about images and video beside the audio, which are excluded on purpose."""
_DURATION = re.compile(r"Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)")
_AUDIO_STREAM = re.compile(r"Stream #0:\d{1,4}([^:]{0,60}): Audio: (.*)")
_LANGUAGE = re.compile(r"\((\w+)\)")
_START = re.compile(r"Duration: .*, start: (-?\d+\.\d+)")
_TRACK_START = re.compile(r", start (-?\d+\.\d+)")
_ESTIMATE = "Estimating duration from bitrate"
_NO_INDEX = "moov atom not found"
_NO_TRACK = "matches no streams"


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """Audio track of a container.

    ``language``: ISO 639-2, None if unknown. ``is_default``: whether the file marks it as the one
    to play. ``start_s``: its first timestamp.
    """

    language: str | None
    is_default: bool
    start_s: float


def track_names(tracks: Sequence[AudioTrack]) -> list[str]:
    """Return the number of each track, from 1, with its language."""
    return [
        f"{number} ({track.language})" if track.language else str(number)
        for number, track in enumerate(tracks, 1)
    ]


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
    whether one is ffmpeg's own, about its input, and not of a demuxer or decoder.
    """

    start_s: float = 0.0
    described: bool = False
    complaints: int = 0
    input_failed: bool = False
    _reason: str | None = None

    def read(self, line: str) -> None:
        """Take a line with its level, such as ``[error] moov atom not found``."""
        if _ESTIMATE in line:
            self.is_estimate = True
        if found := _DURATION.search(line):
            hours, minutes, seconds = found.groups()
            self.total_s = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        if (start := _START.search(line)) and not self.described:
            self.start_s = float(start[1])
        if (stream := _AUDIO_STREAM.search(line)) and not self.described:
            named = _LANGUAGE.search(stream[1])
            language = named[1] if named and named[1] != "und" else None
            start = _TRACK_START.search(stream[2])
            self.tracks.append(
                AudioTrack(language, "(default)" in stream[2], float(start[1]) if start else 0.0)
            )
        if ("[error]" in line or "[fatal]" in line) and _WHITELIST_REFUSAL not in line:
            self.complaints += 1
            self.input_failed |= line.startswith(("[error]", "[fatal]", "[in#"))
            for sign in (_NO_INDEX, _NO_TRACK):
                if sign in line:
                    self._reason = sign
        if line.lstrip().startswith(("[info] Stream mapping", "[info] Output #0")):
            self.described = True

    @property
    def error(self) -> errors.AudioUndecodable:
        """Return the reason why there are no samples."""
        if self._reason == _NO_INDEX:
            return errors.AudioUndecodable(
                "The recording has no index ('moov'): the recorder did not finish the file.",
                hint="Repair it with a program for unfinished mp4 files, or send another copy.",
            )
        if self._reason == _NO_TRACK:
            return errors.AudioUndecodable(
                "The recording has no audio track.", hint="Send a file that has sound."
            )
        return errors.AudioUndecodable()
