"""TLS by the files that HTTPS has, read again when they change."""

from __future__ import annotations

import grpc

from sidecar.access.certificate import Pair
from sidecar.access.watched import Watch
from sidecar.errors import SettingsInvalid


def credentials_of(pair: Pair, watch: Watch) -> grpc.ServerCredentials:
    """What a server shows; ``watch`` looks at the files.

    Raises:
        errors.SettingsInvalid: one of them cannot be read.
    """
    shown = watch.add("the certificate for gRPC", {pair.certificate, pair.key}, lambda: _read(pair))
    given = shown.value

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        if shown.value is given:
            return None
        given = shown.value
        return given

    return grpc.dynamic_ssl_server_credentials(
        shown.value, fetch, require_client_authentication=False
    )


def _read(pair: Pair) -> grpc.ServerCertificateConfiguration:
    try:
        both = pair.key.read_bytes(), pair.certificate.read_bytes()
    except OSError as error:
        raise SettingsInvalid(f"The certificate cannot be read: {error.strerror}.") from None
    return grpc.ssl_server_certificate_configuration([both])
