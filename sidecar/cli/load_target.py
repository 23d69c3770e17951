"""Load test target and workload: service, samples, schedule, session."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sidecar import errors
from sidecar.cli.audio_input import LONGEST_S, check_recording
from sidecar.cli.backends import ServiceTarget
from sidecar.cli.load_statistics import LoadTestSession, LoadTestUtterance
from sidecar.concurrency import running
from sidecar.interfaces.live_engine import LIVE_RATE

if TYPE_CHECKING:
    import psutil
    from vibevoice_asr_client import Trust

    from sidecar.audio import Block


LOOPBACK = ("localhost", "127.0.0.1", "::1")


class CpuShare:
    """The share of a core that a service's own process took since this was made, and its children.

    ``process``: None of a service elsewhere.
    """

    def __init__(self, process: psutil.Process | None) -> None:
        self._process = process
        self._begun = time.monotonic()
        self._before = self._taken()

    def so_far(self) -> tuple[float, float] | None:
        """Of the service, and of its engines; None where it cannot be told.

        Children that have ended meanwhile count nothing.
        """
        after, lasted = self._taken(), time.monotonic() - self._begun
        if after is None or self._before is None or not lasted:
            return None
        return (after[0] - self._before[0]) / lasted, max(0.0, after[1] - self._before[1]) / lasted

    def _taken(self) -> tuple[float, float] | None:
        import psutil

        if self._process is None:
            return None
        try:
            own = sum(self._process.cpu_times()[:2])
            below = self._process.children(recursive=True)
        except psutil.Error:
            return None
        others = 0.0
        for child in below:
            with contextlib.suppress(psutil.Error):
                others += sum(child.cpu_times()[:2])
        return own, others


def process_of(url: str, pid: object) -> psutil.Process | None:
    """The process that serves at ``url`` if it is one of this machine; ``pid`` is what it says.

    Believed only where that process does listen there: a container's numbers are its own.
    """
    import psutil

    from sidecar.server.port_owner import listens_on

    parts = urlsplit(url)
    if not isinstance(pid, int) or parts.hostname not in LOOPBACK or not parts.port:
        return None
    try:
        process = psutil.Process(pid)
        return process if listens_on(process, parts.port) else None
    except psutil.Error:
        return None


GRPC = "grpc"
ENCRYPTED = "grpcs"


class LoadTestLiveWire(StrEnum):
    """Wire of live audio to a service."""

    LIVE = "live"
    """`/v1/live`."""
    STREAMING = "streaming"
    """`/api/asr-streaming`, of yap servers."""
    GRPC = GRPC
    """The package `stt`."""


class LoadTestFileWire(StrEnum):
    """Wire of recordings to a service."""

    TRANSCRIBE = "transcribe"
    """`POST /transcribe`, which waits for the answer."""
    JOBS = "jobs"
    """`/v1/jobs`, followed by its events."""
    OPENAI = "openai"
    """`POST /v1/audio/transcriptions`."""


@dataclass(frozen=True, slots=True)
class LoadTestTarget:
    """One of those that are compared. ``target``: host and port of its gRPC, "" without."""

    name: str
    wire: LoadTestLiveWire | LoadTestFileWire
    url: str
    token: str | None = None
    trust: Trust | None = None
    target: str = ""
    process: psutil.Process | None = None

    @property
    def encrypted(self) -> bool:
        """Return whether the connection is encrypted."""
        return urlsplit(self.url).scheme in ("https", ENCRYPTED)


async def describe_target(
    where: ServiceTarget, wire: LoadTestLiveWire | LoadTestFileWire
) -> LoadTestTarget:
    """The service of ``where``, as it says it is; one that is not ours may say nothing.

    Raises:
        errors.SidecarError: nothing answers there, or it has no gRPC where that is asked for.
    """
    from vibevoice_asr_client import AnswerNotUnderstood, AsyncClient, ServiceError

    from sidecar.cli.remote_service import translate_client_errors

    url = where.server or ""
    parts = urlsplit(url)
    if parts.scheme in (GRPC, ENCRYPTED):
        if wire is not LoadTestLiveWire.GRPC:
            raise errors.FieldInvalid(
                f"The address {url} is for gRPC only.", hint="Add --wire grpc."
            )
        return LoadTestTarget(
            f"{wire} {url}", wire, url, where.token, where.trust, target=parts.netloc
        )
    with translate_client_errors():
        async with AsyncClient(url, where.token, trust=where.trust) as client:
            url = client.url
            try:
                health = await client.health()
            except (ServiceError, AnswerNotUnderstood):
                health = {}
    target = ""
    if wire is LoadTestLiveWire.GRPC:
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
    return LoadTestTarget(f"{wire} {url}", wire, url, where.token, where.trust, target, process)


SAMPLE_BYTES = 2
BREATH_S = 1.0
"""Between two utterances of who talks all the time: longer than a pause that ends one."""


class LoadTestMode(StrEnum):
    """Mode of load test sessions."""

    TALK = "talk"
    """Utterance after utterance, with a breath between them."""
    CONVERSATION = "conversation"
    """By turns: each session is silent for as long as the one beside it talks."""
    IDLE = "idle"
    """Connected, and nothing is sent."""


@dataclass(frozen=True, slots=True)
class LoadTestAudio:
    """Audio: pcm16 at `LIVE_RATE`."""

    sound: bytes
    speech: bool

    @property
    def seconds(self) -> float:
        """Return the duration in seconds."""
        return len(self.sound) / SAMPLE_BYTES / LIVE_RATE


@dataclass(frozen=True, slots=True)
class LoadTestScript:
    """Script of one session; ``idle_s``: for how long it only stays, if it sends nothing."""

    parts: tuple[LoadTestAudio, ...] = ()
    idle_s: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.idle_s or sum(part.seconds for part in self.parts)


def silence(seconds: float) -> bytes:
    """Return so much silence."""
    return bytes(round(seconds * LIVE_RATE) * SAMPLE_BYTES)


def script_of(
    mode: LoadTestMode, clips: Sequence[bytes], seconds: float, pause_s: float, number: int
) -> LoadTestScript:
    """Return the script of session ``number`` for some ``seconds``: whole utterances and pauses.

    ``clips``: one utterance each, taken from another place on by every session. ``pause_s``: of a
    conversation, in which every second session begins by listening.
    """
    if mode is LoadTestMode.IDLE:
        return LoadTestScript(idle_s=seconds)
    pause = LoadTestAudio(
        silence(pause_s if mode is LoadTestMode.CONVERSATION else BREATH_S), speech=False
    )
    listens_first = mode is LoadTestMode.CONVERSATION and number % 2
    parts = [pause] if listens_first else []
    turn, lasts = number, sum(part.seconds for part in parts)
    while lasts < seconds or not any(part.speech for part in parts):
        said = LoadTestAudio(clips[turn % len(clips)], speech=True)
        parts += [said, pause]
        lasts += said.seconds + pause.seconds
        turn += 1
    return LoadTestScript(tuple(parts))


def starts(count: int, steps: int, interval_s: float, spread_s: float) -> list[float]:
    """Return the start times of ``count`` sessions: in ``steps`` groups that are ``interval_s``
    apart.

    Those of a group begin within ``spread_s``, so that not all of them send in the same instant.
    """
    size = -(-count // max(1, min(steps, count)))
    return [
        number // size * interval_s + number % size / size * spread_s for number in range(count)
    ]


FRAME = LIVE_RATE // 50
"""Samples that are looked at together."""
QUIET = 0.05
"""Share of the loudest frame above which a frame is speech."""


@dataclass(frozen=True, slots=True)
class LoadTestRecording:
    """A file, and how long it is."""

    path: Path
    seconds: float


def recordings_of(files: Sequence[Path]) -> list[LoadTestRecording]:
    """The files with their lengths.

    Raises:
        errors.SidecarError: one is no recording, or not there.
    """
    return [LoadTestRecording(path, len(_decoded(path)) / LIVE_RATE) for path in files]


def clips_of(path: Path, talk_s: float) -> list[bytes]:
    """Utterances of about ``talk_s`` out of a recording, each from its first sound to its last.

    Raises:
        errors.SidecarError: it is no recording, not there, or has nothing to be heard in it.
    """
    clips = utterances(_decoded(path), talk_s)
    if not clips:
        raise errors.FieldInvalid(
            f"{path} has no {talk_s:g} s of speech.",
            hint="Use a recording with speech, or a shorter --talk.",
        )
    return clips


def utterances(samples: Block, talk_s: float) -> list[bytes]:
    """Stretches of ``samples`` (mono, `LIVE_RATE`) as pcm16 that begin and end with a sound.

    One that is quiet for half of its time or more is left out.
    """
    import numpy as np

    count = len(samples) // FRAME
    frames = samples[: count * FRAME].reshape(count, FRAME)
    loudness = np.sqrt((frames**2).mean(axis=1)) if count else np.zeros(0)
    loud = np.flatnonzero(loudness > QUIET * loudness.max(initial=0.0))
    size, found, at = max(1, round(talk_s * LIVE_RATE / FRAME)), [], 0
    while len(later := loud[loud >= at]):
        begin = int(later[0])
        end = int(later[later < begin + size][-1]) + 1
        if 2 * (end - begin) > size:
            block = samples[begin * FRAME : end * FRAME]
            found.append((block.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
        at = begin + size
    return found


def _decoded(path: Path) -> Block:
    from sidecar.audio.audio_decoder import decode_audio_file

    try:
        check_recording(path)
        return decode_audio_file(path, LIVE_RATE, LONGEST_S)
    except errors.SidecarError as error:  # there may be many of them: which one it is
        raise type(error)(f"{path}: {error.detail}", hint=error.hint) from None


ANSWER_TIMEOUT_S = 60.0
"""For the end of a session, once all was sent."""


class SessionEndedEarly(Exception):
    """The service ended a session that its client had not."""


class LoadTestRefusal(Exception):
    """The service said no; ``code`` is its word for why."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class LoadTestSender:
    """Client that sends audio. Pauses end utterances, so they are sent, unless it is ``silent``.
    ``send``: sends a piece of an utterance, or of a pause."""

    silent = False

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self.send = send

    async def begin(self, turn: int) -> None:
        """Send the start of an utterance, if the wire has a message for it."""

    async def end(self, turn: int) -> None:
        """Send the end of an utterance, if the wire has a message for it."""


@dataclass(frozen=True, slots=True)
class LoadTestTempo:
    """Chunks of ``chunk_s``, ``pace`` seconds of audio in a second; 0: as fast as they go."""

    chunk_s: float = 0.1
    pace: float = 1.0


async def send_script(
    course: LoadTestScript, tempo: LoadTestTempo, visit: LoadTestSession, carrier: LoadTestSender
) -> None:
    """Send all of ``course``, and keep in ``visit`` when which utterance began and ended."""
    begun, position = time.monotonic(), 0.0
    for part in course.parts:
        turn = LoadTestUtterance(position, time.monotonic())
        number = len(visit.turns)
        if part.speech:
            visit.turns.append(turn)
            await carrier.begin(number)
        for piece in pieces(part, tempo.chunk_s):
            position += len(piece) / SAMPLE_BYTES / LIVE_RATE
            await _until(begun, position, tempo.pace, visit)
            if part.speech or not carrier.silent:
                await carrier.send(piece)
        if part.speech:
            turn.end_s, turn.ended = position, time.monotonic()
            await carrier.end(number)
    if course.idle_s:
        await asyncio.sleep(course.idle_s)
    visit.sent = time.monotonic()


async def _until(begun: float, position: float, pace: float, visit: LoadTestSession) -> None:
    """Wait until that place of the sound has been spoken."""
    if not pace:
        return
    wait = begun + position / pace - time.monotonic()
    if wait > 0:
        await asyncio.sleep(wait)
    visit.late_s = max(visit.late_s, time.monotonic() - begun - position / pace)


def pieces(part: LoadTestAudio, chunk_s: float) -> list[bytes]:
    """A part in pieces of ``chunk_s``, the last as long as it is."""
    size = max(1, round(chunk_s * LIVE_RATE)) * SAMPLE_BYTES
    return [part.sound[at : at + size] for at in range(0, len(part.sound), size)]


async def run_until_done(
    sending: Coroutine[Any, Any, None], reading: Coroutine[Any, Any, None]
) -> None:
    """Both, until the service has told the end.

    Raises:
        EndedEarly: it did while there was more to be sent.
        TimeoutError: it did not, for `ANSWER_TIMEOUT_S`.
        Exception: whatever either raises; that of ``reading`` where both do.
    """
    async with running(sending, reading) as (sender, reader):
        await asyncio.wait({sender, reader}, return_when=asyncio.FIRST_COMPLETED)
        if sender.done():
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await asyncio.wait({reader})
        await reader
        if not sender.done():
            raise SessionEndedEarly
        await sender


@contextlib.contextmanager
def recorded_session(visit: LoadTestSession, course: LoadTestScript) -> Iterator[None]:
    """Around a session: when it began and ended, and as what code it failed, if it did."""
    visit.begun = time.monotonic()
    try:
        yield
    except Exception as error:  # whatever becomes of one session, the others are measured
        visit.error_code = code_of(error)
    visit.ended = time.monotonic()
    if course.seconds and course.parts and not visit.error_code:
        visit.sound_s = course.seconds
        visit.pace.append((visit.ended - visit.begun) / course.seconds)


def code_of(error: Exception) -> str:
    """Return the error of a session, in a word: the service's own code if it sent one."""
    from vibevoice_asr_client import ServiceError, ServiceUnreachable

    match error:
        case LoadTestRefusal() | errors.SidecarError():
            return error.code
        case ServiceError():
            return error.code or f"status_{error.status}"
        case SessionEndedEarly():
            return "ended_early"
        case TimeoutError():
            return "timeout"
        case ServiceUnreachable() | OSError():
            return "connection_lost"
    return type(error).__name__
