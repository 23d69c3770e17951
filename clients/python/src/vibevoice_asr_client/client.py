"""The client that waits: `Client`."""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    Mapping,
    Optional,
    Sequence,
    TypeVar,
    Union,
    overload,
)

import httpx

from vibevoice_asr_client import calls, transport
from vibevoice_asr_client.async_live import AsyncLive
from vibevoice_asr_client.calls import Answer, Call
from vibevoice_asr_client.errors import ClientError, ServiceUnreachable
from vibevoice_asr_client.flows import Flow, Following, Reply, Wait, asking
from vibevoice_asr_client.live import Live
from vibevoice_asr_client.live_events import LiveEvent
from vibevoice_asr_client.live_recording import opened_wave
from vibevoice_asr_client.models import (
    Event,
    Job,
    JobPage,
    Progress,
    Transcript,
    job_of,
    page_of,
    progress_after,
    transcript_of,
)
from vibevoice_asr_client.retry import NEVER, Retry
from vibevoice_asr_client.tls import Trust
from vibevoice_asr_client.uploads import Source, Upload

Told = Callable[[Progress], None]
Value = TypeVar("Value")


class Client:
    """One service at ``url`` and whoever ``token`` names; a context manager, for one thread.

    ``trust``: which certificate is believed (`Trust`). ``retry``: how patient it is (`Retry`).
    ``silence_s``: the longest silence that it bears.

    Raises (from every call):
        ServiceUnreachable: nothing answers there; `ConnectionLost` and `CertificateRefused` are it.
        ServiceError: the service said no; `codes` has a class for each code.
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
        self._opened: Optional[httpx.Client] = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all connections."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    # Questions

    def health(self) -> Dict[str, Any]:
        """How the service is, now: asked once, whatever becomes of it."""
        return self._drive(asking(calls.health(), transport.surroundings(NEVER))).body()

    def estimate(self, source: Source, **options: Any) -> Dict[str, Any]:
        """Whether a recording fits into the service's memory, and how long it takes."""
        with Upload(source) as upload:
            return self._ask(calls.estimate(options), upload).body()

    def queue_status(self) -> Dict[str, Any]:
        """The caller's jobs in the words of the queue's own wire."""
        return self._ask(calls.queue_status()).body()

    def page_path(self) -> str:
        """What behind `url` opens the service's page in a browser, once, with our token."""
        return str(self._ask(calls.page_link()).body()["path"])

    # People

    def people(self) -> Dict[str, Any]:
        """The people whose voices the service knows for this caller."""
        return self._ask(calls.people()).body()

    def export_people(self) -> Dict[str, Any]:
        """All that is stored of them, vectors too."""
        return self._ask(calls.export_people()).body()

    def add_person(self, name: str, source: Source) -> Dict[str, Any]:
        """Make somebody known by some seconds of their voice."""
        with Upload(source) as upload:
            return self._ask(calls.add_person(name), upload).body()

    def add_speaker(self, name: str, job_id: str, speaker: str) -> Dict[str, Any]:
        """Make a speaker of a job known."""
        return self._ask(calls.add_speaker(name, job_id, speaker)).body()

    def change_person(
        self,
        person_id: str,
        name: Optional[str] = None,
        *,
        job: Optional[str] = None,
        speaker: Optional[str] = None,
    ) -> Dict[str, Any]:
        """Another name, or a job's speaker that is this person, or both."""
        said = {"name": name, "job": job, "speaker": speaker}
        return self._ask(calls.change_person(person_id, said)).body()

    def delete_person(self, person_id: str) -> None:
        """Forget somebody, for good."""
        self._ask(calls.delete_person(person_id))

    # Jobs

    def submit(
        self,
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
            return job_of(self._ask(call, upload).body())

    def job(self, job_id: str) -> Job:
        """A job as it stands."""
        return job_of(self._ask(calls.job(job_id)).body())

    def jobs(
        self,
        state: Optional[str] = None,
        limit: Optional[int] = None,
        after: Optional[str] = None,
    ) -> JobPage:
        """The caller's jobs without what was said; ``after``: `JobPage.next` of the last page."""
        return page_of(self._ask(calls.jobs(state, limit, after)).body())

    def cancel(self, job_id: str, keep: bool = False) -> None:
        """End a job, or forget one that has ended; with ``keep`` it is forgotten in no case."""
        self._ask(calls.cancel(job_id, keep))

    def events(self, job_id: str, after: Optional[int] = None) -> Iterator[Event]:
        """What happened to a job (after the event ``after``) and happens, to its end.

        A connection that is lost is made again where it was; no event is lost and none comes twice.
        """
        following = Following(job_id, after, self._around)
        while not following.ended:
            error: Optional[ClientError] = None
            try:
                with self._http.stream(**transport.request(following.call)) as response:
                    self._answered = True
                    if not response.is_success:
                        response.read()
                    text = "" if response.is_success else response.text
                    error = following.opened(transport.answer(response, text))
                    if error is None:
                        for piece in response.iter_bytes():
                            yield from following.took(piece)
            except httpx.TransportError as trouble:
                error = transport.lost(trouble, self.url, self._answered).error
            if following.ended or (following.silent and not error and self.job(job_id).ended):
                return
            time.sleep(following.closed(error))

    def wait(self, job_id: str, on_progress: Optional[Told] = None) -> Job:
        """The job, once it has ended in whatever way."""
        job = self.job(job_id)
        if on_progress is not None:
            on_progress(job.progress)
        if not job.ended:
            for event in self.events(job_id):
                if on_progress is not None:
                    progress = progress_after(event)
                    if progress is not None:
                        on_progress(progress)
            job = self.job(job_id)
        return job

    @overload
    def transcript(self, job_id: str) -> Transcript: ...
    @overload
    def transcript(self, job_id: str, fmt: str) -> str: ...
    def transcript(self, job_id: str, fmt: Optional[str] = None) -> Union[Transcript, str]:
        """What was said; with ``fmt`` as text in a format of `FORMATS`."""
        answer = self._ask(calls.transcript(job_id, fmt or "json"))
        return answer.text if fmt else transcript_of(answer.body())

    def recording(self, job_id: str) -> bytes:
        """The recording itself, where the service keeps it (``job.raw["recording"]``)."""
        return self._ask(calls.recording(job_id)).content

    def edit(
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
        return self._ask(calls.edit(job_id, operations, revision)).body()

    def split_speaker(
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
        return self.edit(job_id, calls.split_speaker(speaker, into), revision)

    def history(self, job_id: str) -> Dict[str, Any]:
        """What was done to a transcript, the oldest first."""
        return self._ask(calls.history(job_id)).body()

    def transcribe(
        self,
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
        job = self.submit(source, name=name, key=key, on_progress=on_progress, **options)
        try:
            ended = self.wait(job.id, on_progress)
            if ended.error is not None:
                raise ended.error
            transcript = self.transcript(job.id)
        except BaseException:
            self._leave(job.id)
            raise
        with suppress(ClientError):
            self.cancel(job.id)
        return transcript

    # Live

    def live(self, *, rate: int = 16_000, encoding: str = "pcm16", **options: Any) -> Live:
        """A live session: sound goes up while it is spoken, and what is said comes back.

        ``rate``: samples a second; ``encoding``: `pcm16` or `float32`, mono, little-endian.
        ``options``: `language`, `turns`, `partials`, `diarize`, `words`, `prompt` and the rest of
        what `begin` takes (docs/live-wire.md). Needs `websockets` (the extra `live`).
        """
        return Live(
            AsyncLive(self.url, self._token, self._trust, self._around, options, encoding, rate)
        )

    def live_file(
        self, path: Union[str, Path], *, pace: float = 1.0, **options: Any
    ) -> Iterator[LiveEvent]:
        """What is said of a recording as if it were spoken now: a plain mono wav of 16 bits.

        ``pace``: seconds of it that go up in a second, 0: as fast as they are taken.

        Raises:
            ValueError: it is another kind of file.
        """
        recording, rate = opened_wave(path)
        with recording, self.live(rate=rate, **options) as live:
            with live.carrying(recording, pace):
                yield from live

    # The shell

    @property
    def _http(self) -> httpx.Client:
        if self._opened is None:
            self._opened = httpx.Client(
                **transport.options(self.url, self._token, self._silence_s, self._trust)
            )
        return self._opened

    def _ask(self, call: Call, upload: Optional[Upload] = None) -> Answer:
        return self._drive(asking(call, self._around), upload)

    def _leave(self, job_id: str) -> None:
        """Cancel a job once: whoever leaves early waits for no service that hangs."""
        with suppress(httpx.TransportError):
            ending = transport.request(calls.cancel(job_id))
            self._http.request(**ending, timeout=min(self._silence_s, transport.FAREWELL_S))

    def _drive(self, flow: Flow[Value], upload: Optional[Upload] = None) -> Value:
        reply: Reply = None
        while True:
            try:
                effect = flow.send(reply)
            except StopIteration as end:
                value: Value = end.value
                return value
            if isinstance(effect, Wait):
                time.sleep(effect.seconds)
                reply = None
                continue
            try:
                response = self._http.request(**transport.request(effect.call, upload))
                self._answered = True
                reply = transport.whole(effect.call, response)
            except httpx.TransportError as error:
                reply = transport.lost(error, self.url, self._answered)
            except httpx.InvalidURL as error:
                raise ServiceUnreachable(f"'{self.url}' is no address: {error}.") from None


def counted(on_progress: Optional[Told]) -> Optional[Callable[[int, int], None]]:
    """What an upload tells, as progress."""
    if on_progress is None:
        return None
    told = on_progress
    return lambda sent, total: told(Progress("uploading", sent, total))
