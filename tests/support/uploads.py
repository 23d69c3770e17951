"""Uploads as a service takes them in, and what is in them."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from sidecar.audio.audio_source import AudioSource
from sidecar.audio.upload_spool import UploadSpool


def upload(data: bytes, folder: Path | None = None) -> AudioSource:
    """What a client has sent."""
    with closing(UploadSpool(folder)) as spool:
        spool.add(data)
        return spool.finish()


def read(source: AudioSource) -> bytes:
    """All of it; it is closed then."""
    with source:
        return os.pread(source.fd, os.fstat(source.fd).st_size, 0)
