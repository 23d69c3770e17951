"""Hardened ffmpeg subprocess: one demuxer, one file, bounded.

The reason for each flag is in docs/decisions/hostile-audio.md.
"""

from __future__ import annotations

import logging
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

from sidecar import errors
from sidecar.audio import Block
from sidecar.audio.audio_format import AudioContainer, is_truncated

log = logging.getLogger(__name__)

STALL_TIMEOUT_S = 12.0
"""Seconds without output after which a running decoder is stopped."""
MEMORY_LIMIT_BYTES = 2 << 30
_MAX_ALLOC_BYTES = 256 << 20
_READ_BYTES = 1 << 17
_WHITELIST_REFUSAL = "not on whitelist"
"""Message of ffmpeg about images and video beside the audio, which are excluded on purpose."""
_DURATION = re.compile(r"Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)")
_AUDIO_DECODERS = (
    "aac,aac_latm,alac,mp1,mp1float,mp2,mp2float,mp3,mp3float,opus,libopus,vorbis,libvorbis,flac,"
    "wavpack,tta,ape,ac3,eac3,dca,truehd,wmav1,wmav2,wmapro,wmalossless,wmavoice,amrnb,amrwb,"
    "libopencore_amrnb,libopencore_amrwb,speex,libspeex,gsm,gsm_ms,qdm2,g722,g726,g726le,"
    "adpcm_ms,adpcm_ima_wav,adpcm_ima_qt,adpcm_yamaha,adpcm_g722,adpcm_g726,adpcm_swf,"
    "pcm_u8,pcm_s8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,"
    "pcm_f32be,pcm_f64le,pcm_f64be,pcm_alaw,pcm_mulaw,pcm_u16le,pcm_u16be,pcm_lxf,pcm_dvd,pcm_bluray"
)


def find_ffmpeg() -> str:
    """Return the path of ffmpeg: the one that came with the install, else the one on the PATH.

    Raises:
        errors.AudioFormatUnsupported: there is none.
    """
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        raise _ffmpeg_missing_error("none was found") from None


def _ffmpeg_missing_error(why: str) -> errors.AudioFormatUnsupported:
    return errors.AudioFormatUnsupported(
        f"This format needs ffmpeg, and {why}.",
        hint="Install ffmpeg, or send wav, flac, ogg or mp3.",
    )


def decode_command(
    exe: str, source: str, container: AudioContainer, rate: int, max_s: float
) -> list[str]:
    """Return the argument list; ``source`` is the service's own handle, never a client's name."""
    import ffmpeg

    stream = ffmpeg.input(
        source,
        f=container.demuxer,
        t=f"{max_s:.3f}",
        protocol_whitelist="file,pipe",
        format_whitelist=container.demuxer,
        codec_whitelist=_AUDIO_DECODERS,
        max_alloc=_MAX_ALLOC_BYTES,
        threads=1,
    ).output("pipe:1", map="0:a:0", vn=None, sn=None, dn=None, f="f32le", ac=1, ar=rate, threads=1)
    args = ("-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info")
    return [str(part) for part in stream.global_args(*args).compile(cmd=exe)]


class FfmpegProcess:
    """Run of ffmpeg over an open file, with mixing and resampling; the constructor returns once the
    header is read. Iterate for blocks, then `close`.

    ``stall_timeout_s`` is the time without output after which it is stopped, ``exit_timeout_s`` the
    time that it has to exit after its last output. ``selects`` is whether select() works on pipes,
    which it does not on Windows.
    """

    def __init__(
        self,
        fd: int,
        container: AudioContainer,
        rate: int,
        max_s: float,
        *,
        stall_timeout_s: float = STALL_TIMEOUT_S,
        exit_timeout_s: float = STALL_TIMEOUT_S,
        selects: bool = os.name == "posix",
    ) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        self._fd, self._container = fd, container
        self._stall_timeout_s, self._exit_timeout_s = stall_timeout_s, exit_timeout_s
        self._selects = selects
        # /dev/fd opens the same file again, whatever its name is now, with its own position.
        source = "file:/dev/fd/0" if os.name == "posix" else "pipe:0"
        arguments = decode_command(find_ffmpeg(), source, container, rate, max_s)
        try:
            self._process = _start_process(arguments, fd)
        except OSError as error:  # IMAGEIO_FFMPEG_EXE may name any file
            log.warning(
                "ffmpeg (%s) cannot be started: %s; run 'vibevoice-asr doctor'",
                arguments[0],
                error.strerror,
            )
            raise _ffmpeg_missing_error("the installed one cannot be started") from None
        self._complaints = 0
        self._described = threading.Event()
        self.total_s: float | None = None
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        self._described.wait(stall_timeout_s)  # the header is read, or ffmpeg has ended

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def truncated(self) -> bool:
        """Return whether the recording is incomplete or damaged, once ffmpeg has ended."""
        return self._complaints > 0 or is_truncated(self._fd, self._container)

    def __iter__(self) -> Iterator[Block]:
        import numpy as np

        stdout = self._process.stdout
        assert stdout is not None
        rest = b""
        while True:
            data = self._read(stdout.fileno())
            if not data:
                break
            data = rest + data
            whole = len(data) & ~3
            rest = data[whole:]
            yield np.frombuffer(data[:whole], dtype="<f4").astype(np.float32, copy=False)
        try:
            ended_well = self._process.wait(self._exit_timeout_s) == 0
        except subprocess.TimeoutExpired:
            ended_well = False
        if not ended_well:
            self._complaints += 1
        self._reader.join(self._exit_timeout_s)

    def close(self) -> None:
        """End the process and close its pipes."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join(self._exit_timeout_s)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _read(self, pipe: int) -> bytes:
        """Return the next output, empty at the end.

        Raises:
            errors.AudioDecodeTimeout: there is none for too long.
        """
        if self._selects:
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

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        for raw in self._process.stderr:
            line = raw.decode("utf-8", "replace").rstrip()
            if found := _DURATION.search(line):
                hours, minutes, seconds = found.groups()
                self.total_s = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
            if ("[error]" in line or "[fatal]" in line) and _WHITELIST_REFUSAL not in line:
                self._complaints += 1
            if line.lstrip().startswith(("[info] Stream mapping", "[info] Output #0")):
                self._described.set()
        self._described.set()


def _start_process(arguments: list[str], fd: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        arguments,
        stdin=fd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={key: os.environ[key] for key in ("SYSTEMROOT",) if key in os.environ},
        cwd="/" if os.name == "posix" else None,
        preexec_fn=_limit_child_process() if sys.platform == "linux" else None,
    )


def _limit_child_process() -> Callable[[], None]:
    """Return the function that the child runs before it becomes ffmpeg: it dies with the parent,
    and its memory is limited. All work that needs a lock is done here, as another thread may hold
    the lock during the fork."""
    import ctypes
    import resource

    pr_set_pdeathsig = 1
    prctl = ctypes.CDLL(None).prctl

    def bound() -> None:
        prctl(pr_set_pdeathsig, signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    return bound
