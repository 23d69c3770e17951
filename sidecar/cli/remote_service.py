"""Remote service by the Python client, and trust in its certificate."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vibevoice_asr_client as asr_client
from pydantic import SecretStr
from vibevoice_asr_client.problems import wire_of

from sidecar import errors
from sidecar.cli.audio_input import Opens, idempotency_key
from sidecar.cli.output import ProgressCallback, print_error_line
from sidecar.config.secret_settings import CLIENT_TOKEN_VARIABLE, read_secret, service_token
from sidecar.interfaces import live_events
from sidecar.live.sessions.event_log import NumberedEvent
from sidecar.transcripts.transcript import (
    Notice,
    Segment,
    SpeakerProfile,
    Transcript,
    Word,
)
from sidecar.transcripts.transcript_formats import parse_flags

if TYPE_CHECKING:
    from sidecar.config.settings import Settings


HINT = "Give --ca-cert FILE or --fingerprint SHA256, as the service's ready line and log have it."

LAST_ANSWER_S = 5.0
"""Seconds that a cancelled command waits for the job of a recording that was sent, to cancel it."""
MAX_SUBMISSIONS = 3
"""Maximum for one recording, if the service forgets its job, as after a restart."""


def client_token(settings: Settings, given: str | None = None) -> str | None:
    """Return the token that commands send to a service.

    Sources in order: ``given`` by --token, VIBEVOICE_CLIENT_TOKEN, the token that a service with
    these settings would require. '@FILE' stands for the content of a file.

    Raises:
        errors.SettingsInvalid: the file of the token cannot be used, or the token is invalid.
    """
    if secret := given or os.environ.get(CLIENT_TOKEN_VARIABLE):
        token = read_secret(SecretStr(secret))
        if not token or not token.isascii() or not token.isprintable():
            where = "--token" if given else CLIENT_TOKEN_VARIABLE
            raise errors.SettingsInvalid(
                f"{where} has no valid token: it is empty or has characters other than "
                "printable ASCII."
            )
        return token
    return service_token(settings)


ATTEMPTS = 12
"""About three minutes without a service, or with one that is full: the time of a restart."""


OUTAGES = frozenset({"journal_unreachable", "shutting_down"})
"""Codes of a service that cannot work for now; a full queue is nothing to tell of."""


class OutageNotice:
    """Line on stderr, once, if the command waits for a service that cannot answer for now."""

    def __init__(self) -> None:
        self._printed = False

    def __call__(self, error: Exception) -> None:
        """Tell of ``error``, unless it is no outage or one was told of."""
        reason = str(error)
        if isinstance(error, asr_client.ServiceError):
            if error.code not in OUTAGES:
                return
            reason = f"the service answers {error.code};"
        if not self._printed:
            print_error_line(f"{reason} trying again.")
        self._printed = True


@asynccontextmanager
async def service_at(
    url: str,
    token: str | None = None,
    trust: asr_client.Trust | None = None,
    attempts: int = ATTEMPTS,
) -> AsyncGenerator[asr_client.AsyncClient, None]:
    """Yield a client of the service at ``url``, which may require a token; a request is made at
    most ``attempts`` times.

    Raises:
        errors.SidecarError: in the body too, for any exception of the client.
    """
    warn_of_insecure_trust(trust)
    with translate_client_errors():
        async with asr_client.AsyncClient(
            url, token, trust=trust, retry=asr_client.Retry(attempts, on_wait=OutageNotice())
        ) as client:
            yield client


def warn_of_insecure_trust(trust: asr_client.Trust | None) -> None:
    """Warn if any certificate is accepted, instead of the client's own warning."""
    if trust is not None and trust.insecure:
        print_error_line(
            "warning: --insecure: any certificate is accepted; recordings go to any server."
        )
        warnings.simplefilter("ignore", asr_client.InsecureWarning)  # printed above


@contextmanager
def translate_client_errors() -> Iterator[None]:
    """Turn the client's exceptions into those of the service.

    Raises:
        errors.SidecarError: for any exception of the client.
    """
    try:
        yield
    except asr_client.ServiceError as error:
        wire = wire_of(error)
        if error.code == errors.TokenMissing.code:  # its hint is for HTTP
            wire["hint"] = f"Set {CLIENT_TOKEN_VARIABLE}=@FILE, or use --token @FILE."
        raise errors.from_wire(wire) from None
    except asr_client.TrustInvalid as error:
        raise errors.SettingsInvalid(error.detail, hint=error.hint) from None
    except asr_client.CertificateRefused as error:
        raise errors.ServiceUnreachable(error.detail, hint=HINT) from None
    except asr_client.ClientError as error:
        raise errors.ServiceUnreachable(error.detail, hint=error.hint) from None


async def live_events_of(live: asr_client.AsyncLive) -> AsyncIterator[NumberedEvent]:
    """Yield the events of a live session of a remote service, up to the summary."""
    with translate_client_errors():
        async for event in live:
            channel = getattr(event, "channel", None)
            yield NumberedEvent(event.number, convert_live_event(event), channel)


def convert_transcript(transcript: asr_client.models.Transcript) -> Transcript:
    """Return a transcript of the client as one of the service, which can be rendered in any
    format."""
    return Transcript(
        segments=tuple(
            _segment(segment, diarized=transcript.diarized) for segment in transcript.segments
        ),
        language=transcript.language,
        duration=transcript.duration,
        engine=transcript.engine,
        precision=transcript.precision,
        diarized=transcript.diarized,
        notices=tuple(Notice(item.code, item.message) for item in transcript.warnings),
        voices=_voices(transcript),
        model=transcript.model,
        device=str(_metadata(transcript).get("device", "")),
        language_probability=transcript.language_probability,
        recognized_s=transcript.recognized_s,
    )


def _metadata(transcript: asr_client.models.Transcript) -> Mapping[str, Any]:
    return transcript.raw.get("metadata") or {}


def _voices(transcript: asr_client.models.Transcript) -> tuple[SpeakerProfile, ...]:
    """Return the profiles of the speakers, or at least of those that have names."""
    named = transcript.segments if transcript.diarized else ()
    names = {_number(one.speaker): one.name for one in named if one.name is not None}
    profiles = {
        number: SpeakerProfile(number or 0, 0.0, name=name) for number, name in names.items()
    }
    with suppress(AttributeError, KeyError, TypeError, ValueError):  # of another release
        for one in _metadata(transcript).get("speakers") or ():
            number = _number(one["speaker"])
            profiles[number] = SpeakerProfile(
                number or 0,
                float(one["voice_seconds"]),
                one["person"],
                one["name"],
                one["likeness"],
            )
    profiles.pop(None, None)
    return tuple(sorted(profiles.values(), key=lambda one: one.speaker))


def convert_live_event(event: asr_client.LiveEvent) -> live_events.LiveEvent:
    """Return a live event of the client as one of the service."""
    match event:
        case asr_client.Partial():
            texts = event.text, event.stable, event.tail
            return live_events.Partial(event.turn, event.piece, event.start, event.end, *texts)
        case asr_client.Final():
            segment = _segment(event.segment, diarized=event.diarized)
            rest = event.language, event.wait_s, event.work_s, event.segment.name
            return live_events.Final(event.turn, event.piece, segment, *rest)
        case asr_client.SpeakersRevised(_, speakers, names):
            numbers = {piece: _number(who) or 0 for piece, who in speakers.items()}
            called = {_number(who) or 0: name for who, name in names.items()}
            return live_events.SpeakersRevised(numbers, called)
        case asr_client.Noticed(_, code, message):
            return live_events.NoticeRaised(Notice(code, message))
        case asr_client.Summary(_, transcript, job):
            return live_events.Summary(convert_transcript(transcript), job)
        case _:  # all others have the same name and fields here
            numbered = "number", "channel"
            fields = {name: value for name, value in vars(event).items() if name not in numbered}
            return live_events.EVENT_TYPES[type(event).__name__](**fields)


def _number(speaker: str) -> int | None:
    number = speaker.removeprefix("Speaker_")
    return int(number) if number.isdecimal() else None


def _segment(segment: asr_client.models.Segment, *, diarized: bool) -> Segment:
    flags, has_speaker = parse_flags(segment.flags)
    return Segment(
        segment.start,
        segment.end,
        segment.text,
        _number(segment.speaker) if diarized and has_speaker else None,
        tuple(Word(word.start, word.end, word.text, word.confidence) for word in segment.words),
        flags,
        segment.words_by,
        segment.confidence,
        segment.language,
        segment.no_speech_probability,
    )


@asynccontextmanager
async def transcribe_remotely(
    client: asr_client.AsyncClient,
    path: Path,
    opens: Opens,
    options: Mapping[str, str],
    report_progress: ProgressCallback,
    *,
    leave: bool,
) -> AsyncGenerator[Transcript, None]:
    """Send a recording to a service, follow its job and yield the transcript; send it again if the
    service has forgotten the job. ``leave``: unless it comes from standard input, the job stays,
    and is found again, if this is cancelled or the block, which may write a file, fails."""
    async with AsyncExitStack() as stack:
        source = stack.enter_context(opens(path))
        stack.enter_context(translate_client_errors())
        key = idempotency_key(path, source, options) if leave and not source.spooled else None
        send = partial(_send_once, client, source.fd, key, options, report_progress)
        for _ in range(1, MAX_SUBMISSIONS):
            with suppress(asr_client.NotFound):
                transcript = await stack.enter_async_context(send())
                break
        else:
            transcript = await stack.enter_async_context(send())
        yield transcript


@asynccontextmanager
async def _send_once(
    client: asr_client.AsyncClient,
    fd: int,
    key: str | None,
    options: Mapping[str, str],
    report_progress: ProgressCallback,
) -> AsyncGenerator[Transcript, None]:
    sent = False

    def on_progress(progress: asr_client.models.Progress) -> None:
        nonlocal sent
        sent = sent or progress.done == progress.total
        report_progress(progress.stage, progress.done, progress.total)

    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        name = "recording"  # the file name stays private
        submission = asyncio.ensure_future(
            client.submit(file, name=name, key=key, on_progress=on_progress, **options)
        )
        try:
            job = await asyncio.shield(submission)
        except asyncio.CancelledError:
            if sent and key is None:  # the service may have made the job already
                with suppress(Exception):
                    await client.cancel((await asyncio.wait_for(submission, LAST_ANSWER_S)).id)
            submission.cancel()
            raise
    over = key is None
    try:
        job = await client.wait(job.id, on_progress)
        if job.error is not None:
            over = True
            raise job.error
        yield convert_transcript(await client.transcript(job.id))
        over = True
    finally:
        if over:
            with suppress(Exception):  # its retention deletes it anyway
                await client.cancel(job.id)
