"""which certificate is trusted: one that the system vouches for, or one that is known."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import socket
import ssl
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional, Union
from urllib.parse import urlsplit

from vibevoice_asr_client.errors import (
    CertificateRefused,
    InsecureWarning,
    ServiceUnreachable,
    TrustInvalid,
)

TIMEOUT_S = 10.0
HINT = "Name its certificate or its fingerprint, as the service's ready line and log have it."
_HTTPS_PORT = 443
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PARTIAL_CHAIN = 0x80000
"""X509_V_FLAG_PARTIAL_CHAIN: a certificate that was named is enough (`ssl` names it from 3.10)."""


@dataclass(frozen=True)
class Trust:
    """By a file of certificates (PEM), by the SHA-256 of the service's own, or by nothing."""

    ca_cert: Union[str, Path, None] = None
    fingerprint: Optional[str] = None
    insecure: bool = False

    def __post_init__(self) -> None:
        """Refuse two at once.

        Raises:
            TrustInvalid: more than one was given, or it is no fingerprint.
        """
        if sum(map(bool, (self.ca_cert, self.fingerprint, self.insecure))) > 1:
            raise TrustInvalid(
                "Only one of a file of certificates, a fingerprint and none at all can hold.",
                hint="Keep the one that is meant.",
            )
        if self.fingerprint is not None and not _SHA256.fullmatch(_plain(self.fingerprint)):
            raise TrustInvalid(
                f"'{self.fingerprint}' is no SHA-256 fingerprint.",
                hint="64 hexadecimal digits, with colons or without.",
            )

    @property
    def given(self) -> bool:
        """Whether anything was said; else it is as the system has it."""
        return self != Trust()

    def context(self, url: str) -> Optional[ssl.SSLContext]:
        """What to connect to ``url`` with; None: as the system has it. May ask the service.

        Raises:
            TrustInvalid: the file holds no certificates, or nothing is encrypted.
            ServiceUnreachable: nobody answers there.
            CertificateRefused: somebody with another certificate does.
        """
        if urlsplit(url).scheme != "https":
            if self.given:
                raise TrustInvalid(
                    f"Nothing is encrypted on the way to {url}.",
                    hint="Its address begins https://.",
                )
            return None
        if self.insecure:
            warnings.warn(
                "Any certificate is accepted: recordings go to whatever server answers.",
                InsecureWarning,
                stacklevel=2,
            )
            return _context(ssl.CERT_NONE)
        if self.ca_cert is not None:
            context = _context(ssl.CERT_REQUIRED, names=True)
            try:
                context.load_verify_locations(self.ca_cert)
            except OSError as error:  # ssl.SSLError is one
                why = error.strerror or "no certificates"
                raise TrustInvalid(
                    f"The file {self.ca_cert} cannot be used: {why}.",
                    hint="Name a PEM file with the service's certificate, or with its authority's.",
                ) from None
            return context
        if self.fingerprint is not None:
            # It is fetched first, and then the only one that is trusted: what answers the
            # second time must have its key.
            context = _context(ssl.CERT_REQUIRED)
            context.load_verify_locations(cadata=self._checked(_shown(url), url))
            return context
        return None

    def _checked(self, der: bytes, url: str) -> bytes:
        found = hashlib.sha256(der).hexdigest()
        if not hmac.compare_digest(found, _plain(self.fingerprint or "")):
            shown = ":".join(found[at : at + 2] for at in range(0, len(found), 2)).upper()
            raise CertificateRefused(
                f"What answers at {url} has another certificate: {shown}.",
                hint="Somebody may intercept the connection, or it has a new one: see its log.",
            )
        return der


def forget_unusable_key_log() -> str:
    """Unset a `SSLKEYLOGFILE` that cannot be opened, as antivirus programs leave one: every TLS
    context of the process would fail, also that of httpx for plain HTTP. What to say of it."""
    path = os.environ.get("SSLKEYLOGFILE")
    try:
        if path:
            open(path, "ab").close()
        return ""
    except OSError as error:
        del os.environ["SSLKEYLOGFILE"]
        return f"SSLKEYLOGFILE={path} is ignored: {error.strerror}."


def refusal(error: Optional[BaseException]) -> Optional[str]:
    """Why a certificate was refused, where that is what lies behind ``error``."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return None


_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")
"""What OpenSSL says of an answer that is plain text. Of any other failure nobody is told to send a
token without encryption."""


def unreachable(url: str, error: Optional[BaseException]) -> ServiceUnreachable:
    """What is said of an address where no connection came about, with the reason if it is known."""
    begin = f"No service answers at {url}"
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return ServiceUnreachable(f"{begin}: the name is not found.")
        if isinstance(cause, ConnectionRefusedError):
            return ServiceUnreachable(f"{begin}: the connection is refused.")
        if isinstance(cause, ssl.SSLError):
            if cause.reason in _NO_TLS:
                hint = "Try the address with http://."
                return ServiceUnreachable(f"{begin}: what is there speaks no TLS.", hint=hint)
            return ServiceUnreachable(f"{begin}: the TLS handshake failed ({cause.reason}).")
        if isinstance(cause, TimeoutError):
            return ServiceUnreachable(f"{begin}: the connection timed out.")
    return ServiceUnreachable(f"{begin}.")


def _causes(error: Optional[BaseException]) -> Iterator[BaseException]:
    """An error and all that lies behind it; attempts at several addresses are a group."""
    while error is not None:
        yield error
        for one in getattr(error, "exceptions", ()):
            yield from _causes(one)
        error = error.__cause__ or error.__context__


def _context(mode: ssl.VerifyMode, *, names: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = names
    context.verify_mode = mode
    context.verify_flags = ssl.VerifyFlags(context.verify_flags | _PARTIAL_CHAIN)
    return context


def _shown(url: str) -> bytes:
    """The certificate that whoever answers at ``url`` shows, in DER."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        with socket.create_connection((host, parts.port or _HTTPS_PORT), TIMEOUT_S) as plain:
            with _context(ssl.CERT_NONE).wrap_socket(plain, server_hostname=host) as encrypted:
                return encrypted.getpeercert(binary_form=True) or b""
    except (OSError, ValueError) as error:
        why = "speaks no TLS" if isinstance(error, ssl.SSLError) else "does not answer"
        raise ServiceUnreachable(f"What should be at {url} {why}.") from None


def _plain(fingerprint: str) -> str:
    return fingerprint.replace(":", "").strip().lower()
