"""Which certificate our own client believes, as the flags and the settings say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vibevoice_asr_client import Trust, TrustInvalid

from sidecar import errors

if TYPE_CHECKING:
    from sidecar.config.settings import Settings

HINT = "Give --ca-cert FILE or --fingerprint SHA256, as the service's ready line and log have it."


def of_flags(ca_cert: Path | None, fingerprint: str | None, insecure: bool) -> Trust:
    """As the command line says.

    Raises:
        errors.SettingsInvalid: it says two things at once, or what is no fingerprint.
    """
    if sum(map(bool, (ca_cert, fingerprint, insecure))) > 1:
        raise errors.SettingsInvalid(
            "Only one of --ca-cert, --fingerprint and --insecure can hold.",
            hint="Keep the one that is meant.",
        )
    try:
        return Trust(ca_cert, fingerprint, insecure)
    except TrustInvalid as error:
        raise errors.SettingsInvalid(error.detail, hint=error.hint) from None


def of_settings(settings: Settings) -> Trust:
    """For the service of this machine, that the settings tell of: by any name, its certificate."""
    from sidecar.server.tls import fingerprint_here

    return Trust(fingerprint=fingerprint_here(settings))
