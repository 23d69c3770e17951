"""Installed TTS voices: the manifest of those that `pull voice` downloaded.

The manifest is a file in their folder. So the folder can be copied to a machine without a network,
and damage is detected later.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sidecar import files as sidecar_files

MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class PulledFile:
    """Downloaded file of a voice.

    ``sha256``: of the received bytes. ``checked``: what was compared with the server: 'sha256',
    'md5', or 'size' if the server has no checksum.
    """

    size: int
    sha256: str
    checked: str


@dataclass(frozen=True, slots=True)
class PulledVoice:
    """TTS voice for a language, and its files: paths in the folder, with '/'."""

    name: str
    language: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PulledVoices:
    """Downloaded voices in ``folder``, by its manifest."""

    folder: Path
    files: Mapping[str, PulledFile] = field(default_factory=dict)
    voices: tuple[PulledVoice, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> PulledVoices:
        """Return the voices of a folder; none if the manifest is missing or invalid."""
        try:
            with (folder / MANIFEST_FILE).open("rb") as file:
                values: Any = json.loads(file.read(MAX_MANIFEST_BYTES))
            files = {str(key): PulledFile(**one) for key, one in values["files"].items()}
            voices = tuple(
                PulledVoice(one["name"], one["language"], tuple(map(str, one["files"])))
                for one in values["voices"]
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return cls(folder)
        return cls(folder, files, voices)

    def write(self) -> None:
        """Write the manifest atomically.

        Raises:
            errors.SettingsInvalid: it cannot be written.
        """
        values = {
            "files": {key: asdict(file) for key, file in sorted(self.files.items())},
            "voices": [asdict(voice) for voice in self.voices],
        }
        text = json.dumps(values, indent=1, ensure_ascii=False)
        sidecar_files.write(self.folder / MANIFEST_FILE, text.encode(), sidecar_files.PUBLIC)

    def with_file(self, key: str, file: PulledFile) -> PulledVoices:
        """Return the voices with a file added."""
        return replace(self, files={**self.files, key: file})

    def with_voice(self, voice: PulledVoice) -> PulledVoices:
        """Return the voices with a voice added at the end, or moved there."""
        key = voice.name, voice.language
        others = (one for one in self.voices if (one.name, one.language) != key)
        return replace(self, voices=(*others, voice))

    def missing_files(self, voice: PulledVoice) -> list[str]:
        """Return the files of a voice that are missing or have another size."""
        return [key for key in voice.files if not self._is_here(key)]

    def complete(self) -> tuple[PulledVoice, ...]:
        """Return the voices with no missing files; the contents are not checked."""
        return tuple(voice for voice in self.voices if not self.missing_files(voice))

    def largest_bytes(self, count: int) -> int:
        """Return the total size of the files of the ``count`` largest voices; shared files count
        once."""

        def size(keys: Iterable[str]) -> int:
            return sum(self.files[key].size for key in keys)

        voices = sorted((set(voice.files) for voice in self.complete()), key=size, reverse=True)
        return size(set[str]().union(*voices[:count]))

    def is_intact(self, key: str) -> bool:
        """Return whether a file exists and has its checksum; this reads the file."""
        if not self._is_here(key):
            return False
        with self.path(key).open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == self.files[key].sha256

    def path(self, key: str) -> Path:
        """Return the path of a file."""
        return self.folder.joinpath(*key.split("/"))

    def _is_here(self, key: str) -> bool:
        known, path = self.files.get(key), self.path(key)
        return known is not None and path.is_file() and path.stat().st_size == known.size


def voice_for_language(voices: Sequence[PulledVoice], language: str) -> PulledVoice | None:
    """Return the first of ``voices`` for a language tag, else the first of its language."""
    tag = language.lower().replace("_", "-")
    language_only = tag.split("-")[0]
    exact = (voice for voice in voices if voice.language == tag)
    regional = (voice for voice in voices if voice.language.split("-")[0] == language_only)
    return next(exact, None) or next(regional, None)
