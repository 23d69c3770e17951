"""How a call ends that went wrong."""

from __future__ import annotations

import logging
from typing import Any

from sidecar import errors
from sidecar.protocols.grpc_stt.codes import STREAM_FAULT, Refused, Said, said_of

log = logging.getLogger(__name__)


async def end(
    context: Any,
    wrong: Exception,
    trailing: tuple[tuple[str, str], ...] = (),
    fault: Said = STREAM_FAULT,
) -> None:
    """Say it: status, number and message, and in the trailing metadata, where it is an error that
    every wire knows, its stable code and what to do. ``fault``: how a fault of ours is said.

    Raises:
        grpc.aio.AbortError: always; that is how a call ends.
    """
    said = said_of(wrong, fault)
    if isinstance(wrong, errors.SidecarError):
        hint = wrong.hint.encode("ascii", "replace").decode()
        trailing = (*trailing, ("error-code", wrong.code), ("error-hint", hint))
        if wrong.retry_after is not None:
            trailing = (*trailing, ("retry-after", str(wrong.retry_after)))
    elif not isinstance(wrong, Refused):
        log.error("a fault of ours in a call over gRPC", exc_info=wrong)
    if trailing:
        context.set_trailing_metadata(trailing)
    await context.abort(said.status, f"{said.number} {said.message}")
