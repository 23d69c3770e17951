"""Handles, locks and access control lists of files on Windows.

A file there has the list of its folder. Folders of the user's profile let in nobody else; folders
at the root of another drive let in all users.
"""

import ctypes
import os
import re
import struct
import sys
import time
from pathlib import Path
from typing import IO

_READS = 1
"""FILE_READ_DATA."""
_READING_WORDS = re.compile("FA|FR|GA|GR|CC")
"""Rights in words of SDDL that include it."""
_ALLOWED_TO_MANY = re.compile(r"\(A;([^;]*);([^;]*);[^;]*;[^;]*;(?:AN|AU|BG|BU|DU|IU|WD)\)")
"""Entry for users of this machine, its domain or the network, whoever they are."""
_NO_LIST = "NO_ACCESS_CONTROL"
"""What stands for a list that is missing, as on a FAT file system: all may read."""
_FILE_OBJECT, _DACL = 1, 4
_PROTECTED_DACL = 0x80000000
_SDDL_REVISION = 1
_TOKEN_QUERY, _TOKEN_USER = 8, 1
_PIPE_POLL_S = 0.1
"""Interval of looks at a pipe, in seconds."""
_LOCK_AT_ONCE, _LOCK_EXCLUSIVELY = 1, 2
_GENERIC_READ, _SHARE_ALL = 0x80000000, 0x1 | 0x2 | 0x4
_OVERLAPPED_BYTES = 32
_BASIC_INFO, _BASIC_INFO_BYTES = 0, 40
_AT_END, _IMPOSSIBLE = 38, 87
"""ERROR_HANDLE_EOF and ERROR_INVALID_PARAMETER."""


def lets_others_read(sddl: str) -> bool:
    """Return whether an access control list, in SDDL, lets users read who are not named in it."""
    rights = [rights for flags, rights in _ALLOWED_TO_MANY.findall(sddl) if "IO" not in flags]
    return _NO_LIST in sddl or any(
        int(one, 16) & _READS if one.startswith("0x") else _READING_WORDS.search(one)
        for one in rights
    )


if sys.platform == "win32":
    import _winapi
    import msvcrt

    _advapi = ctypes.WinDLL("advapi32", use_last_error=True)
    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)

    def wait_for_data(fd: int) -> None:
        """Return once a pipe has data, or has ended, or if ``fd`` is none. A thread that is in a
        read of standard input meanwhile would hold up all that ask what it is: C libraries do as
        they are loaded, and the event loop would stand still with the first that imports one."""
        handle = msvcrt.get_osfhandle(fd)
        while True:
            try:
                if _winapi.PeekNamedPipe(handle)[0]:
                    return
            except OSError:
                return
            time.sleep(_PIPE_POLL_S)

    def lock(fd: int, *, wait: bool) -> None:
        """Lock the first byte of an open file; with ``wait``, once no other process has it locked.
        The C library's own call (`msvcrt.locking`) waits for 10 s at most.

        Raises:
            OSError: another process has it locked, or it cannot be locked.
        """
        flags = _LOCK_EXCLUSIVELY | (0 if wait else _LOCK_AT_ONCE)
        handle, at_start = ctypes.c_void_p(msvcrt.get_osfhandle(fd)), bytes(_OVERLAPPED_BYTES)
        if not _kernel.LockFileEx(handle, flags, 0, 1, 0, at_start):
            raise ctypes.WinError(ctypes.get_last_error())

    def read_at(fd: int, position: int, count: int) -> bytes:
        """Return bytes of an open file from a position on, whoever else reads it meanwhile; none
        of a place that no file can have.

        Raises:
            OSError: it cannot be read.
        """
        handle = ctypes.c_void_p(msvcrt.get_osfhandle(fd))
        data, done = ctypes.create_string_buffer(count), ctypes.c_ulong()
        place = struct.pack("=4Q", 0, 0, position, 0)
        if _kernel.ReadFile(handle, data, count, ctypes.byref(done), place):
            return data.raw[: done.value]
        if (number := ctypes.get_last_error()) in (_AT_END, _IMPOSSIBLE):
            return b""
        raise ctypes.WinError(number)

    def open_shared(path: str, flags: int) -> int:
        """Return a descriptor for reading of an absolute path of any length, which lets others
        write, rename and delete the file meanwhile. ``flags``: those of the descriptor.

        Raises:
            OSError: it cannot be opened.
        """
        name = path if path.startswith("\\\\") else f"\\\\?\\{path}"
        opened = _winapi.OPEN_EXISTING
        handle = _winapi.CreateFile(name, _GENERIC_READ, _SHARE_ALL, 0, opened, 0, 0)
        return msvcrt.open_osfhandle(handle, flags)

    def changed_at(file: int | str | Path) -> int:
        """Return when a file, given by its descriptor or path, was changed last, in steps of 100
        ns; no program sets that time as it sets the dates. 0 where the file system has none.

        Raises:
            OSError: it cannot be opened.
        """
        if isinstance(file, int):
            return _changed_at(msvcrt.get_osfhandle(file))
        handle = _winapi.CreateFile(str(file), 0, _SHARE_ALL, 0, _winapi.OPEN_EXISTING, 0, 0)
        try:
            return _changed_at(handle)
        finally:
            _winapi.CloseHandle(handle)

    def _changed_at(handle: int) -> int:
        times = ctypes.create_string_buffer(_BASIC_INFO_BYTES)
        _kernel.GetFileInformationByHandleEx(
            ctypes.c_void_p(handle), _BASIC_INFO, times, _BASIC_INFO_BYTES
        )
        return int(struct.unpack_from("=4q", times)[3])  # after creation, access and write

    def opened_again(fd: int) -> IO[bytes]:
        """Open the file behind ``fd`` again, for reading, with a position of its own: a handle that
        is duplicated or inherited shares it, as it does here if the file was deleted since."""
        handle = ctypes.c_void_p(msvcrt.get_osfhandle(fd))
        reopen, flags = _kernel.ReOpenFile, os.O_RDONLY | os.O_BINARY
        reopen.restype = ctypes.c_ssize_t
        again: int = reopen(handle, ctypes.c_uint(_GENERIC_READ), _SHARE_ALL, 0)
        own = os.dup(fd) if again == -1 else msvcrt.open_osfhandle(again, flags)
        return open(own, "rb", buffering=0)

    def others_may_read(path: Path) -> bool:
        """Return whether users may read a file or folder who are not named in its list."""
        descriptor, text = ctypes.c_void_p(), ctypes.c_void_p()
        if _advapi.GetNamedSecurityInfoW(
            str(path), _FILE_OBJECT, _DACL, None, None, None, None, ctypes.byref(descriptor)
        ):
            return False  # a file system that tells nothing
        _advapi.ConvertSecurityDescriptorToStringSecurityDescriptorW(
            descriptor, _SDDL_REVISION, _DACL, ctypes.byref(text), None
        )
        _kernel.LocalFree(descriptor)
        return lets_others_read(_text(text))

    def restrict(path: Path) -> None:
        """Let only this user, administrators and the system into a file or folder, if its file
        system knows users."""
        rights = "".join(f"(A;OICI;FA;;;{one})" for one in ("SY", "BA", _user()))
        descriptor = ctypes.c_void_p()
        _advapi.ConvertStringSecurityDescriptorToSecurityDescriptorW(
            f"D:P{rights}", _SDDL_REVISION, ctypes.byref(descriptor), None
        )
        _advapi.SetFileSecurityW(str(path), ctypes.c_uint(_DACL | _PROTECTED_DACL), descriptor)
        _kernel.LocalFree(descriptor)

    def _user() -> str:
        """Return the SID of this process's user."""
        token, size, text = ctypes.c_void_p(), ctypes.c_ulong(), ctypes.c_void_p()
        process = ctypes.c_void_p(-1)  # GetCurrentProcess
        _advapi.OpenProcessToken(process, _TOKEN_QUERY, ctypes.byref(token))
        user = (ctypes.c_void_p * 32)()  # TOKEN_USER: a pointer to the SID that follows
        _advapi.GetTokenInformation(
            token, _TOKEN_USER, user, ctypes.sizeof(user), ctypes.byref(size)
        )
        _kernel.CloseHandle(token)
        _advapi.ConvertSidToStringSidW(ctypes.c_void_p(user[0]), ctypes.byref(text))
        return _text(text)

    def _text(pointer: ctypes.c_void_p) -> str:
        try:
            return ctypes.wstring_at(pointer.value) if pointer.value else ""
        finally:
            _kernel.LocalFree(pointer)
