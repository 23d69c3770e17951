"""Parts of an answer by bytes (RFC 9110, 14): one range; of several the whole is sent. Pure."""

from __future__ import annotations

import re

from sidecar.errors import RangeUnsatisfiable

_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})", re.ASCII | re.IGNORECASE)


def range_of(header: str, size: int) -> tuple[int, int] | None:
    """The first byte that is asked for and the one behind the last; None where it is all of them,
    or what is asked for is not understood, as the standard has it.

    Raises:
        errors.RangeUnsatisfiable: there are no such bytes.
    """
    found = _RANGE.fullmatch(header.strip())
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":  # so many at the end
        begin, end = max(0, size - int(found[2])), size
    else:
        begin, end = int(found[1]), min(size, int(found[2] or size) + 1)
        if found[2] and int(found[2]) < begin:
            return None
    if begin >= end:
        raise RangeUnsatisfiable(f"The recording has {size} bytes.")
    return begin, end
