"""The files of the page, as they go over the wire: compressed once, named by what is in them."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FOLDER = Path(__file__).parent / "static"
ASSETS = "/page"
"""Below it all files lie, under a digest of them all: what has a name never changes."""
FRONT = "index.html"
LATE = "conversation/"
"""What few visitors want is fetched when they do."""
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_BASE, _MODULES = b"{{base}}", b"{{modules}}"


@dataclass(frozen=True, slots=True)
class File:
    """One file: plainly, and by gzip."""

    body: bytes
    compressed: bytes
    media_type: str

    @classmethod
    def of(cls, name: str, body: bytes) -> File:
        """A file with what is in it."""
        return cls(body, gzip.compress(body, 9, mtime=0), MEDIA_TYPES[Path(name).suffix])


class Files:
    """All of them, read when the first is asked for: who looks at no page pays for none."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    @property
    def ready(self) -> bool:
        """Whether all is read: then nothing here waits for a disk."""
        return {"front", "digest"} <= self.__dict__.keys()

    def get(self, digest: str, name: str) -> File | None:
        """A file by its name under a digest; None if there is none, or it is of another build."""
        return self._all.get(name) if digest == self.digest else None

    @cached_property
    def front(self) -> File:
        """The page itself, which knows the digest of the rest, and has its modules fetched at
        once instead of one after the other."""
        base = f"{ASSETS}/{self.digest}"
        names = [name for name in self._all if name.endswith(".js") and not name.startswith(LATE)]
        links = "\n".join(f'    <link rel="modulepreload" href="{base}/{name}">' for name in names)
        body = (self._folder / FRONT).read_bytes()
        return File.of(FRONT, body.replace(_BASE, base.encode()).replace(_MODULES, links.encode()))

    @cached_property
    def digest(self) -> str:
        """Of all files with their names."""
        said = hashlib.sha256((self._folder / FRONT).read_bytes())
        for name, file in self._all.items():
            said.update(f"{name}\0{len(file.body)}\0".encode() + file.body)
        return said.hexdigest()[:16]

    @cached_property
    def _all(self) -> Mapping[str, File]:
        paths = sorted(
            path
            for path in self._folder.rglob("*")
            if path.suffix in MEDIA_TYPES and path.name != FRONT
        )
        names = [path.relative_to(self._folder).as_posix() for path in paths]
        return {
            name: File.of(name, path.read_bytes()) for name, path in zip(names, paths, strict=True)
        }
