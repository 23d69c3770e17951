"""A transcript changed after the fact, and what was done to it: `/v1/jobs/{id}/transcript`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from fastapi import APIRouter, Request, Response

from sidecar import clock, errors
from sidecar.api import jobs_models
from sidecar.api.http.bodies import json_response, media_type
from sidecar.api.http.caller import caller_of
from sidecar.api.http.schemas import PROBLEMS
from sidecar.api.http.upload import read_json
from sidecar.interfaces.options import parse_whole
from sidecar.jobs.parting import Part
from sidecar.jobs.record import JobRecord
from sidecar.service import Service
from sidecar.transcripts.edit_serialization import step_values, wished_of
from sidecar.transcripts.edits import speakers_in
from sidecar.transcripts.history import History
from sidecar.transcripts.transcript import Transcript
from sidecar.transcripts.transcript_formats import segment_body, speaker_label

USUAL, MOST = 100, 1000
"""Entries of a history that are told at once: of 100 bytes at the least, of 64 KiB at the most."""
_ETAG = re.compile(r'(?:W/)?"([^"]{0,40})"')


def etag_of(job: JobRecord) -> str:
    """The revision of a job's transcript, as `ETag` has it."""
    return f'"{job.history.revision}"'


def revisions_in(request: Request, header: str) -> set[int] | None:
    """Those that a header names; None without one, or if any will do.

    Raises:
        errors.FieldInvalid: it names none that could be ours.
    """
    given = ",".join(request.headers.getlist(header)).strip()
    if given in ("", "*"):
        return None
    found = [_ETAG.fullmatch(one.strip()) for one in given.split(",") if one.strip()]
    tags = [one[1] for one in found if one is not None]
    if not tags or len(tags) < len(found):
        raise errors.FieldInvalid(
            f"'{header}' has no ETag in it.",
            hint="Send the ETag of the transcript as it came, with its quotes.",
        )
    return {int(one) for one in tags if one.isascii() and one.isdigit()}


def unchanged(request: Request, job: JobRecord) -> bool:
    """Whether the client has this revision already (`If-None-Match`)."""
    revisions = revisions_in(request, "If-None-Match")
    return revisions is not None and job.history.revision in revisions


def add_editing(router: APIRouter, service: Service) -> None:
    """The routes."""

    @router.patch(
        "/{job_id}/transcript",
        summary="Rename, merge and split speakers, move segments, correct lines; undo and redo",
        response_model=jobs_models.Edited,
        responses=PROBLEMS,
        openapi_extra=jobs_models.EDIT,
    )
    async def edit(request: Request, job_id: str) -> Response:
        caller = caller_of(request)
        await service.owned.transcript(caller, job_id)  # before anything of the body is read
        revisions = revisions_in(request, "If-Match")
        if media_type(request) != "application/json":
            raise errors.ContentTypeUnsupported("An edit is sent as JSON.")
        fields = await read_json(request, service.settings)
        if "operations" not in fields:
            raise errors.FieldMissing("The field 'operations' is missing.")
        if more := [name for name in fields if name != "operations"]:
            raise errors.FieldInvalid(f"There is no field '{more[0][:40]}' in an edit.")
        wished = wished_of(fields["operations"])
        done = await service.edits.edit(caller, job_id, wished, revisions)
        body = edited_body(done.before, done.job)
        if done.parts:
            body["parts"] = [part_body(one) for one in done.parts]
        return json_response(body, headers={"ETag": etag_of(done.job)})

    @router.get(
        "/{job_id}/transcript/history",
        summary="What was done to a transcript, the oldest first",
        response_model=jobs_models.History,
        responses=PROBLEMS,
        openapi_extra=jobs_models.HISTORY,
    )
    async def history(request: Request, job_id: str) -> Response:
        job, _ = await service.owned.transcript(caller_of(request), job_id)
        limit = parse_whole("limit", request.query_params.get("limit"), 1, MOST) or USUAL
        history = job.history
        first = max(0, len(history.entries) - limit)
        entries = [
            {
                "at": clock.for_people(entry.at),
                "operations": step_values(entry.operations),
                "undone": number >= history.applied,
            }
            for number, entry in islice(enumerate(history.entries), first, None)
        ]
        body = {**counts_body(history), "first": first, "entries": entries}
        return json_response(body, headers={"ETag": etag_of(job)})


def counts_body(history: History) -> dict[str, Any]:
    """Which revision there is, and how many steps there are in both directions."""
    return {
        "revision": history.revision,
        "undo": history.applied,
        "redo": len(history.entries) - history.applied,
    }


def edited_body(before: Transcript, job: JobRecord) -> dict[str, Any]:
    """What an edit came to: the segments that are not as they were, and who there is now."""
    assert job.transcript is not None
    after = job.transcript
    return {
        **counts_body(job.history),
        "speakers": [
            {"speaker": speaker_label(one), "name": after.name_of(one)}
            for one in speakers_in(after)
        ],
        "segments": list(_changed(before, after)),
    }


def part_body(part: Part) -> dict[str, Any]:
    """A speaker that was split by voice, and which segments went where."""
    return {
        "speaker": speaker_label(part.speaker),
        "likeness": part.likeness,
        "groups": [
            {"speaker": speaker_label(speaker), "segments": [*segments]}
            for speaker, segments in part.segments
        ],
    }


def _changed(before: Transcript, after: Transcript) -> Iterator[dict[str, Any]]:
    names: list[dict[int | None, str | None]] = [
        {one.speaker: one.name for one in each.voices} for each in (before, after)
    ]
    pairs = zip(before.segments, after.segments, strict=True)
    for index, (old, new) in enumerate(pairs):
        was, name = (each.get(new.speaker) for each in names)
        if old != new or was != name:
            yield {"index": index, "segment": segment_body(new, after.name_of(new.speaker))}
