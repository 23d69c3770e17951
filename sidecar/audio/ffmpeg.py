"""Hardened ffmpeg subprocess: one demuxer, one file, bounded.

The reason for each flag is in docs/decisions/hostile-audio.md.
"""

from __future__ import annotations

import io
import logging
import math
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial

import numpy as np

from sidecar import windows_files
from sidecar.audio import Block, audio_format, ffmpeg_command
from sidecar.audio.ffmpeg_output import (
    STALL_TIMEOUT_S,
    FfmpegLog,
    HoleFinder,
    LostAudio,
    OutputPipe,
    RecordingHeader,
    TimedOutput,
)
from sidecar.audio.frame_gaps import count_destroyed, intact_parts
from sidecar.audio.signal_conditioning import ChannelMix, MakeMixer
from sidecar.audio.stream_links import Link, channels_claimed, find_links, has_hole, is_truncated
from sidecar.child_processes import NO_WINDOW
from sidecar.errors import (
    BUSY_ERRNOS,
    AudioDecodeTimeout,
    AudioFormatUnsupported,
    AudioUndecodable,
    BadAudio,
    DecoderStopped,
    MachineBusy,
)

log = logging.getLogger(__name__)

MEMORY_LIMIT_BYTES = 2 << 30
_BLOCK_BYTES = 1 << 17
_REREAD_BYTES = 1 << 20
MAX_TRACKS = 16
"""Audio tracks that are tried until one can be decoded."""
_COUNTED_FROM_THE_TRACK = (audio_format.MPEG_TS, audio_format.MPEG_PS, audio_format.OGG)
"""Formats whose clock starts anywhere: in them ffmpeg counts from the first track that is used."""
_COMPLAIN_WHEN_WHOLE = (
    audio_format.MP3,
    audio_format.ADTS,
    audio_format.AC3,
    audio_format.EAC3,
    audio_format.DTS,
    audio_format.WAV,
)
"""Formats that go on at the next frame, behind a tag for example, or end within a block."""
_COUNTED = (audio_format.FLAC, audio_format.WAVPACK)
"""Formats whose header has the number of samples. ffmpeg complains of tags behind WavPack."""
_STOPPED_CODES = {-signal.SIGINT, -signal.SIGTERM, -9}
"""Exit codes of an ffmpeg that was stopped, by somebody or for lack of memory (SIGKILL, which
Windows lacks), if its own handler did not say so in its log. The recording goes on behind what it
has decoded."""
_CRASH_CODES = range(0xC000_0000, 1 << 32)
"""Exit codes of an ffmpeg that Windows ended for a fault of its own; elsewhere they are below 0."""
_SAME_PLACE_S = 1.0
"""Deviation of the place at which ffmpeg ends twice: its threads are that far apart."""
_DURATION_DIGIT_S = 0.02
"""ffmpeg's log has durations to 0.01 s."""
_MIN_LOST_S = 0.5
"""Least of a stream without times: a joined one has a few bytes of rubbish, or a broken frame."""
_SILENCE_SAMPLES = 1 << 15
"""Silence comes in blocks: a hole may have hours."""


def decode_with_ffmpeg(
    fd: int,
    container: audio_format.AudioContainer,
    rate: int,
    max_s: float,
    links_within_s: float,
    track: int | None,
    make_mixer: MakeMixer,
) -> FfmpegProcess | FfmpegChain:
    """Return the run of ffmpeg over the audio track of that number, from 1, or over the first that
    can be decoded, else over the last; if the file has several links that are found within
    ``links_within_s``, over all of them. ``make_mixer``: of the channels of each.

    Raises:
        errors.AudioDecodeTimeout: ffmpeg does not answer.
        errors.AudioFormatUnsupported: there is no ffmpeg.
        errors.MachineBusy: it cannot be started now.
    """
    links = find_links(fd, container, links_within_s)
    starts = [partial(_decode_link, fd, link, rate, max_s, track, make_mixer) for link in links]
    if len(links) == 1:
        return starts[0]()
    return FfmpegChain(starts, [channels_claimed(fd, link) for link in links])


def _decode_link(
    fd: int, link: Link, rate: int, max_s: float, track: int | None, make_mixer: MakeMixer
) -> FfmpegProcess:
    for number in range(MAX_TRACKS) if track is None else [track - 1]:
        process = FfmpegProcess(
            fd, link.container, rate, max_s, track=number, link=link, make_mixer=make_mixer
        )
        if process.channels or number + 1 >= len(process.header.tracks):
            break
        process.close()
    return process


class FfmpegProcess:
    """Run of ffmpeg over one audio track of an open file; the constructor returns once the header
    is read. Iterate for mono blocks, then `close`.

    ``stall_timeout_s``, ``selects``: of its `OutputPipe`. ``exit_timeout_s``: the time that it has
    to exit after its last output.
    """

    def __init__(
        self,
        fd: int,
        container: audio_format.AudioContainer,
        rate: int,
        max_s: float,
        *,
        track: int = 0,
        link: Link | None = None,
        make_mixer: MakeMixer | None = None,
        stall_timeout_s: float = STALL_TIMEOUT_S,
        exit_timeout_s: float = STALL_TIMEOUT_S,
        selects: bool = os.name == "posix",
    ) -> None:
        size = os.fstat(fd).st_size
        self._fd, self._container, self._rate = fd, container, rate
        self._part = (0, size) if link is None else (link.begin, link.end)
        self._exit_timeout_s = exit_timeout_s
        self._make_mixer = make_mixer or ChannelMix()
        self.track = track
        """Number of the audio track, from 0."""
        self._intact = intact_parts(fd, container, *self._part)
        parts = () if self._intact == [(0, size)] else self._intact
        source = ffmpeg_command.input_source(os.name == "nt", parts)
        if link is not None and link.is_continued:
            source["ignore_length"] = "1"
        self._arguments = ffmpeg_command.decode_command(
            ffmpeg_command.find_ffmpeg(), source, container, rate, max_s, track
        )
        self._stall_timeout_s, self._selects = stall_timeout_s, selects
        self._frames = self._silence = 0
        self.lost: LostAudio | None = None
        """What is lost of the recording, once ffmpeg has ended; None if nothing is."""
        self._start()
        if not self.channels and self._has_crashed():
            self._start_again()

    def _start(self) -> None:
        """Start ffmpeg, and read the header."""
        try:
            self._process, self._lifeline = _start_process(self._arguments, self._fd)
        except OSError as error:  # IMAGEIO_FFMPEG_EXE may name any file
            if error.errno in BUSY_ERRNOS:
                raise MachineBusy(f"ffmpeg cannot be started now: {error.strerror}.") from None
            log.warning(
                "ffmpeg (%s) cannot be started: %s; run 'vibevoice-asr doctor'",
                self._arguments[0],
                error.strerror,
            )
            raise ffmpeg_command.ffmpeg_missing_error(
                "the installed one cannot be started"
            ) from None
        self.header = FfmpegLog()
        """Its log so far."""
        self._described = threading.Event()
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        pipe = OutputPipe(
            self._process, self._read_again, self._stall_timeout_s, selects=self._selects
        )
        try:
            self._output = TimedOutput(pipe.read)
            self.channels = self._output.channels
            """Number of channels of the output; 0 if there is no audio."""
        except AudioDecodeTimeout:
            self.close()
            raise
        self._described.wait(self._stall_timeout_s)

    def _start_again(self) -> None:
        log.warning("ffmpeg ended or stood still in a recording: it decodes it again")
        self.close()
        self._start()

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    def __iter__(self) -> Iterator[Block]:
        """Yield mono blocks, and empty ones while ffmpeg decodes again what it has given before.

        Raises:
            errors.AudioDecodeTimeout: there is no output for too long, twice at the same place.
            errors.AudioUndecodable: there is none at all.
            errors.AudioFormatUnsupported: its codec is not supported.
            errors.DecoderStopped: something else ended ffmpeg.
            OSError: ffmpeg failed, and the file cannot be read.
        """
        channels = self.channels
        if not channels:
            self._end()
            raise self.header.error
        yield from _silence(self._samples_before())
        mixer = self._make_mixer(self._rate, self.header.layout_of(self.track, channels))
        holes = HoleFinder(self._rate, self._container.max_hole_s)
        frame_bytes = 4 * channels
        # Blocks of a fixed length: what the mixer decides must not hang on those of the codec.
        size, waiting = max(1, _BLOCK_BYTES // frame_bytes) * frame_bytes, bytearray()

        def mixed(count: int) -> Block:
            frames = np.frombuffer(waiting[:count], "<f4").astype(np.float32)
            del waiting[:count]
            self._frames += len(frames) // channels
            return mixer.mix(frames.reshape(-1, channels))

        for time_s, data in self._blocks(frame_bytes):
            if not data:
                yield np.zeros(0, np.float32)
                continue
            if hole := holes.before(time_s, len(data) // frame_bytes):
                yield mixed(len(waiting))
                yield from _silence(hole)
                self._silence += hole
            waiting += data
            while len(waiting) >= size:
                yield mixed(size)
        yield mixed(len(waiting))
        self._end()

    def _blocks(self, frame_bytes: int) -> Iterator[tuple[float, bytes]]:
        """Yield the whole frames of each block of the output behind its time in seconds. If ffmpeg
        crashes or stands still, it begins again, and the blocks before that place are empty; the
        recording is to blame if that happens at the same place again."""
        given, last_s = 0, -math.inf
        while True:
            at, stall = 0, None
            try:
                for time_s, data in self._output.blocks():
                    whole = data[: len(data) - len(data) % frame_bytes]
                    fresh = whole[max(0, given - at) :]
                    yield time_s + (len(whole) - len(fresh)) / frame_bytes / self._rate, fresh
                    at += len(whole)
                    given = max(given, at)
            except AudioDecodeTimeout as error:
                stall = error
            here_s = given / frame_bytes / self._rate
            if at < given - _SAME_PLACE_S * self._rate * frame_bytes:  # it has less than before
                raise DecoderStopped
            again = here_s > last_s + _SAME_PLACE_S and (stall is not None or self._has_crashed())
            if stall is not None and not again:
                raise stall
            if not again:
                return
            last_s = here_s
            self._start_again()

    def _has_crashed(self) -> bool:
        """Return whether ffmpeg, which has given all its output, died of a fault or lacked
        memory."""
        code = self._wait()
        died = code is not None and (code < 0 or code in _CRASH_CODES)
        return (died and not self._was_stopped(code)) or self.header.lacks_memory

    def _was_stopped(self, code: int | None) -> bool:
        return code in _STOPPED_CODES or self.header.was_stopped

    def _wait(self) -> int | None:
        """Return ffmpeg's exit code, after the end of its log; None if it does not exit."""
        code = None
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(self._exit_timeout_s)
        self._reader.join(self._exit_timeout_s)
        return code

    def _samples_before(self) -> int:
        """Return the samples of silence from the start of the film to that of the track."""
        if self._container not in _COUNTED_FROM_THE_TRACK or self.track >= len(self.header.tracks):
            return 0
        delay_s = self.header.tracks[self.track].start_s - self.header.start_s
        return HoleFinder(self._rate, self._container.max_hole_s).before(delay_s, 0)

    def _end(self) -> None:
        code = self._wait()
        if self._was_stopped(code):
            raise DecoderStopped()
        self.lost = self._find_lost(failed=code != 0)
        if self.header.input_failed or self.lost:
            self._read_again()

    def _find_lost(self, *, failed: bool) -> LostAudio | None:
        """Return what is lost; ``failed``: ffmpeg says that something is."""
        total_s = None if self.header.is_estimate else self.header.total_s
        decoded_s, silence_s = self._frames / self._rate, self._silence / self._rate
        missing_s = 0.0 if total_s is None else max(0.0, total_s - decoded_s - silence_s)
        lost = failed or len(self._intact) > 1
        lost |= is_truncated(self._fd, self._container, self._part[1])
        if self._container in _COUNTED and total_s is not None:
            lost |= missing_s > _DURATION_DIGIT_S
        elif self._container in _COMPLAIN_WHEN_WHOLE:
            is_wav = self._container is audio_format.WAV
            missing_s = missing_s if is_wav else 0.0
            if is_wav or self.header.complaints:
                destroyed, rest = count_destroyed(self._fd, self._container, *self._part)
                missing_s = max(missing_s, decoded_s * destroyed / rest)
            lost |= missing_s >= _MIN_LOST_S
        else:
            lost |= self.header.complaints > 0
            if not lost and (total_s is None or silence_s + missing_s >= _MIN_LOST_S):
                lost = has_hole(self._fd, self._container, *self._part)
            missing_s = silence_s + (missing_s if lost or self.header.input_failed else 0.0)
        left_out = total_s is None or decoded_s < total_s - _MIN_LOST_S
        early = left_out and (not self._container.max_hole_s or self._container is audio_format.AVI)
        return LostAudio(missing_s, early) if lost else None

    def _read_again(self) -> None:
        """Read what ffmpeg was to read: to it, a disk that fails is a recording that ends."""
        at, end = self._part
        while at < end and (data := audio_format.read_file_at(self._fd, at, _REREAD_BYTES)):
            at += len(data)

    def close(self) -> None:
        """End the process and close its pipes; one that a disk holds may end later by itself."""
        if self._process.poll() is None:
            self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(self._exit_timeout_s)
        self._reader.join(self._exit_timeout_s)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._lifeline.close()

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:  # closed here: a close waits for a read in progress
            for raw in lines:
                self.header.read(raw.decode("utf-8", "replace").rstrip())
                if self.header.described:
                    self._described.set()
        self._described.set()


class FfmpegChain:
    """Runs of ffmpeg over the links of a file, one behind the other. The header's tracks are those
    of the first link that has audio; so are the channels, unless a later link claims more."""

    def __init__(
        self, start_processes: Sequence[Callable[[], FfmpegProcess]], channels: Sequence[int]
    ) -> None:
        self._waiting, self._failures = deque(start_processes), list[BadAudio]()
        self._had_audio = False
        self.lost: LostAudio | None = None
        """What is lost of the links that are decoded; None if nothing is."""
        self._process = self._waiting.popleft()()
        try:
            while self._waiting and not self._process.channels:
                deque(self._blocks_of_link(), maxlen=0)
                self._start_next()
        except BaseException:
            self.close()
            raise
        self.header = RecordingHeader(tracks=self._process.header.tracks)
        later = channels[len(channels) - len(self._waiting) :]
        self.track, self.channels = self._process.track, max([self._process.channels, *later])

    def __iter__(self) -> Iterator[Block]:
        """Yield the blocks of all links; one without audio is left out.

        Raises:
            errors.AudioDecodeTimeout: there is no output for too long.
            errors.AudioUndecodable, errors.AudioFormatUnsupported: no link has audio.
        """
        yield from self._blocks_of_link()
        while self._waiting:
            self._start_next()
            yield from self._blocks_of_link()
        if not self._had_audio:
            raise self._failures[0]

    def _start_next(self) -> None:
        self._process.close()
        self._process = self._waiting.popleft()()

    def _blocks_of_link(self) -> Iterator[Block]:
        try:
            yield from self._process
            self._had_audio = True
        except (AudioUndecodable, AudioFormatUnsupported) as failure:
            self._failures.append(failure)
        if lost := self._process.lost:
            self.lost = lost if self.lost is None else self.lost + lost

    def close(self) -> None:
        """End the process."""
        self._process.close()


def _silence(samples: int) -> Iterator[Block]:
    for start in range(0, samples, _SILENCE_SAMPLES):
        yield np.zeros(min(_SILENCE_SAMPLES, samples - start), np.float32)


def _start_process(arguments: list[str], fd: int) -> tuple[subprocess.Popen[bytes], io.FileIO]:
    """Return ffmpeg and its lifeline: on Linux it is limited, and ends once that file is closed,
    which the end of this process does, too.

    Not by ``preexec_fn``: with that, Python copies the page tables of a worker that has gigabytes.
    """
    read_end, write_end = os.pipe()
    with ExitStack() as undone, ExitStack() as done, io.FileIO(read_end) as watched:
        lifeline = undone.enter_context(io.FileIO(write_end, "w"))
        if sys.platform == "win32":
            fd = done.enter_context(windows_files.opened_again(fd)).fileno()
            os.lseek(fd, 0, os.SEEK_SET)
        process = subprocess.Popen(
            arguments,
            stdin=fd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={key: os.environ[key] for key in ("SYSTEMROOT",) if key in os.environ},
            cwd="/" if os.name == "posix" else None,
            start_new_session=True,  # Ctrl-C in the service's terminal ends it only with its job
            pass_fds=[watched.fileno()] if sys.platform == "linux" else (),
            creationflags=NO_WINDOW,
        )
        undone.enter_context(process)
        undone.callback(process.kill)
        if sys.platform == "linux":
            _limit(process.pid, watched.fileno())
        undone.pop_all()
    return process, lifeline


if sys.platform == "linux":

    def _limit(pid: int, watched: int) -> None:
        """Limit the memory of a process, and have the kernel kill it when the writing end of the
        pipe ``watched``, whose reading end it has, is closed.

        Raises:
            OSError: the system refuses.
        """
        import fcntl
        import resource

        fcntl.fcntl(watched, fcntl.F_SETOWN, pid)
        fcntl.fcntl(watched, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(watched, fcntl.F_SETFL, os.O_ASYNC)
        limit, (_, most) = MEMORY_LIMIT_BYTES, resource.prlimit(pid, resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY:  # the service's own limit cannot be raised
            limit = min(limit, most)
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
