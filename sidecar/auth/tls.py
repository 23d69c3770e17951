"""TLS certificates, reloaded when files change; the self-signed one: creation, fingerprint.

A handshake uses the certificate of that moment; open connections stay. Clients pin the fingerprint
or the file of the self-signed certificate. So it is renewed only if it is about to expire or lacks
a name that the settings have.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import logging
import re
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar import files
from sidecar.clock import utc_now
from sidecar.config.server_settings import TLS_OFF, TLS_SELF_SIGNED, is_loopback_address
from sidecar.config.settings import Settings
from sidecar.errors import SettingsInvalid
from sidecar.file_watcher import FileWatcher
from sidecar.installation import needed_for
from sidecar.observability.logs import default_data_folder

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

log = logging.getLogger(__name__)

CERTIFICATE_FOLDER = "tls"
"""Subfolder of the data folder."""
MAX_PEM_BYTES = 64 << 10
VALIDITY_DAYS = 3650
"""Ten years, as clients that pin the certificate have to be given every new one."""
RENEWAL_DAYS = 30
_NAME = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
)
_ANYWHERE = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - these are not names of a host


@dataclass(frozen=True, slots=True)
class CertificatePair:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


def certificate_pair_in(folder: Path) -> CertificatePair:
    """Return the files of the self-signed certificate in a folder."""
    return CertificatePair(folder / "certificate.pem", folder / "key.pem")


def certificate_fingerprint(pem: str) -> str:
    """Return the SHA-256 of the first certificate in ``pem``, as `openssl x509 -fingerprint` writes
    it.

    Raises:
        ValueError: ``pem`` has no certificate.
    """
    begin, end = (pem.find(f"-----{word} CERTIFICATE-----") for word in ("BEGIN", "END"))
    if begin < 0 or end < begin:
        raise ValueError("no certificate in PEM")
    der = ssl.PEM_cert_to_DER_cert(pem[begin:end] + ssl.PEM_FOOTER)
    return hashlib.sha256(der).digest().hex(":").upper()


def certificate_names(host: str, allowed_hosts: Iterable[str]) -> frozenset[str]:
    """Return the names and addresses that the certificate must have: those of this machine and
    those of the settings."""
    names = {"localhost", "127.0.0.1", "::1", socket.gethostname(), host, *allowed_hosts}
    named = {name.lower().strip("[]") for name in names} - _ANYWHERE
    return frozenset(name for name in named if _address(name) or _NAME.fullmatch(name))


def ensure_certificate(
    folder: Path,
    names: frozenset[str],
    beside: Iterable[str] = (),
    renewal_days: int = RENEWAL_DAYS,
) -> CertificatePair:
    """Return the certificate in ``folder``; create one if none has all ``names`` or it expires
    within ``renewal_days``.

    ``beside``: further addresses for a new certificate. They may change and cause no renewal.

    Raises:
        errors.SettingsInvalid: it cannot be created or read, or others may read its key.
    """
    files.make_folder(folder)
    pair = certificate_pair_in(folder)
    with files.lock_folder(folder):
        if files.exists(pair.certificate) and files.exists(pair.key):
            files.read(pair.key, MAX_PEM_BYTES, private=True)
            if (lacks := _renewal_reason(pair, names, renewal_days)) is None:
                return pair
            log.warning(
                "the self-signed certificate is renewed, with a new fingerprint that clients "
                "have to trust: the old one %s",
                lacks,
            )
        _create_certificate(pair, names | frozenset(beside))
    return pair


def _renewal_reason(pair: CertificatePair, names: frozenset[str], renewal_days: int) -> str | None:
    """Return why a certificate has to be renewed, or `None` if it need not be."""
    with needed_for("Certificates of our own"):
        from cryptography import x509
    try:
        certificate = x509.load_pem_x509_certificate(files.read(pair.certificate, MAX_PEM_BYTES))
        names_in_it = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except (ValueError, x509.ExtensionNotFound):
        return "cannot be read"
    if certificate.not_valid_after_utc < utc_now() + datetime.timedelta(days=renewal_days):
        return "is about to expire"
    has = {*names_in_it.get_values_for_type(x509.DNSName)}
    has |= {str(address) for address in names_in_it.get_values_for_type(x509.IPAddress)}
    missing = {str(_address(name) or name) for name in names} - has
    return f"has not the name {min(missing)}" if missing else None


def write_private_key(file: Path, key: EllipticCurvePrivateKey) -> None:
    """Write a key in PEM, for this user only."""
    from cryptography.hazmat.primitives import serialization as to

    files.write(file, key.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.NoEncryption()))


def _create_certificate(pair: CertificatePair, names: frozenset[str]) -> None:
    with needed_for("Certificates of our own"):
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vibevoice-asr")])
    subject_names: list[x509.GeneralName] = [
        x509.IPAddress(address) if (address := _address(name)) else x509.DNSName(name)
        for name in sorted(names)
    ]
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False,
    )  # fmt: skip
    serves = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH])
    public = key.public_key()
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(utc_now() - datetime.timedelta(days=1))
        .not_valid_after(utc_now() + datetime.timedelta(days=VALIDITY_DAYS))
        .add_extension(x509.SubjectAlternativeName(subject_names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
        .add_extension(serves, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private_key(pair.key, key)
    files.write(pair.certificate, made.public_bytes(serialization.Encoding.PEM), files.PUBLIC)


def _address(name: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a name is, or `None`; one with a zone is none."""
    try:
        return None if "%" in name else ipaddress.ip_address(name)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Server side of TLS."""

    context: ssl.SSLContext
    pair: CertificatePair
    """Files of the certificate and the key."""
    fingerprint: str | None
    """SHA-256 fingerprint of a self-signed certificate, else `None`."""


def create_tls(settings: Settings, watcher: FileWatcher) -> ServerTls | None:
    """Create the TLS configuration, or return `None` if TLS is off; ``watcher`` reloads the files.

    Raises:
        errors.SettingsInvalid: the settings contradict each other, or a file cannot be used.
    """
    pair = _configured_certificate(settings)
    own = settings.tls == TLS_SELF_SIGNED
    if own:
        pair = ensure_certificate(
            _folder(settings),
            certificate_names(settings.host, settings.allowed_hosts),
            [] if is_loopback_address(settings.host) else _addresses(),
        )
    if pair is None:
        return None
    pem = pair.certificate.read_text("ascii") if own else None
    fingerprint = certificate_fingerprint(pem) if pem else None
    return ServerTls(_create_ssl_context(pair, watcher), pair, fingerprint)


def local_fingerprint(settings: Settings) -> str | None:
    """Return the fingerprint of the certificate that a service with these settings uses.

    `None` if it uses none, or if the file cannot be read.
    """
    pair = _configured_certificate(settings)
    file = pair.certificate if pair else None
    if settings.tls == TLS_SELF_SIGNED:
        file = certificate_pair_in(_folder(settings)).certificate
    try:
        if file is None or not file.is_file():  # reading a pipe would block
            return None
        return certificate_fingerprint(file.read_text("ascii"))
    except (OSError, ValueError):
        return None


def self_signed_fingerprint(settings: Settings, certificate: bytes) -> str | None:
    """Return the fingerprint of a certificate (DER), if it is the self-signed one of services with
    this data folder; `None` for any other: a program at the port may have any."""
    own = local_fingerprint(settings.model_copy(update={"tls": TLS_SELF_SIGNED, "tls_key": None}))
    fingerprint = certificate_fingerprint(ssl.DER_cert_to_PEM_cert(certificate))
    return own if own == fingerprint else None


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
    return data / CERTIFICATE_FOLDER


def _create_ssl_context(pair: CertificatePair, watcher: FileWatcher) -> ssl.SSLContext:
    """Return the context with which every connection starts.

    Before the handshake sends the certificate, the context that was read last replaces it. So a
    pair is replaced as a whole, and a broken pair is never used.
    """
    paths = {pair.certificate, pair.key}
    current = watcher.add("the certificate for TLS", paths, lambda: _read_certificate(pair))

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
        files.check_regular(file)  # OpenSSL would block on a pipe
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
            hint="Use PEM files: the certificate with its chain in one, the matching key in the "
            "other.",
        ) from None
    return context


def _addresses() -> list[str]:
    """Return the current IP addresses of this machine; none where the service may not ask."""
    import psutil

    try:
        found = psutil.net_if_addrs()
    except OSError as error:  # the systemd unit of a release before: AF_NETLINK is missing in it
        log.warning("a new certificate has no addresses of this machine: %s", error.strerror)
        return []
    families = {socket.AF_INET, socket.AF_INET6}
    return [
        one.address
        for each in found.values()
        for one in each
        if one.family in families and "%" not in one.address
    ]
