"""Enrolled speakers of an owner, enrolment, lookup for jobs and sessions."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from dataclasses import replace

from sidecar import clock, errors
from sidecar.audio.audio_source import AudioSource
from sidecar.auth.identity import Identity
from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.interfaces.live_options import LiveOptions
from sidecar.storage.encryption import journal_key
from sidecar.storage.postgres_settings import journal_address
from sidecar.storage.postgres_speaker_store import PostgresSpeakerStore
from sidecar.storage.speaker_store import (
    MAX_ENROLLED_SPEAKERS,
    EnrolledSpeaker,
    SpeakerSample,
    SpeakerStore,
    SqliteSpeakerStore,
    speaker_folder,
)
from sidecar.transcripts.speaker_embeddings import SpeakerCandidate, SpeakerEmbedding
from sidecar.workers.audio_probe import AudioProbe


class OwnedSpeakers:
    """Enrolled speakers of one owner, for requests. Owns the store.

    Every call may raise `errors.JournalUnreachable` if the store is a database.
    """

    def __init__(self, store: SpeakerStore, now: clock.Clock = clock.wall_time) -> None:
        self._store, self._now = store, now

    async def all(self, caller: Identity) -> Sequence[EnrolledSpeaker]:
        """The caller's, the oldest first."""
        return await self._store.of(caller.owner)

    async def person(self, caller: Identity, person_id: str) -> EnrolledSpeaker:
        """One of the caller's.

        Raises:
            errors.PersonNotFound: there is none, or it is another's.
        """
        return _find_speaker(await self._store.of(caller.owner), person_id)

    async def known(self, owner: str) -> tuple[SpeakerCandidate, ...]:
        """Return the enrolled speakers that a job of an owner may recognize."""
        return tuple(one.known for one in await self._store.of(owner))

    async def check_room(self, caller: Identity) -> None:
        """Refuse one more before anything is heard.

        Raises:
            errors.PeopleFull: there are as many as one owner may have.
        """
        _check_capacity(await self._store.of(caller.owner))

    async def add(self, caller: Identity, name: str, heard: SpeakerEmbedding) -> EnrolledSpeaker:
        """Add an enrolled speaker. Who is there by that name and that very recording is not there
        twice: who was not told that it was done may ask again.

        Raises:
            errors.PeopleFull: there are as many as one owner may have.
            errors.DiskFull, errors.SidecarError: it cannot be written.
        """
        now = self._now()
        person = EnrolledSpeaker(
            uuid.uuid4().hex, caller.owner, name, now, (SpeakerSample(now, heard),)
        )

        def decide(people: Sequence[EnrolledSpeaker]) -> EnrolledSpeaker:
            for one in people:
                if one.name == name and one.hearing(person.samples[0]) == one:
                    return one
            _check_capacity(people)
            return person

        return await self._store.keep(caller.owner, decide)

    async def change(
        self,
        caller: Identity,
        person_id: str,
        name: str | None = None,
        heard: SpeakerEmbedding | None = None,
    ) -> EnrolledSpeaker:
        """Another name, one recording more, or both.

        Raises:
            errors.PersonNotFound: there is none, or it is another's.
            errors.DiskFull, errors.SidecarError: it cannot be written.
        """
        now = self._now()

        def decide(people: Sequence[EnrolledSpeaker]) -> EnrolledSpeaker:
            person = _find_speaker(people, person_id)
            if name is not None:
                person = replace(person, name=name)
            return person if heard is None else person.hearing(SpeakerSample(now, heard))

        return await self._store.keep(caller.owner, decide)

    async def delete(self, caller: Identity, person_id: str) -> None:
        """Forget somebody, for good.

        Raises:
            errors.PersonNotFound: there is none, or it is another's.
            errors.DiskFull, errors.SidecarError: it cannot be written.
        """
        person = await self.person(caller, person_id)
        await self._store.delete(caller.owner, person.id)

    async def delete_all(self, caller: Identity) -> int:
        """Forget everybody of the caller's, for good; how many.

        Raises:
            errors.DiskFull, errors.SidecarError: it cannot be written; some may be gone.
        """
        return await self._store.empty(caller.owner)

    async def close(self) -> None:
        """Let another service have them."""
        await self._store.close()


def _find_speaker(people: Sequence[EnrolledSpeaker], person_id: str) -> EnrolledSpeaker:
    for one in people:
        if one.id == person_id:
            return one
    raise errors.PersonNotFound()


def _check_capacity(people: Sequence[EnrolledSpeaker]) -> None:
    if len(people) >= MAX_ENROLLED_SPEAKERS:
        raise errors.PeopleFull(
            f"You already have {MAX_ENROLLED_SPEAKERS} enrolled speakers, the limit."
        )


log = logging.getLogger(__name__)

MAX_CLIP_S = 60.0
"""Of one person's voice; a longer recording is a job, one of whose speakers is named."""
STORE_BACKOFF_S = 1.0
"""So long a job that begins leaves a database that does not answer alone."""
LIVE_LOOKUP_TIMEOUT_S = 3.0
"""Time that a live session waits for the enrolled speakers: a database that hangs does not
answer for longer."""


def create_speaker_store(settings: Settings) -> SpeakerStore | None:
    """Create the store of enrolled speakers; None if they are off.

    Where services share their jobs each has their people: what a job needs of them says the one
    that took it in.

    Raises:
        errors.SettingsInvalid: the folder, the file, the database or the key cannot be used.
    """
    if (address := journal_address(settings)) is not None:
        return PostgresSpeakerStore(address, journal_key(settings))
    return (
        SqliteSpeakerStore(speaker_folder(settings), journal_key(settings))
        if settings.people
        else None
    )


class EnrolledSpeakers:
    """Enrolled speakers for jobs and sessions. Owns them, if they are kept."""

    def __init__(
        self, settings: Settings, intake: AudioProbe, now: clock.Clock = clock.wall_time
    ) -> None:
        """Open them; this waits for the disk, or for the database.

        Raises:
            errors.SettingsInvalid: as `create_speaker_store`.
        """
        self._intake, self._on = intake, settings.people
        store = create_speaker_store(settings)
        self._people = OwnedSpeakers(store, now) if store is not None else None

    @property
    def people(self) -> OwnedSpeakers:
        """Return the caller's enrolled speakers.

        Raises:
            errors.PeopleOff: nobody's voice is kept here.
        """
        if self._people is None or not self._on:
            raise errors.PeopleOff()
        return self._people

    async def of(
        self, caller: Identity, source: AudioSource, max_s: float = MAX_CLIP_S
    ) -> SpeakerEmbedding:
        """Return the embedding of the only speaker in a clip; the clip is closed.

        Raises:
            errors.BadAudio: it cannot be decoded, is too long, or has not just one voice in it.
            errors.VoicesUnavailable: voices cannot be compared here.
        """
        try:
            return await self._intake.voice(caller, source, max_s)
        finally:
            source.close()

    async def with_clip(
        self,
        caller: Identity,
        options: TranscribeOptions,
        name: str,
        clip: AudioSource,
        max_s: float,
    ) -> TranscribeOptions:
        """The options of a job in which the speaker of a clip of at most ``max_s`` seconds is
        recognised as ``name``; nothing of it is kept beyond the job. The clip is closed.

        Raises:
            errors.BadAudio, errors.VoicesUnavailable: as `of`.
        """
        heard, others = await self.of(caller, clip, max_s), options.known_voices
        known = SpeakerCandidate(f"clip-{len(others)}", name, (heard,))
        return replace(options, known_voices=(*others, known))

    async def with_enrolled_speakers(
        self, options: TranscribeOptions, owner: str, *, kept: bool
    ) -> TranscribeOptions:
        """The options of a job that begins, with the people whom its owner knows by then; ``kept``:
        whether somebody can ask later who spoke in it. No record has them, so that who is deleted
        is in none. While nobody can be asked who is known, the job waits."""
        wanted = options.recognise and (self._on or options.voiceprints)
        if self._people is None or not wanted:
            return replace(options, voiceprints=False)
        while True:
            try:
                known = (*options.known_voices, *await self._people.known(owner))
                return replace(options, known_voices=known, voiceprints=kept)
            except errors.JournalUnreachable:
                await asyncio.sleep(STORE_BACKOFF_S)

    async def with_enrolled_speakers_live(self, options: LiveOptions, owner: str) -> LiveOptions:
        """The options of a live session that begins, with the people whom its owner knows by then;
        what its speakers sound like is told where somebody can ask later who spoke in it. While
        nobody can be asked who is known, it is nobody: what is said waits for no database."""
        if self._people is None or not self._on or not options.recognise:
            return replace(options, known_voices=(), voiceprints=False)
        try:
            async with asyncio.timeout(LIVE_LOOKUP_TIMEOUT_S):
                known = await self._people.known(owner)
        except (errors.JournalUnreachable, TimeoutError):
            log.warning(
                "a live session starts without enrolled speakers: the database does not answer"
            )
            known = ()
        return replace(options, known_voices=known, voiceprints=options.keep)

    async def forget(self, caller: Identity) -> int:
        """Forget everybody whom the caller knows, also where nobody is recognised any more; how
        many.

        Raises:
            errors.SidecarError: as `OwnedSpeakers.delete_all`.
        """
        return await self._people.delete_all(caller) if self._people is not None else 0

    async def close(self) -> None:
        """Close where they are kept."""
        if self._people is not None:
            await self._people.close()
