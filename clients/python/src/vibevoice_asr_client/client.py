"""Blocking client: `AsyncClient`, run to the end of each call."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Coroutine, Iterator, Optional, TypeVar, Union, overload

from vibevoice_asr_client import transport
from vibevoice_asr_client.async_client import AsyncClient
from vibevoice_asr_client.blocking import blocking, blocking_iterator
from vibevoice_asr_client.live import Live
from vibevoice_asr_client.live_events import LiveEvent
from vibevoice_asr_client.live_recording import opened_wave
from vibevoice_asr_client.models import Transcript
from vibevoice_asr_client.retry import Retry
from vibevoice_asr_client.tls import Trust

Value = TypeVar("Value")


class Client:
    """One service at ``url`` and whoever ``token`` names; a context manager, for one thread.

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
        self._inner = AsyncClient(url, token, trust=trust, retry=retry, silence_s=silence_s)
        self._inner._shell = transport.Blocking(self._inner._shell.options)
        self.url = self._inner.url

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    close = blocking(AsyncClient.close)

    # Questions

    health = blocking(AsyncClient.health)
    about = blocking(AsyncClient.about)
    estimate = blocking(AsyncClient.estimate)
    queue_status = blocking(AsyncClient.queue_status)
    page_path = blocking(AsyncClient.page_path)
    page_link = blocking(AsyncClient.page_link)

    # People

    people = blocking(AsyncClient.people)
    export_people = blocking(AsyncClient.export_people)
    add_person = blocking(AsyncClient.add_person)
    add_speaker = blocking(AsyncClient.add_speaker)
    change_person = blocking(AsyncClient.change_person)
    delete_person = blocking(AsyncClient.delete_person)

    # Models

    models = blocking(AsyncClient.models)
    pull_model = blocking_iterator(AsyncClient.pull_model)
    delete_model = blocking(AsyncClient.delete_model)

    # Jobs

    submit = blocking(AsyncClient.submit)
    job = blocking(AsyncClient.job)
    jobs = blocking(AsyncClient.jobs)
    cancel = blocking(AsyncClient.cancel)
    events = blocking_iterator(AsyncClient.events)
    wait = blocking(AsyncClient.wait)

    @overload
    def transcript(self, job_id: str) -> Transcript: ...
    @overload
    def transcript(self, job_id: str, fmt: str) -> str: ...
    def transcript(self, job_id: str, fmt: Optional[str] = None) -> Union[Transcript, str]:
        """What was said; with ``fmt`` as text in a format of `FORMATS`."""
        if fmt:
            return self._do(self._inner.transcript(job_id, fmt))
        return self._do(self._inner.transcript(job_id))

    recording = blocking(AsyncClient.recording)
    edit = blocking(AsyncClient.edit)
    split_speaker = blocking(AsyncClient.split_speaker)
    diarize = blocking(AsyncClient.diarize)
    history = blocking(AsyncClient.history)
    transcribe = blocking(AsyncClient.transcribe)

    # Live

    def live(self, *, rate: int = 16_000, encoding: str = "pcm16", **options: Any) -> Live:
        """A live session: as `AsyncClient.live`, on a thread of its own."""
        return Live(self._inner.live(rate=rate, encoding=encoding, **options))

    def live_file(
        self, path: Union[str, Path], *, pace: float = 1.0, **options: Any
    ) -> Iterator[LiveEvent]:
        """What is said of a recording as if it were spoken now: as `AsyncClient.live_file`."""
        recording, rate = opened_wave(path, options.get("channels", 1))
        with recording, self.live(rate=rate, **options) as live:
            with live.carrying(recording, pace) as join:
                yield from live
                join()

    def _do(self, work: Coroutine[Any, Any, Value]) -> Value:
        try:
            work.send(None)
        except StopIteration as end:
            value: Value = end.value
            return value
        work.close()
        raise AssertionError("it waits for an event loop, but the blocking client has none")
