"""A clip of one person's voice, and what it sounds like."""

from __future__ import annotations

from collections.abc import Iterable

from sidecar import errors
from sidecar.audio import Block
from sidecar.diarization.diarizer import Diarizer
from sidecar.diarization.models import Models
from sidecar.diarization.speaker_identification import LEAST_S, print_of
from sidecar.transcripts.people import VoicePrint

STRANGER_S = 1.0
"""So much of another voice and the clip is nobody's. One that is heard for less is not compared."""
KIN = 0.3
"""The cosine between what one person says in a second or two and all that is said in the clip; of
the recordings in docs/performance.md ("People") one second in a hundred is under it."""


def voice_print(models: Models, blocks: Iterable[Block]) -> VoicePrint:
    """The voice of the one person who speaks in a recording at 16 kHz.

    Raises:
        errors.VoiceAbsent: nobody speaks.
        errors.VoiceTooShort: there are less than two seconds of voice.
        errors.SeveralVoices: more than one person speaks.
    """
    diarizer = Diarizer(models)
    for block in blocks:
        diarizer.feed(block)
    diarizer.finish()
    speakers = diarizer.speakers()
    if not speakers.voices:
        raise errors.VoiceAbsent()
    person = max(speakers.voices, key=lambda one: speakers.voices[one].seconds)
    voice = speakers.voices[person]
    others = sum(turn.end - turn.start for turn in speakers.turns if turn.label != person)
    strange = any(
        seconds >= STRANGER_S and float(vector @ voice.vector) < KIN
        for seconds, vector in diarizer.local_voices()
    )
    if strange or others >= STRANGER_S:
        raise errors.SeveralVoices()
    if voice.seconds < LEAST_S:
        raise errors.VoiceTooShort(
            f"There are {voice.seconds:.1f} s of voice in the clip; {LEAST_S:g} s are needed."
        )
    return print_of(voice)
