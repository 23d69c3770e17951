"""A service elsewhere, by the client that everybody has (`vibevoice_asr_client`), in our words."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager

from vibevoice_asr_client import (
    AsyncClient,
    CertificateRefused,
    ClientError,
    InsecureWarning,
    Retry,
    ServiceError,
    Trust,
    TrustInvalid,
    models,
)
from vibevoice_asr_client.problems import wire_of

from sidecar import errors
from sidecar.cli.said import say
from sidecar.cli.trust import HINT
from sidecar.speech.transcript import Notice, Segment, Transcript, Word

ATTEMPTS = 12
"""Some three minutes without a service, or with one that is full: the time of a restart."""


@asynccontextmanager
async def service_at(
    url: str, token: str | None = None, trust: Trust | None = None
) -> AsyncGenerator[AsyncClient, None]:
    """A client of the service at ``url``, which may want a token.

    Raises:
        errors.SidecarError: in the body too, whatever the client raises there.
    """
    if trust is not None and trust.insecure:
        say("warning: --insecure: whoever answers is believed, and gets the recordings.")
        warnings.simplefilter("ignore", InsecureWarning)  # it is said
    with in_our_words():
        async with AsyncClient(url, token, trust=trust, retry=Retry(ATTEMPTS)) as client:
            yield client


@contextmanager
def in_our_words() -> Iterator[None]:
    """What the client raises, as the service raised it.

    Raises:
        errors.SidecarError: always one of these.
    """
    try:
        yield
    except ServiceError as error:
        raise errors.from_wire(wire_of(error)) from None
    except TrustInvalid as error:
        raise errors.SettingsInvalid(error.detail, hint=error.hint) from None
    except CertificateRefused as error:
        raise errors.ServiceUnreachable(error.detail, hint=HINT) from None
    except ClientError as error:
        raise errors.ServiceUnreachable(error.detail, hint=error.hint) from None


def transcript_of(said: models.Transcript) -> Transcript:
    """A transcript of the client's as the engine's, to be written in any format."""
    return Transcript(
        segments=tuple(_segment(segment, diarized=said.diarized) for segment in said.segments),
        language=said.language,
        duration=said.duration,
        engine=said.engine,
        precision=said.precision,
        diarized=said.diarized,
        notices=tuple(Notice(item.code, item.message) for item in said.warnings),
        model=said.model,
    )


def _segment(said: models.Segment, *, diarized: bool) -> Segment:
    number = said.speaker.removeprefix("Speaker_")
    return Segment(
        start=said.start,
        end=said.end,
        text=said.text,
        speaker=int(number) if diarized and number.isdecimal() else None,
        words=tuple(Word(word.start, word.end, word.text) for word in said.words),
        flags=said.flags,
        words_by=said.words_by,
    )
