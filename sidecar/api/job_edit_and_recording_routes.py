"""Routes of a job: edits of its transcript, and its recording (audio, ranges)."""

import logging
import re
import sys
from collections.abc import AsyncGenerator, Container, Iterator, Mapping
from dataclasses import asdict
from itertools import islice, zip_longest
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from sidecar import clock, errors
from sidecar.api import job_schemas
from sidecar.api.http.error_responses import problem
from sidecar.api.http.request_headers import identity_of
from sidecar.api.http.responses import (
    StreamedResponse,
    content_disposition,
    json_response,
    send_until_disconnect,
)
from sidecar.api.http.upload import close_on_error, read_json
from sidecar.audio.audio_format import SNIFF_BYTES, media_type_of
from sidecar.auth.identity import Identity
from sidecar.interfaces.request_fields import SPEAKER_COUNT_FIELDS
from sidecar.interfaces.request_options import (
    parse_integer,
    parse_speaker_counts,
    speaker_count_notices,
)
from sidecar.jobs.job_record import JobRecord
from sidecar.jobs.owned_jobs import SpeakerSplit
from sidecar.service.facade import Service
from sidecar.storage.encryption import EncryptedFile
from sidecar.transcripts.edit_serialization import edit_request_from_json, edit_step_to_json
from sidecar.transcripts.transcript import Transcript
from sidecar.transcripts.transcript_edits import speakers_in
from sidecar.transcripts.transcript_formats import segment_body, speaker_label

log = logging.getLogger(__name__)

_ETAG = re.compile(r'(?:W/)?"([^"]{0,40})"')
ANY_REVISION = range(sys.maxsize)
"""Revisions of the header ``*``: whichever the transcript has."""
DOWNLOAD_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Headers of untrusted bytes, which are only to be played: no page, and in no cache."""
_NUMBER = re.compile(r"\d{0,18}", re.ASCII)
"""Position in a recording: fits into 64 bits."""


def etag_of(job: JobRecord) -> str:
    """Return the ETag of a job's transcript: its revision."""
    return f'"{job.history.revision}"'


def parse_revisions(request: Request, header: str) -> Container[int] | None:
    """Return the revisions in a header, `ANY_REVISION` for ``*``; `None` if it is missing.

    Raises:
        errors.FieldInvalid: it has no valid ETag.
    """
    given = ",".join(request.headers.getlist(header)).strip()
    if given in ("", "*"):
        return ANY_REVISION if given else None
    found = [_ETAG.fullmatch(one.strip()) for one in given.split(",") if one.strip()]
    tags = [one[1] for one in found if one is not None]
    if not tags or len(tags) < len(found):
        raise errors.FieldInvalid(
            f"The header '{header}' has no ETag.",
            hint="Send the ETag of the transcript unchanged, with its quotes.",
        )
    return {int(one) for one in tags if one.isascii() and one.isdigit()}


def add_edit_routes(router: APIRouter, service: Service) -> None:
    """Add the routes of edits."""

    async def read_change(
        request: Request, job_id: str
    ) -> tuple[Identity, Container[int] | None, dict[str, Any]]:
        """Return who changes a transcript, the revisions that it is for, and the fields."""
        identity = identity_of(request)
        await service.owned.transcript(identity, job_id)  # check access before the body is read
        revisions = parse_revisions(request, "If-Match")
        return identity, revisions, await read_json(request, declared=True)

    @router.patch(
        "/{job_id}/transcript",
        response_model=job_schemas.JobEditAnswer,
        openapi_extra=job_schemas.EDIT,
    )
    async def edit(request: Request, job_id: str) -> Response:
        """Rename, merge and split speakers, move segments, correct text; undo and redo."""
        identity, revisions, fields = await read_change(request, job_id)
        if "operations" not in fields:
            raise errors.FieldMissing("The field 'operations' is missing.")
        if more := [name for name in fields if name != "operations"]:
            raise errors.FieldInvalid(f"An edit has no field '{more[0][:40]}'.")
        requested = edit_request_from_json(fields["operations"])
        before, job, parts = await service.edits.edit(identity, job_id, requested, revisions)
        body = edited_body(before, job)
        if parts:
            body["parts"] = [split_speaker_body(one) for one in parts]
        return json_response(body, headers={"ETag": etag_of(job)})

    @router.post(
        "/{job_id}/diarize",
        response_model=job_schemas.JobDiarizeAnswer,
        openapi_extra=job_schemas.DIARIZE,
    )
    async def diarize(request: Request, job_id: str) -> Response:
        """Diarize a transcript again, with another number of speakers; texts and names stay."""
        identity, revisions, fields = await read_change(request, job_id)
        if more := [name for name in fields if name not in SPEAKER_COUNT_FIELDS]:
            raise errors.FieldInvalid(f"A diarization has no field '{more[0][:40]}'.")
        counts = parse_speaker_counts(fields)
        before, job, lost = await service.edits.diarize(identity, job_id, counts, revisions)
        not_carried = {"names": [*lost.names], "reassignments": lost.reassignments}
        assert job.transcript is not None
        warnings = [asdict(one) for one in speaker_count_notices(job.transcript, counts)]
        body = {**edited_body(before, job), "not_carried": not_carried, "warnings": warnings}
        return json_response(body, headers={"ETag": etag_of(job)})

    @router.get(
        "/{job_id}/transcript/history",
        response_model=job_schemas.JobEditHistory,
        openapi_extra=job_schemas.HISTORY,
    )
    async def history(request: Request, job_id: str) -> Response:
        """Edit history of a transcript, oldest first."""
        job, _ = await service.owned.transcript(identity_of(request), job_id)
        given = request.query_params.get("limit")
        limit = parse_integer("limit", given, 1, job_schemas.MAX_HISTORY_ENTRIES)
        limit = limit or job_schemas.DEFAULT_HISTORY_ENTRIES
        history = job.history
        first = max(0, len(history.entries) - limit)
        entries = [
            {
                "at": clock.format_utc(entry.at),
                "operations": edit_step_to_json(entry.operations),
                "undone": number >= history.applied,
            }
            for number, entry in islice(enumerate(history.entries), first, None)
        ]
        body = {**job_schemas.JobRevision.render(history), "first": first, "entries": entries}
        return json_response(body, headers={"ETag": etag_of(job)})


def edited_body(old_transcript: Transcript, job: JobRecord) -> dict[str, Any]:
    """Return the result of an edit: the changed segments, and the speakers there are now."""
    assert job.transcript is not None
    transcript = job.transcript
    return {
        **job_schemas.JobRevision.render(job.history),
        "speakers": [
            {"speaker": speaker_label(one), "name": transcript.name_of(one)}
            for one in speakers_in(transcript)
        ],
        "segments": list(_changed(old_transcript, transcript)),
        "segment_count": len(transcript.segments),
    }


def split_speaker_body(split: SpeakerSplit) -> dict[str, Any]:
    """Return a speaker that was split by voice, and the segments of each resulting speaker."""
    return {
        "speaker": speaker_label(split.speaker),
        "likeness": split.likeness,
        "groups": [
            {"speaker": speaker_label(speaker), "segments": [*segments]}
            for speaker, segments in split.segments
        ],
    }


def _changed(old_transcript: Transcript, new_transcript: Transcript) -> Iterator[dict[str, Any]]:
    names: list[dict[int | None, str | None]] = [
        {one.speaker: one.name for one in each.voices} for each in (old_transcript, new_transcript)
    ]
    pairs = zip_longest(old_transcript.segments, new_transcript.segments)
    for index, (old, new) in enumerate(pairs):
        if new is None:  # there are fewer now
            return
        was, name = (each.get(new.speaker) for each in names)
        if old != new or was != name:
            yield {
                "index": index,
                "segment": segment_body(new, new_transcript.name_of(new.speaker)),
            }


class _RecordingResponse(StreamedResponse):
    """Response with the bytes of a recording, which are read while they are sent. A fault in the
    middle ends the connection before the announced end, which shows the client that it is
    incomplete."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        file: EncryptedFile,
        status: int,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(status, headers)
        self._pieces, self._file = pieces, file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        try:
            await send_until_disconnect(scope, receive, self._play(send))
        finally:
            self._file.close()

    async def _play(self, send: Send) -> None:
        await self._begin(send)
        try:
            await self._send_all(send, self._pieces)
        except errors.SidecarError as error:
            log.warning("playback of a recording stopped before its end: %s", error.detail)


def _parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Return the first requested byte and the one after the last, or `None` for the whole file. A
    malformed header counts as none, as the standard requires.

    Raises:
        errors.RangeUnsatisfiable: the file has no such bytes.
    """
    unit, _, span = header.partition("=")
    first, dash, last = (part.strip() for part in span.partition("-"))
    wanted = unit.strip().lower() == "bytes" and dash and first + last
    if not wanted or not all(_NUMBER.fullmatch(one) for one in (first, last)):
        return None
    if first == "":  # the last bytes of the file
        begin, end = max(0, size - int(last)), size
    else:
        begin, end = int(first), min(size, int(last or size) + 1)
        if last and int(last) < begin:
            return None
    if begin >= end:
        raise errors.RangeUnsatisfiable(f"The recording has {size} bytes.")
    return begin, end


def add_recording_routes(router: APIRouter, service: Service) -> None:
    """Add the route of the recording."""

    @router.get("/{job_id}/audio", responses=job_schemas.AUDIO, openapi_extra=job_schemas.RANGE)
    async def audio(request: Request, job_id: str) -> Response:
        """The recording, if it is kept."""
        job = await service.owned.read(identity_of(request), job_id)
        file = await service.recordings.open(job)
        with close_on_error(file):
            return await _answer(request, service, job, file)


async def _answer(
    request: Request, service: Service, job: JobRecord, file: EncryptedFile
) -> Response:
    media_type, ending = media_type_of(await service.recordings.read(file, 0, SNIFF_BYTES))
    tag = f'"{job.id}"'  # a recording never changes
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": content_disposition("attachment", job, "recording", ending),
        "Content-Type": media_type,
        "ETag": tag,
        **DOWNLOAD_HEADERS,
    }
    begin, end, status = 0, file.size, 200
    wanted, same = request.headers.get("range", ""), request.headers.get("if-range", tag) == tag
    if wanted and same:
        try:
            span = _parse_range(wanted, file.size)
        except errors.RangeUnsatisfiable as error:
            file.close()
            refused = problem(error)
            refused.headers["Content-Range"] = f"bytes */{file.size}"
            return refused
        if span is not None:
            (begin, end), status = span, 206
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{file.size}"
    headers["Content-Length"] = str(end - begin)
    if request.scope.get("head"):  # a HEAD response has no body
        end = begin
    return _RecordingResponse(service.recordings.pieces(file, begin, end), file, status, headers)
