"""Enrolled speakers of an owner, enrolment, lookup for jobs and sessions."""

import asyncio
import logging
import uuid
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec

from sidecar import clock, errors
from sidecar.audio.audio_source import AudioSource
from sidecar.auth.identity import Identity, is_loopback_address
from sidecar.concurrency import ThreadLimiter
from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.interfaces.live_options import LiveOptions
from sidecar.storage.encryption import journal_key
from sidecar.storage.speaker_store import (
    MAX_ENROLLED_SPEAKERS,
    SPEAKER_FILE,
    EnrolledSpeaker,
    SpeakerSample,
    SpeakerStore,
    SqliteSpeakerStore,
    speaker_folder,
)
from sidecar.transcripts.transcript import SpeakerCandidate, SpeakerEmbedding
from sidecar.workers.audio_probe import AudioProbe

log = logging.getLogger(__name__)

MAX_CLIP_S = 60.0
"""Maximum seconds of an enrolment clip; of a longer job, a speaker can be named."""
STORE_BACKOFF_S = 1.0
"""Back-off of a starting job while the database does not answer."""
LIVE_LOOKUP_TIMEOUT_S = 3.0
"""Timeout of a live session's lookup of enrolled speakers, as a database may hang."""


def _find_speaker(speakers: Sequence[EnrolledSpeaker], person_id: str) -> EnrolledSpeaker:
    for one in speakers:
        if one.id == person_id:
            return one
    raise errors.PersonNotFound()


async def _known(store: SpeakerStore, owner: str) -> tuple[SpeakerCandidate, ...]:
    """Return the enrolled speakers that a job of an owner may recognize."""
    return tuple(one.known for one in await store.of(owner))


def _check_capacity(speakers: Sequence[EnrolledSpeaker]) -> None:
    if len(speakers) >= MAX_ENROLLED_SPEAKERS:
        raise errors.PeopleFull(
            f"You already have {MAX_ENROLLED_SPEAKERS} enrolled speakers, the limit."
        )


def local_store(settings: Settings) -> SpeakerStore | None:
    """Open the file of enrolled speakers; None if they are off. Where the setting is unset, a file
    that is there says that the person has agreed.

    Raises:
        errors.SettingsInvalid: the setting is on, and the folder, the file or the key cannot be
            used.
    """
    if settings.people:
        return _open_store(settings)
    if not (_may_be_agreed(settings) and (speaker_folder(settings) / SPEAKER_FILE).is_file()):
        return None
    try:
        return _open_store(settings)
    except errors.SettingsInvalid as error:  # another service may have it, or the keyring is locked
        log.warning("nobody is recognized by voice: %s", error.detail)
        return None


def _may_be_agreed(settings: Settings) -> bool:
    """Return whether it is left to the person whose machine this is: the setting is unset, the
    service is on the loopback, behind no proxy, without signed tokens, with jobs of its own, and
    the key would be in the system's keyring."""
    shared = settings.shares_jobs or settings.token_keys or settings.forwarded_allow_ips
    return (
        settings.people is None
        and settings.journal_key is None
        and is_loopback_address(settings.host)
        and not shared
        and all(find_spec(name) is not None for name in ("cryptography", "keyring"))
    )


def _open_store(settings: Settings) -> SpeakerStore:
    return SqliteSpeakerStore(speaker_folder(settings), journal_key(settings))


class EnrolledSpeakers:
    """Enrolled speakers of each owner, for requests, jobs and sessions. Owns the store, if there is
    one.

    A request raises `errors.PeopleOff` if they are off or nobody has agreed yet, and
    `errors.JournalUnreachable` if the store is a database that does not answer.
    """

    def __init__(
        self,
        settings: Settings,
        probe: AudioProbe,
        store: SpeakerStore | None,
        now: clock.Clock = clock.wall_time,
    ) -> None:
        """``store``: None if they are off, or if nobody has agreed yet."""
        self._settings, self._probe, self._now = settings, probe, now
        self._store, may_be_agreed = store, _may_be_agreed(settings)
        self._on = bool(settings.people) or (may_be_agreed and store is not None)
        self.needs_consent = may_be_agreed and store is None
        """True until somebody agrees (`agree`): then they are on."""
        self.keeps_voiceprints = self._on or self.needs_consent
        """Whether embeddings of jobs are kept, so that a speaker can be enrolled later."""
        self._opening = ThreadLimiter("people", 1)

    @property
    def _enabled_store(self) -> SpeakerStore:
        """Return the store, for requests.

        Raises:
            errors.PeopleOff: enrolled speakers are off, or nobody has agreed yet.
        """
        if self.needs_consent:
            raise errors.PeopleOff(
                "Nobody has agreed yet that this computer stores voices.",
                hint="Voices are biometric data (docs/people.md). If that is all right, send "
                "'consent': true with the first person: POST /v1/people, or 'vibevoice-asr people "
                "add NAME FILE --consent'.",
            )
        if self._store is None or not self._on:
            raise errors.PeopleOff()
        return self._store

    async def agree(self) -> None:
        """Turn them on for good: the person whose machine this is agrees. Nothing changes if they
        are on already.

        Raises:
            errors.PeopleOff: they are off, or the file or its key cannot be used now.
        """
        try:
            await self._opening.run(self._open_agreed)
        except errors.SettingsInvalid as error:
            raise errors.PeopleOff(error.detail, hint=error.hint) from None

    def _open_agreed(self) -> None:
        if self.needs_consent:
            self._store = _open_store(self._settings)
            self.needs_consent, self._on = False, True

    async def all(self, identity: Identity) -> Sequence[EnrolledSpeaker]:
        """Return the client's enrolled speakers, the oldest first."""
        return await self._enabled_store.of(identity.owner)

    async def person(self, identity: Identity, person_id: str) -> EnrolledSpeaker:
        """Return one of the client's enrolled speakers.

        Raises:
            errors.PersonNotFound: there is none, or it is another owner's.
        """
        return _find_speaker(await self._enabled_store.of(identity.owner), person_id)

    async def check_capacity(self, identity: Identity) -> None:
        """Refuse another speaker before its clip is processed.

        Raises:
            errors.PeopleFull: the owner has the maximum number.
        """
        if not self.needs_consent:
            _check_capacity(await self._enabled_store.of(identity.owner))

    async def add(
        self, identity: Identity, name: str, embedding: SpeakerEmbedding
    ) -> EnrolledSpeaker:
        """Add an enrolled speaker. If the owner has one with this name and this recording, return
        it: a client without a response may repeat the request.

        Raises:
            errors.PeopleFull: the owner has the maximum number.
            errors.DiskFull, errors.SidecarError: it cannot be written.
        """
        now = self._now()
        person = EnrolledSpeaker(
            uuid.uuid4().hex, identity.owner, name, now, (SpeakerSample(now, embedding),)
        )

        def decide(speakers: Sequence[EnrolledSpeaker]) -> EnrolledSpeaker:
            for one in speakers:
                if one.name == name and one.hearing(person.samples[0]) == one:
                    return one
            _check_capacity(speakers)
            return person

        return await self._enabled_store.keep(identity.owner, decide)

    async def change(
        self,
        identity: Identity,
        person_id: str,
        name: str | None = None,
        embedding: SpeakerEmbedding | None = None,
    ) -> EnrolledSpeaker:
        """Change the name of a speaker, add a recording, or both.

        Raises:
            errors.PersonNotFound: there is none, or it is another owner's.
            errors.DiskFull, errors.SidecarError: it cannot be written.
        """
        now = self._now()

        def decide(speakers: Sequence[EnrolledSpeaker]) -> EnrolledSpeaker:
            person = _find_speaker(speakers, person_id)
            if name is not None:
                person = replace(person, name=name)
            return person if embedding is None else person.hearing(SpeakerSample(now, embedding))

        return await self._enabled_store.keep(identity.owner, decide)

    async def delete(self, identity: Identity, person_id: str) -> None:
        """Delete an enrolled speaker permanently.

        Raises:
            errors.PersonNotFound: there is none, or it is another owner's.
            errors.DiskFull, errors.SidecarError: it cannot be written.
        """
        person = await self.person(identity, person_id)
        await self._enabled_store.delete(identity.owner, person.id)

    async def embed_clip(
        self, identity: Identity, source: AudioSource, max_s: float = MAX_CLIP_S
    ) -> SpeakerEmbedding:
        """Return the embedding of the only speaker in a clip; the clip is closed.

        Raises:
            errors.BadAudio: it cannot be decoded, is too long, or does not have exactly one
                speaker.
            errors.VoicesUnavailable: speaker embeddings are not available here.
        """
        try:
            return await self._probe.voice(identity, source, max_s)
        finally:
            source.close()

    async def with_clip(
        self,
        identity: Identity,
        options: TranscribeOptions,
        name: str,
        source: AudioSource,
        max_s: float,
    ) -> TranscribeOptions:
        """Return the options of a job that recognizes the speaker of a clip of at most ``max_s``
        seconds as ``name``. Nothing of the clip is kept beyond the job. The clip is closed.

        Raises:
            errors.BadAudio, errors.VoicesUnavailable: as `embed_clip`.
        """
        embedding, others = await self.embed_clip(identity, source, max_s), options.known_voices
        known = SpeakerCandidate(f"clip-{len(others)}", name, (embedding,))
        return replace(options, known_voices=(*others, known))

    async def with_enrolled_speakers(
        self, options: TranscribeOptions, owner: str, *, kept: bool
    ) -> TranscribeOptions:
        """Return the options of a starting job, with its owner's current enrolled speakers. They
        are not in the job's record, so a deleted speaker is in none. If the database does not
        answer, the job waits. ``kept``: whether the transcript is kept, so that its speakers may be
        named later."""
        wanted = options.recognise and (self._on or options.voiceprints)
        if self._store is None or not wanted:
            enrolled_later = kept and wanted and self.needs_consent
            return replace(options, voiceprints=enrolled_later)
        while True:
            try:
                known = (*options.known_voices, *await _known(self._store, owner))
                return replace(options, known_voices=known, voiceprints=kept)
            except errors.JournalUnreachable:
                await asyncio.sleep(STORE_BACKOFF_S)

    async def with_enrolled_speakers_live(self, options: LiveOptions, owner: str) -> LiveOptions:
        """Return the options of a starting live session, with its owner's current enrolled
        speakers. Speaker embeddings are recorded only if the session is kept, so that its speakers
        may be named later. If the database does not answer, start without them: live audio does not
        wait for a database."""
        if self._store is None or not self._on or not options.recognise:
            later = options.keep and options.recognise and self.needs_consent
            return replace(options, known_voices=(), voiceprints=later)
        try:
            async with asyncio.timeout(LIVE_LOOKUP_TIMEOUT_S):
                known = await _known(self._store, owner)
        except (errors.JournalUnreachable, TimeoutError):
            log.warning(
                "a live session starts without enrolled speakers: the database does not answer"
            )
            known = ()
        return replace(options, known_voices=known, voiceprints=options.keep)

    async def delete_all(self, identity: Identity) -> int:
        """Delete all of the client's enrolled speakers, even if speaker identification is off;
        return their number.

        Raises:
            errors.DiskFull, errors.SidecarError: it cannot be written; some may be deleted.
        """
        return 0 if self._store is None else await self._store.delete_all(identity.owner)

    async def close(self) -> None:
        """Close the store, so that another service can open it."""
        if self._store is not None:
            await self._store.close()
