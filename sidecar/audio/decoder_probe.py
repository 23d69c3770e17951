"""Probe of ffmpeg with a second of our own speech, after an error that blames a recording."""

from sidecar import errors
from sidecar.audio import VIBEVOICE_SAMPLE_RATE, audio_format
from sidecar.audio.ffmpeg import FfmpegProcess
from sidecar.audio.ffmpeg_command import ffmpeg_missing_error
from sidecar.audio.spoken_second import SPEECH_S, open_spoken_second

BLAMES_RECORDING = (
    errors.AudioDecodeTimeout,
    errors.AudioFormatUnsupported,
    errors.AudioUndecodable,
)
"""Errors that an ffmpeg raises, too, that lacks memory or a library."""


def judge(error: errors.BadAudio) -> errors.SidecarError:
    """Return the error of a recording that ffmpeg could not decode; that of ffmpeg if it cannot
    decode the second of speech, either."""
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
    return error if whole else ffmpeg_missing_error("the installed one does not work now")
