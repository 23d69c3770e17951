"""The client: `AsyncClient`, for programs that do other things meanwhile."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from pathlib import Path
from typing import (
    Any,
    AsyncGenerator,
    Callable,
    Dict,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
    overload,
)

import httpx

from vibevoice_asr_client import calls, transport
from vibevoice_asr_client.async_live import AsyncLive
from vibevoice_asr_client.calls import Answer, Call
from vibevoice_asr_client.errors import ClientError, ConnectionLost, ServiceUnreachable
from vibevoice_asr_client.flows import Following, Lost, Surroundings, asking
from vibevoice_asr_client.live_events import LiveEvent
from vibevoice_asr_client.live_recording import carry, opened_wave
from vibevoice_asr_client.models import (
    Event,
    Job,
    JobPage,
    Progress,
    Transcript,
    event_of,
    job_of,
    page_of,
    progress_after,
    transcript_of,
)
from vibevoice_asr_client.problems import error_of
from vibevoice_asr_client.retry import NEVER, Retry
from vibevoice_asr_client.tls import Trust
from vibevoice_asr_client.uploads import Source, Upload

Told = Callable[[Progress], None]


class AsyncClient:
    """One service at ``url`` and whoever ``token`` names; an async context manager, for one loop.

    ``trust``: which certificate is trusted (`Trust`). ``retry``: how patient it is (`Retry`).
    ``silence_s``: the longest silence that it bears.

    Raises (from every call):
        ServiceUnreachable: nothing answers there; `ConnectionLost` and `CertificateRefused` are it.
        ServiceError: the service refused; `codes` has a class for each code.
        AnswerNotUnderstood: what answers is not this service.
    """

    def __init__(
        self,
        url: str,
        token: Optional[str] = None,
        *,
        trust: Optional[Trust] = None,
        retry: Optional[Retry] = None,
        silence_s: float = transport.SILENCE_S,
    ) -> None:
        self._trust = trust or Trust()
        self.url = calls.address(url, encrypted=self._trust.given)
        self._token = token
        self._silence_s = silence_s
        self._around = transport.surroundings(retry or Retry())
        self._answered = False
        given = (self.url, token, silence_s, self._trust)
        self._shell = transport.Looping(lambda: transport.options(*given))

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of all connections."""
        await self._shell.close()

    # Questions

    async def health(self) -> Dict[str, Any]:
        """How the service is, now: asked once, whatever becomes of it."""
        return (await self._ask(calls.health(), around=transport.surroundings(NEVER))).body()

    async def about(self) -> Dict[str, Any]:
        """What the service is, as its page says it: the engine with its languages, what it
        keeps."""
        return (await self._ask(calls.about())).body()

    async def estimate(self, /, source: Optional[Source] = None, **options: Any) -> Dict[str, Any]:
        """Whether a recording, or one of ``minutes``, fits into the service's memory, and how long
        it takes."""
        if source is None:
            return (await self._ask(calls.estimate(options))).body()
        with Upload(source) as upload:
            return (await self._ask(calls.estimate(options), upload)).body()

    async def queue_status(self) -> Dict[str, Any]:
        """The caller's jobs in the words of the queue's own wire."""
        return (await self._ask(calls.queue_status())).body()

    async def page_path(self) -> str:
        """What behind `url` opens the service's page in a browser, once, with our token."""
        return str((await self.page_link())["path"])

    async def page_link(self, *, invitation: bool = False) -> Dict[str, Any]:
        """The same as `path`, and how long it lasts: two minutes, or a day as ``invitation``."""
        return (await self._ask(calls.page_link(invitation))).body()

    # People

    async def people(self) -> Dict[str, Any]:
        """The people whose voices the service knows for this caller."""
        return (await self._ask(calls.people())).body()

    async def export_people(self) -> Dict[str, Any]:
        """All that is stored of them, vectors too."""
        return (await self._ask(calls.export_people())).body()

    async def add_person(
        self, name: str, source: Source, *, consent: bool = False
    ) -> Dict[str, Any]:
        """Make somebody known by some seconds of their voice. ``consent``: voices may be stored on
        this computer; a service that nobody has answered yet needs it once."""
        with Upload(source) as upload:
            return (await self._ask(calls.add_person(name, consent), upload)).body()

    async def add_speaker(
        self, name: str, job_id: str, speaker: str, *, consent: bool = False
    ) -> Dict[str, Any]:
        """Make a speaker of a job known; ``consent``: as of `add_person`."""
        return (await self._ask(calls.add_speaker(name, job_id, speaker, consent))).body()

    async def change_person(
        self,
        person_id: str,
        name: Optional[str] = None,
        *,
        job: Optional[str] = None,
        speaker: Optional[str] = None,
    ) -> Dict[str, Any]:
        """Another name, or a job's speaker that is this person, or both."""
        said = {"name": name, "job": job, "speaker": speaker}
        return (await self._ask(calls.change_person(person_id, said))).body()

    async def delete_person(self, person_id: str) -> None:
        """Forget somebody, for good."""
        await self._ask(calls.delete_person(person_id))

    # Models

    async def models(self) -> Tuple[Mapping[str, Any], ...]:
        """The models that can be used or downloaded there, as `GET /v1/models` has them."""
        return tuple((await self._ask(calls.models())).body().get("models", ()))

    async def pull_model(
        self, name: str, revision: Optional[str] = None
    ) -> AsyncGenerator[Event, None]:
        """Download a model: its events, of kind `progress` and `notice`, and `done` at the end.

        Leaving it early ends the download, and another one resumes it.

        Raises:
            ServiceError: it failed; `codes` has a class for each code.
        """
        request = transport.request(calls.pull_model(name, revision))
        kind = ""
        try:
            async with self._shell.stream(**request) as response:
                body = self._shell.pieces(response)
                if not response.is_success:
                    text = b"".join([piece async for piece in body]).decode("utf-8", "replace")
                    raise transport.answer(response, text).error(self._around.now())
                async for told in transport.events_in(body):
                    event = event_of(told)
                    if event is not None:
                        kind = event.kind
                        if kind == "failed":
                            raise error_of(event.data["error"])
                        yield event
        except httpx.TransportError as trouble:
            raise transport.lost(trouble, self.url, True).error from None
        if kind != "done":
            raise ConnectionLost("The service broke off the download.")

    async def delete_model(self, name: str) -> None:
        """Delete a downloaded model."""
        await self._ask(calls.delete_model(name))

    # Jobs

    async def submit(
        self,
        /,
        source: Source,
        *,
        name: str = "",
        key: Optional[str] = None,
        on_progress: Optional[Told] = None,
        **options: Any,
    ) -> Job:
        """Upload a recording; the job that works on it, which goes on without us.

        ``options`` are the fields of a transcription (`language`, `hotwords`, `priority` …).
        ``key``: whatever is sent with the same one is the same job (`Idempotency-Key`); a new one
        if unset, so that an answer that was lost costs no second job.
        """
        call = calls.submit(options, key or uuid.uuid4().hex)
        with Upload(source, name, counted(on_progress)) as upload:
            return job_of((await self._ask(call, upload)).body())

    async def job(self, job_id: str) -> Job:
        """A job as it stands."""
        return job_of((await self._ask(calls.job(job_id))).body())

    async def jobs(
        self,
        state: Optional[str] = None,
        limit: Optional[int] = None,
        after: Optional[str] = None,
    ) -> JobPage:
        """The caller's jobs without what was said; ``after``: `JobPage.next` of the last page."""
        return page_of((await self._ask(calls.jobs(state, limit, after))).body())

    async def cancel(self, job_id: str, keep: bool = False, revision: Optional[int] = None) -> None:
        """End a job, or forget one that has ended; with ``keep`` it is forgotten in no case.

        ``revision``: refuse to forget it (`codes.TranscriptChanged`) if it is another by now.
        """
        await self._ask(calls.cancel(job_id, keep, revision))

    async def events(self, job_id: str, after: Optional[int] = None) -> AsyncGenerator[Event, None]:
        """What happened to a job (after the event ``after``) and happens, to its end.

        A connection that is lost is made again where it was; no event is lost and none comes twice.
        """
        following = Following(job_id, after, self._around)
        while not following.ended:
            error: Optional[ClientError] = None
            try:
                async with self._shell.stream(**transport.request(following.call)) as response:
                    self._answered = True
                    body, text = self._shell.pieces(response), ""
                    if not response.is_success:
                        text = b"".join([piece async for piece in body]).decode("utf-8", "replace")
                    error = following.opened(transport.answer(response, text))
                    if error is None:
                        async for told in transport.events_in(body):
                            event = following.took(told)
                            if event is not None:
                                yield event
            except httpx.TransportError as trouble:
                error = transport.lost(trouble, self.url, self._answered).error
            if following.ended or (
                following.silent and not error and (await self.job(job_id)).ended
            ):
                return
            await self._shell.sleep(following.closed(error))

    async def wait(self, job_id: str, on_progress: Optional[Told] = None) -> Job:
        """The job, once it has ended in whatever way."""
        job = await self.job(job_id)
        if on_progress is not None:
            on_progress(job.progress)
        if not job.ended:
            events = self.events(job_id)
            try:
                async for event in events:
                    progress = progress_after(event)
                    if on_progress is not None and progress is not None:
                        on_progress(progress)
            finally:
                await events.aclose()
            job = await self.job(job_id)
        return job

    @overload
    async def transcript(self, job_id: str) -> Transcript: ...
    @overload
    async def transcript(self, job_id: str, fmt: str) -> str: ...
    async def transcript(self, job_id: str, fmt: Optional[str] = None) -> Union[Transcript, str]:
        """What was said; with ``fmt`` as text in a format of `FORMATS`."""
        answer = await self._ask(calls.transcript(job_id, fmt or "json"))
        return answer.text if fmt else transcript_of(answer.body())

    async def recording(self, job_id: str) -> bytes:
        """The recording itself, where the service keeps it (``job.raw["recording"]``)."""
        return (await self._ask(calls.recording(job_id))).content

    async def edit(
        self,
        job_id: str,
        operations: Sequence[Mapping[str, Any]],
        revision: Optional[int] = None,
    ) -> Dict[str, Any]:
        """Change what was said and by whom, after the fact; all operations or none.

        ``operations`` as `PATCH /v1/jobs/ID/transcript` takes them, such as
        ``{"op": "rename", "speaker": "Speaker_0", "name": "Nell"}`` or ``{"op": "undo"}``.
        ``revision``: refuse (`codes.TranscriptChanged`) if it is another by now.
        """
        return (await self._ask(calls.edit(job_id, operations, revision))).body()

    async def split_speaker(
        self,
        job_id: str,
        speaker: str,
        into: Optional[int] = None,
        revision: Optional[int] = None,
    ) -> Dict[str, Any]:
        """Take a speaker apart that is several people, by what its segments sound like; what came
        of it is in ``parts`` of the answer, and can be undone.

        ``into``: how many people; as many as there seem to be without. ``codes.VoicesNotKept``: of
        this job nothing was kept to tell them by.
        """
        return await self.edit(job_id, calls.split_speaker(speaker, into), revision)

    async def diarize(
        self,
        job_id: str,
        num_speakers: Optional[int] = None,
        *,
        min_speakers: Optional[int] = None,
        max_speakers: Optional[int] = None,
        revision: Optional[int] = None,
    ) -> Dict[str, Any]:
        """Tell the speakers of a transcript apart again, with another number of them; without one,
        as many as there seem to be. Corrected texts and names stay, ``not_carried`` of the answer
        has what does not, and it can be undone.

        ``codes.DiarizationNotKept``: of this job nothing was kept to tell them by.
        """
        counts = {
            "num_speakers": num_speakers,
            "min_speakers": min_speakers,
            "max_speakers": max_speakers,
        }
        return (await self._ask(calls.diarize(job_id, counts, revision))).body()

    async def history(self, job_id: str) -> Dict[str, Any]:
        """What was done to a transcript, the oldest first."""
        return (await self._ask(calls.history(job_id))).body()

    async def transcribe(
        self,
        /,
        source: Source,
        *,
        name: str = "",
        key: Optional[str] = None,
        on_progress: Optional[Told] = None,
        **options: Any,
    ) -> Transcript:
        """Upload a recording and wait for what was said. The job is forgotten then, and where this
        is left early it is cancelled.

        Raises:
            ServiceError: the job failed, or was cancelled by somebody.
        """
        job = await self.submit(source, name=name, key=key, on_progress=on_progress, **options)
        try:
            ended = await self.wait(job.id, on_progress)
            if ended.error is not None:
                raise ended.error
            transcript = await self.transcript(job.id)
        except BaseException:
            await self._leave(job.id)
            raise
        with suppress(ClientError):
            await self.cancel(job.id)
        return transcript

    # Live

    def live(self, *, rate: int = 16_000, encoding: str = "pcm16", **options: Any) -> AsyncLive:
        """A live session: sound goes up while it is spoken, and what is said comes back.

        ``rate``: samples a second; ``encoding``: `pcm16` or `float32`, little-endian; mono, or with
        ``channels=2`` interleaved, left first.
        ``options``: `language`, `turns`, `partials`, `diarize`, `words`, `prompt` and the rest of
        what `begin` takes (docs/live-wire.md). Needs `websockets` (the extra `live`).
        """
        return AsyncLive(self.url, self._token, self._trust, self._around, options, encoding, rate)

    async def live_file(
        self, path: Union[str, Path], *, pace: float = 1.0, **options: Any
    ) -> AsyncGenerator[LiveEvent, None]:
        """What is said of a recording as if it were spoken now: a plain wav of 16 bits, mono or
        with ``channels=2`` stereo.

        ``pace``: seconds of it that go up in a second, 0: as fast as they are taken.

        Raises:
            ValueError: it is another kind of file.
            OSError: it cannot be read to its end.
        """
        recording, rate = opened_wave(path, options.get("channels", 1))
        with recording:
            async with self.live(rate=rate, **options) as live:
                carrying = asyncio.ensure_future(carry(live, recording, pace))
                try:
                    async for event in live:
                        yield event
                    with suppress(ClientError):
                        await carrying  # perhaps the recording could not be read to its end
                finally:
                    carrying.cancel()
                    await asyncio.gather(carrying, return_exceptions=True)

    # The shell

    async def _ask(
        self, call: Call, upload: Optional[Upload] = None, around: Optional[Surroundings] = None
    ) -> Answer:
        async def send(call: Call) -> Union[Answer, Lost]:
            try:
                response = await self._shell.request(**transport.request(call, upload))
            except httpx.TransportError as error:
                return transport.lost(error, self.url, self._answered)
            except httpx.InvalidURL as error:
                raise ServiceUnreachable(f"'{self.url}' is no address: {error}.") from None
            self._answered = True
            return transport.whole(call, response)

        return await asking(call, around or self._around, send, self._shell.sleep)

    async def _leave(self, job_id: str) -> None:
        """Cancel a job once: whoever leaves early waits for no service that hangs."""
        with suppress(httpx.TransportError):
            ending = transport.request(calls.cancel(job_id))
            limit_s = min(self._silence_s, transport.FAREWELL_S)
            await self._shell.request(**ending, timeout=limit_s)


def counted(on_progress: Optional[Told]) -> Optional[Callable[[int, int], None]]:
    """What an upload tells, as progress."""
    if on_progress is None:
        return None
    told = on_progress
    return lambda sent, total: told(Progress("uploading", sent, total))
