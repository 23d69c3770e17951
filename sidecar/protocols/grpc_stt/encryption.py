"""TLS by the files that HTTPS has, and certificates of clients: read again when they change."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from sidecar import private
from sidecar.auth.self_signed_certificate import Pair
from sidecar.errors import SettingsInvalid
from sidecar.watched import Watch


def credentials_of(pair: Pair, watch: Watch, clients: Path | None = None) -> grpc.ServerCredentials:
    """What a server shows, and whose certificates it asks of clients: of those that ``clients``
    vouch for, of nobody's where that is None. ``watch`` looks at the files.

    Raises:
        errors.SettingsInvalid: one of them cannot be read.
    """
    files = {pair.certificate, pair.key} | ({clients} if clients else set())
    shown = watch.add("the certificates for gRPC", files, lambda: _read(pair, clients))
    given = shown.value

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        if shown.value is given:
            return None
        given = shown.value
        return given

    return grpc.dynamic_ssl_server_credentials(
        shown.value, fetch, require_client_authentication=clients is not None
    )


def _read(pair: Pair, clients: Path | None) -> grpc.ServerCertificateConfiguration:
    try:
        both = pair.key.read_bytes(), pair.certificate.read_bytes()
    except OSError as error:
        raise SettingsInvalid(f"The certificate cannot be read: {error.strerror}.") from None
    return grpc.ssl_server_certificate_configuration([both], clients and _vouching(clients))


def _vouching(clients: Path) -> bytes:
    """Looked at here: gRPC takes whatever is given, and then lets nobody in."""
    private.check_regular(clients)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(clients)
        return clients.read_bytes()
    except OSError as error:  # ssl.SSLError is one
        why = getattr(error, "reason", None) or error.strerror or str(error)
        raise SettingsInvalid(
            f"{clients} has no certificate that can be used: {why.lower().replace('_', ' ')}.",
            hint="PEM: the certificates of those who vouch for clients, one behind the other.",
        ) from None
