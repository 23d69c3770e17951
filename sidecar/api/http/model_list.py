"""List of the models of this machine, in the bodies of all protocols that list models."""

from typing import Literal

from pydantic import Field

from sidecar.api.http import openapi
from sidecar.auth.identity import Identity, Scope
from sidecar.service.facade import Service


class LocalModel(openapi.RenderedBody):
    """Model that can be used or downloaded here."""

    name: str = Field(examples=["whisper:small"], description="For pull and delete.")
    engine: str = Field(examples=["whisper"], description="Engine that loads it.")
    languages: list[str] = Field(examples=[["en", "de"]], description="Empty: any.")
    recordings: bool
    live: bool
    speakers: bool
    download_bytes: int | None = Field(description="Size of the download.")
    memory_bytes: int | None = Field(
        description="Of its weights in the smallest precision, without what a recording takes."
    )
    lacking: list[str] = Field(description="Packages that its engine needs and that are missing.")
    installed: bool
    bytes: int = Field(description="Size on the disk, also of a part that a pull resumes.")
    commit: str = Field(description="Version that is installed.")
    used_for: list[Literal["recordings", "live"]] = Field(
        description="What is transcribed with it here now."
    )


async def models_field(service: Service, identity: Identity) -> dict[str, list[LocalModel]]:
    """Return the field `models` for a client; nothing for one that may not change them: names of
    private fine-tunes are among them.

    Raises:
        errors.MachineBusy: their folder cannot be read.
        errors.StorageUnreachable: its disk does not answer.
    """
    if Scope.ADMIN not in identity.scopes:
        return {}
    return {"models": [LocalModel.model_validate(one) for one in await service.local_models.all()]}
