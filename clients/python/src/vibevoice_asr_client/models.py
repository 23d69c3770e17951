"""What the service says, as values. What a newer service adds is in ``raw``."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple

from httpx_sse import ServerSentEvent

from vibevoice_asr_client.errors import AnswerNotUnderstood, ServiceError
from vibevoice_asr_client.problems import error_of

ENDED = frozenset({"done", "failed", "cancelled"})
_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Word:
    """One word; times in seconds. ``confidence``: up to 1, None where the engine does not say."""

    start: float
    end: float
    text: str
    confidence: Optional[float] = None


@dataclass(frozen=True)
class Segment:
    """One stretch of speech by one speaker (`Speaker_0`); times in seconds. ``name``: who that
    is, if the speaker was identified or called so. ``confidence``: as of a word. ``language``: a
    language tag, '' where it is not known. ``no_speech_probability``: that nobody speaks in it,
    None where the engine does not say."""

    start: float
    end: float
    text: str
    speaker: str
    words: Tuple[Word, ...] = ()
    flags: Tuple[str, ...] = ()
    words_by: str = ""
    name: Optional[str] = None
    confidence: Optional[float] = None
    language: str = ""
    no_speech_probability: Optional[float] = None


@dataclass(frozen=True)
class Warning:
    """Something to know about a transcript."""

    code: str
    message: str


@dataclass(frozen=True)
class Transcript:
    """Who said what, and when. ``duration`` in seconds of audio; ``precision``: what was used;
    ``model``: which one, where the engine may have one of several. ``language_probability``: of a
    language that was detected. ``recognized_s``: of live sound, the seconds in which no word is
    missing; None: all of it, else ``warnings`` say what failed."""

    segments: Tuple[Segment, ...]
    language: str
    duration: float
    engine: str
    precision: str
    diarized: bool
    num_speakers: int
    warnings: Tuple[Warning, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    model: str = ""
    language_probability: Optional[float] = None
    recognized_s: Optional[float] = None

    @property
    def text(self) -> str:
        """What was said, without who and when; Chinese and Japanese without spaces between the
        segments."""
        text = ""
        for segment in self.segments:
            joined = text and segment.text and _is_ideographic(text[-1] + segment.text[0])
            text = text + segment.text if joined or not text else f"{text} {segment.text}"
        return text


def _is_ideographic(text: str) -> bool:
    """Whether all characters are full-width, and none is of Korean, which has spaces."""
    return all(
        unicodedata.east_asian_width(one) in "WF"
        and not unicodedata.name(one, "").startswith("HANGUL")
        for one in text
    )


@dataclass(frozen=True)
class Progress:
    """How far a recording is. ``stage``: `uploading` (in bytes), `queued`, or `running` (in seconds
    of audio). ``total`` is None where it is not known; ``position`` counts those that go first."""

    stage: str
    done: float = 0.0
    total: Optional[float] = None
    position: Optional[int] = None
    estimated_wait_s: Optional[float] = None

    @property
    def fraction(self) -> Optional[float]:
        """Of this stage, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else None


@dataclass(frozen=True)
class Job:
    """A job as it stands. ``state``: queued, running, done, failed or cancelled. ``channels``:
    those that are transcribed one by one; 1: they are mixed. ``name``: of its file, '' if the
    service does not know it."""

    id: str
    state: str
    progress: Progress
    segments: Tuple[Segment, ...] = ()
    error: Optional[ServiceError] = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    channels: int = 1
    name: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED


@dataclass(frozen=True)
class JobPage:
    """Some of the caller's jobs; ``next``: what to ask for those that follow, None if none do."""

    jobs: Tuple[Job, ...]
    next: Optional[str] = None


@dataclass(frozen=True)
class Event:
    """Something that happened to a job, the ``id``-th; an event without one is a message in
    passing. ``data`` is what the service sent with it."""

    kind: str
    data: Mapping[str, Any]
    id: Optional[int] = None

    @property
    def ends(self) -> bool:
        """Whether it is the job's last."""
        return self.kind in ENDED or self.data.get("state") in ENDED


def event_of(told: ServerSentEvent) -> Optional[Event]:
    """The event in what was sent; None where it is none of ours."""
    try:
        data = json.loads(told.data)
    except ValueError:
        return None
    if not isinstance(data, dict):
        return None
    number = int(told.id) if told.id.isascii() and told.id.isdigit() else None
    return Event(told.event, data, number)


def job_of(body: Mapping[str, Any]) -> Job:
    """The job in an answer.

    Raises:
        AnswerNotUnderstood: there is none.
    """
    try:
        error = body.get("error")
        return Job(
            id=str(body["id"]),
            state=str(body["state"]),
            progress=progress_of(body),
            segments=tuple(segment_of(item) for item in body.get("segments") or ()),
            error=error_of(error) if error else None,
            raw=body,
            channels=int(body.get("channels", 1)),
            name=str(body.get("name", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _strange("job", error) from None


def page_of(body: Mapping[str, Any]) -> JobPage:
    """The page of jobs in an answer.

    Raises:
        AnswerNotUnderstood: there is none.
    """
    try:
        following = body.get("next")
        jobs = tuple(job_of(job) for job in body["jobs"])
        return JobPage(jobs, None if following is None else str(following))
    except (KeyError, TypeError) as error:
        raise _strange("list of jobs", error) from None


def progress_after(event: Event) -> Optional[Progress]:
    """How far a job is, where an event tells."""
    if event.kind == "progress":
        return _heard(event.data)
    return {"begun": Progress("running"), "put_back": Progress("queued")}.get(event.kind)


def progress_of(body: Mapping[str, Any]) -> Progress:
    """How far a job is, by its body."""
    if body.get("state") == "queued":
        first, wait_s = body.get("position"), body.get("estimated_wait_seconds")
        return Progress("queued", position=first, estimated_wait_s=wait_s)
    return _heard(body.get("progress") or _NOTHING)


def _heard(audio: Mapping[str, Any]) -> Progress:
    done, total = audio.get("audio_seconds_done"), audio.get("audio_seconds_total")
    return Progress("running", float(done or 0.0), total)


def segment_of(body: Mapping[str, Any]) -> Segment:
    """A segment of an answer; KeyError and the like where it is none."""
    return Segment(
        start=float(body["start_time"]),
        end=float(body["end_time"]),
        text=str(body["text"]),
        speaker=str(body["speaker"]),
        words=tuple(
            Word(
                float(word["start_time"]),
                float(word["end_time"]),
                str(word["text"]),
                word.get("confidence"),
            )
            for word in body.get("words", ())
        ),
        flags=tuple(map(str, body.get("flags", ()))),
        words_by=str(body.get("words_by", "")),
        name=None if body.get("name") is None else str(body["name"]),
        confidence=body.get("confidence"),
        language=str(body.get("language", "")),
        no_speech_probability=body.get("no_speech_probability"),
    )


def transcript_of(body: Mapping[str, Any]) -> Transcript:
    """The transcript in an answer.

    Raises:
        AnswerNotUnderstood: there is none.
    """
    try:
        about: Dict[str, Any] = dict(body["metadata"])
        return Transcript(
            segments=tuple(segment_of(segment) for segment in body["segments"]),
            language=str(about["language"]),
            duration=float(about["duration"]),
            engine=str(about["engine"]),
            precision=str(about["model_precision"]),
            diarized=bool(about["diarized"]),
            num_speakers=int(about["num_speakers"]),
            warnings=tuple(
                Warning(str(item["code"]), str(item["message"])) for item in about["warnings"]
            ),
            raw=body,
            model=str(about.get("model", "")),
            language_probability=about.get("language_probability"),
            recognized_s=about.get("recognized_s"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _strange("transcript", error) from None


def _strange(what: str, error: Exception) -> AnswerNotUnderstood:
    return AnswerNotUnderstood(
        f"The service's {what} is not understood ({type(error).__name__}: {error}).",
        hint="Use the same version of vibevoice-asr on both ends.",
    )
