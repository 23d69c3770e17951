"""Access and process: errors of authentication, limits, settings, port, disk, missing extras."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sidecar.errors.error_base import ErrorKind, LimitExceeded, SidecarError, Unauthorized
from sidecar.version import install_command


class HostNotAllowed(SidecarError, code="host_not_allowed", kind=ErrorKind.FORBIDDEN):
    """The request was sent to a name that is none of ours: a web page may have rebound its own."""

    default_detail = "The Host header names no address of this service."
    default_hint = "Use 127.0.0.1 or localhost; other names go into the setting 'allowed_hosts'."


class PeerNotAllowed(SidecarError, code="peer_not_allowed", kind=ErrorKind.FORBIDDEN):
    """Somebody on another machine, or behind a proxy, and there is no token to know them by."""

    default_detail = "Without a token this service answers its own machine only, and no proxy."
    default_hint = "Start it with VIBEVOICE_TOKEN (or --token @FILE) and send that as Bearer."


class OriginNotAllowed(SidecarError, code="origin_not_allowed", kind=ErrorKind.FORBIDDEN):
    """A web page that may not ask."""

    default_detail = "Web pages of this origin may not use this service."
    default_hint = (
        "If the page is yours, set 'allowed_origins' to its origin and to those of the default "
        "that you need."
    )


class TokenMissing(Unauthorized, code="token_missing"):
    """The service was started with a token, the request has none."""

    default_detail = "This service wants a token."
    default_hint = (
        "Send 'Authorization: Bearer' and the token that it was started with, or a signed one."
    )


class TokenInvalid(Unauthorized, code="token_invalid"):
    """Neither the token that the service was started with, nor a signed one that counts."""

    default_detail = "The token does not count here."
    default_hint = (
        "A service that was started anew may have another: read its ready line again. A signed one "
        "may have expired or been revoked."
    )


class LinkInvalid(Unauthorized, code="link_invalid"):
    """The word of a link to the page was used, is too old, or never was one."""

    default_detail = (
        "This link does not count any more: it opens the page once, within two minutes."
    )
    default_hint = "Make another one: vibevoice-asr open"


class TicketInvalid(Unauthorized, code="ticket_invalid"):
    """The ticket of a live connection was used, is too old, or never was one."""

    default_detail = "This ticket does not count any more: it opens one connection, within minutes."
    default_hint = "Get another one: POST /v1/live/ticket"


class ScopeMissing(SidecarError, code="scope_missing", kind=ErrorKind.FORBIDDEN):
    """A token that is right, but not for this."""

    default_detail = "The token that was sent does not allow this."
    default_hint = "Ask whoever gives out tokens for one that does."


class RateLimited(LimitExceeded, code="rate_limited"):
    """Too many requests."""

    default_detail = "Too many requests in a short time."


class JobsLimited(LimitExceeded, code="jobs_limited"):
    """As many jobs at once as one owner may have."""

    default_detail = "You have as many jobs waiting and running as one may have at once."
    default_hint = "Wait until one of them has ended, or cancel one."


class AudioLimited(LimitExceeded, code="audio_limited"):
    """More audio waits than one owner may have waiting."""

    default_detail = "You have as much audio waiting as one may have."
    default_hint = "Wait until some of it is transcribed."


class UploadsLimited(LimitExceeded, code="uploads_limited"):
    """More was uploaded than one owner may in an hour."""

    default_detail = "You have uploaded as much as one may in an hour."
    default_hint = "Try again after the time in Retry-After; opus or flac is less to upload."


class ConnectionsLimited(LimitExceeded, code="connections_limited"):
    """As many requests and connections are open as one owner may have."""

    default_detail = "As many of your requests and connections are open as one may have."
    default_hint = "Close event streams and live connections that are not needed any more."


class LiveLimited(LimitExceeded, code="live_limited"):
    """One client has as many live sessions as it may."""

    default_detail = "You have as many live sessions as you may."
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
    """No room for the upload."""

    default_detail = "There is no room on the disk for the upload."
    default_hint = "Free some space or set VIBEVOICE_SPOOL_DIR to a folder on another disk."


class SpoolUnwritable(SidecarError, code="spool_unwritable", kind=ErrorKind.STORAGE_FULL):
    """The folder for uploads cannot be written."""

    default_detail = "The folder for uploads cannot be written."
    default_hint = "Set VIBEVOICE_SPOOL_DIR to a folder that can be, or send 'audio_path'."


class ServiceUnreachable(SidecarError, code="service_unreachable", kind=ErrorKind.BUSY):
    """No service answers at the address that the command line was given."""

    default_detail = "No service answers at this address."
    default_hint = "Start it with 'vibevoice-asr', or leave --server out to work without one."


class ShuttingDown(SidecarError, code="shutting_down", kind=ErrorKind.BUSY):
    """The service is on its way out."""

    default_detail = "The service is shutting down."
    default_hint = "Start it again, then repeat the request."
    default_retry_after = 2


class MachineBusy(SidecarError, code="machine_busy", kind=ErrorKind.BUSY):
    """A process of ours has not begun within a minute: there is too much else to do."""

    default_detail = "This machine is too busy to look at the file."
    default_hint = "Send it again when the machine has less to do; nothing is wrong with the file."
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
            f"{what} need a package that is not installed: {error.name or error}.",
            hint=install_command(extra),
        ) from None
