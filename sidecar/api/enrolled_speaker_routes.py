"""Routes of /v1/people (enrolled speakers) and /v1/data (erasure)."""

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import AliasPath, BaseModel, Field

from sidecar import errors
from sidecar.api.http import openapi
from sidecar.api.http.request_headers import identity_of
from sidecar.api.http.responses import json_response
from sidecar.api.http.upload import Fields, open_local, read_fields
from sidecar.interfaces.request_options import parse_flag, parse_text
from sidecar.service.facade import Service
from sidecar.storage.speaker_store import parse_speaker_name
from sidecar.transcripts.transcript import MAX_NAME_CHARACTERS, SpeakerEmbedding


class PeopleVoice(openapi.RenderedBody):
    """Clip of an enrolled speaker."""

    added: openapi.UtcDate = Field(examples=["2026-11-20T21:10:00Z"], description="In UTC.")
    seconds: float = Field(
        examples=[8.4],
        description="Seconds of speech.",
        validation_alias=AliasPath("print", "seconds"),
    )


class PeoplePerson(openapi.RenderedBody):
    """Enrolled speaker."""

    id: str
    name: str = Field(examples=["Nell"])
    created: openapi.UtcDate = Field(examples=["2026-11-20T21:10:00Z"], description="In UTC.")
    voices: list[PeopleVoice] = Field(validation_alias="samples")


class PeopleList(BaseModel):
    """Your enrolled speakers, oldest first."""

    people: list[PeoplePerson]


class PeopleExportedVoice(PeopleVoice):
    """Clip of an enrolled speaker, with its embedding."""

    vector: str = Field(
        description="Base64 of 256 little-endian float16.",
        validation_alias=AliasPath("print", "vector"),
    )


class PeopleExportedPerson(PeoplePerson):
    """All stored data of an enrolled speaker."""

    voices: list[PeopleExportedVoice] = Field(validation_alias="samples")  # type: ignore[assignment]


class PeopleExport(BaseModel):
    """All stored data of your enrolled speakers."""

    people: list[PeopleExportedPerson]


_NAME = openapi.text(minLength=1, maxLength=MAX_NAME_CHARACTERS, examples=["Nell"])
_CLIP = {**openapi.AUDIO_FILE, "description": "5 to 10 s of one person speaking."}
_JOB = openapi.text("A finished job of yours.")
_CONSENT = openapi.flag(False, "That voices are stored on this computer: needed once.")
_SPEAKER = openapi.text("A speaker of that job.", examples=["Speaker_0"])


def person_form(required: list[str]) -> dict[str, Any]:
    """Return the body of a request about an enrolled speaker, as JSON and as a form."""
    common = {"name": _NAME, "consent": _CONSENT} if required else {"name": _NAME}
    values = {**common, "job": _JOB, "speaker": _SPEAKER, "audio_path": openapi.PATH}
    form = openapi.object_schema({**common, "audio": _CLIP}, [*required, "audio"])
    return openapi.request_body(openapi.object_schema(values, required), form)


ADD = person_form(["name"])
CHANGE = person_form([])


class ErasureAnswer(BaseModel):
    """Result of an erasure: deleted data, and sessions that continue."""

    jobs: int = Field(
        description="Deleted jobs, with recordings and transcripts; running ones were cancelled."
    )
    people: int = Field(description="Deleted enrolled speakers.")
    live_sessions: int = Field(
        description="Your live sessions in progress on this service: they continue. One with "
        "'keep' will be a job."
    )


PREFIX = "/v1/people"


def build_router(service: Service) -> APIRouter:
    """Return the routes of /v1/people and /v1/data."""
    router = openapi.Routes(responses=openapi.PROBLEMS, dependencies=openapi.CHECKS)

    @router.post(PREFIX, status_code=201, response_model=PeoplePerson, openapi_extra=ADD)
    async def add(request: Request) -> Response:
        """Enrol a speaker, by a clip or by a job's speaker."""
        identity, speakers = identity_of(request), service.enrolled_speakers
        await speakers.check_capacity(identity)
        name, embedding, consents = await _read_person_request(request, service)
        if name is None:
            raise errors.FieldMissing("The field 'name' is missing.")
        if embedding is None:
            raise errors.FieldMissing(
                "The request has neither a clip nor a job's speaker.",
                hint="Send a file part 'audio', or 'job' and 'speaker'.",
            )
        if consents:
            await speakers.give_consent(identity)
        person = await speakers.add(identity, name, embedding, known_too=consents)
        return json_response(
            PeoplePerson.render(person), 201, {"Location": f"{PREFIX}/{person.id}"}
        )

    @router.get(PREFIX, response_model=PeopleList)
    async def listed(request: Request) -> Response:
        """List your enrolled speakers."""
        speakers = await service.enrolled_speakers.all(identity_of(request))
        return json_response({"people": [PeoplePerson.render(one) for one in speakers]})

    @router.get(PREFIX + "/export", response_model=PeopleExport)
    async def export(request: Request) -> Response:
        """Export all data of your enrolled speakers, with embeddings."""
        speakers = await service.enrolled_speakers.all(identity_of(request))
        return json_response({"people": [PeopleExportedPerson.render(one) for one in speakers]})

    @router.get(PREFIX + "/{person_id}", response_model=PeoplePerson)
    async def one(request: Request, person_id: str) -> Response:
        """Get an enrolled speaker."""
        person = await service.enrolled_speakers.person(identity_of(request), person_id)
        return json_response(PeoplePerson.render(person))

    @router.patch(PREFIX + "/{person_id}", response_model=PeoplePerson, openapi_extra=CHANGE)
    async def change(request: Request, person_id: str) -> Response:
        """Rename an enrolled speaker, or add a clip or a job's speaker."""
        identity, speakers = identity_of(request), service.enrolled_speakers
        await speakers.person(identity, person_id)
        name, embedding, _ = await _read_person_request(request, service)
        if name is None and embedding is None:
            raise errors.FieldMissing(
                "The request has nothing to change.",
                hint="Send 'name', a file part 'audio', or 'job' and 'speaker'.",
            )
        return json_response(
            PeoplePerson.render(await speakers.change(identity, person_id, name, embedding))
        )

    @router.delete(PREFIX + "/{person_id}", status_code=204)
    async def delete(request: Request, person_id: str) -> Response:
        """Delete an enrolled speaker permanently."""
        await service.enrolled_speakers.delete(identity_of(request), person_id)
        return Response(status_code=204)

    @router.delete("/v1/data", response_model=ErasureAnswer)
    async def erase(request: Request) -> Response:
        """Erase your data: jobs, recordings, transcripts, enrolled speakers."""
        return json_response(await service.erase(identity_of(request)))

    return router


async def _read_person_request(
    request: Request, service: Service
) -> tuple[str | None, SpeakerEmbedding | None, bool]:
    """Return the name and the speaker embedding of a request, each `None` if it was not sent, and
    whether it has the consent. The name is checked before the audio is processed.

    Raises:
        errors.BadRequest, errors.BadAudio: a field or the clip is invalid.
        errors.JobNotFound, errors.JobNotDone, errors.SpeakerNotFound: there is no such speaker.
    """
    fields, source = await read_fields(request, service)
    try:
        name = parse_speaker_name(fields["name"]) if "name" in fields else None
        consents = parse_flag("consent", fields.get("consent"), default=False)
        if consents and "consent" in request.query_params:
            raise errors.FieldInvalid("A consent is in the body, not in the address.")
        if source is None and "audio_path" in fields:
            source = await open_local(request, fields, service)
        if source is not None:
            speakers, identity = service.enrolled_speakers, identity_of(request)
            return name, await speakers.embed_clip(identity, source), consents
        if "job" in fields or "speaker" in fields:
            job, speaker = _text(fields, "job"), _text(fields, "speaker")
            embedding = await service.owned.embedding(identity_of(request), job, speaker)
            return name, embedding, consents
        return name, None, consents
    finally:
        if source is not None:
            source.close()


def _text(fields: Fields, name: str) -> str:
    if fields.get(name) is None:
        raise errors.FieldMissing(f"The field '{name}' is missing.")
    return parse_text(name, fields[name])
