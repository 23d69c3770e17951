"""Settings of the process, operations, access and Wyoming."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from sidecar.config import secret_settings, setting_types
from sidecar.config.setting_types import setting

TLS_OFF, TLS_SELF_SIGNED = "off", "self-signed"


MetricsOptions = Annotated[
    tuple[Literal["open", "owners"], ...], NoDecode, BeforeValidator(setting_types.parse_list)
]


class ProcessSettings(setting_types.SettingsGroup):
    """The process: where it listens, with whom it lives and ends, where it leaves its log."""

    config: Path | None = setting(None, "File with settings: TOML with these names.")
    host: str = setting(
        "127.0.0.1",
        "Address to listen on; one beyond this machine's loopback needs a token or keys.",
    )
    port: int = setting(8765, "Port to listen on; 0 takes a free one.", ge=0, le=65535)
    if_port_taken: Literal["fail", "reuse", "takeover"] = setting(
        "fail",
        "Where another vibevoice-asr has the port: 'reuse' says so in the ready line and leaves "
        "it to that one, if it is of this version, else does as 'fail'; 'takeover' stops it, of "
        "whatever version, and takes its place; 'fail' ends the start.",
    )
    parent_pid: int | None = setting(
        None,
        "Process to go with: the service ends when it does. Hosts that are known by their "
        "environment are watched without it.",
        ge=1,
    )
    exit_with_stdin: bool = setting(
        False, "End when standard input is closed, as it is when the host ends."
    )
    shutdown_grace: setting_types.Duration = setting(
        10.0, "How long the running job may go on after the order to stop.", ge=0
    )
    data_dir: Path | None = setting(
        None,
        "Folder for all that the service writes: the log file, notes of crashes, its certificate "
        "and tokens; in folders of their own, what is kept where a setting says so: 'jobs', "
        "'people' and 'captures', encrypted, and 'voices'. If unset: the user's state folder, and "
        "for the latter the user's data folder.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "Least severity that is logged (to stderr and the log file)."
    )
    log_format: Literal["text", "json"] = setting(
        "text", "Lines of text, or of JSON, on stderr and in the log file."
    )


class OperationsSettings(setting_types.SettingsGroup):
    """Operations: when the service is healthy, who looks at it, and who changes it."""

    health_errors: bool | None = setting(
        None,
        "Whether '/health' answers 500 while the service is not healthy. If unset: where gRPC is "
        "served; hosts of the sidecar take anything but 200 for its end.",
    )
    admin: bool = setting(
        False,
        "Whether models can be loaded and exchanged at '/admin/…' by who has a token with the "
        "scope 'admin' (docs/operations.md).",
    )
    admin_model_roots: setting_types.Folders = setting(
        (), "Folders from which models may be loaded there; none if unset."
    )
    metrics: MetricsOptions = setting(
        (),
        "'open': '/metrics', '/metrics.json' and '/system' are answered without a token where one "
        "is asked for elsewhere; 'owners': the metrics have the live sessions of each owner, by "
        "name, which is personal data, and a label for each; or both.",
    )


class AccessSettings(setting_types.SettingsGroup):
    """Access: who may come in, by what they are known, and how much one owner may have."""

    token: Annotated[
        SecretStr | None, secret_settings.at_least(secret_settings.MIN_TOKEN_CHARACTERS)
    ] = setting(
        None,
        "What a client must send as 'Authorization: Bearer'; none is asked for if unset. As every "
        "secret: '@FILE' is what a file has that nobody else may read (0600), '@-' the first line "
        "of standard input. Flags take no other: other programs can read command lines.",
    )
    generate_token: bool = setting(
        False, "Make a token at the start and tell it in the ready line."
    )
    token_keys: Path | None = setting(
        None,
        "Public keys of signed tokens (JWT, ES256), a folder or a file of PEM; such tokens count "
        "then, and everybody else is refused. If unset: those of 'token create' where the service "
        "listens beyond the loopback, else none.",
    )
    allowed_hosts: setting_types.WordList = setting(
        (), "Names that clients may use for this machine, beside those of the loopback."
    )
    allowed_origins: setting_types.WordList = setting(
        (
            *("tauri://localhost", "http://tauri.localhost", "https://tauri.localhost"),
            *("app://*", "capacitor://localhost"),
        ),
        "Web pages that may use the service: those of programs on this machine, as Tauri, "
        "Electron ('app://*' is every origin of that scheme, which no web page can have) and "
        "Capacitor name them; 'localhost' is those of any server on this machine (for "
        "development). What is set replaces these.",
    )
    tls: str = setting(
        TLS_OFF,
        "A file (PEM) with the certificate and its chain: the service speaks HTTPS. Read again "
        "when it changes; open connections stay. 'self-signed' makes a certificate once, keeps it "
        "in the data folder, and tells its SHA-256 fingerprint in the ready line and the log. "
        "'off' is no HTTPS.",
    )
    tls_key: Path | None = setting(
        None, "File (PEM) with its key; in the certificate's file if unset."
    )
    forwarded_allow_ips: setting_types.WordList = setting(
        (),
        "Addresses or networks of proxies whose 'X-Forwarded-For' and 'X-Forwarded-Proto' are "
        "believed. What they send on stays a stranger's: it needs a token.",
    )
    limit_requests: int | None = setting(
        None,
        "Requests a minute of one owner, and four times that of one address before it is known "
        "who asks; 0: any number. If unset: any number on the loopback, and 1200 where others can "
        "reach the service.",
        ge=0,
    )
    limit_jobs: int | None = setting(
        None,
        "Jobs of one owner at once; 0: any number. If unset: any number, or 32 where others can "
        "reach the service.",
        ge=0,
    )
    limit_queued_hours: float | None = setting(
        None,
        "Hours of audio that one owner may have waiting, one recording always; 0: any number. If "
        "unset: any number, or 24 where others can reach the service.",
        ge=0,
    )
    limit_upload_mb: int | None = setting(
        None,
        "MB that one owner may upload in an hour; the last upload may go beyond it. 0: any "
        "number. If unset: any number, or 16384 where others can reach the service.",
        ge=0,
    )


class WyomingSettings(setting_types.SettingsGroup):
    """Wyoming: Home Assistant's protocol, and who may speak it here."""

    wyoming_port: int | None = setting(
        None,
        "Port for Wyoming, on the same address as HTTP (docs/wyoming.md); 0 takes a free one, "
        "which the ready line tells. There is none if unset.",
        ge=0,
        le=65535,
    )
    wyoming_clients: setting_types.WordList = setting(
        (),
        "Addresses or networks whose Wyoming clients need no token, as that protocol has none. If "
        "unset: this machine, where nobody needs one.",
    )
