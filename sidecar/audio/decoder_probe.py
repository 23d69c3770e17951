"""Probe of ffmpeg with a second of our own speech, after an error that blames a recording."""

from collections.abc import Iterator
from contextlib import contextmanager

from sidecar import errors
from sidecar.audio import VIBEVOICE_SAMPLE_RATE, audio_format
from sidecar.audio.audio_info import FFMPEG_DECODER
from sidecar.audio.ffmpeg import FfmpegProcess
from sidecar.audio.spoken_second import SPEECH_S, open_spoken_second

BLAMES_RECORDING = (
    errors.AudioDecodeTimeout,
    errors.AudioFormatUnsupported,
    errors.AudioUndecodable,
)
"""Errors that an ffmpeg raises, too, that lacks memory or a library."""


def judge(error: errors.BadAudio, decoder: str) -> errors.SidecarError:
    """Return an error that blames a recording; that of ffmpeg, if it is the ``decoder`` and does
    not work."""
    blamed = decoder == FFMPEG_DECODER and error.fault is errors.Fault.RECORDING
    return _own_or(error) if blamed else error


@contextmanager
def judged(decoder: str) -> Iterator[None]:
    """`judge` the errors of this context."""
    try:
        yield
    except BLAMES_RECORDING as error:
        raise judge(error, decoder) from None


def _own_or(error: errors.BadAudio) -> errors.SidecarError:
    """Return the error; that of ffmpeg if it cannot decode the second of speech, either."""
    with open_spoken_second() as source:
        wav = audio_format.container_at(source.fd, 0)
        assert wav is not None, "it is a WAV file"
        try:
            decoder = FfmpegProcess(source.fd, wav, VIBEVOICE_SAMPLE_RATE, 2 * SPEECH_S)
            try:
                whole = sum(map(len, decoder)) > 0 and decoder.lost is None
            finally:
                decoder.close()
        except BLAMES_RECORDING:
            whole = False
        except errors.SidecarError as own:
            return own
    return error if whole else _broken_error()


def _broken_error() -> errors.MachineBusy:
    """Return the error of an ffmpeg that decodes nothing; no attempt of a job counts for it."""
    return errors.MachineBusy(
        "ffmpeg does not work on this machine now.",
        hint="Try again later, send wav, or look at ffmpeg: 'vibevoice-asr doctor'.",
        fault=errors.Fault.DECODER,
    )
