"""Voices that are known: of one clip for one job, or of people whom the service keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sidecar import clock
from sidecar.audio.source import AudioSource
from sidecar.errors import PeopleOff
from sidecar.people.owned import OwnedPeople
from sidecar.settings import Settings
from sidecar.speech.engine import TranscribeOptions
from sidecar.speech.live import LiveOptions
from sidecar.speech.people import KnownVoice, VoicePrint
from sidecar.workers.intake import Intake

LONGEST_CLIP_S = 60.0
"""Of one person's voice; a longer recording is a job, one of whose speakers is named."""


class KnownVoices:
    """What jobs are told of who may speak in them. Owns the people's file, where there is one."""

    def __init__(self, settings: Settings, intake: Intake, now: clock.Clock = clock.wall) -> None:
        """Open the people's file, where the setting `people` is on; this waits for the disk.

        Raises:
            errors.SettingsInvalid: as `OwnedPeople`.
        """
        self._intake = intake
        self._people = OwnedPeople(settings, now) if settings.people else None

    @property
    def people(self) -> OwnedPeople:
        """The people of whoever asks.

        Raises:
            errors.PeopleOff: nobody's voice is kept here.
        """
        if self._people is None:
            raise PeopleOff()
        return self._people

    async def of(self, source: AudioSource, max_s: float = LONGEST_CLIP_S) -> VoicePrint:
        """What the one person in a clip sounds like; the clip is closed.

        Raises:
            errors.BadAudio: it cannot be decoded, is too long, or has not just one voice in it.
            errors.VoicesUnavailable: voices cannot be compared here.
        """
        try:
            return await self._intake.voice(source, max_s)
        finally:
            source.close()

    async def with_clips(
        self, options: TranscribeOptions, clips: Sequence[tuple[str, AudioSource]], max_s: float
    ) -> TranscribeOptions:
        """The options of a job in which the speakers of some clips are recognised, each by the name
        that is given with it; nothing of them is kept beyond the job. All clips are closed.

        ``max_s``: the longest clip.

        Raises:
            errors.BadAudio, errors.VoicesUnavailable: as `of`, for any of them.
        """
        try:
            known = [
                KnownVoice(f"clip-{number}", name, (await self.of(source, max_s),))
                for number, (name, source) in enumerate(clips, len(options.known_voices))
            ]
        finally:
            for _, source in clips:
                source.close()
        return replace(options, known_voices=(*options.known_voices, *known))

    def with_people(
        self, options: TranscribeOptions, owner: str, *, kept: bool
    ) -> TranscribeOptions:
        """The options of a job that begins, with the people whom its owner knows by then; ``kept``:
        whether somebody can ask later who spoke in it. No record has them, so that who is deleted
        is in none."""
        if self._people is None or not options.recognise:
            return options
        known = (*options.known_voices, *self._people.known(owner))
        return replace(options, known_voices=known, voiceprints=kept)

    def with_people_live(self, options: LiveOptions, owner: str) -> LiveOptions:
        """The options of a live session that begins, with the people whom its owner knows by then;
        what its speakers sound like is told where somebody can ask later who spoke in it."""
        if self._people is None or not options.recognise:
            return replace(options, known_voices=(), voiceprints=False)
        known = self._people.known(owner)
        return replace(options, known_voices=known, voiceprints=options.keep)

    def close(self) -> None:
        """Close the file."""
        if self._people is not None:
            self._people.close()
