"""Live talks that are over, as jobs that are done.

With transcript, formats and edits like any other, and without being heard again.
"""

from __future__ import annotations

import logging

from sidecar import clock, errors
from sidecar.audio.audio_decoder import AudioFacts
from sidecar.audio.ref import AudioRef, nowhere
from sidecar.audio.sniff import WAV
from sidecar.audio.source import AudioSource
from sidecar.interfaces.engine import TranscribeOptions
from sidecar.jobs.events import Begun, Change, Reported
from sidecar.jobs.record import JobRecord
from sidecar.jobs.recovery import KeptRecordings
from sidecar.jobs.store import JobStore
from sidecar.threads import Threads
from sidecar.transcripts.transcript import Finished, Peaks, SegmentReady, Transcript

log = logging.getLogger(__name__)


class Talks:
    """Makes them. ``keeping``: where jobs outlive the process; ``disk``: threads that may wait for
    one."""

    def __init__(
        self, store: JobStore, keeping: KeptRecordings | None, disk: Threads, now: clock.Clock
    ) -> None:
        self._store, self._keeping = store, keeping
        self._disk, self._now = disk, now

    async def keep(
        self,
        owner: str,
        options: TranscribeOptions,
        transcript: Transcript,
        sound: AudioSource | None = None,
        peaks: bytes = b"",
    ) -> JobRecord:
        """The job that a talk becomes; its ``sound`` is kept with it, where it can be kept now, and
        closed.

        Raises:
            errors.DiskFull, errors.SpoolUnwritable: it cannot be kept; there is no job.
        """
        audio: AudioRef = nowhere()
        try:
            if sound is not None and self._keeping is not None:
                audio = await self._keeping.kept(self._disk, sound)
        except errors.StorageUnreachable:  # its words are worth more than that
            log.warning("the sound of a talk cannot be kept now; its transcript is")
        finally:
            if sound is not None:
                sound.close()
        facts = AudioFacts(WAV.name, "live", transcript.duration)
        durable = self._keeping is not None
        record = JobRecord.submitted(
            self._now(), audio, facts, options, owner=owner, durable=durable
        )
        changes: list[Change] = [Begun()]
        changes += [
            Reported(SegmentReady(index, segment))
            for index, segment in enumerate(transcript.segments)
        ]
        if peaks:
            changes.append(Reported(Peaks(0, peaks)))
        changes.append(Reported(Finished(transcript)))
        return await self._store.import_ended(record, changes)
