"""Folders of what a service keeps: jobs, people, captures, voices."""

from __future__ import annotations

from pathlib import Path

from sidecar.config.settings import Settings


def data_folder(settings: Settings, name: str) -> Path:
    """Return the folder ``name`` in `data_dir`; in the user's data folder if that is unset."""
    if settings.data_dir is not None:
        return settings.data_dir.expanduser().absolute() / name
    import platformdirs

    return Path(platformdirs.user_data_dir("vibevoice-asr", appauthor=False)) / name
