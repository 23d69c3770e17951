"""What this process has open, to tell what a test has left of it."""

import os
import threading

from systems import IN_WINDOWS

_MOST = 1024
"""Descriptors of Windows, which lists none: those of sockets are not among them."""


def opened() -> set[tuple[int, int, int]]:
    """Every open descriptor with the device and the inode behind it.

    What is there beside what was before is left over. A count would not do: other tests' leavings
    are closed whenever Python comes to it. What a thread closes now is closed first.
    """
    for thread in threading.enumerate():
        if thread.name == "closing":
            thread.join()
    found = set()
    for name in range(_MOST) if IN_WINDOWS else os.listdir("/dev/fd"):
        try:
            status = os.fstat(int(name))
        except OSError:  # the one by which they were listed, or one that is not open
            continue
        found.add((int(name), status.st_dev, status.st_ino))
    return found
