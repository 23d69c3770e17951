"""Self-signed certificate: creation, fingerprint, loading.

Clients pin its fingerprint or its file. So it is renewed only if it is about to expire or lacks a
name that the settings have.
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

from sidecar import files
from sidecar.clock import utc_now
from sidecar.installation import needed_for

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
    folder: Path, names: frozenset[str], beside: Iterable[str] = ()
) -> CertificatePair:
    """Return the certificate in ``folder``; create one if none has all ``names`` or it expires
    soon.

    ``beside``: further addresses for a new certificate. They may change and cause no renewal.

    Raises:
        errors.SettingsInvalid: it cannot be created or read, or others may read its key.
    """
    files.make_folder(folder)
    pair = certificate_pair_in(folder)
    with files.lock_folder(folder):
        if pair.certificate.exists() and pair.key.exists():
            files.read(pair.key, MAX_PEM_BYTES, private=True)
            if (lacks := _renewal_reason(pair, names)) is None:
                return pair
            log.warning(
                "the self-signed certificate is renewed, with a new fingerprint that clients "
                "have to trust: the old one %s",
                lacks,
            )
        _create_certificate(pair, names | frozenset(beside))
    return pair


def _renewal_reason(pair: CertificatePair, names: frozenset[str]) -> str | None:
    """Return why a certificate has to be renewed, or `None` if it need not be."""
    with needed_for("Certificates of our own"):
        from cryptography import x509
    try:
        found = x509.load_pem_x509_certificate(files.read(pair.certificate, MAX_PEM_BYTES))
        names_in_it = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return "cannot be read"
    if found.not_valid_after_utc < utc_now() + datetime.timedelta(days=RENEWAL_DAYS):
        return "is about to expire"
    has = {*names_in_it.get_values_for_type(x509.DNSName)}
    has |= {str(address) for address in names_in_it.get_values_for_type(x509.IPAddress)}
    missing = {str(_address(name) or name) for name in names} - has
    return f"has not the name {min(missing)}" if missing else None


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
        .add_extension(
            x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    files.write(
        pair.key,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    files.write(pair.certificate, made.public_bytes(serialization.Encoding.PEM), files.PUBLIC)


def _address(name: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a name is, or `None`; one with a zone is none."""
    try:
        return None if "%" in name else ipaddress.ip_address(name)
    except ValueError:
        return None
