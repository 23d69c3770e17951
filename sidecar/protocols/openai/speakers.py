"""Speakers that a client knows: their names, and for each a few seconds of the voice."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar import errors
from sidecar.audio.source import AudioSource, Spool
from sidecar.auth.identity import Identity
from sidecar.interfaces.engine import TranscribeOptions
from sidecar.service import Service

NAMES, REFERENCES = "known_speaker_names", "known_speaker_references"
MOST = 4
SHORTEST_S, LONGEST_S = 2.0, 10.0
"""As OpenAI takes them."""
LONGEST_NAME = 64
LONGEST_REFERENCE = 3 << 20
"""Characters of a data URL: ten seconds of stereo, 16 bit, at 48 kHz are 2.6 million."""
ROOM = MOST * LONGEST_REFERENCE
_URL = re.compile(r"data:(?P<type>[\w.+/;=-]*?);base64,", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class KnownSpeaker:
    """A name, and the bytes of a recording of the voice."""

    name: str
    voice: bytes


def known_speakers(names: Sequence[str], references: Sequence[str]) -> tuple[KnownSpeaker, ...]:
    """Those that a client sent. Pure.

    Raises:
        errors.FieldInvalid: there are too many, or not as many voices as names, or one is wrong.
    """
    names = [" ".join(name.split()) for name in names]
    if len(names) != len(references):
        raise errors.FieldInvalid(
            f"'{NAMES}[]' has {len(names)} names and '{REFERENCES}[]' {len(references)} voices.",
            hint="Send a voice for each name, in the same order.",
        )
    if len(names) > MOST:
        raise errors.FieldInvalid(f"'{NAMES}[]' has more than {MOST} names.")
    if any(not 1 <= len(name) <= LONGEST_NAME for name in names) or len(set(names)) < len(names):
        raise errors.FieldInvalid(
            f"'{NAMES}[]' has a name that is empty, too long, or there twice.",
            hint=f"Send short names of up to {LONGEST_NAME} characters, each once.",
        )
    return tuple(
        KnownSpeaker(name, _bytes_of(name, url))
        for name, url in zip(names, references, strict=True)
    )


def _bytes_of(name: str, url: str) -> bytes:
    """What is in a data URL."""
    said = _URL.match(url.strip())
    if said is None or len(url) > LONGEST_REFERENCE:
        raise _wrong(name, "is no data URL in base64, or too long")
    try:
        voice = base64.b64decode(url.strip()[said.end() :], validate=True)
    except ValueError:  # binascii.Error is one, and what is not ASCII another
        raise _wrong(name, "is not valid base64") from None
    if not voice:
        raise _wrong(name, "is empty")
    return voice


async def recognised(
    service: Service, caller: Identity, options: TranscribeOptions, known: Sequence[KnownSpeaker]
) -> TranscribeOptions:
    """The options with the voices to recognise, each of which was listened to.

    Raises:
        errors.FieldInvalid: one is no recording, too short or too long, or not one voice.
        errors.VoicesUnavailable: voices cannot be compared on this machine.
    """
    for one in known:
        try:
            with await service.spooling.run(_source, one.voice) as source:
                length_s = await service.submissions.measure(caller, source)
                if length_s is not None and not SHORTEST_S <= length_s <= LONGEST_S:
                    raise _wrong(one.name, f"has {length_s:.1f} s")
                options = await service.voices.with_clips(
                    caller, options, [(one.name, source)], LONGEST_S
                )
        except errors.BadAudio as error:
            raise _wrong(one.name, f"cannot be used: {error.detail}") from None
    return options


def _source(voice: bytes) -> AudioSource:
    spool = Spool(None)
    spool.add(voice)
    return spool.finish()


def _wrong(name: str, what: str) -> errors.FieldInvalid:
    return errors.FieldInvalid(
        f"'{REFERENCES}[]': the voice of {name!r} {what}.",
        hint=f"Send {SHORTEST_S:.0f} to {LONGEST_S:.0f} s of one voice as a data URL: "
        "data:audio/wav;base64,…",
    )
