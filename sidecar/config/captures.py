"""Captures: live sessions written to files, for debugging."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from sidecar.config.group import Group
from sidecar.config.settings_values import Duration


class Captures(Group):
    """The settings of it."""

    capture: bool = Field(
        False,
        description=(
            "Whether sound and events of live sessions are written to files for debugging, "
            "encrypted; every client is told (docs/capture.md)."
        ),
    )
    capture_dir: Path | None = Field(
        None, description="Folder of these files; in the user's data folder if unset."
    )
    capture_mb: int = Field(
        1024, ge=0, description="Most MB of captures; then the oldest go. 0: any number."
    )
    capture_files: int = Field(
        1000, ge=0, description="Most captured sessions; then the oldest go. 0: any number."
    )
    capture_age: Duration = Field(
        7 * 86_400, ge=0, description="How old a capture becomes before it goes; 0: any age."
    )
    capture_queue: int = Field(
        256,
        ge=1,
        description=(
            "Chunks of all captured sessions that wait for the disk; then the oldest are left out."
        ),
    )
