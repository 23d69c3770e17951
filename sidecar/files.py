"""Private folders and files, and atomic writes."""

import errno
import functools
import getpass
import logging
import os
import secrets
import select
import shlex
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO, Literal, TypeVar

from sidecar import windows_files
from sidecar.clock import utc_moment
from sidecar.errors import SettingsInvalid

log = logging.getLogger(__name__)
T = TypeVar("T")
PRIVATE = 0o600
PUBLIC = 0o644
OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
"""Flags for paths from outside: the open does not block and takes no controlling terminal."""
BUSY_FILE_PAUSES_S = 0.01, 0.02, 0.05, 0.1, 0.2, 0.5
"""Pauses before a file is tried again that another program, such as a virus scanner, has open."""
_ACCESS_DENIED, _SHARING_VIOLATION = 5, 32
"""Errors of Windows; the first is also that of an open file that would be replaced."""
PIPE_TIMEOUT_S = 5.0
"""Time within which the writer of a pipe has to close it, in seconds."""
_PIPE_POLL_S = 0.01
"""Poll interval for a pipe that has no writer yet, in seconds."""
_SQLITE_DENIED = frozenset({3, 8, 14})
"""SQLITE_PERM, SQLITE_READONLY, SQLITE_CANTOPEN: results of a file of another user."""
_DESCRIPTOR_FOLDERS = ("/proc/", "/dev/fd/")
_MAX_SYMLINKS = 40
"""Limit of symbolic links; Linux rejects the next."""
ExclusiveLock = AbstractContextManager[None]
_pipe_contents: dict[tuple[str, int, int], bytes] = {}
"""Contents of pipes already read, by path, device and inode: a pipe can be read only once."""


class FileInUse(PermissionError):
    """File that another program has open on Windows, and lets nobody else open."""


def read(path: Path, most: int, *, private: bool = False, pipe_s: float = PIPE_TIMEOUT_S) -> bytes:
    """Return the content of a file; with ``private``, refuse one that others may read.

    The file may be a pipe, such as a shell's ``<(…)``; its writer has ``pipe_s`` seconds to
    deliver the content. The content is cached, because a pipe can be read only once.

    Raises:
        errors.SettingsInvalid: the file does not exist, is not readable, or is longer than ``most``
            bytes; it is neither a regular file nor a pipe, or a pipe without a writer; or others
            may read it.
    """
    try:
        with open(open_to_read(path), "rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                data = file.read(most + 1)
            elif stat.S_ISFIFO(status.st_mode) and sys.platform != "win32":
                data = _read_pipe(path, file.fileno(), status, most + 1, pipe_s)
            else:
                raise _not_a_file_error(path)
    except OSError as error:
        raise unusable_error(
            f"The file {path} cannot be read: {error.strerror}.", path, error
        ) from None
    if len(data) > most:
        raise SettingsInvalid(
            f"The file {path} has more than {most} bytes: it is not the expected kind of file."
        )
    if private:
        check_private(path, status.st_mode)
    return data


def open_to_read(path: str | Path, more_flags: int = 0) -> int:
    """Return a descriptor of a path from outside (`OPEN_FLAGS`). Other programs may rename and
    delete the file meanwhile, on Windows, too, whatever the length of its path.

    Raises:
        OSError: it cannot be opened.
    """
    if sys.platform == "win32":
        return _open_when_free(os.path.abspath(path))
    return os.open(path, OPEN_FLAGS | more_flags)


if sys.platform == "win32":

    def _open_when_free(path: str) -> int:
        try:
            work = partial(windows_files.open_shared, path, OPEN_FLAGS)
            return _when_free(work, _SHARING_VIOLATION)
        except OSError as error:  # in the words of other systems, not in the user's language
            number = error.errno or errno.EINVAL
            if error.winerror == _SHARING_VIOLATION:
                raise FileInUse(number, "another program has it for itself", path) from None
            raise OSError(number, os.strerror(number), path) from None


def replace(old: Path, new: Path) -> None:
    """Rename a file or folder, in the place of another file of that name if there is one.

    Raises:
        OSError: it cannot be renamed.
    """
    _when_free(partial(os.replace, old, new), _SHARING_VIOLATION, _ACCESS_DENIED)


def remove(path: Path) -> bool:
    """Delete a file; return whether there was one.

    Raises:
        OSError: it cannot be deleted.
    """
    try:
        _when_free(partial(os.remove, path), _SHARING_VIOLATION, _ACCESS_DENIED)
    except FileNotFoundError:
        return False
    return True


def unused_mark() -> str:
    """Return text for the name of a file of this moment: names sort by their moment in UTC. No
    clock is exact enough to make them unique: that of Windows has steps of 15 ms."""
    return f"{utc_moment():%Y%m%d-%H%M%S-%f}-{secrets.token_hex(4)}"


def _when_free(work: Callable[[], T], *busy: int) -> T:
    """Return what ``work`` returns, once no other program has its file open: until then Windows
    refuses it with an error of the numbers ``busy``.

    Raises:
        OSError: it cannot be done, or the other program is slow.
    """
    for pause_s in BUSY_FILE_PAUSES_S:
        try:
            return work()
        except OSError as error:
            if getattr(error, "winerror", None) not in busy:
                raise
        time.sleep(pause_s)
    return work()


def expand_home(path: Path) -> Path:
    """Return a path with ``~`` replaced by the user's home folder. If there is none, return one of
    no file."""
    try:
        return path.expanduser()
    except RuntimeError:  # no HOME, and a user who is not in the list of users
        return Path(os.devnull) / path if path.parts[0] == "~" else path


def user_folder(kind: Literal["data", "state"]) -> Path | None:
    """Return the service's folder for ``kind`` of the user; `None` if the user has no home."""
    import platformdirs

    find = platformdirs.user_data_path if kind == "data" else platformdirs.user_state_path
    try:
        folder = find("vibevoice-asr", appauthor=False)
    except (OSError, KeyError, RuntimeError):
        return None
    return folder if folder.is_absolute() else None  # a "~" that is left


def exists(path: Path) -> bool:
    """Return whether there is something at a path. `Path.exists` says no, from Python 3.14 on, to
    whatever it cannot look at.

    Raises:
        OSError: it cannot be looked at.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def is_descriptor_path(path: str) -> bool:
    """Return whether a path, or a link on its way, is in a folder of open files. Those belong to a
    process; the service's own include uploads of other clients."""
    for _ in range(_MAX_SYMLINKS):
        folder = os.path.realpath(os.path.dirname(path))
        path = os.path.join(folder, os.path.basename(path))
        if f"{path}/".startswith(_DESCRIPTOR_FOLDERS):
            return True
        try:
            path = os.path.join(folder, os.readlink(path))
        except OSError:  # not a link: the end of the chain
            return False
    return False


def size_and_dates(file: int | str | Path, status: os.stat_result) -> tuple[int, ...]:
    """Return the size of a file, given by its descriptor or path, when its content was written and
    when it was changed. A program can set the second to any value, but not the third.

    Raises:
        OSError: it cannot be opened.
    """
    if sys.platform == "win32":  # its ctime is when the file was made
        return status.st_size, status.st_mtime_ns, windows_files.changed_at(file)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def check_regular(path: Path) -> None:
    """Refuse a path that exists and is not a regular file. For callers that pass the path to other
    code, or open it again.

    Raises:
        errors.SettingsInvalid: it is a pipe, a folder, a device, or a socket.
    """
    with suppress(OSError):  # the code that opens it reports the error
        if not stat.S_ISREG(path.stat().st_mode):
            raise _not_a_file_error(path)


def check_private(path: Path, mode: int) -> None:
    """Refuse a secret that others may read; on Windows, where files are readable on most drives,
    log a warning.

    Raises:
        errors.SettingsInvalid: others may read it.
    """
    if sys.platform == "win32":
        _warn_of_readers(path)
    elif mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsInvalid(
            f"Other users may read the file {path}.", hint=f"Restrict it: chmod 600 {path}"
        )


@functools.cache
def _warn_of_readers(path: Path) -> None:
    if sys.platform == "win32" and windows_files.others_may_read(path):
        remedy = f'icacls "{path}" /inheritance:r /grant "{getpass.getuser()}:F"'
        log.warning("other users may read the file %s: restrict it: %s", path, remedy)


def write(path: Path, data: bytes, mode: int = PRIVATE) -> None:
    """Replace the file by ``data`` atomically: a reader sees the whole old file or the whole new
    one.

    Raises:
        errors.SettingsInvalid: it cannot be written.
    """
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        file = open_new(new, mode)
        try:
            with file:
                file.write(data)
                file.flush()
                sync(file.fileno())
            replace(new, path)
        except BaseException:
            with suppress(OSError):
                remove(new)
            raise
        sync_folder(path.parent)
    except OSError as error:
        text = f"The file {path} cannot be written: {error.strerror}."
        raise unusable_error(text, path.parent, error) from None


def open_new(path: Path, mode: int = PRIVATE) -> BinaryIO:
    """Create and open a file with the permissions ``mode``; by default only its owner may read it.

    Raises:
        OSError: it cannot be created, or it already exists.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags, mode), "wb")
    if mode == PRIVATE:
        _restrict(path)
    return file


def touch(path: Path) -> None:
    """Create a file that only its owner may read, if it does not exist.

    Raises:
        OSError: it cannot be created or written to.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE))
    _restrict(path)


def temporary(folder: Path | None = None) -> IO[bytes]:
    """Create a file without a name in ``folder``, or in the system's temporary folder. A folder
    that is missing is made: cleaners delete those of services that run for long.

    Raises:
        OSError: it cannot be created.
    """
    place = Path(folder or tempfile.gettempdir())
    try:
        return nameless(place)
    except FileNotFoundError:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        return nameless(place)


def nameless(folder: Path) -> IO[bytes]:
    """Create a file in ``folder`` that is deleted once it is closed.

    Raises:
        OSError: it cannot be created.
    """
    if sys.platform != "win32":
        return tempfile.TemporaryFile(dir=folder, buffering=0)
    # There `tempfile` takes a folder that may not be written for a name that is taken, and tries
    # two billion others.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_BINARY | os.O_TEMPORARY | os.O_NOINHERIT
    return open(os.open(folder / secrets.token_hex(8), flags, PRIVATE), "w+b", buffering=0)


def private_folder(path: Path) -> None:
    """Create a folder that only its owner may access, or restrict an existing one to its owner.

    Raises:
        OSError: it cannot be created, or belongs to another user.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(path, 0o700)
    _restrict(path)


def _restrict(path: Path) -> None:
    """Do on Windows what the mode of a private file or folder does elsewhere."""
    if sys.platform == "win32" and windows_files.others_may_read(path):
        windows_files.restrict(path)


def make_folder(path: Path) -> None:
    """Create a folder that only its owner may access, if it does not exist.

    Raises:
        errors.SettingsInvalid: it cannot be created.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        text = f"The folder {path} cannot be created: {error.strerror}."
        raise unusable_error(text, path, error) from None


def refuse_root(folder: Path) -> None:
    """Refuse to let root write into another user's folder, whose services could not use the files.

    To give them to that user afterwards would not be safe: in its own folder it can put a link in
    the place of a file.

    Raises:
        errors.SettingsInvalid: this process is root, and the folder, or the nearest one above it
            that exists, is another user's.
    """
    if sys.platform == "win32" or os.geteuid() != 0:
        return
    found, owner = _nearest_owner(folder)
    if owner:
        raise SettingsInvalid(
            f"{found} belongs to {_user_name(owner)}, who could not use what root writes there.",
            hint="Run the command as that user (runuser -u, docs/deploy.md).",
        )


def unusable_error(
    text: str, path: Path, error: Exception, hint: str | None = None
) -> SettingsInvalid:
    """Return the error ``text`` about ``path``. If permissions are the cause and ``path``, or the
    nearest folder above it that can be looked at, belongs to another user, the error names that
    user, too; the remedy for a file replaces ``hint``."""
    denied = isinstance(error, PermissionError) or (
        getattr(error, "sqlite_errorcode", 0) & 0xFF in _SQLITE_DENIED
    )
    if sys.platform == "win32" or not denied:
        return SettingsInvalid(text, hint=hint)
    user, (found, owner) = os.geteuid(), _nearest_owner(path)
    if owner == user:
        return SettingsInvalid(text, hint=hint)
    text += f" {found} belongs to {_user_name(owner)}; this process runs as {_user_name(user)}."
    is_file = found == path and path.is_file()
    gives = f"chown {user} {shlex.quote(str(path))}" if is_file else ""
    if owner:
        hint = f"Run it as {_user_name(owner)}" + (f", or as root run: {gives}" if gives else ".")
    elif gives:
        hint = f"As root run: {gives}"
    return SettingsInvalid(text, hint=hint)


def belongs_to_another_user(path: Path) -> bool:
    """Return whether ``path``, or the nearest folder above it that can be looked at, does."""
    return sys.platform != "win32" and _nearest_owner(path)[1] != os.geteuid()


def _nearest_owner(path: Path) -> tuple[Path, int]:
    """Return ``path``, or the nearest folder above it that can be looked at, and its owner."""
    if sys.platform == "win32":
        return path, 0  # files have no such number there
    for found in (path, *path.absolute().parents):
        with suppress(OSError):
            return found, found.stat().st_uid
    return path, os.geteuid()  # even the root of the file system is out of sight


def _user_name(uid: int) -> str:
    if sys.platform == "win32":
        return f"uid {uid}"
    import pwd

    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder. It excludes only code that also takes this lock.

    Raises:
        errors.SettingsInvalid: the folder cannot be written to.
    """
    lock = folder / ".lock"
    try:
        touch(lock)
        file = lock.open("ab")
    except OSError as error:
        text = f"The folder {folder} cannot be written to: {error.strerror}."
        raise unusable_error(text, lock, error) from None
    with file:  # closing it releases the lock
        _lock(file, wait=True)
        yield


def try_lock(file: BinaryIO) -> bool:
    """Lock an open file exclusively, unless another process has locked it; return whether this one
    has it now, until it closes the file. Where nothing can be locked, all have it."""
    try:
        _lock(file, wait=False)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True


def _lock(file: BinaryIO, *, wait: bool) -> None:
    if sys.platform == "win32":
        windows_files.lock(file.fileno(), wait=wait)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def _read_pipe(path: Path, pipe: int, status: os.stat_result, most: int, timeout_s: float) -> bytes:
    known = str(path), status.st_dev, status.st_ino
    if known not in _pipe_contents:
        _pipe_contents[known] = _read_pipe_to_end(path, pipe, most, timeout_s)
    return _pipe_contents[known]


def _read_pipe_to_end(path: Path, pipe: int, most: int, timeout_s: float) -> bytes:
    """Read at most ``most`` bytes of a pipe. A pipe without a writer yet also reports end of
    file."""
    data, until = b"", time.monotonic() + timeout_s
    while len(data) < most and (left_s := until - time.monotonic()) > 0:
        select.select([pipe], [], [], left_s)
        try:
            part = os.read(pipe, most - len(data))
        except BlockingIOError:
            continue
        if not part and data:
            return data
        if not part:
            time.sleep(_PIPE_POLL_S)
        data += part
    if len(data) >= most:
        return data
    raise SettingsInvalid(
        f"The pipe {path} was not closed within {timeout_s:g} s.",
        hint="Write to it and close it, or name a file.",
    )


def wait_for_writers(fd: int) -> None:
    """Return when the last writer has closed the pipe behind ``fd``; what it wrote is discarded."""
    with suppress(OSError):  # it is not open, so there is no writer
        while True:
            if sys.platform == "win32":
                windows_files.wait_for_data(fd)
            if not os.read(fd, 1 << 12):
                return


def _not_a_file_error(path: Path) -> SettingsInvalid:
    return SettingsInvalid(f"{path} is not a regular file.", hint="Name a regular file.")


def sync(fd: int) -> None:
    """Flush a file to the medium of its disk. The `fsync` of macOS only gives it to the disk, whose
    cache a loss of power empties; not every file system there has the call that does more."""
    if sys.platform == "darwin":
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    os.fsync(fd)


def sync_folder(folder: Path) -> None:
    """Flush the folder's entries to disk, if the system supports that."""
    if sys.platform == "win32":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        sync(fd)
    finally:
        os.close(fd)
