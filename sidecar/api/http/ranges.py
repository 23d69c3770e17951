"""Parts of an answer by bytes (RFC 9110, 14): one range; of several the whole is sent. Pure."""

from __future__ import annotations

import re

from sidecar.errors import RangeUnsatisfiable

_NUMBER = re.compile(r"\d{0,18}", re.ASCII)


def range_of(header: str, size: int) -> tuple[int, int] | None:
    """The first byte that is asked for and the one behind the last; None where it is all of them,
    or what is asked for is not understood, as the standard has it.

    Raises:
        errors.RangeUnsatisfiable: there are no such bytes.
    """
    unit, _, span = header.partition("=")
    first, dash, last = (part.strip() for part in span.partition("-"))
    wanted = unit.strip().lower() == "bytes" and dash and first + last
    if not wanted or not all(_NUMBER.fullmatch(one) for one in (first, last)):
        return None
    if first == "":  # so many at the end
        begin, end = max(0, size - int(last)), size
    else:
        begin, end = int(first), min(size, int(last or size) + 1)
        if last and int(last) < begin:
            return None
    if begin >= end:
        raise RangeUnsatisfiable(f"The recording has {size} bytes.")
    return begin, end
