"""Access: who may come in, by what they are known, and how much one owner may have."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from sidecar.config.group import Group
from sidecar.config.settings_values import SHORTEST_TOKEN, Words


class Access(Group):
    """The settings of it."""

    token: SecretStr | None = Field(
        None,
        min_length=SHORTEST_TOKEN,
        description=(
            "What a client must send as 'Authorization: Bearer'; none is asked for if unset. No "
            "flag: other programs can read command lines."
        ),
    )
    token_file: Path | None = Field(
        None, description="File with the token, which nobody else may read (0600)."
    )
    token_stdin: bool = Field(
        False, description="Read the token from the first line of standard input."
    )
    generate_token: bool = Field(
        False, description="Make a token at the start and tell it in the ready line."
    )
    token_keys: Path | None = Field(
        None,
        description=(
            "Public keys of signed tokens (JWT, ES256), a folder or a file of PEM; such tokens "
            "count then, and everybody else is refused. If unset: those of 'token create' where "
            "the service listens beyond the loopback, else none."
        ),
    )
    revoked_tokens: Path | None = Field(
        None,
        description=(
            "File with the ids of signed tokens that count no more, read again within 30 s of a "
            "change; 'revoked.txt' beside the folder of keys if unset."
        ),
    )
    allowed_hosts: Words = Field(
        (), description="Names that clients may use for this machine, beside those of the loopback."
    )
    allowed_origins: Words = Field(
        ("tauri://localhost", "http://tauri.localhost", "https://tauri.localhost"),
        description="Web pages that may use the service: the hosts' own.",
    )
    allow_localhost_origins: bool = Field(
        False, description="Whether pages of any server on this machine may (for development)."
    )
    tls: Literal["off", "self-signed"] = Field(
        "off",
        description=(
            "'self-signed' makes a certificate once, keeps it in the data folder, and tells its "
            "SHA-256 fingerprint in the ready line and the log."
        ),
    )
    tls_cert: Path | None = Field(
        None,
        description=(
            "File (PEM) with the certificate and its chain: the service speaks HTTPS. Read again "
            "when it changes; open connections stay."
        ),
    )
    tls_key: Path | None = Field(
        None, description="File (PEM) with its key; in the certificate's file if unset."
    )
    forwarded_allow_ips: Words = Field(
        (),
        description=(
            "Addresses or networks of proxies whose 'X-Forwarded-For' and 'X-Forwarded-Proto' "
            "are believed. What they send on stays a stranger's: it needs a token."
        ),
    )
    limit_requests: int | None = Field(
        None,
        ge=0,
        description=(
            "Requests a minute of one owner, and four times that of one address before it is "
            "known who asks; 0: any number. If unset: any number on the loopback, and 1200 where "
            "others can reach the service."
        ),
    )
    limit_jobs: int | None = Field(
        None,
        ge=0,
        description=(
            "Jobs of one owner at once; 0: any number. If unset: any number, or 32 where others "
            "can reach the service."
        ),
    )
    limit_queued_hours: float | None = Field(
        None,
        ge=0,
        description=(
            "Hours of audio that one owner may have waiting, one recording always; 0: any number. "
            "If unset: any number, or 24 where others can reach the service."
        ),
    )
    limit_upload_mb: int | None = Field(
        None,
        ge=0,
        description=(
            "MB that one owner may upload in an hour; the last upload may go beyond it. 0: any "
            "number. If unset: any number, or 16384 where others can reach the service."
        ),
    )
