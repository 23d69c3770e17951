"""TLS certificates, reloaded when files change.

A handshake uses the certificate of that moment; open connections stay.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

from sidecar import files as sidecar_files
from sidecar.auth import self_signed_certificate
from sidecar.auth.request_origin import is_loopback_address
from sidecar.auth.self_signed_certificate import CertificatePair
from sidecar.config.server_settings import TLS_OFF, TLS_SELF_SIGNED
from sidecar.config.settings import Settings
from sidecar.errors import SettingsInvalid
from sidecar.file_watcher import FileWatcher
from sidecar.observability.logs import default_data_folder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Server side of TLS."""

    context: ssl.SSLContext
    pair: CertificatePair
    """Files of the certificate and the key."""
    fingerprint: str | None
    """SHA-256 fingerprint of a self-signed certificate, else `None`."""


def create_tls(settings: Settings, watch: FileWatcher) -> ServerTls | None:
    """Create the TLS configuration, or return `None` if TLS is off; ``watch`` reloads the files.

    Raises:
        errors.SettingsInvalid: the settings contradict each other, or a file cannot be used.
    """
    pair = _configured_certificate(settings)
    own = settings.tls == TLS_SELF_SIGNED
    if own:
        pair = self_signed_certificate.ensure_certificate(
            _folder(settings),
            self_signed_certificate.certificate_names(settings.host, settings.allowed_hosts),
            [] if is_loopback_address(settings.host) else _addresses(),
        )
    if pair is None:
        return None
    pem = pair.certificate.read_text("ascii") if own else None
    fingerprint = self_signed_certificate.certificate_fingerprint(pem) if pem else None
    return ServerTls(_create_ssl_context(pair, watch), pair, fingerprint)


def local_fingerprint(settings: Settings) -> str | None:
    """Return the fingerprint of the certificate that a service with these settings uses.

    `None` if it uses none, or if the file cannot be read.
    """
    pair = _configured_certificate(settings)
    file = pair.certificate if pair else None
    if settings.tls == TLS_SELF_SIGNED:
        file = self_signed_certificate.certificate_pair_in(_folder(settings)).certificate
    try:
        if file is None or not file.is_file():  # reading a pipe would block
            return None
        return self_signed_certificate.certificate_fingerprint(file.read_text("ascii"))
    except (OSError, ValueError):
        return None


def self_signed_fingerprint(settings: Settings, certificate: bytes) -> str | None:
    """Return the fingerprint of a certificate (DER), if it is the self-signed one of services with
    this data folder; `None` for any other: a program at the port may have any."""
    own = local_fingerprint(settings.model_copy(update={"tls": TLS_SELF_SIGNED, "tls_key": None}))
    found = self_signed_certificate.certificate_fingerprint(ssl.DER_cert_to_PEM_cert(certificate))
    return own if own == found else None


def _configured_certificate(settings: Settings) -> CertificatePair | None:
    if settings.tls in (TLS_OFF, TLS_SELF_SIGNED):
        if settings.tls_key is not None:
            raise SettingsInvalid("--tls-key is set without a certificate (--tls FILE).")
        return None
    certificate = Path(settings.tls)
    return CertificatePair(certificate, settings.tls_key or certificate)


def _folder(settings: Settings) -> Path:
    data = default_data_folder(settings.data_dir)
    if data is None:
        raise SettingsInvalid(
            "There is no folder for the self-signed certificate.", hint="Set --data-dir."
        )
    return data / self_signed_certificate.CERTIFICATE_FOLDER


def _create_ssl_context(pair: CertificatePair, watch: FileWatcher) -> ssl.SSLContext:
    """Return the context with which every connection starts.

    Before the handshake sends the certificate, the context that was read last replaces it. So a
    pair is replaced as a whole, and a broken pair is never used.
    """
    files = {pair.certificate, pair.key}
    current = watch.add("the certificate for TLS", files, lambda: _read_certificate(pair))

    def take_over(connection: ssl.SSLObject, name: str | None, first: ssl.SSLContext) -> None:
        connection.context = current.value

    context = _read_certificate(pair)
    context.sni_callback = take_over
    return context


def _read_certificate(pair: CertificatePair) -> ssl.SSLContext:
    """Return an SSL context with the pair.

    Raises:
        errors.SettingsInvalid: it cannot be used; the message has the reason.
    """
    for file in (pair.certificate, pair.key):
        sidecar_files.check_regular(file)  # OpenSSL would block on a pipe
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    encrypted = False

    def password() -> str:
        nonlocal encrypted
        encrypted = True  # without a password callback, OpenSSL would prompt on the terminal
        return ""

    try:
        context.load_cert_chain(pair.certificate, pair.key, password)
    except OSError as error:  # includes ssl.SSLError
        reason = getattr(error, "reason", None) or error.strerror or str(error)
        why = "the key has a password" if encrypted else reason.lower().replace("_", " ")
        raise SettingsInvalid(
            f"The certificate {pair.certificate} with the key {pair.key} cannot be used: {why}.",
            hint=(
                "Use PEM files: the certificate with its chain in one, the matching key in the "
                "other."
            ),
        ) from None
    return context


def _addresses() -> list[str]:
    """Return the current IP addresses of this machine."""
    import socket

    import psutil

    families = {socket.AF_INET, socket.AF_INET6}
    return [
        one.address
        for each in psutil.net_if_addrs().values()
        for one in each
        if one.family in families and "%" not in one.address
    ]
