"""Who of the people known says what in a session. Pure.

As in a recording (`diarization.speaker_identification`), and again after each decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sidecar.diarization.speaker_identification import Voice, alike, means_of, named
from sidecar.transcripts.people import KnownVoice, SpeakerVoice


class Acquaintances:
    """Those of one session, and what its client was told of them."""

    def __init__(self, known: Sequence[KnownVoice]) -> None:
        self._known = {one.person: one for one in known}
        self._means = means_of(known)
        self._told: dict[int, str] = {}
        self.voices: dict[int, SpeakerVoice] = {}
        """What is known of each speaker, by number."""

    def meet(self, voices: Mapping[int, Voice]) -> None:
        """This is what the speakers sound like now."""
        self.voices = named(voices, alike(voices, self._means), self._known)

    def name_of(self, speaker: int | None) -> str | None:
        """Who a speaker is; None for all who are nobody."""
        one = None if speaker is None else self.voices.get(speaker)
        return None if one is None else one.name

    def news(self) -> dict[int, str | None]:
        """Speakers who are somebody else than was told, or nobody after all; each change once."""
        now = {number: one.name for number, one in self.voices.items() if one.name is not None}
        numbers = sorted({*now, *self._told})
        changes = {one: now.get(one) for one in numbers if now.get(one) != self._told.get(one)}
        self._told = now
        return changes
