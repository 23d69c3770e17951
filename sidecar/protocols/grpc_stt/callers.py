"""What a call says of where it comes from. Pure."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable

from sidecar.auth.approach import Approach

Metadata = Iterable[tuple[str, str | bytes]]
KEYS = ("x-api-key", "api-key", "api_key")
"""Where a key may be besides `authorization`: as metadata, and the latter two as attributes."""
FORWARDED = ("forwarded", "x-forwarded-", "x-real-ip")
"""How the metadata begins that proxies add."""


def approach_of(metadata: Metadata, peer: str, *, encrypted: bool) -> Approach:
    """Where a call comes from. gRPC does not tell by what name we were called, and no page of a
    browser can call: it would have to speak HTTP/2 unencrypted, or to a name that our certificate
    has. One that tries all the same has an `origin`."""
    texts = [(key, value) for key, value in metadata if isinstance(value, str)]
    return Approach(
        hosts=["localhost"],
        origins=[value for key, value in texts if key == "origin"],
        authorizations=[value for key, value in texts if key == "authorization"]
        or [f"Bearer {value}" for key, value in texts if key in KEYS],
        fetch_site=next((value for key, value in texts if key == "sec-fetch-site"), ""),
        scheme="https" if encrypted else "http",
        peer=address_of(peer),
        forwarded=any(key.startswith(FORWARDED) for key, _ in texts),
    )


def address_of(peer: str) -> str | None:
    """The address in what gRPC calls a peer, such as 'ipv4:127.0.0.1:50000'; None where it has
    none."""
    kind, _, rest = urllib.parse.unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    address, _, _ = rest.rpartition(":")
    return address.strip("[]").partition("%")[0] or None


def first(metadata: Metadata, *names: str) -> str:
    """What comes first under one of ``names``, "" where nothing does."""
    found = (value for name in names for key, value in metadata if key == name)
    return next((value for value in found if isinstance(value, str)), "")
