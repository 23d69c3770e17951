"""What is measured: a service, and the wire by which it is spoken to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sidecar import errors
from sidecar.cli.backends import Where
from sidecar.cli.processor import process_of

if TYPE_CHECKING:
    import psutil
    from vibevoice_asr_client import Trust

GRPC = "grpc"
ENCRYPTED = "grpcs"


class LiveWire(StrEnum):
    """How live audio goes to a service."""

    LIVE = "live"
    """`/v1/live`."""
    STREAMING = "streaming"
    """`/api/asr-streaming`, of yap servers."""
    GRPC = GRPC
    """The package `stt`."""


class FileWire(StrEnum):
    """How recordings go to a service."""

    TRANSCRIBE = "transcribe"
    """`POST /transcribe`, which waits for the answer."""
    JOBS = "jobs"
    """`/v1/jobs`, followed by its events."""
    OPENAI = "openai"
    """`POST /v1/audio/transcriptions`."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of those that are compared. ``target``: host and port of its gRPC, "" without."""

    name: str
    wire: LiveWire | FileWire
    url: str
    token: str | None = None
    trust: Trust | None = None
    target: str = ""
    process: psutil.Process | None = None

    @property
    def encrypted(self) -> bool:
        """Whether the way there is."""
        return urlsplit(self.url).scheme in ("https", ENCRYPTED)


async def look(where: Where, wire: LiveWire | FileWire) -> Side:
    """The service of ``where``, as it says it is; one that is not ours may say nothing.

    Raises:
        errors.SidecarError: nothing answers there, or it has no gRPC where that is asked for.
    """
    from vibevoice_asr_client import AnswerNotUnderstood, AsyncClient, ServiceError

    from sidecar.cli.remote import in_our_words

    url = where.server or ""
    parts = urlsplit(url)
    if parts.scheme in (GRPC, ENCRYPTED):
        if wire is not LiveWire.GRPC:
            raise errors.FieldInvalid(f"{url} speaks gRPC alone.", hint="Add --wire grpc.")
        return Side(f"{wire} {url}", wire, url, where.token, where.trust, target=parts.netloc)
    with in_our_words():
        async with AsyncClient(url, where.token, trust=where.trust) as client:
            url = client.url
            try:
                health = await client.health()
            except (ServiceError, AnswerNotUnderstood):
                health = {}
    target = ""
    if wire is LiveWire.GRPC:
        if not health.get("grpc_port"):
            raise errors.FieldInvalid(
                f"The service at {url} has no gRPC.",
                hint="Start it with --grpc-port, or give an address such as grpc://localhost:50051.",
            )
        host = urlsplit(url).hostname or ""
        target = (
            f"[{host}]:{health['grpc_port']}" if ":" in host else f"{host}:{health['grpc_port']}"
        )
    process = process_of(url, health.get("pid"))
    return Side(f"{wire} {url}", wire, url, where.token, where.trust, target, process)
