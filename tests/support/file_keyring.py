"""A keyring in a file, for services of tests: in ``PYTHON_KEYRING_BACKEND``
`tests.support.file_keyring.FileKeyring`.

A container has no keyring of a desktop. The package `keyring` is the real one.
"""

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError

FILE = "KEYRING_FILE"


class FileKeyring(KeyringBackend):
    """Passwords in the file that the environment names, in the clear."""

    priority = 1.0  # type: ignore[assignment]

    def get_password(self, service: str, username: str) -> str | None:
        """The password; None if there is none."""
        return self._passwords().get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        """Store a password."""
        self._write({**self._passwords(), f"{service}/{username}": password})

    def delete_password(self, service: str, username: str) -> None:
        """Delete a password.

        Raises:
            PasswordDeleteError: there is none.
        """
        passwords = self._passwords()
        if passwords.pop(f"{service}/{username}", None) is None:
            raise PasswordDeleteError(username)
        self._write(passwords)

    def _passwords(self) -> dict[str, str]:
        path = Path(os.environ[FILE])
        found: dict[str, str] = (
            json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        )
        return found

    def _write(self, passwords: dict[str, str]) -> None:
        Path(os.environ[FILE]).write_text(json.dumps(passwords), encoding="utf-8")
