"""Enrolled speakers of an owner, enrolment, lookup for jobs and sessions."""

import asyncio
import logging
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec

from sidecar import clock, errors, files
from sidecar.audio.audio_source import AudioSource
from sidecar.auth.identity import Identity, Scope
from sidecar.config.server_settings import is_loopback_address
from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.interfaces.live_options import LiveOptions
from sidecar.storage.encryption import journal_key
from sidecar.storage.own_speaker_store import OwnSpeakerStore
from sidecar.storage.speaker_store import (
    MAX_ENROLLED_SPEAKERS,
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
"""Timeout of a live session's lookup of enrolled speakers, as a database or a keyring may hang."""
JOB_LOOKUP_TIMEOUT_S = 30.0
"""The same of a job, on a person's own machine. A transcript without names is worse than a late
one, and on a busy machine the first look into a keyring takes seconds."""
KEYRING_TIMEOUT_S = 60.0
"""Timeout of a request that needs the keyring, which may ask the person."""


def _find_speaker(speakers: Sequence[EnrolledSpeaker], person_id: str) -> EnrolledSpeaker:
    for one in speakers:
        if one.id == person_id:
            return one
    raise errors.PersonNotFound()


async def _known(store: SpeakerStore, owner: str) -> tuple[SpeakerCandidate, ...]:
    """Return the enrolled speakers that a job of an owner may identify."""
    return tuple(one.known for one in await store.of(owner))


def _check_capacity(speakers: Sequence[EnrolledSpeaker], limit: int) -> None:
    if len(speakers) >= limit:
        raise errors.PeopleFull(f"You already have {limit} enrolled speakers, the limit.")


def local_store(settings: Settings) -> SpeakerStore | None:
    """Open the file of enrolled speakers; None unless the setting is on.

    Raises:
        errors.SettingsInvalid: the folder, the file or the key cannot be used.
    """
    if not settings.people:
        return None
    return SqliteSpeakerStore(speaker_folder(settings), journal_key(settings))


def _is_by_consent(settings: Settings) -> bool:
    """Return whether it is left to the person whose machine this is: the setting is unset, the
    service is on the loopback, behind no proxy, under no other name, without signed tokens, with
    jobs of its own, and the key would be in the system's keyring, the file in the user's home."""
    proxied = settings.forwarded_allow_ips or settings.allowed_hosts
    return (
        settings.people is None
        and settings.journal_key is None
        and is_loopback_address(settings.host)
        and not (proxied or settings.token_keys or settings.shares_jobs)
        and (settings.data_dir or files.user_folder("data")) is not None
        and all(find_spec(name) is not None for name in ("cryptography", "keyring"))
    )


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
        limit: int = MAX_ENROLLED_SPEAKERS,
        job_wait_s: float = JOB_LOOKUP_TIMEOUT_S,
        live_wait_s: float = LIVE_LOOKUP_TIMEOUT_S,
    ) -> None:
        """``store``: None unless the setting is on, or services share it. ``limit``: speakers of
        each owner. ``job_wait_s``, ``live_wait_s``: timeouts of a lookup for a job or session."""
        self._probe, self._on, self._now = probe, bool(settings.people), now
        self._store, self._limit = store, limit
        self._job_wait_s, self._live_wait_s = job_wait_s, live_wait_s
        self._own = OwnSpeakerStore(settings) if _is_by_consent(settings) else None
        """On a person's own machine; None if the setting decides."""
        self.by_consent = self._own is not None
        """Whether it is left to the person whose machine this is."""
        self._stores_jobs = settings.keeps_jobs

    @property
    def on(self) -> bool:
        """Return whether speakers can be enrolled now."""
        return self._on or (self._own is not None and self._own.consented)

    @property
    def needs_consent(self) -> bool:
        """Return whether the person whose machine this is has not agreed yet (`give_consent`)."""
        return self._own is not None and not self._own.consented

    async def _enabled_store(self) -> SpeakerStore:
        """Return the store, for requests.

        Raises:
            errors.PeopleOff: enrolled speakers are off, nobody has agreed yet, or the file or its
                key cannot be used now.
        """
        if self.needs_consent:
            raise errors.PeopleOff(
                "Nobody has agreed yet that this computer stores voices.",
                hint="Voices are biometric data (docs/people.md). If that is all right, send "
                "'consent': true with the first person: POST /v1/people, or 'vibevoice-asr people "
                "add NAME FILE --consent'.",
            )
        if self._own is not None:
            return await self._opened(self._own)
        if self._store is None or not self._on:
            raise errors.PeopleOff()
        return self._store

    async def _opened(self, own: OwnSpeakerStore) -> SpeakerStore:
        try:
            return await own.opened(KEYRING_TIMEOUT_S, again=True)
        except errors.SettingsInvalid as error:
            raise errors.PeopleOff(
                "The enrolled speakers cannot be opened now; the service's log says why.",
                hint=error.hint,
            ) from None
        except TimeoutError:
            raise errors.PeopleOff(
                f"The system's keyring did not answer within {KEYRING_TIMEOUT_S:.0f} s.",
                hint="Unlock it, and try again.",
            ) from None

    async def give_consent(self, identity: Identity) -> None:
        """Turn them on for good: the person whose machine this is agrees. Nothing changes if they
        are on already, or off by the setting.

        Raises:
            errors.PeopleOff: the client is not on this machine, or the file or its key cannot be
                used now.
        """
        if self._own is not None and not self._own.consented:
            if Scope.AUDIO_PATH not in identity.scopes:
                raise errors.PeopleOff(
                    "Only a person at this machine can agree that it stores voices.",
                    hint="Agree there, on the page or by 'vibevoice-asr people add --consent'.",
                )
            await self._opened(self._own)
            await self._own.give_consent()

    async def _readable_store(self, wait_s: float) -> SpeakerStore | None:
        """Return the store for a job or session, which goes on without it: None if there is none,
        or if that of a person's own machine cannot be opened within ``wait_s``."""
        if self._own is None:
            return self._store
        if self._own.consented:
            with suppress(errors.SettingsInvalid, TimeoutError):  # logged where it is opened
                return await self._own.opened(wait_s)
        return None

    async def all(self, identity: Identity) -> Sequence[EnrolledSpeaker]:
        """Return the client's enrolled speakers, the oldest first."""
        return await (await self._enabled_store()).of(identity.owner)

    async def person(self, identity: Identity, person_id: str) -> EnrolledSpeaker:
        """Return one of the client's enrolled speakers.

        Raises:
            errors.PersonNotFound: there is none, or it is another owner's.
        """
        return _find_speaker(await (await self._enabled_store()).of(identity.owner), person_id)

    async def check_capacity(self, identity: Identity) -> None:
        """Refuse another speaker before its clip is processed.

        Raises:
            errors.PeopleFull: the owner has the maximum number.
        """
        if not self.needs_consent:
            _check_capacity(await (await self._enabled_store()).of(identity.owner), self._limit)

    async def add(
        self, identity: Identity, name: str, embedding: SpeakerEmbedding, *, known_too: bool = False
    ) -> EnrolledSpeaker:
        """Add an enrolled speaker. If the owner has one with this name and this recording, return
        it: a client without a response may repeat the request. ``known_too``: it is one more
        recording of a speaker who has this name.

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
                updated = one.hearing(person.samples[0])
                if one.name == name and (known_too or updated == one):
                    return updated
            _check_capacity(speakers, self._limit)
            return person

        return await (await self._enabled_store()).keep(identity.owner, decide)

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

        return await (await self._enabled_store()).keep(identity.owner, decide)

    async def delete(self, identity: Identity, person_id: str) -> None:
        """Delete an enrolled speaker permanently.

        Raises:
            errors.PersonNotFound: there is none, or it is another owner's.
            errors.DiskFull, errors.SidecarError: it cannot be written.
        """
        person = await self.person(identity, person_id)
        await (await self._enabled_store()).delete(identity.owner, person.id)

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
        """Return the options of a job that identifies the speaker of a clip of at most ``max_s``
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
        wanted = options.recognise and (self.on or options.voiceprints)
        store = await self._readable_store(self._job_wait_s) if wanted else None
        if store is None:
            # nothing of a voice is on a disk before somebody has agreed
            later = kept and wanted and self.by_consent and (self.on or not self._stores_jobs)
            return options if later == options.voiceprints else replace(options, voiceprints=later)
        while True:
            try:
                known = (*options.known_voices, *await _known(store, owner))
                return replace(options, known_voices=known, voiceprints=kept)
            except errors.JournalUnreachable:
                await asyncio.sleep(STORE_BACKOFF_S)

    async def with_enrolled_speakers_live(self, options: LiveOptions, owner: str) -> LiveOptions:
        """Return the options of a starting live session, with its owner's current enrolled
        speakers. Speaker embeddings are recorded only if the session is kept, so that its speakers
        may be named later. If the database does not answer, start without them: live audio does not
        wait for a database."""
        wanted, known = options.recognise and self.on, tuple[SpeakerCandidate, ...]()
        if wanted and (store := await self._readable_store(self._live_wait_s)) is not None:
            try:
                async with asyncio.timeout(self._live_wait_s):
                    known = await _known(store, owner)
            except (errors.JournalUnreachable, TimeoutError):
                log.warning(
                    "a live session starts without enrolled speakers: the database does not answer"
                )
        return replace(options, known_voices=known, voiceprints=wanted and options.keep)

    async def delete_all(self, identity: Identity) -> int:
        """Delete all of the client's enrolled speakers, even if speaker identification is off;
        return their number.

        Raises:
            errors.DiskFull, errors.SidecarError: it cannot be written; some may be deleted.
        """
        store = self._store
        if self._own is not None and self._own.consented:
            store = await self._opened(self._own)
        deleted = 0 if store is None else await store.delete_all(identity.owner)
        if self._own is not None:
            await self._own.withdraw_consent()
        return deleted

    async def close(self) -> None:
        """Close the store, so that another service can open it."""
        for store in (self._store, self._own):
            if store is not None:
                await store.close()
