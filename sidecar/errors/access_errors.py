"""Access and process: errors of authentication, limits, settings, port, disk, missing extras."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sidecar.errors.error_base import ErrorKind, LimitExceeded, SidecarError, Unauthorized
from sidecar.version import install_command


class HostNotAllowed(SidecarError, code="host_not_allowed", kind=ErrorKind.FORBIDDEN):
    """Host header that is not allowed: a web page may have rebound its own name (DNS rebinding)."""

    default_detail = "The Host header is not an allowed name of this service."
    default_hint = "Use 127.0.0.1 or localhost, or add the name to the setting 'allowed_hosts'."


class PeerNotAllowed(SidecarError, code="peer_not_allowed", kind=ErrorKind.FORBIDDEN):
    """Client on another machine or behind a proxy, while the service has no token."""

    default_detail = (
        "Without a token this service accepts direct connections from its own machine only."
    )
    default_hint = (
        "Start the service with VIBEVOICE_TOKEN (or --token @FILE) and send that token as Bearer."
    )


class OriginNotAllowed(SidecarError, code="origin_not_allowed", kind=ErrorKind.FORBIDDEN):
    """Web page of an origin that is not allowed."""

    default_detail = "Web pages of this origin may not use this service."
    default_hint = (
        "If the page is yours, set 'allowed_origins' to its origin and to those of the default "
        "that you need."
    )


class TokenMissing(Unauthorized, code="token_missing"):
    """Request without a token, to a service that requires one."""

    default_detail = "This service requires a token."
    default_hint = (
        "Send 'Authorization: Bearer' with the token of the service, or with a signed one."
    )


class TokenInvalid(Unauthorized, code="token_invalid"):
    """Token that is neither the token of the service nor a valid signed one."""

    default_detail = "The token is not valid for this service."
    default_hint = (
        "A restarted service may have a new token: read its ready line again. A signed "
        "token may have expired or been revoked."
    )


class LinkInvalid(Unauthorized, code="link_invalid"):
    """Code of a sign-in link that was used, has expired or is unknown."""

    default_detail = "This link is not valid any more: it opens the page once, within two minutes."
    default_hint = "Get a new link: vibevoice-asr open"


class TicketInvalid(Unauthorized, code="ticket_invalid"):
    """Ticket of a live connection that was used, has expired or is unknown."""

    default_detail = "This ticket is not valid any more: it opens one connection, within minutes."
    default_hint = "Get a new ticket: POST /v1/live/ticket"


class ScopeMissing(SidecarError, code="scope_missing", kind=ErrorKind.FORBIDDEN):
    """Valid token without the scope of this operation."""

    default_detail = "The token lacks the scope for this operation."
    default_hint = "Ask the administrator for a token with that scope."


class RateLimited(LimitExceeded, code="rate_limited"):
    """Too many requests."""

    default_detail = "Too many requests in a short time."


class JobsLimited(LimitExceeded, code="jobs_limited"):
    """Limit of jobs of one owner."""

    default_detail = "You have reached the limit of waiting and running jobs for one owner."
    default_hint = "Wait until one of them has ended, or cancel one."


class AudioLimited(LimitExceeded, code="audio_limited"):
    """Limit of waiting audio of one owner."""

    default_detail = "You have reached the limit of waiting audio for one owner."
    default_hint = "Wait until some of it is transcribed."


class UploadsLimited(LimitExceeded, code="uploads_limited"):
    """Limit of uploads of one owner in an hour."""

    default_detail = "You have reached the hourly upload limit for one owner."
    default_hint = "Try again after the time in Retry-After, or upload smaller files (opus, flac)."


class ConnectionsLimited(LimitExceeded, code="connections_limited"):
    """Limit of open requests and connections of one owner."""

    default_detail = "You have reached the limit of open requests and connections for one owner."
    default_hint = "Close event streams and live connections that are not needed any more."


class LiveLimited(LimitExceeded, code="live_limited"):
    """Limit of live sessions of one owner."""

    default_detail = "You have reached the limit of live sessions for one owner."
    default_hint = "End one of them first."


class SettingsInvalid(SidecarError, code="settings_invalid", kind=ErrorKind.MALFORMED):
    """A setting has an impossible value."""

    default_detail = "A setting has a value that is not possible."
    default_hint = "See 'vibevoice-asr serve --help' or docs/settings.md."


class PortInUse(SidecarError, code="port_in_use", kind=ErrorKind.CONFLICT):
    """Another program holds the port."""

    default_detail = "The port is in use."
    default_hint = "Stop the other program or choose another port with --port."


class DiskFull(SidecarError, code="disk_full", kind=ErrorKind.STORAGE_FULL):
    """Full disk of uploads."""

    default_detail = "There is not enough disk space for the upload."
    default_hint = "Free some space or set VIBEVOICE_SPOOL_DIR to a folder on another disk."


class SpoolUnwritable(SidecarError, code="spool_unwritable", kind=ErrorKind.STORAGE_FULL):
    """The folder for uploads cannot be written to."""

    default_detail = "The folder for uploads cannot be written to."
    default_hint = "Set VIBEVOICE_SPOOL_DIR to a writable folder, or send 'audio_path'."


class ServiceUnreachable(SidecarError, code="service_unreachable", kind=ErrorKind.BUSY):
    """No service at the address that the command line names."""

    default_detail = "No service answers at this address."
    default_hint = (
        "Start a service with 'vibevoice-asr', or omit --server to transcribe without one."
    )


class ShuttingDown(SidecarError, code="shutting_down", kind=ErrorKind.BUSY):
    """Request to a service that is shutting down."""

    default_detail = "The service is shutting down."
    default_hint = "Start it again, then repeat the request."
    default_retry_after = 2


class MachineBusy(SidecarError, code="machine_busy", kind=ErrorKind.BUSY):
    """Helper process that did not start within a minute: the machine is overloaded."""

    default_detail = "This machine is too busy to read the file."
    default_hint = (
        "Send the file again when the machine is less busy; the file itself was not at fault."
    )
    default_retry_after = 30


@contextmanager
def needed_for(what: str, extra: str = "auth") -> Iterator[None]:
    """Around the imports of those that ``what`` need.

    Raises:
        errors.SettingsInvalid: they are not installed; the hint has the command.
    """
    try:
        yield
    except ImportError as error:
        raise SettingsInvalid(
            f"{what} require a package that is not installed: {error.name or error}.",
            hint=install_command(extra),
        ) from None
