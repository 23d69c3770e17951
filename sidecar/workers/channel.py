"""Framed JSON channel with binary payloads and file descriptors; flow control by credit.

One stream socket pair. A frame is two lengths (four bytes each, big-endian), that many bytes of
JSON, and that many raw bytes, such as audio. JSON, not pickle: a worker parses hostile files, and
its messages must stay data. An open file travels as a descriptor beside the frame that refers to
it; on Windows as a handle that is valid in the worker, named in the frame.
"""

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from sidecar.child_processes import NO_WINDOW

FULL_SOCKET_PAUSE_S = 0.002
"""Poll interval while a socket is too full for file descriptors."""

HEADER = struct.Struct("!II")
MAX_FRAME_BYTES = 1 << 26
"""Maximum bytes of a frame. What grows with a recording goes in several: its resume points and
embeddings as input behind a call, its transcript in parts."""
_PART_BYTES = 1 << 20
"""Maximum bytes of a read."""
_SHARE = struct.Struct("!I")
MAX_FILES = 16
"""Maximum open files that go with a message."""
_HANDLES_FIELD = "windows_handles"
FILES_LOST_FIELD = "files_lost"
"""Field of a received message whose files did not fit into the descriptors of the process."""
CREDIT_WINDOW_BYTES = 1 << 20
"""Credit of one call in one direction: half a minute of 16-bit samples at 16 kHz."""
FRAME_OVERHEAD_BYTES = 512
"""Bytes that a frame of input counts besides those of its content, however small it is: its memory
in a worker."""


_to_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class ChannelClosed(Exception):
    """Raised when the other side has closed the channel."""


class ChannelFrame(NamedTuple):
    """Message, the raw bytes behind it, and the bytes that both took on the wire."""

    message: dict[str, Any]
    raw: bytes
    size: int


def encode_frame(message: dict[str, Any], raw: bytes = b"") -> bytes:
    """Encode a message as a frame; lone surrogates, which JSON may contain, pass unchanged."""
    body = _to_json(message).encode("utf-8", "surrogatepass")
    return b"".join((HEADER.pack(len(body), len(raw)), body, raw))


def decode_frame(body: bytes | bytearray) -> dict[str, Any]:
    """Parse the message in a frame's body.

    Raises:
        ChannelClosed: it is invalid; the connection to its sender is closed.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise ChannelClosed("a frame that is not JSON") from None
    if not isinstance(message, dict):
        raise ChannelClosed("a frame that is no object")
    return message


def _missing_bytes(data: bytearray) -> int:
    """Return how many bytes of the first frame are known to be missing."""
    if len(data) < HEADER.size:
        return HEADER.size - len(data)
    length, rest = HEADER.unpack_from(data)
    return int(HEADER.size + length + rest - len(data))


def take_frame(data: bytearray) -> ChannelFrame | None:
    """Take the first frame from the received bytes; return None if it is incomplete.

    Raises:
        ChannelClosed: the bytes are no frame.
    """
    if len(data) < HEADER.size:
        return None
    length, rest = HEADER.unpack_from(data)
    if length + rest > MAX_FRAME_BYTES:
        raise ChannelClosed("a frame beyond all limits")
    middle, end = HEADER.size + length, HEADER.size + length + rest
    if len(data) < end:
        return None
    body, raw = data[HEADER.size : middle], bytes(data[middle:end])
    del data[:end]
    return ChannelFrame(decode_frame(body), raw, end)


def encode_with_files(
    message: dict[str, Any], fds: Sequence[int], pid: int
) -> tuple[bytes, Sequence[int]]:
    """Return the frame of a message to the process ``pid``, and the descriptors to send beside it.

    On Windows no descriptors are sent: the frame names handles.
    """
    if sys.platform == "win32" and fds:
        message, fds = {**message, _HANDLES_FIELD: [_duplicate_handle(pid, fd) for fd in fds]}, ()
    return encode_frame(message), fds


class ChannelReader:
    """Blocking reader of one end of a channel."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = bytearray()

    def receive(self) -> tuple[ChannelFrame, list[int]]:
        """Wait for one message; return it with the descriptors that came with it.

        If this process has too few left, the message has `FILES_LOST_FIELD`.

        Raises:
            ChannelClosed: the other side is gone.
        """
        fds: list[int] = []
        lost = False
        while (frame := take_frame(self._data)) is None:
            try:
                # Windows: all that is there. Each read gives the interpreter's lock away, and to
                # get it back beside busy threads takes up to a tick of the clock, 15 ms.
                if sys.platform == "win32":
                    part = self._sock.recv(_PART_BYTES)
                else:  # no more than this frame: descriptors come with the first bytes of the next
                    size = min(_missing_bytes(self._data), _PART_BYTES)
                    part, found, flags, _ = socket.recv_fds(self._sock, size, MAX_FILES)
                    fds, lost = fds + found, lost or bool(flags & socket.MSG_CTRUNC)
            except OSError as error:
                raise ChannelClosed(str(error)) from None
            if not part:
                raise ChannelClosed("end of stream in a frame")
            self._data += part
        if sys.platform == "win32" and _HANDLES_FIELD in frame.message:
            import msvcrt

            access, handles = os.O_RDONLY | os.O_BINARY, frame.message.pop(_HANDLES_FIELD)
            fds = [msvcrt.open_osfhandle(handle, access) for handle in handles]
        if lost:
            frame.message[FILES_LOST_FIELD] = True
        return frame, fds


def spawn_worker(
    command: list[str], env: dict[str, str]
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a process whose standard input is its end of a socket pair; return it and our end.

    Its standard error is a pipe to this process; its standard output is discarded.

    Raises:
        OSError: it cannot be started.
    """
    ours, theirs = socket.socketpair()
    with ExitStack() as undone, theirs:
        undone.callback(ours.close)
        shares = sys.platform == "win32"
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if shares else theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=env,
            creationflags=NO_WINDOW,
        )
        if sys.platform == "win32":
            for end in (ours, theirs):  # a TCP connection there, with Nagle's algorithm on
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            assert process.stdin is not None
            share = theirs.share(process.pid)
            process.stdin.write(_SHARE.pack(len(share)) + share)
            process.stdin.close()
        undone.pop_all()
    return process, ours


def inherited_socket() -> socket.socket:
    """Return a worker's socket, which stands in for its standard input, and detach it from
    there."""
    if sys.platform == "win32":
        (length,) = _SHARE.unpack(sys.stdin.buffer.read(_SHARE.size))
        return socket.fromshare(sys.stdin.buffer.read(length))
    sock = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sock.setblocking(True)
    return sock


if sys.platform == "win32":

    def _duplicate_handle(pid: int, fd: int) -> int:
        """Return a handle on the file behind ``fd`` that is valid in the process ``pid``."""
        import _winapi
        import msvcrt

        duplicate_handle_right, same_access = 0x0040, 2
        target = _winapi.OpenProcess(duplicate_handle_right, False, pid)
        try:
            return _winapi.DuplicateHandle(
                _winapi.GetCurrentProcess(), msvcrt.get_osfhandle(fd), target, 0, False, same_access
            )
        finally:
            _winapi.CloseHandle(target)


class Credit:
    """Credit of one end of a call: bytes that were sent and not yet read there, and bytes that were
    read here and not yet acknowledged."""

    def __init__(self, window: int = CREDIT_WINDOW_BYTES) -> None:
        self._window = window
        self._unread = self._owed = 0

    def allows(self, size: int) -> bool:
        """Return whether a frame of ``size`` bytes may be sent now."""
        # The receiver may hold back this credit: to wait for it would be a deadlock.
        owed = self._window // 2
        return self._unread < owed or self._unread + size <= self._window

    def sent(self, size: int) -> None:
        """Count a frame that was sent."""
        self._unread += size

    def granted(self, size: int) -> None:
        """Count bytes that the other side has read."""
        self._unread = max(0, self._unread - size)

    def read(self, size: int) -> int:
        """Count a frame that was read; return the bytes to grant now, 0 if too few for a
        message."""
        self._owed += size
        if self._owed < self._window // 2:
            return 0
        owed, self._owed = self._owed, 0
        return owed
