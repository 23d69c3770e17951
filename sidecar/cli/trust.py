"""Which certificate our own client believes: one that the system vouches for, or one it knows."""

from __future__ import annotations

import asyncio
import hmac
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sidecar import errors
from sidecar.cli.said import say

if TYPE_CHECKING:
    from sidecar.settings import Settings

TIMEOUT_S = 10.0
_HTTPS_PORT = 443
_SHA256 = re.compile(r"[0-9a-f]{64}")
HINT = "Give --ca-cert FILE or --fingerprint SHA256, as the service's ready line and log have it."


@dataclass(frozen=True, slots=True)
class Trust:
    """By a file of certificates, by the SHA-256 of the service's own, or by nothing."""

    ca_cert: Path | None = None
    fingerprint: str | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        """Refuse two at once.

        Raises:
            errors.SettingsInvalid: more than one was given, or it is no fingerprint.
        """
        if sum(map(bool, (self.ca_cert, self.fingerprint, self.insecure))) > 1:
            raise errors.SettingsInvalid(
                "Only one of --ca-cert, --fingerprint and --insecure can hold.",
                hint="Keep the one that is meant.",
            )
        if self.fingerprint is not None and not _SHA256.fullmatch(_plain(self.fingerprint)):
            raise errors.SettingsInvalid(
                f"'{self.fingerprint}' is no SHA-256 fingerprint.",
                hint="64 hexadecimal digits, with colons or without.",
            )

    @property
    def given(self) -> bool:
        """Whether anything was said; else it is as the system has it."""
        return self != Trust()

    async def context(self, url: str) -> ssl.SSLContext | None:
        """What to connect to ``url`` with; None: as the system has it.

        Raises:
            errors.SettingsInvalid: the file holds no certificates.
            errors.ServiceUnreachable: nobody answers there, or somebody with another certificate.
        """
        if urlsplit(url).scheme != "https":
            if self.given:
                raise errors.SettingsInvalid(
                    f"Nothing is encrypted on the way to {url}.",
                    hint="Its address begins https://.",
                )
            return None
        if self.insecure:
            say("warning: --insecure: whoever answers is believed, and gets the recordings.")
            return _context(ssl.CERT_NONE)
        if self.ca_cert is not None:
            context = _context(ssl.CERT_REQUIRED, names=True)
            try:
                context.load_verify_locations(self.ca_cert)
            except OSError as error:  # ssl.SSLError is one
                why = error.strerror or "no certificates"
                raise errors.SettingsInvalid(
                    f"The file {self.ca_cert} cannot be used: {why}.",
                    hint="PEM: the service's certificate, or that of who signed it.",
                ) from None
            return context
        if self.fingerprint is not None:
            # It is fetched first, and then the only one that is believed: whoever answers the
            # second time must have its key.
            pem = await asyncio.to_thread(_shown, url)
            context = _context(ssl.CERT_REQUIRED)
            context.load_verify_locations(cadata=self._checked(pem, url))
            return context
        return None

    def _checked(self, pem: str, url: str) -> str:
        from sidecar.access.certificate import fingerprint

        found = fingerprint(pem)
        if not hmac.compare_digest(_plain(found), _plain(self.fingerprint or "")):
            raise errors.ServiceUnreachable(
                f"What answers at {url} has another certificate: {found}.",
                hint="Somebody may be in between; or the service made a new one, as its log says.",
            )
        return pem


def of_settings(settings: Settings) -> Trust:
    """For the service of this machine, that the settings tell of: by any name, its certificate."""
    from sidecar.host.tls import fingerprint_here

    return Trust(fingerprint=fingerprint_here(settings))


def refusal(error: BaseException | None) -> str | None:
    """Why a certificate was refused, where that is what lies behind ``error``."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return None


def _context(mode: ssl.VerifyMode, *, names: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = names
    context.verify_mode = mode
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a certificate that was named is enough
    return context


def _shown(url: str) -> str:
    """The certificate that whoever answers at ``url`` shows, as PEM."""
    parts = urlsplit(url)
    try:
        where = (parts.hostname or "", parts.port or _HTTPS_PORT)
        return ssl.get_server_certificate(where, timeout=TIMEOUT_S)
    except (OSError, ValueError) as error:
        why = "speaks no TLS" if isinstance(error, ssl.SSLError) else "does not answer"
        raise errors.ServiceUnreachable(f"What should be at {url} {why}.") from None


def _plain(fingerprint: str) -> str:
    return fingerprint.replace(":", "").strip().lower()
