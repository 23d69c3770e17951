"""Settings of the process, operations and access."""

import ipaddress
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from sidecar.config import setting_types
from sidecar.config.setting_types import setting

TLS_OFF, TLS_SELF_SIGNED = "off", "self-signed"
ALL_PLUGINS = "all"


MetricsOptions = Annotated[
    tuple[Literal["open", "owners"], ...], NoDecode, BeforeValidator(setting_types.parse_list)
]


@lru_cache  # of each peer it is asked twice in a request
def is_loopback_address(address: str) -> bool:
    """Return whether a listener at the address can be reached from this machine only."""
    if address.lower() == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


class ProcessSettings(setting_types.SettingsGroup):
    """The process: addresses, start and shutdown, files, log."""

    config: setting_types.OptionalPath = setting(
        None,
        "TOML file with these settings. Default: config.toml in the user's configuration folder.",
    )
    host: setting_types.Host = setting(
        "127.0.0.1",
        "Address to listen on; one beyond this machine's loopback needs a token or keys.",
    )
    port: int = setting(8765, "Port to listen on; 0 takes a free one.", ge=0, le=65535)
    if_port_taken: Literal["fail", "reuse", "takeover"] = setting(
        "fail",
        "If another vibevoice-asr uses the port: 'reuse' names that service in the ready line and "
        "exits, if it has this version; 'takeover' stops it; 'fail' ends the start.",
    )
    parent_pid: int | None = setting(
        None,
        "Process to watch: the service stops when it ends. Default: a known host that "
        "started the service.",
        ge=1,
    )
    exit_with_stdin: bool = setting(False, "Stop when standard input is closed.")
    shutdown_grace: setting_types.Duration = setting(
        5.0,  # with all else that a stop takes less than the 10 s of `docker stop`
        "Time for the running job to finish after SIGTERM; one that is kept, and has begun, "
        "goes on at the next start.",
        ge=0,
    )
    data_dir: setting_types.OptionalPath = setting(
        None,
        "Folder for all that the service writes, with the subfolders 'jobs', 'people' and "
        "'voices'. If unset: the user's state folder, and for the subfolders the user's data "
        "folder.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "Lowest severity that is logged, to stderr and the log file."
    )
    log_format: Literal["text", "json"] = setting("text", "Log lines as text or JSON.")
    plugins: setting_types.WordList = setting(
        (ALL_PLUGINS,),
        "Plugins that are on: 'all', or their names; '-NAME' leaves one out (docs/plugins.md).",
    )


class OperationsSettings(setting_types.SettingsGroup):
    """Operations: health, metrics, administration."""

    health_errors: bool | None = setting(
        None,
        "Answer '/health' with 500 while the service is not healthy. If unset: only if "
        "gRPC is on; hosts of the sidecar treat any status but 200 as its end.",
    )
    admin: bool = setting(
        False,
        "Allow loading and unloading of models at '/admin/…' with a token of the scope "
        "'admin' (docs/operations.md).",
    )
    admin_model_roots: setting_types.Folders = setting(
        (), "Folders from which '/admin' may load models; none if unset."
    )
    metrics: MetricsOptions = setting(
        (),
        "'open': '/metrics', '/metrics.json' and '/system' need no token; 'owners': the metrics "
        "have the live sessions of each owner by name, which is personal data; or both.",
    )


class AccessSettings(setting_types.SettingsGroup):
    """Access: tokens, origins, TLS, and limits of an owner."""

    token: Annotated[
        SecretStr | None, setting_types.at_least(setting_types.MIN_TOKEN_CHARACTERS)
    ] = setting(
        None,
        "Token that clients have to send as 'Authorization: Bearer'. As for every secret, '@FILE' "
        "reads it from a file that no other user may read (0600), '@-' from the first line of "
        "standard input; flags take no other form.",
    )
    generate_token: bool = setting(
        False, "Generate a token at the start and write it to the ready line."
    )
    token_keys: setting_types.OptionalPath = setting(
        None,
        "Public keys of signed tokens (JWT, ES256), a folder or a PEM file; the service then "
        "requires such a token. If unset: those of 'token create' beyond the loopback.",
    )
    allowed_hosts: setting_types.WordList = setting(
        (), "Names of this machine that clients may use, beside those of the loopback."
    )
    allowed_origins: setting_types.WordList = setting(
        (
            *("tauri://localhost", "http://tauri.localhost", "https://tauri.localhost"),
            *("app://*", "capacitor://localhost"),
        ),
        "Origins of web pages that may use the service, instead of the default: programs on this "
        "machine ('app://*': every origin of that scheme). 'localhost' is any server on this "
        "machine (for development).",
    )
    tls: setting_types.PathText = setting(
        TLS_OFF,
        "PEM file with the certificate and its chain, for HTTPS; reloaded when it changes. "
        "'self-signed' creates a certificate once in the data folder.",
    )
    tls_key: setting_types.OptionalPath = setting(
        None, "PEM file with the key; in the certificate's file if unset."
    )
    forwarded_allow_ips: setting_types.WordList = setting(
        (),
        "Addresses or networks of proxies whose 'X-Forwarded-For' and 'X-Forwarded-Proto' are "
        "trusted. Forwarded requests need a token.",
    )
    limit_requests: int | None = setting(
        None,
        "Requests a minute of one owner, and four times that of one address before "
        "authentication; 0: unlimited. If unset: 1200 if other machines can reach the service.",
        ge=0,
    )
    limit_jobs: int | None = setting(
        None,
        "Jobs of one owner at once; 0: unlimited. If unset: 32 if other machines can reach the "
        "service.",
        ge=0,
    )
    limit_queued_hours: float | None = setting(
        None,
        "Hours of waiting audio of one owner, one recording always; 0: unlimited. If unset: 24 if "
        "other machines can reach the service.",
        ge=0,
    )
    limit_upload_mb: int | None = setting(
        None,
        "MB that one owner may upload in an hour; the last upload may exceed it; 0: unlimited. If "
        "unset: 16384 if other machines can reach the service.",
        ge=0,
    )
