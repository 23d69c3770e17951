"""The extra `auth`: packages that only signed tokens and certificates of our own need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sidecar.errors import SettingsInvalid
from sidecar.version import is_frozen


@contextmanager
def needed_for(what: str) -> Iterator[None]:
    """Around the imports of them.

    Raises:
        errors.SettingsInvalid: they are not installed; the hint has the command.
    """
    try:
        yield
    except ImportError as error:
        raise SettingsInvalid(
            f"{what} need a package that is not installed: {error.name or error}.",
            hint="This executable has it not; install the package from Python."
            if is_frozen()
            else "pip install 'vibevoice-asr[auth]'",
        ) from None
