"""The key of what is kept: given, from a private file, or from the system's keyring."""

from __future__ import annotations

import secrets
from pathlib import Path

from sidecar import private
from sidecar.config.settings import SHORTEST_JOURNAL_KEY, Settings
from sidecar.errors import SettingsInvalid

MADE_BYTES = 32
_SERVICE, _NAME = "vibevoice-asr", "kept jobs"
_LONGEST = 4096
HINT = (
    "Make one: (umask 077; openssl rand -hex 32 > FILE), and start with --journal-key-file FILE; "
    "or set VIBEVOICE_JOURNAL_KEY; or install the package 'keyring'."
)


def journal_key(settings: Settings) -> str:
    """The key; where none is given, that in the system's keyring, which is made there once.

    Raises:
        errors.SettingsInvalid: there is none, there are two, or it is no secret.
    """
    given = settings.journal_key
    if given is not None and settings.journal_key_file is not None:
        raise SettingsInvalid(
            "The settings journal_key and journal_key_file each give a key.",
            hint="Keep one of them.",
        )
    if given is not None:
        return given.get_secret_value()
    if settings.journal_key_file is not None:
        return _read(settings.journal_key_file)
    return _from_keyring()


def _read(path: Path) -> str:
    key = private.read(path, _LONGEST, private=True).decode("utf-8", "replace").strip()
    if len(key) < SHORTEST_JOURNAL_KEY:
        raise SettingsInvalid(
            f"The file {path} holds no key of at least {SHORTEST_JOURNAL_KEY} characters.",
            hint=HINT,
        )
    return key


def _from_keyring() -> str:
    """What the keyring has, if there is one that can keep it."""
    try:
        import keyring
        from keyring.errors import KeyringError
        from platformdirs import user_data_path
    except ImportError:
        raise SettingsInvalid("What is kept is encrypted: a key is needed.", hint=HINT) from None
    try:
        key = keyring.get_password(_SERVICE, _NAME)
        if key is None:
            folder = user_data_path("vibevoice-asr", appauthor=False)
            private.make_folder(folder)
            with private.locked(folder):  # of two first starts, one makes it and both have it
                if keyring.get_password(_SERVICE, _NAME) is None:
                    keyring.set_password(_SERVICE, _NAME, secrets.token_hex(MADE_BYTES))
                key = keyring.get_password(_SERVICE, _NAME)
    except (KeyringError, RuntimeError) as error:
        raise SettingsInvalid(
            f"The keyring of this system gives no key for what is kept: {error}.", hint=HINT
        ) from None
    if not key:
        raise SettingsInvalid("The keyring of this system keeps no key.", hint=HINT)
    return str(key)
