"""Service: errors of settings, port, disk, storage, start and shutdown."""

import errno

from sidecar.errors.error_base import ErrorKind, Fault, SidecarError

BUSY_ERRNOS = frozenset(
    {
        *(errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM),
        errno.ETOOMANYREFS,  # descriptors that are sent to processes which have not read them
    }
)
"""Error numbers of a machine without processes, descriptors or memory for now."""
MACHINE_ERRNOS = BUSY_ERRNOS | {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""The same, or without space on a disk."""
_AWAY_ERRNOS = {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT}
"""Error numbers of a disk or share that does not answer."""


class SettingsInvalid(SidecarError, code="settings_invalid", kind=ErrorKind.MALFORMED):
    """Setting with an invalid value."""

    default_detail = "A setting has a value that is not possible."
    default_hint = "See 'vibevoice-asr serve --help' or docs/settings.md."


class FolderTaken(SettingsInvalid, code="recordings_folder_taken"):
    """Folder of recordings of another store of jobs, which would lose them."""

    default_detail = "The folder has the recordings of another store of jobs."
    default_hint = (
        "Set VIBEVOICE_DATA_DIR to another folder, or VIBEVOICE_UPLOADS for shared jobs. If nobody "
        "needs the other jobs any more, move the folder away."
    )


class PortInUse(SidecarError, code="port_in_use", kind=ErrorKind.CONFLICT):
    """Port that another program uses."""

    default_detail = "The port is in use."
    default_hint = "Stop the other program or choose another port with --port."


class DiskFull(SidecarError, code="disk_full", kind=ErrorKind.STORAGE_FULL):
    """Too little space on a disk or in another storage."""

    fault = Fault.DISK
    default_detail = "There is not enough disk space for the upload."
    default_hint = "Free some space or set VIBEVOICE_SPOOL_DIR to a folder on another disk."


class SpoolUnwritable(SidecarError, code="spool_unwritable", kind=ErrorKind.STORAGE_FULL):
    """Folder for uploads that cannot be written to."""

    fault = Fault.SPOOL
    default_detail = "The folder for uploads cannot be written to."
    default_hint = "Set VIBEVOICE_SPOOL_DIR to a writable folder, or send 'audio_path'."


class ServiceUnreachable(SidecarError, code="service_unreachable", kind=ErrorKind.BUSY):
    """Missing service at the address on the command line."""

    default_detail = "No service answers at this address."
    default_hint = (
        "Start a service with 'vibevoice-asr', or name another with --server; 'vibevoice-asr "
        "transcribe' without --server needs none."
    )


class ShuttingDown(SidecarError, code="shutting_down", kind=ErrorKind.BUSY):
    """Request to a service that is shutting down."""

    default_detail = "The service is shutting down."
    default_hint = "Start it again, then repeat the request."
    default_retry_after = 2


class MachineBusy(SidecarError, code="machine_busy", kind=ErrorKind.BUSY):
    """Process that could not be started, or not within a minute: the machine is overloaded."""

    fault = Fault.MEMORY
    default_detail = "This machine is too busy to read the file."
    default_hint = (
        "Send the file again when the machine is less busy; the file itself was not at fault."
    )
    default_retry_after = 30


class DecoderStopped(MachineBusy, code="decoder_stopped"):
    """ffmpeg that something else ended, such as the kernel for lack of memory."""

    fault = Fault.DECODER
    counts_as_death = True
    default_detail = "Something stopped ffmpeg while it decoded the file."


class OutOfMemory(MachineBusy, code="out_of_memory"):
    """Worker process that the kernel killed for lack of memory, or that got none."""

    fault = Fault.ENGINE  # a smaller one may have room
    counts_as_death = True
    default_detail = "The kernel ended the worker process: there is not enough memory."
    default_hint = (
        "Give the container or the machine more memory, or use a smaller model or precision."
    )


def machine_error(error: BaseException) -> MachineBusy | None:
    """Return the error of a machine that lacks something for now, if that is what ``error`` says,
    or what it was raised for."""
    own = isinstance(error, (OSError, RuntimeError))
    cause = error if own else error.__cause__ or error.__context__
    away = isinstance(cause, OSError) and cause.errno in MACHINE_ERRNOS | _AWAY_ERRNOS
    if away or (cause is not None and lacks_resources(cause)):
        return MachineBusy(f"This machine lacks something for now: {cause}.")
    return None


def lacks_resources(error: BaseException) -> bool:
    """Return whether the machine had no descriptor, thread or memory for something."""
    busy = isinstance(error, OSError) and error.errno in BUSY_ERRNOS
    return busy or (isinstance(error, RuntimeError) and "can't start new thread" in str(error))


class JournalUnreachable(SidecarError, code="journal_unreachable", kind=ErrorKind.BUSY):
    """Database of shared jobs that does not answer."""

    fault = Fault.DATABASE
    default_detail = "The database of jobs does not answer."
    default_hint = "Retry in a moment (a submission with the same Idempotency-Key); no job is lost."
    default_retry_after = 3


class StorageUnreachable(SidecarError, code="storage_unreachable", kind=ErrorKind.BUSY):
    """Folder or bucket of recordings that does not answer."""

    fault = Fault.STORAGE
    default_detail = "The storage of recordings does not answer."
    default_hint = "Retry in a moment (a submission with the same Idempotency-Key); no job is lost."
    default_retry_after = 5
