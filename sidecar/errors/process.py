"""The service itself: its settings, its port, its disk, its end."""

from __future__ import annotations

from sidecar.errors.error_base import Kind, SidecarError


class SettingsInvalid(SidecarError):
    """A setting has an impossible value."""

    code = "settings_invalid"
    kind = Kind.MALFORMED
    default_detail = "A setting has a value that is not possible."
    default_hint = "See 'vibevoice-asr serve --help' or docs/settings.md."


class PortInUse(SidecarError):
    """Another program holds the port."""

    code = "port_in_use"
    kind = Kind.CONFLICT
    default_detail = "The port is in use."
    default_hint = "Stop the other program or choose another port with --port."


class DiskFull(SidecarError):
    """No room for the upload."""

    code = "disk_full"
    kind = Kind.STORAGE_FULL
    default_detail = "There is no room on the disk for the upload."
    default_hint = "Free some space or set VIBEVOICE_SPOOL_DIR to a folder on another disk."


class SpoolUnwritable(SidecarError):
    """The folder for uploads cannot be written."""

    code = "spool_unwritable"
    kind = Kind.STORAGE_FULL
    default_detail = "The folder for uploads cannot be written."
    default_hint = "Set VIBEVOICE_SPOOL_DIR to a folder that can be, or send 'audio_path'."


class ServiceUnreachable(SidecarError):
    """No service answers at the address that the command line was given."""

    code = "service_unreachable"
    kind = Kind.BUSY
    default_detail = "No service answers at this address."
    default_hint = "Start it with 'vibevoice-asr', or leave --server out to work without one."


class ShuttingDown(SidecarError):
    """The service is on its way out."""

    code = "shutting_down"
    kind = Kind.BUSY
    default_detail = "The service is shutting down."
    default_hint = "Start it again, then repeat the request."
    default_retry_after = 2


class MachineBusy(SidecarError):
    """A process of ours has not begun within a minute: there is too much else to do."""

    code = "machine_busy"
    kind = Kind.BUSY
    default_detail = "This machine is too busy to look at the file."
    default_hint = "Send it again when the machine has less to do; nothing is wrong with the file."
    default_retry_after = 30
