"""Extras: packages that not everybody needs. `auth`: signed tokens, certificates of our own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sidecar.errors import SettingsInvalid
from sidecar.version import is_frozen


@contextmanager
def needed_for(what: str, extra: str = "auth") -> Iterator[None]:
    """Around the imports of those that ``what`` need.

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
            else f"pip install 'vibevoice-asr[{extra}]'",
        ) from None
