"""The header `Prefer` (RFC 7240): what a client would like, where it can be had."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_WORD = rf'(?:"(?:[^"\\]|\\.)*"|{_NAME})'
_PARAMETER = rf"{_NAME}(?:\s*=\s*{_WORD})?"
_PREFERENCE = re.compile(
    rf"\s*(?P<name>{_NAME})(?:\s*=\s*(?P<value>{_WORD}))?(?:\s*;(?:\s*{_PARAMETER})?)*\s*"
)


def preferences(headers: Iterable[str]) -> dict[str, str]:
    """Names, in lower case, and values ("" for none); of several of one name the first counts.

    A header that breaks the rules says nothing from there on.
    """
    found: dict[str, str] = {}
    for header in headers:
        at = 0
        while at < len(header):
            if header[at] == ",":
                at += 1
                continue
            preference = _PREFERENCE.match(header, at)
            if preference is None or header[preference.end() : preference.end() + 1] not in ",":
                break
            value = (preference["value"] or "").strip('"')
            found.setdefault(preference["name"].lower(), value)
            at = preference.end()
    return found


def wants_async(headers: Iterable[str]) -> bool:
    """Whether the client would rather have a job now than its result later."""
    return preferences(headers).get("respond-async") == ""
