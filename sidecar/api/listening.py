"""The recording of a job, to be listened to: `/v1/jobs/{id}/audio`, whole or by ranges."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from sidecar import errors
from sidecar.api import jobs_models
from sidecar.api.http.caller import caller_of, lasting
from sidecar.api.http.problems import problem
from sidecar.api.http.ranges import range_of
from sidecar.audio.sniff import HEAD_BYTES, sniff
from sidecar.service import Service
from sidecar.storage.reading import SealedFile

log = logging.getLogger(__name__)

KINDS: Mapping[str, tuple[str, str]] = {
    "wav": ("audio/wav", "wav"),
    "rf64": ("audio/wav", "wav"),
    "w64": ("audio/x-w64", "w64"),
    "flac": ("audio/flac", "flac"),
    "ogg": ("audio/ogg", "ogg"),
    "mp3": ("audio/mpeg", "mp3"),
    "aiff": ("audio/aiff", "aiff"),
    "au": ("audio/basic", "au"),
    "caf": ("audio/x-caf", "caf"),
    "mp4": ("video/mp4", "mp4"),
    "matroska": ("video/x-matroska", "mkv"),
    "asf": ("video/x-ms-asf", "wma"),
    "aac": ("audio/aac", "aac"),
    "amr": ("audio/amr", "amr"),
}
"""Of each container (`audio.sniff`): its media type, and how names of its files end."""
_UNKNOWN = ("application/octet-stream", "bin")
SAFE: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""It came from somebody, and is nothing but bytes to be played: no page, and in no cache."""


def kind_of(head: bytes) -> tuple[str, str]:
    """The media type of a recording by its first bytes, and how its name may end."""
    container = sniff(head)
    name = container.name if container is not None else ""
    if name == "matroska" and b"webm" in head[:64]:
        return "audio/webm", "webm"
    if name == "mp4" and head[4:11] in (b"ftypM4A", b"ftypM4B"):
        return "audio/mp4", "m4a"
    return KINDS.get(name, _UNKNOWN)


class _Played(Response):
    """Bytes of a recording, opened as they are taken. What is found broken in the middle ends the
    connection before its announced end, which tells whoever listens."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        file: SealedFile,
        status: int,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(status_code=status, headers=dict(headers))
        self._pieces, self._file = pieces, file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        sending = asyncio.ensure_future(self._send_all(send))
        leaving = asyncio.ensure_future(_left(receive))

        def sent_away() -> None:
            leaving.cancel()

        try:
            with lasting(scope, sent_away):
                await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.wait({sending, leaving})
            self._file.close()
        if not sending.cancelled():
            sending.result()

    async def _send_all(self, send: Send) -> None:
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        try:
            async with aclosing(self._pieces) as pieces:
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except (errors.AudioLost, errors.StorageUnreachable) as error:
            log.warning("a recording broke off while it was played: %s", error.detail)
            return
        await send({"type": "http.response.body", "body": b""})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def add_listening(router: APIRouter, service: Service) -> None:
    """The route."""

    @router.get(
        "/{job_id}/audio",
        summary="The recording itself, where it is kept",
        response_class=Response,
        responses=jobs_models.AUDIO,
        openapi_extra=jobs_models.RANGE,
    )
    async def audio(request: Request, job_id: str) -> Response:
        file = await service.recordings.open(caller_of(request), job_id)
        try:
            return await _answer(request, service, job_id, file)
        except BaseException:
            file.close()
            raise


async def _answer(request: Request, service: Service, job_id: str, file: SealedFile) -> Response:
    media_type, ending = kind_of(await service.recordings.read(file, 0, HEAD_BYTES))
    tag = f'"{job_id}"'  # a recording never changes
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'attachment; filename="recording-{job_id[:8]}.{ending}"',
        "Content-Type": media_type,
        "ETag": tag,
        **SAFE,
    }
    begin, end, status = 0, file.size, 200
    asked, same = request.headers.get("range", ""), request.headers.get("if-range", tag) == tag
    if asked and same:
        try:
            span = range_of(asked, file.size)
        except errors.RangeUnsatisfiable as error:
            file.close()
            refused = problem(error)
            refused.headers["Content-Range"] = f"bytes */{file.size}"
            return refused
        if span is not None:
            (begin, end), status = span, 206
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{file.size}"
    headers["Content-Length"] = str(end - begin)
    if request.scope.get("head"):  # nobody reads on
        end = begin
    return _Played(service.recordings.pieces(file, begin, end), file, status, headers)
