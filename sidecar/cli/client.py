"""A client of our own service over HTTP, for the command line's ``--server``.

A recording is uploaded as a form and worked on as a job, so that there is progress to show and
something to cancel. Whatever goes wrong arrives as the error that the service raised.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sidecar import errors
from sidecar.audio.source import AudioSource
from sidecar.cli.trust import HINT, Trust, refusal
from sidecar.jobs.record import ENDED
from sidecar.speech.transcript import Finished, Notice, Progress, Segment, Transcript, Word

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 60.0
"""Longest silence of the service, which takes seconds to look at a recording that others await."""
POLL_S = (0.05, 1.0)
"""First and longest wait between two looks at a job: a short clip must not wait for a long poll."""


class ServiceClient:
    """One service at ``url``, which may want a token; use it as an async context manager.

    Raises (from every call):
        errors.ServiceUnreachable: nothing answers there, or something that is not this service.
        errors.SidecarError: the service said no.
    """

    def __init__(self, url: str, token: str | None = None, trust: Trust | None = None) -> None:
        self._token = token
        self._trust = trust or Trust()
        scheme = "https" if self._trust.given else "http"
        self.url = (url if "://" in url else f"{scheme}://{url}").rstrip("/")

    async def __aenter__(self) -> Self:
        import httpx

        try:
            # The service is on this machine or next to it; a proxy is for what is far away.
            self._http = httpx.AsyncClient(
                base_url=self.url,
                headers={"Authorization": f"Bearer {self._token}"} if self._token else {},
                timeout=TIMEOUT_S,
                trust_env=False,
                verify=await self._trust.context(self.url) or True,
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise errors.ServiceUnreachable(f"'{self.url}' is no address: {error}.") from None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def health(self) -> dict[str, Any]:
        """The body of ``GET /health``."""
        return await self._ask("GET", "/health")

    async def submit(self, source: AudioSource, options: Mapping[str, str]) -> dict[str, Any]:
        """Upload a recording, which is closed then; the job that works on it."""
        return await self._upload(
            "/transcribe", source, options, headers={"Prefer": "respond-async"}
        )

    async def estimate(self, source: AudioSource, options: Mapping[str, str]) -> dict[str, Any]:
        """Upload a recording, which is closed then; the body of ``POST /v1/estimate``."""
        return await self._upload("/v1/estimate", source, options)

    async def watch(self, job: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The job as it is, again and again until it has ended; left early, it is cancelled."""
        wait_s, longest_s = POLL_S
        try:
            while True:
                yield job
                if job["state"] in ENDED:
                    return
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 1.5, longest_s)
                try:
                    job = await self._ask("GET", f"/jobs/{job['id']}")
                except errors.RateLimited as limited:  # the job goes on meanwhile
                    await asyncio.sleep(limited.retry_after or longest_s)
        finally:
            if job["state"] not in ENDED:
                with suppress(errors.SidecarError):  # a service that is gone has cancelled it
                    await self.cancel(job["id"])

    async def cancel(self, job_id: str) -> None:
        """End a job."""
        await self._ask("DELETE", f"/jobs/{job_id}")

    async def transcribe(
        self, source: AudioSource, options: Mapping[str, str]
    ) -> AsyncGenerator[Progress | Finished, None]:
        """Upload a recording and follow it to its end; left early, the job is cancelled."""
        job = await self.submit(source, options)
        async with aclosing(self.watch(job)) as jobs:
            async for job in jobs:
                progress = job["progress"]
                yield Progress(progress["audio_seconds_done"], progress["audio_seconds_total"])
                if error := job.get("error"):
                    raise errors.from_wire(error)
                if result := job.get("result"):
                    yield Finished(transcript_from_body(result))

    async def _upload(
        self, address: str, source: AudioSource, fields: Mapping[str, str], **content: Any
    ) -> dict[str, Any]:
        with source, os.fdopen(os.dup(source.fd), "rb") as file:
            files = {"audio": ("recording", file)}  # its name is nobody's business
            return await self._ask("POST", address, data=dict(fields), files=files, **content)

    async def _ask(self, method: str, address: str, **content: Any) -> dict[str, Any]:
        import httpx

        try:
            response = await self._http.request(method, address, **content)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if why := refusal(error):
                raise errors.ServiceUnreachable(
                    f"The certificate at {self.url} is not believed: {why}.", hint=HINT
                ) from None
            raise errors.ServiceUnreachable(f"No service answers at {self.url}.") from None
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise errors.ServiceUnreachable(
                f"The service at {self.url} broke off ({type(error).__name__}).",
            ) from None
        return self._read(response)

    def _read(self, response: httpx.Response) -> dict[str, Any]:
        try:
            body = response.json()
        except ValueError:
            body = None
        if isinstance(body, dict) and response.is_success:
            return body
        if isinstance(body, dict) and "code" in body:
            after = response.headers.get("retry-after", "")
            raise errors.from_wire({**body, "retry_after": int(after) if after.isdigit() else None})
        raise errors.ServiceUnreachable(
            f"What answers at {self.url} is not this service (HTTP {response.status_code}).",
            hint="Check the address; the service's own is in its first line of log.",
        )


def transcript_from_body(body: Mapping[str, Any]) -> Transcript:
    """The transcript in the service's answer to a transcription.

    Raises:
        errors.ServiceUnreachable: it is not such an answer.
    """
    try:
        about = body["metadata"]
        return Transcript(
            segments=tuple(
                _segment(segment, diarized=about["diarized"]) for segment in body["segments"]
            ),
            language=about["language"],
            duration=about["duration"],
            engine=about["engine"],
            precision=about["model_precision"],
            diarized=about["diarized"],
            notices=tuple(Notice(item["code"], item["message"]) for item in about["warnings"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise errors.ServiceUnreachable(
            f"The service's answer is not understood ({type(error).__name__}: {error}).",
            hint="Use the same version of vibevoice-asr on both ends.",
        ) from None


def _segment(body: Mapping[str, Any], *, diarized: bool) -> Segment:
    return Segment(
        start=body["start_time"],
        end=body["end_time"],
        text=body["text"],
        speaker=int(body["speaker"].removeprefix("Speaker_")) if diarized else None,
        words=tuple(
            Word(word["start_time"], word["end_time"], word["text"])
            for word in body.get("words", ())
        ),
        flags=tuple(body.get("flags", ())),
    )
