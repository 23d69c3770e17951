"""Every request that the client makes, and what its answer means. Pure: nothing is sent here."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Dict, List, Mapping, Optional, Sequence
from urllib.parse import quote

from vibevoice_asr_client import retry
from vibevoice_asr_client.errors import AnswerNotUnderstood, ServiceError
from vibevoice_asr_client.problems import error_of

FORMATS = ("json", "text", "srt", "vtt", "tsv", "rttm")
EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True)
class Call:
    """One request. ``again``: whether it may be sent twice without anything being done twice.

    ``fields``: of the form that goes with an upload. ``body``: of a request in JSON.
    """

    method: str
    path: str
    again: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    body: Optional[Mapping[str, Any]] = None
    text: bool = True
    """Whether a good answer is text."""
    ends: bool = False
    """Whether what it is about is gone after it."""


@dataclass(frozen=True)
class Answer:
    """What came back: the body as text, or as bytes where that was asked for; the headers' names in
    lower case."""

    status: int
    headers: Mapping[str, str]
    text: str
    content: bytes = b""

    @property
    def fine(self) -> bool:
        """Whether it is what was asked for."""
        return 200 <= self.status < 300

    def body(self) -> Dict[str, Any]:
        """The JSON object in it.

        Raises:
            AnswerNotUnderstood: there is none.
        """
        try:
            body = json.loads(self.text)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise _strange(self.status)
        return body

    def error(self, now: datetime) -> ServiceError:
        """What the service refused with.

        Raises:
            AnswerNotUnderstood: it is not this service that said no.
        """
        after = retry.asked_s(self.headers.get("retry-after"), now)
        try:
            body = json.loads(self.text)
        except ValueError:
            body = None
        if isinstance(body, dict) and isinstance(body.get("error"), dict):  # in OpenAI's shape
            body = body["error"]
        if isinstance(body, dict) and "code" in body:
            return error_of(body, self.status, after)
        if self.status in retry.PASSING:  # a proxy's own
            return error_of({"detail": f"Not now (HTTP {self.status})."}, self.status, after)
        raise _strange(self.status)


def _strange(status: int) -> AnswerNotUnderstood:
    return AnswerNotUnderstood(
        f"What answers is not this service (HTTP {status}).",
        hint="Check the address; the service's own is in its first line of log.",
    )


def address(url: str, *, encrypted: bool = False) -> str:
    """``url`` with a scheme and without a slash at its end."""
    scheme = "https" if encrypted else "http"
    return (url if "://" in url else f"{scheme}://{url}").rstrip("/")


def health() -> Call:
    """How the service is."""
    return Call("GET", "/health")


def about() -> Call:
    """What the service is, as its page says it."""
    return Call("GET", "/v1/page/about")


def page_link(invitation: bool) -> Call:
    """A link to the page, which has our token when it is opened; an ``invitation`` lasts a day."""
    return Call("POST", "/v1/page/links?invitation=true" if invitation else "/v1/page/links")


def queue_status() -> Call:
    """The caller's jobs, as the queue's own wire has them."""
    return Call("GET", "/v1/queue/status")


def estimate(options: Mapping[str, Any]) -> Call:
    """Whether a recording fits; it is uploaded, and nothing is kept. Or one of ``minutes``."""
    return Call("POST", "/v1/estimate", fields=form(options), body=options)


def submit(options: Mapping[str, Any], key: str) -> Call:
    """A recording to be worked on; a second one with the same ``key`` is the first."""
    return Call("POST", "/v1/jobs", headers={"Idempotency-Key": key}, fields=form(options))


def job(job_id: str) -> Call:
    """A job as it stands."""
    return Call("GET", _job(job_id))


def jobs(state: Optional[str], limit: Optional[int], after: Optional[str]) -> Call:
    """A page of the caller's jobs."""
    asked = {"state": state, "limit": None if limit is None else str(limit), "after": after}
    return Call("GET", "/v1/jobs", params={k: v for k, v in asked.items() if v is not None})


def cancel(job_id: str, keep: bool = False, revision: Optional[int] = None) -> Call:
    """End a job, or forget one that has ended; with ``keep`` it is forgotten in no case."""
    if keep:
        return Call("DELETE", _job(job_id), params={"keep": "true"})
    return Call("DELETE", _job(job_id), ends=True, headers=_of(revision))


def transcript(job_id: str, fmt: str) -> Call:
    """What was said, in one of `FORMATS`."""
    return Call("GET", f"{_job(job_id)}/transcript", params={"format": fmt})


def recording(job_id: str) -> Call:
    """The recording itself, where it is kept."""
    return Call("GET", f"{_job(job_id)}/audio", text=False)


def edit(job_id: str, operations: Sequence[Mapping[str, Any]], revision: Optional[int]) -> Call:
    """Change a transcript; all operations or none."""
    body = {"operations": [dict(one) for one in operations]}
    return Call(
        "PATCH", f"{_job(job_id)}/transcript", again=False, headers=_of(revision), body=body
    )


def split_speaker(speaker: str, into: Optional[int]) -> List[Dict[str, Any]]:
    """The operations that take a speaker apart by voice."""
    many = {} if into is None else {"into": into}
    return [{"op": "split_speaker", "speaker": speaker, **many}]


def diarize(job_id: str, counts: Mapping[str, Optional[int]], revision: Optional[int]) -> Call:
    """Tell the speakers of a transcript apart again."""
    body = {name: count for name, count in counts.items() if count is not None}
    return Call("POST", f"{_job(job_id)}/diarize", again=False, headers=_of(revision), body=body)


def history(job_id: str) -> Call:
    """What was done to a transcript."""
    return Call("GET", f"{_job(job_id)}/transcript/history")


def events(job_id: str, after: Optional[int]) -> Call:
    """What happened and happens to a job, after the event with this number."""
    headers = {"Accept": EVENT_STREAM, "Cache-Control": "no-store"}
    if after is not None:
        headers["Last-Event-ID"] = str(after)
    return Call("GET", f"{_job(job_id)}/events", headers=headers)


def models() -> Call:
    """The models that can be used or downloaded."""
    return Call("GET", "/v1/models")


def pull_model(name: str, revision: Optional[str]) -> Call:
    """Download one; its events."""
    body = {"name": name} if revision is None else {"name": name, "revision": revision}
    return Call("POST", "/v1/models/pull", headers={"Accept": EVENT_STREAM}, body=body)


def delete_model(name: str) -> Call:
    """Delete one.

    Raises:
        ValueError: ``name`` would be another address.
    """
    if {"", ".", ".."} & set(name.split("/")):
        raise ValueError(f"{name!r} is no model's name")
    return Call("DELETE", f"/v1/models/{quote(name)}", ends=True)


def live(url: str) -> str:
    """Where live sessions are, for a service at ``url``: `http` becomes `ws`."""
    return "ws" + url[len("http") :] + "/v1/live"


def people() -> Call:
    """The caller's people."""
    return Call("GET", "/v1/people")


def export_people() -> Call:
    """All that is stored of them."""
    return Call("GET", "/v1/people/export")


def add_person(name: str, consent: bool = False) -> Call:
    """Somebody new, by a clip of their voice."""
    fields = {"name": name, "consent": "true"} if consent else {"name": name}
    return Call("POST", "/v1/people", again=False, fields=fields)


def add_speaker(name: str, job_id: str, speaker: str, consent: bool = False) -> Call:
    """Somebody new, by a speaker of a job."""
    said: Dict[str, Any] = {"name": name, "job": job_id, "speaker": speaker}
    if consent:
        said["consent"] = True
    return Call("POST", "/v1/people", again=False, body=said)


def change_person(person_id: str, said: Mapping[str, Any]) -> Call:
    """Another name, or a job's speaker that is them."""
    given = {name: value for name, value in said.items() if value is not None}
    return Call("PATCH", f"/v1/people/{quote(person_id, safe='')}", body=given)


def delete_person(person_id: str) -> Call:
    """Forget somebody."""
    return Call("DELETE", f"/v1/people/{quote(person_id, safe='')}", ends=True)


def form(options: Mapping[str, Any]) -> Dict[str, str]:
    """Options as a form has them: None is left out, lists have commas."""
    return {name: _text(value) for name, value in options.items() if value is not None}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def _of(revision: Optional[int]) -> Dict[str, str]:
    """The header that asks for a transcript as it was in ``revision``; none of any."""
    return {} if revision is None else {"If-Match": f'"{revision}"'}


def _job(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def authorization(token: Optional[str]) -> Dict[str, str]:
    """The header that says who asks."""
    return {"Authorization": f"Bearer {token}"} if token else {}
