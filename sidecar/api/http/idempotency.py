"""The header `Idempotency-Key`, and what tells one request from another."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from fastapi import Request

from sidecar import errors
from sidecar.audio.ref import digest_of

KEY = "idempotency-key"
_KEY = re.compile(r'"?(?P<name>[\x21\x23-\x7e]{1,255})"?', re.ASCII)
"""A structured string by the draft (draft-ietf-httpapi-idempotency-key-header); most clients send
it without the quotes."""


def key_name(request: Request) -> str | None:
    """What the client calls this request, None if it has no name.

    Raises:
        errors.FieldInvalid: it is no name.
    """
    given = request.headers.getlist(KEY)
    if not given:
        return None
    said = _KEY.fullmatch(given[0].strip())
    if said is None or len(given) > 1:
        raise errors.FieldInvalid(
            "'Idempotency-Key' is not a key.",
            hint="Send one, of 1 to 255 ASCII characters without spaces, such as a UUID.",
        )
    return said["name"]


def digest(fields: Mapping[str, Any], upload: int | None) -> str:
    """Of all that was sent: two requests with the same are one. A file that was named counts by its
    name. May wait for a disk."""
    found = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    if upload is not None:
        found.update(digest_of(upload).encode())
    return found.hexdigest()
