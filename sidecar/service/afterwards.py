"""What becomes of what was said live: a job that is done, with its sound where that is kept."""

from __future__ import annotations

from sidecar.audio.source import Spool
from sidecar.auth.identity import Identity
from sidecar.config.settings import Settings
from sidecar.interfaces.engine import TranscribeOptions
from sidecar.live.sessions.session import Session
from sidecar.live.sessions.session_recording import Tape
from sidecar.service.talks import Talks
from sidecar.threads import Threads
from sidecar.transcripts.transcript import Transcript


class Afterwards:
    """Makes jobs of live sessions and of conversations. ``disk``: threads that may wait for one."""

    def __init__(self, settings: Settings, talks: Talks, disk: Threads) -> None:
        self._talks, self._disk = talks, disk
        self._most = settings.keep_recordings_mb << 20 if settings.keeps_jobs else 0
        self._spool_dir = settings.spool_dir

    def tape(self) -> Tape | None:
        """What takes the sound of a live session, where recordings are kept."""
        return Tape(Spool(self._spool_dir), self._disk, self._most) if self._most else None

    async def session(self, session: Session, transcript: Transcript) -> str:
        """The id of the job that a live session becomes."""
        asked, tape = session.options, session.tape
        options = TranscribeOptions(
            language=asked.language,
            diarize=asked.diarize,
            prompt=asked.prompt,
            translate=asked.translate,
            words=asked.words,
            recognise=asked.recognise,
        )
        peaks = b"" if tape is None else tape.peaks
        sound = None if tape is None else await tape.recording()
        return (await self._talks.keep(session.owner, options, transcript, sound, peaks)).id

    async def conversation(self, caller: Identity, transcript: Transcript) -> str:
        """The id of the job that a conversation becomes.

        Raises:
            errors.DiskFull, errors.SpoolUnwritable: it cannot be kept; there is no job.
        """
        options = TranscribeOptions(language=transcript.language, diarize=True)
        return (await self._talks.keep(caller.owner, options, transcript)).id
