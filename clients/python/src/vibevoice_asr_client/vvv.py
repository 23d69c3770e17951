"""The names of the original queue's library, over its wire: `VibevoiceClient` and its events.

The wire: `POST /v1/transcribe` as multipart, answered with server-sent events to the body's end.
"""

from __future__ import annotations

import json
import os
import ssl
import warnings
from dataclasses import dataclass
from enum import Enum
from typing import Any, AsyncIterator, Dict, Optional, Union

import httpx
from httpx_sse import ServerSentEvent

from vibevoice_asr_client.tls import forget_unusable_key_log
from vibevoice_asr_client.transport import events_in
from vibevoice_asr_client.uploads import CONTENT_TYPE, Upload

TIMEOUT = httpx.Timeout(600.0, connect=10.0, write=60.0)
STATUS_TIMEOUT_S = 10.0
Path = Union[str, "os.PathLike[str]"]


class EventType(str, Enum):
    """What an event tells."""

    QUEUE = "queue"
    DATA = "data"
    ERROR = "error"
    DONE = "done"


@dataclass(frozen=True)
class TranscriptionEvent:
    """One event; what does not belong to its type is None. Texts join with nothing between.

    ``revised``: of the last event, all of it, if it is another in the end.
    """

    event_type: EventType
    text: Optional[str] = None
    job_id: Optional[str] = None
    position: Optional[int] = None
    estimated_wait_seconds: Optional[float] = None
    error: Optional[str] = None
    revised: Optional[str] = None


class VibevoiceClient:
    """The original's client. ``verify``: as httpx has it; False believes any certificate.

    Raises (from every call):
        httpx.HTTPStatusError: the service refused.
        httpx.TransportError: it does not answer.
    """

    def __init__(
        self, base_url: str, token: str, verify: Union[bool, str, ssl.SSLContext] = True
    ) -> None:
        if warning := forget_unusable_key_log():
            warnings.warn(warning, RuntimeWarning, stacklevel=2)
        self.base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"}
        self._verify = (
            ssl.create_default_context(cafile=verify) if isinstance(verify, str) else verify
        )

    async def transcribe(
        self, audio_path: Path, hotwords: Optional[str] = None
    ) -> AsyncIterator[TranscriptionEvent]:
        """Upload a recording; its events as they come, to the last."""
        fields = {"hotwords": hotwords} if hotwords else {}
        with Upload(audio_path) as upload:
            files = {"audio": (upload.name, upload, CONTENT_TYPE)}
            async with (
                self._http(TIMEOUT) as http,
                http.stream(
                    "POST",
                    "/v1/transcribe",
                    data=fields,
                    files=files,  # type: ignore[arg-type]
                ) as response,
            ):
                response.raise_for_status()
                async for told in events_in(response.aiter_bytes()):
                    event = event_of(told)
                    if event is not None:
                        yield event

    async def queue_status(self) -> Dict[str, Any]:
        """The caller's jobs, and how many wait in all."""
        async with self._http(httpx.Timeout(STATUS_TIMEOUT_S)) as http:
            response = await http.get("/v1/queue/status")
            status: Dict[str, Any] = response.raise_for_status().json()
            return status

    def _http(self, timeout: httpx.Timeout) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.base_url,
            headers=self._headers,
            verify=self._verify,
            timeout=timeout,
            trust_env=False,  # a proxy of the environment would get the token
        )


def event_of(told: ServerSentEvent) -> Optional[TranscriptionEvent]:
    """The event in what was sent; None where it is none of the four, or no JSON."""
    try:
        kind = EventType("data" if told.event == "message" else told.event)
        data = json.loads(told.data)
    except ValueError:
        return None
    if not isinstance(data, dict):
        return None
    return TranscriptionEvent(
        kind,
        text=data.get("text"),
        job_id=data.get("job_id"),
        position=data.get("position"),
        estimated_wait_seconds=data.get("estimated_wait_seconds"),
        error=data.get("error"),
        revised=data.get("revised"),
    )
