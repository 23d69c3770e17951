"""File of enrolled speakers on a person's own machine, opened at its first use.

Its key is in the system's keyring, which may ask that person or not answer, and another service of
the same person may have the file. Neither delays the start, and neither is final.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from sidecar import errors, files
from sidecar.concurrency import ThreadLimiter, retrieve_exception
from sidecar.config.settings import Settings
from sidecar.storage.encryption import journal_key
from sidecar.storage.speaker_store import (
    SPEAKER_FILE,
    SpeakerStore,
    SqliteSpeakerStore,
    speaker_folder,
)

log = logging.getLogger(__name__)

CONSENT_FILE = "agreed"
"""Says that the person has agreed; a file of speakers alone may be of a service with a setting."""
RETRY_S = 60.0
"""Seconds after a failure before a job or session tries to open the file again; a request does it
at once."""
LOCK_TIMEOUT_S = 0.2
"""Seconds to wait for another service that has the file."""


class OwnSpeakerStore:
    """Opens the file in a thread, once somebody has agreed that it may be there. ``now``: a
    monotonic clock."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._settings, self._folder = settings, speaker_folder(settings)
        self.consented = (self._folder / CONSENT_FILE).is_file()
        self._store: SqliteSpeakerStore | None = None
        self._threads = ThreadLimiter("people", 1)
        self._opening: asyncio.Task[None] | None = None
        self._begun = self._failed = float("-inf")

    async def give_consent(self) -> None:
        """Write down the consent of the person.

        Raises:
            errors.PeopleOff: it cannot be written.
        """
        try:
            await self._threads.run(files.touch, self._folder / CONSENT_FILE)
        except OSError as error:
            raise errors.PeopleOff(f"The consent cannot be stored: {error.strerror}.") from None
        self.consented = True

    async def withdraw_consent(self) -> None:
        """Delete the consent: who enrols a speaker is asked again."""
        if self.consented:
            self.consented = False
            await self._threads.run((self._folder / CONSENT_FILE).unlink, True)

    async def opened(self, wait_s: float, *, again: bool = False) -> SpeakerStore:
        """Return the store. ``wait_s``: seconds to wait, from the begin of an attempt that others
        wait for, too. ``again``: try again at once after a failure.

        Raises:
            errors.SettingsInvalid: the file or its key cannot be used now.
            TimeoutError: it is not open yet; the attempt goes on.
        """
        if self._store is not None:
            return self._store
        now = self._now()
        if self._opening is None or (
            self._opening.done() and (again or now - self._failed > RETRY_S)
        ):
            self._begun = now
            self._opening = asyncio.create_task(self._threads.run(self._open))
            self._opening.add_done_callback(retrieve_exception)
        left_s = wait_s if again else max(0.0, self._begun + wait_s - now)
        await asyncio.wait({self._opening}, timeout=left_s)
        if not self._opening.done():
            raise TimeoutError
        self._opening.result()
        assert self._store is not None
        return self._store

    def _open(self) -> None:
        known = (self._folder / SPEAKER_FILE).is_file()
        try:
            try:
                key = journal_key(self._settings, create=not known)
            except errors.SettingsInvalid as error:
                raise errors.SettingsInvalid(
                    error.detail,
                    hint="Unlock the keyring. Without one, start the service with --people and "
                    "--journal-key @FILE (docs/people.md). If the key is lost, so are the voices: "
                    "delete the folder 'people' of the data folder.",
                ) from None
            self._store = SqliteSpeakerStore(self._folder, key, LOCK_TIMEOUT_S)
        except errors.SettingsInvalid as error:
            self._failed = self._now()
            log.warning("nobody is identified by voice: %s", error.detail)
            raise

    async def close(self) -> None:
        """Close the file, if it is open."""
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()  # the thread goes on: it may wait for the person
        if self._store is not None:
            await self._store.close()
