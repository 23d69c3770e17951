"""Archive of finished live sessions and conversations as jobs.

Such a job has transcript, formats and edits like any other, without another recognition.
"""

import logging
import uuid
from dataclasses import replace

from sidecar import clock, errors
from sidecar.audio.audio_format import WAV
from sidecar.audio.audio_info import AudioInfo
from sidecar.audio.audio_source import AudioSource, RecordingRef, missing_recording_ref
from sidecar.audio.upload_spool import UploadSpool
from sidecar.auth.identity import Identity
from sidecar.concurrency import ThreadLimiter
from sidecar.config.settings import Settings
from sidecar.interfaces.engine_interface import ChannelMode, TranscribeOptions
from sidecar.jobs.job_event_log import JobIdTaken
from sidecar.jobs.job_record import JobChange, JobRecord, ReportedChange, StartedChange
from sidecar.jobs.job_store import JobStore
from sidecar.jobs.persistent_recordings import PersistentRecordings
from sidecar.live.sessions.session import Session
from sidecar.live.sessions.session_recording import SessionRecording
from sidecar.live.sessions.stereo_session import of_one_speaker
from sidecar.transcripts.transcript import (
    Finished,
    Peaks,
    SegmentReady,
    Transcript,
    TranscriptionEvent,
)

log = logging.getLogger(__name__)


class LiveSessionArchive:
    """Archive that creates jobs of live sessions and conversations. ``recordings``: store of
    recordings, if jobs outlive the process. ``spool_threads``: may wait for the local disk,
    ``storage_threads``: for that store."""

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        recordings: PersistentRecordings | None,
        spool_threads: ThreadLimiter,
        storage_threads: ThreadLimiter,
        now: clock.Clock,
    ) -> None:
        self._store, self._recordings, self._now = store, recordings, now
        self._spool_threads, self._storage_threads = spool_threads, storage_threads
        self._max_recording_bytes = settings.keep_recordings_mb << 20 if settings.keeps_jobs else 0
        self._spool_dir = settings.spool_dir

    def new_recording(self, channels: int) -> SessionRecording | None:
        """Return the recorder of a live session's audio, if recordings are kept."""
        if not self._max_recording_bytes:
            return None
        return SessionRecording(
            UploadSpool(self._spool_dir), self._spool_threads, self._max_recording_bytes, channels
        )

    async def save_session(self, session: Session, transcript: Transcript) -> str:
        """Store a live session as a job and return the job's id: that of the session if it is a
        UUID, so that a client finds the job of a session that ended without it. Others may be used
        again, so their jobs have ids of their own."""
        channels, session_recording = session.channels, session.recording
        live_options = session.options if channels == 1 else of_one_speaker(session.options)
        options = TranscribeOptions(
            language=live_options.language,
            diarize=live_options.diarize,
            prompt=live_options.prompt,
            hotwords=live_options.hotwords,
            translate=live_options.translate,
            words=live_options.words,
            recognise=live_options.recognise,
            channels=ChannelMode.SEPARATE if session.channel_names else ChannelMode.MIX,
            channel_names=session.channel_names,
        )
        peaks = b"" if session_recording is None else session_recording.peaks
        source = None if session_recording is None else await session_recording.recording()
        peaks = b"" if source is None else peaks
        job_id = session.id if _is_uuid(session.id) else None
        named = session.name, job_id
        record = await self.save(session.owner, options, transcript, source, peaks, channels, named)
        return record.id

    async def save_conversation(self, identity: Identity, transcript: Transcript) -> str:
        """Store a conversation as a job and return the job's id.

        Raises:
            errors.DiskFull, errors.SpoolUnwritable: it cannot be stored; no job is created.
        """
        options = TranscribeOptions(language=transcript.language, diarize=True)
        return (await self.save(identity.owner, options, transcript)).id

    async def save(
        self,
        owner: str,
        options: TranscribeOptions,
        transcript: Transcript,
        source: AudioSource | None = None,
        peaks: bytes = b"",
        channels: int = 1,
        named: tuple[str, str | None] = ("", None),
    ) -> JobRecord:
        """Store a session or conversation as a job. Its audio (``source``) is stored if the storage
        answers, and closed. ``channels``: those that were transcribed one by one. ``named``: its
        name, and the id that it gets if no other job has it.

        Raises:
            errors.DiskFull, errors.SpoolUnwritable: it cannot be stored; no job is created.
        """
        audio: RecordingRef = missing_recording_ref()
        try:
            if source is not None and self._recordings is not None:
                audio = await self._recordings.store_in_thread(self._storage_threads, source)
        except (errors.SidecarError, RuntimeError) as error:  # or no thread started
            log.warning(
                "the recording of a live session cannot be saved; its transcript is saved: %s",
                error,
            )
        finally:
            if source is not None:
                source.close()
        facts = AudioInfo(WAV.name, "live", transcript.duration, channels)
        durable = self._recordings is not None
        now = self._now()
        name, job_id = named
        record = JobRecord.submitted(
            now, audio, facts, options, owner=owner, durable=durable, name=name, job_id=job_id
        )
        reports: list[TranscriptionEvent] = [
            SegmentReady(*one) for one in enumerate(transcript.segments)
        ]
        reports += [Peaks(0, peaks)] if peaks else []
        reports.append(Finished(transcript))
        changes: list[JobChange] = [StartedChange(), *map(ReportedChange, reports)]
        try:
            return await self._store.import_ended(record, changes)
        except JobIdTaken:
            record = replace(record, id=uuid.uuid4().hex)
            return await self._store.import_ended(record, changes)


def _is_uuid(session_id: str) -> bool:
    """Return whether the id of a session is no other's: one as clients and this service make."""
    try:
        found = uuid.UUID(session_id)
    except ValueError:
        return False
    return session_id in (str(found), found.hex)
