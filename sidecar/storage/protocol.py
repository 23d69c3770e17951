r"""What is asked of a place for recordings: bytes under a name, there whole or not at all.

Names are ours (`\w[\w-]*`) and never used twice; what a recording is, is said by the job that names
it, with its digest. All of it waits for a disk or a server: call it in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from sidecar.storage.reading import Stored

PARTIAL = ".part"
"""How the name of a recording ends that is not written whole yet."""


class Storage(Protocol):
    """A folder or a bucket.

    Whatever is asked may raise `errors.StorageUnreachable`: it does not answer now, and what is
    there is still there. `FileNotFoundError` says that something is not there.
    """

    @property
    def kind(self) -> str:
        """Which: a job says of which kind the storage is that has its recording."""
        ...

    def put(self, name: str, pieces: Iterable[bytes]) -> None:
        """Write a stream. If that fails, or the stream does, nothing is left.

        Raises:
            errors.DiskFull: there is no room.
            errors.SpoolUnwritable: it cannot be written, or the name is taken.
        """
        ...

    def read(self, name: str) -> Iterator[bytes]:
        """The whole of it from its beginning, as it is there; the caller knows what it was.

        Raises:
            OSError: it is not there, or is nothing that can be read.
        """
        ...

    def open(self, name: str) -> Stored:
        """Have it read from any place.

        Raises:
            OSError: as `read`.
        """
        ...

    def size(self, name: str) -> int:
        """Bytes that are there.

        Raises:
            OSError: as `read`.
        """
        ...

    def delete(self, name: str) -> None:
        """Have it no longer, within a moment; one that is gone is deleted already.

        Raises:
            OSError: it cannot be deleted now.
        """
        ...

    def delete_now(self, name: str) -> None:
        """Delete it and return once that is done; one that is not there is deleted already.

        Raises:
            OSError: it cannot be deleted now.
        """
        ...

    def ages(self) -> Mapping[str, float]:
        """All that is there, and for how many seconds by the storage's own clock. What is left of
        one that was never whole has a name of its own, which ends with `PARTIAL`, and is deleted
        by it."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...
