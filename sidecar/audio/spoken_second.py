"""A second of speech of our own, for probes of engines and upstreams."""

import io
import wave
from contextlib import suppress

from sidecar.audio import VIBEVOICE_SAMPLE_RATE
from sidecar.audio.audio_source import AudioSource
from sidecar.audio.sample_recording import find_sample
from sidecar.audio.upload_spool import UploadSpool

SPEECH_S = 1.0


def spoken_second() -> bytes:
    """Return the first second of the sample recording, as a WAV file of 16-bit samples of one
    channel; silence if there is no sample."""
    rate, width = VIBEVOICE_SAMPLE_RATE, 2
    samples = bytes(round(SPEECH_S * rate) * width)
    with suppress(OSError, wave.Error):
        if (path := find_sample()) is not None:
            with wave.open(str(path)) as speech:
                rate, samples = speech.getframerate(), speech.readframes(len(samples) // width)
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(width)
        written.setframerate(rate)
        written.writeframes(samples)
    return file.getvalue()


def open_spoken_second() -> AudioSource:
    """Return the second as a recording.

    Raises:
        errors.DiskFull, errors.SpoolUnwritable, errors.UploadsFull: as of `UploadSpool`.
    """
    spool = UploadSpool(None)
    try:
        spool.add(spoken_second())
        return spool.finish()
    finally:
        spool.close()
