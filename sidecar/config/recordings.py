"""Recordings: how large, how slow and how long they may be, and where they lie meanwhile."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from sidecar.config.group import Group
from sidecar.config.settings_values import Duration, Folders


class Recordings(Group):
    """The settings of it."""

    max_upload_mb: int = Field(2048, ge=1, description="Largest upload in MB.")
    upload_room_mb: int = Field(
        4096,
        ge=1,
        description=(
            "Most MB of uploads on their way at once; beyond it the answer is 503 with "
            "Retry-After, for owners with more than an equal share. One upload alone may have more."
        ),
    )
    max_audio_hours: float = Field(5.0, gt=0, le=1000, description="Longest recording in hours.")
    upload_stall: Duration = Field(
        20.0,
        gt=0,
        description=(
            "Longest silence of a client that is sending. For all of it, it has three times that "
            "and what it takes at 8 KiB a second."
        ),
    )
    audio_roots: Folders = Field(
        (), description="Folders in which 'audio_path' must lie; anywhere if unset."
    )
    spool_dir: Path | None = Field(
        None, description="Folder for uploads in transit; the system's temporary folder if unset."
    )
