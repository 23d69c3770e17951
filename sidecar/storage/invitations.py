"""Invitations: one-time codes for a day, which a restart does not end.

Each is a file in a folder: named by its end, its owner and the hash of its code, and encrypted
under the code, which only the link has. Who reads the folder can open none.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from sidecar import clock, errors, files
from sidecar.bounded_dict import index_to_drop
from sidecar.storage.encryption import Cipher, DecryptionFailed

INVITATIONS = "invitations"
"""Subfolder of the data folder."""
INVITATION_LIFETIME_S = 86_400.0
MAX_PER_OWNER = 64
"""Maximum of unused invitations of one owner; beyond it the oldest is deleted."""
MAX_INVITATIONS = 8 * MAX_PER_OWNER
"""Maximum of all owners; then the owner with the most loses the oldest."""
_MAX_BYTES = 16 << 10
_CODE_BYTES = 32
_OWNER_DIGITS = 16


class Invitations:
    """Unused invitations in ``folder``, if there is one; ``now`` returns seconds since 1970."""

    def __init__(self, folder: Path | None, now: Callable[[], float] = clock.wall_time) -> None:
        self._folder = folder
        self._now = now

    def give(self, opened: Mapping[str, str], owner: str) -> str:
        """Return a new code that opens ``opened``. It writes a file.

        Raises:
            errors.SettingsInvalid: the file cannot be written, or the package 'cryptography' is
                not installed.
        """
        if self._folder is None:
            raise errors.SettingsInvalid(
                "There is no folder for invitations, as the service's user has no home folder.",
                hint="Set VIBEVOICE_DATA_DIR for the service.",
            )
        files.make_folder(self._folder)
        owner_digest = _digest(owner)[:_OWNER_DIGITS]
        self._make_room(owner_digest)
        code = secrets.token_urlsafe(_CODE_BYTES)
        name = f"{self._now() + INVITATION_LIFETIME_S:.0f}-{owner_digest}-{_digest(code)}"
        content = _cipher(code).encrypt(json.dumps(dict(opened)).encode(), name)
        files.write(self._folder / name, content)
        return code

    def take(self, code: str) -> dict[str, str]:
        """Return what a code opens, and delete its file.

        Raises:
            errors.LinkInvalid: the code was used, has expired or is unknown.
        """
        digest = _digest(code)
        path = next((path for path in self._unused() if path.name.endswith(f"-{digest}")), None)
        if path is None:
            raise errors.LinkInvalid()
        content = files.read(path, _MAX_BYTES, private=True)
        if not files.remove(path):  # another request was first
            raise errors.LinkInvalid()
        try:
            opened: dict[str, str] = json.loads(_cipher(code).decrypt(content, path.name))
        except DecryptionFailed:  # changed by hand
            raise errors.LinkInvalid() from None
        return opened

    def _unused(self) -> list[Path]:
        """Return the files, oldest first, and delete those whose time is over."""
        unused = []
        for path in sorted(self._folder.glob("[0-9]*-*-*")) if self._folder else ():
            if float(path.name.partition("-")[0]) > self._now():
                unused.append(path)
            else:
                files.remove(path)
        return unused

    def _make_room(self, owner_digest: str) -> None:
        unused = self._unused()
        owners = [_owner_of(path) for path in unused]
        index = index_to_drop(owners, owner_digest, MAX_PER_OWNER, MAX_INVITATIONS)
        if index is not None:
            files.remove(unused[index])


def _owner_of(path: Path) -> str:
    return path.name.split("-")[1]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _cipher(code: str) -> Cipher:
    return Cipher(code, b"", "invitation")
