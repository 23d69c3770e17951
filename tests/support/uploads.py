"""Uploads as a service takes them in, and what is in them."""

import os
from contextlib import closing
from pathlib import Path

import numpy as np
from service_process import PATIENCE_S

from sidecar.audio import Block
from sidecar.audio.audio_decoder import open_audio, probe_audio
from sidecar.audio.audio_format import read_file_at
from sidecar.audio.audio_info import AudioInfo
from sidecar.audio.audio_source import AudioSource
from sidecar.audio.ffmpeg_output import LostAudio
from sidecar.audio.upload_spool import UploadSpool


def upload(data: bytes, folder: Path | None = None) -> AudioSource:
    """What a client has sent."""
    with closing(UploadSpool(folder)) as spool:
        spool.add(data)
        return spool.finish()


def read(source: AudioSource) -> bytes:
    """All of it; it is closed then."""
    with source:
        return read_file_at(source.fd, 0, os.fstat(source.fd).st_size)


def probed(fd: int, track: int | None = None) -> AudioInfo:
    """Facts of a recording that is looked through to its end, however busy the machine is."""
    patient = {"links_within_s": PATIENCE_S, "duration_within_s": PATIENCE_S}
    return probe_audio(fd, 3600.0, track, **patient)


def decoded(content: bytes, rate: int = 16_000) -> tuple[Block, bool]:
    """Samples of a recording, and whether it is said to have broken off."""
    samples, lost = decoded_and_lost(content, rate)
    return samples, lost is not None


def decoded_and_lost(content: bytes, rate: int = 16_000) -> tuple[Block, LostAudio | None]:
    """Samples of a recording, and what is said to be lost of it."""
    with upload(content) as source:
        facts = probed(source.fd)
        with open_audio(source.fd, facts, rate=rate, max_s=3600.0) as audio:
            return np.concatenate(list(audio)), audio.lost
