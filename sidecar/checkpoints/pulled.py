"""What `pull voice` has brought to a folder: its files and their checksums, and whose voices.

The list is a file beside them, so that a folder can be copied to a machine without a network, and
damage is noticed later.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sidecar import private

LIST = "manifest.json"
LONGEST_LIST = 4 << 20
READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PulledFile:
    """``sha256`` is of what came; ``checked`` is what its server said of it that was compared:
    'sha256', 'md5', or 'size' where it said no more."""

    size: int
    sha256: str
    checked: str


@dataclass(frozen=True, slots=True)
class PulledVoice:
    """A voice that speaks a language, and the files it takes: paths in the folder, with '/'."""

    name: str
    language: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pulled:
    """What is in ``folder``, by its list."""

    folder: Path
    files: Mapping[str, PulledFile] = field(default_factory=dict)
    voices: tuple[PulledVoice, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Pulled:
        """The list of a folder; nothing where there is none, or none that can be understood."""
        try:
            with (folder / LIST).open("rb") as file:
                values: Any = json.loads(file.read(LONGEST_LIST))
            files = {str(key): PulledFile(**one) for key, one in values["files"].items()}
            voices = tuple(
                PulledVoice(one["name"], one["language"], tuple(map(str, one["files"])))
                for one in values["voices"]
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return cls(folder)
        return cls(folder, files, voices)

    def write(self) -> None:
        """Put the list in its place, whole.

        Raises:
            errors.SettingsInvalid: it cannot be written.
        """
        values = {
            "files": {key: asdict(file) for key, file in sorted(self.files.items())},
            "voices": [asdict(voice) for voice in self.voices],
        }
        text = json.dumps(values, indent=1, ensure_ascii=False)
        private.write(self.folder / LIST, text.encode(), private.PUBLIC)

    def with_file(self, key: str, file: PulledFile) -> Pulled:
        """The same, and a file."""
        return replace(self, files={**self.files, key: file})

    def with_voice(self, voice: PulledVoice) -> Pulled:
        """The same, and a voice, behind those that are there."""
        others = (one for one in self.voices if not _same(one, voice))
        return replace(self, voices=(*others, voice))

    def lacking(self, voice: PulledVoice) -> list[str]:
        """The files of a voice that are not here, or not as long as they were."""
        return [key for key in voice.files if not self._is_here(key)]

    def whole(self) -> tuple[PulledVoice, ...]:
        """The voices that lack nothing; contents are not looked at."""
        return tuple(voice for voice in self.voices if not self.lacking(voice))

    def largest_bytes(self, count: int) -> int:
        """The files of so many of the voices, those that have the most; what they share is there
        once."""

        def size(keys: Iterable[str]) -> int:
            return sum(self.files[key].size for key in keys)

        voices = sorted((set(voice.files) for voice in self.whole()), key=size, reverse=True)
        return size(set[str]().union(*voices[:count]))

    def sound(self, key: str) -> bool:
        """Whether a file is here and has not changed since it came; reads it."""
        if not self._is_here(key):
            return False
        sums = hashlib.sha256()
        with self.path(key).open("rb") as content:
            while data := content.read(READ_BYTES):
                sums.update(data)
        return sums.hexdigest() == self.files[key].sha256

    def path(self, key: str) -> Path:
        """Where a file is."""
        return self.folder.joinpath(*key.split("/"))

    def _is_here(self, key: str) -> bool:
        known, path = self.files.get(key), self.path(key)
        return known is not None and path.is_file() and path.stat().st_size == known.size


def _same(one: PulledVoice, other: PulledVoice) -> bool:
    return (one.name, one.language) == (other.name, other.language)


def speaking(voices: Sequence[PulledVoice], language: str) -> PulledVoice | None:
    """The first of ``voices`` for a tag: of its own region, else of its language."""
    wanted = language.lower().replace("_", "-")
    general = wanted.split("-")[0]
    exact = (voice for voice in voices if voice.language == wanted)
    near = (voice for voice in voices if voice.language.split("-")[0] == general)
    return next(exact, None) or next(near, None)
