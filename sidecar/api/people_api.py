"""`/v1/people`: whose voices are known. All of it is off unless the setting 'people' is on."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from sidecar import clock, errors
from sidecar.api import people_models
from sidecar.api.http.bodies import Fields, json_response, open_local, read_fields
from sidecar.api.http.caller import caller_of
from sidecar.api.http.schemas import PROBLEMS
from sidecar.service import Service
from sidecar.storage.person import Person, exported, parse_name
from sidecar.transcripts.people import VoicePrint

PATH = "/v1/people"


def person_body(person: Person) -> dict[str, Any]:
    """A person as JSON has it, without vectors."""
    return {
        "id": person.id,
        "name": person.name,
        "created": clock.for_people(person.created),
        "voices": [
            {"added": clock.for_people(one.added), "seconds": one.print.seconds}
            for one in person.samples
        ],
    }


def build_router(service: Service) -> APIRouter:
    """The routes of this wire."""
    router = APIRouter(prefix=PATH)

    @router.post(
        "",
        summary="Make somebody known, by a clip or by a job's speaker",
        status_code=201,
        response_model=people_models.Person,
        responses=PROBLEMS,
        openapi_extra=people_models.ADD,
    )
    async def add(request: Request) -> Response:
        caller, people = caller_of(request), service.voices.people
        await people.check_room(caller)
        name, heard = await _read(request, service)
        if name is None:
            raise errors.FieldMissing("The field 'name' is missing.")
        if heard is None:
            raise errors.FieldMissing(
                "Neither a clip nor a job's speaker was sent.",
                hint="Send a file part 'audio', or 'job' and 'speaker'.",
            )
        person = await people.add(caller, name, heard)
        return json_response(person_body(person), 201, {"Location": f"{PATH}/{person.id}"})

    @router.get(
        "", summary="Your people", response_model=people_models.PersonList, responses=PROBLEMS
    )
    async def listed(request: Request) -> Response:
        everybody = await service.voices.people.all(caller_of(request))
        return json_response({"people": [person_body(one) for one in everybody]})

    @router.get(
        "/export",
        summary="All that is stored of your people, vectors too",
        response_model=people_models.Export,
        responses=PROBLEMS,
    )
    async def export(request: Request) -> Response:
        everybody = await service.voices.people.all(caller_of(request))
        return json_response({"people": [exported(one) for one in everybody]})

    @router.get(
        "/{person_id}",
        summary="One of them",
        response_model=people_models.Person,
        responses=PROBLEMS,
    )
    async def one(request: Request, person_id: str) -> Response:
        person = await service.voices.people.person(caller_of(request), person_id)
        return json_response(person_body(person))

    @router.patch(
        "/{person_id}",
        summary="Rename somebody, or confirm that a job's speaker is them",
        response_model=people_models.Person,
        responses=PROBLEMS,
        openapi_extra=people_models.CHANGE,
    )
    async def change(request: Request, person_id: str) -> Response:
        caller, people = caller_of(request), service.voices.people
        await people.person(caller, person_id)
        name, heard = await _read(request, service)
        if name is None and heard is None:
            raise errors.FieldMissing(
                "Nothing was sent that could be changed.",
                hint="Send 'name', a file part 'audio', or 'job' and 'speaker'.",
            )
        return json_response(person_body(await people.change(caller, person_id, name, heard)))

    @router.delete(
        "/{person_id}",
        summary="Forget somebody, for good",
        status_code=204,
        responses=PROBLEMS,
    )
    async def delete(request: Request, person_id: str) -> Response:
        await service.voices.people.delete(caller_of(request), person_id)
        return Response(status_code=204)

    return router


async def _read(request: Request, service: Service) -> tuple[str | None, VoicePrint | None]:
    """The name and the voice of a request, as far as it has them; what is wrong with the name is
    said before anybody listens.

    Raises:
        errors.BadRequest, errors.BadAudio: one of them is no good.
        errors.JobNotFound, errors.JobNotDone, errors.SpeakerNotFound: there is no such speaker.
    """
    fields, source = await read_fields(request, service)
    try:
        name = parse_name(fields["name"]) if "name" in fields else None
        if source is None and "audio_path" in fields:
            source = await open_local(request, fields, service)
        if source is not None:
            return name, await service.voices.of(caller_of(request), source)
        if "job" in fields or "speaker" in fields:
            job, speaker = _text(fields, "job"), _text(fields, "speaker")
            return name, await service.owned.voice(caller_of(request), job, speaker)
        return name, None
    finally:
        if source is not None:
            source.close()


def _text(fields: Fields, name: str) -> str:
    value = fields.get(name)
    if value is None:
        raise errors.FieldMissing(f"The field '{name}' is missing.")
    if not isinstance(value, str):
        raise errors.FieldInvalid(f"The field '{name}' is not a string.")
    return value
