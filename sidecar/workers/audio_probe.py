"""Probe of a recording before it is queued: a plain WAV here, all else in a process of its own.

The service, which must survive, reads no more of a file than the head of a plain WAV, by its own
code. A decoder opens a hostile file neither in the service nor in the engine's process, which may
run another owner's job. So a bad file is refused at once, however long the queue is, and a slow
file delays few others.
"""

import asyncio
import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sidecar import errors
from sidecar.audio.audio_info import AudioInfo, probe_plain_wav
from sidecar.audio.audio_source import AudioSource, open_recording_file
from sidecar.auth.identity import Identity
from sidecar.auth.rate_limits import FairOwnerSemaphore
from sidecar.concurrency import OwnerThreads
from sidecar.serialization import to_plain
from sidecar.transcripts.diarized_pieces import WordRange
from sidecar.transcripts.transcript import SpeakerEmbedding, Transcript
from sidecar.workers.engine_loading import WorkerShutdowns
from sidecar.workers.worker_process import WorkerDied, WorkerProcess

PARALLEL_PROBES = 3
"""Files that are probed in parallel; plain wav files need no slot. Owners take turns, and one owner
leaves a slot to the others. Three slow files of one owner delay that owner's next for up to
`PROBE_TIMEOUT_S`."""
MAX_ATTEMPTS = 2
"""An idle worker may have died earlier; only a fresh one proves that the file is at fault."""
PROBE_TIMEOUT_S = 14.0
PARALLEL_OPENS = 16
"""Paths of one owner that are opened in parallel: a network mount that is gone blocks a thread
each, and no other owner's."""
OPEN_TIMEOUT_S = 5.0
DIARIZED_S_PER_S = 30.0
"""Seconds of a recording that a busy machine diarizes again in a second, at the least."""

T = TypeVar("T")


def start_probe_process() -> WorkerProcess:
    """Start a process of the audio probe."""
    return WorkerProcess("audio_probe", least=True)


class AudioProbe:
    """Audio probe: what the service needs of audio outside of the engines.

    It probes recordings, embeds the clips of speakers, splits a speaker by embeddings, and diarizes
    transcripts again. For that it has a pool of processes, started as needed by ``start_process``
    and ended after a time without work. It also opens the paths that clients name, in threads.
    """

    start_s = 60.0
    """Seconds for a process to begin with a file, which is not at fault if they expire. The process
    has a low priority: on a busy machine its start alone takes as long as a slow file."""
    probe_s = PROBE_TIMEOUT_S
    """Seconds for its answer from then on."""
    embedding_s = 60.0
    """The same for an embedding. To embed a minute of audio takes 2 s of a core, and a busy machine
    does not have one to spare."""
    open_s = OPEN_TIMEOUT_S
    """Seconds to open a path that a client named."""
    idle_s = 60.0
    """Seconds until processes without a file end."""

    def __init__(
        self, max_audio_s: float, start_process: Callable[[], WorkerProcess] = start_probe_process
    ) -> None:
        self._max_audio_s, self._start_process = max_audio_s, start_process
        self._open_threads = OwnerThreads("open", PARALLEL_OPENS)
        self._probe_threads = OwnerThreads("probe", PARALLEL_PROBES)
        self._pack_threads = OwnerThreads("pack", 1)
        self._lanes = FairOwnerSemaphore(PARALLEL_PROBES)
        self._diarizations = FairOwnerSemaphore(1)
        """One at a time: they must not keep recordings from being probed."""
        self._resting: list[WorkerProcess] = []
        self._idle: asyncio.TimerHandle | None = None
        self._shutdowns = WorkerShutdowns()

    async def open(self, identity: Identity, path: str, roots: Sequence[Path]) -> AudioSource:
        """Open the file that a client named, as `open_recording_file` does.

        Raises:
            errors.BadRequest: as there, or the file's disk does not answer.
            errors.MachineBusy: the disks of files that the owner named before do not answer.
        """
        run = self._open_threads.of(identity.owner).run
        late = errors.AudioPathNotFound("The disk of 'audio_path' does not answer.")
        return await _within(self.open_s, run, lambda: open_recording_file(path, roots), late)

    async def probe(
        self, identity: Identity, source: AudioSource, track: int | None = None
    ) -> AudioInfo:
        """Probe a client's recording: the audio track of that number, from 1.

        Raises:
            errors.BadAudio: it cannot be transcribed.
            errors.FieldInvalid: it has no such track.
            errors.MachineBusy: no probe started in time, or as `open`.
        """
        max_s = self._max_audio_s
        if track is not None and track > 1:
            facts = None
        elif source.spooled:
            facts = probe_plain_wav(source.fd, max_s)
        else:
            threads = self._probe_threads.of(identity.owner)
            run, read = partial(threads.run_on, source.fd), partial(probe_plain_wav, max_s=max_s)
            facts = await _within(self.probe_s, run, read, errors.AudioDecodeTimeout())
        if facts is not None:
            return facts
        arguments: dict[str, Any] = {"max_s": max_s, "track": track}
        found = await self._ask(identity, "probe", self.probe_s, [source.fd], **arguments)
        return AudioInfo.from_wire(found)

    async def voice(
        self, identity: Identity, source: AudioSource, max_s: float
    ) -> SpeakerEmbedding:
        """Return the embedding of the only speaker in a clip of at most ``max_s`` seconds.

        Raises:
            errors.BadAudio: it cannot be decoded, is too long, or does not have exactly one
                speaker.
            errors.VoicesUnavailable: speaker embeddings are not available here.
            errors.MachineBusy: no process started in time.
        """
        found = await self._ask(identity, "voice", self.embedding_s, [source.fd], max_s=max_s)
        return SpeakerEmbedding(**found)

    async def parted(
        self, identity: Identity, embeddings: Sequence[SpeakerEmbedding | None], into: int | None
    ) -> tuple[list[int], float] | None:
        """Split the segments of one speaker by person, by their embeddings
        (`diarization.clustering`), into ``into`` persons if it is set. Return the groups and how
        alike these persons are, or None if they cannot be told apart.

        Raises:
            errors.EngineFailed, errors.MachineBusy: no process could do it.
        """
        given: dict[str, Any] = {"prints": len(embeddings), "into": into}
        prints = [{"print": one and asdict(one)} for one in embeddings]
        found = await self._ask(identity, "part", self.embedding_s, following=prints, **given)
        return (found["groups"], found["likeness"]) if found else None

    async def diarized(
        self,
        identity: Identity,
        kept: str,
        transcript: Transcript,
        word_ranges: Sequence[WordRange] | None,
        count: Mapping[str, int | None],
    ) -> tuple[bytes, Sequence[str]]:
        """Diarize a transcript again from what was kept (`diarization.kept_diarization`). Return
        the result as of `DiarizedPieces`, and the names that no speaker has now. ``word_ranges``:
        of the segments; None: as they were recognized. ``count``: as of `SpeakerCount`; empty: any.

        Raises:
            errors.EngineFailed, errors.MachineBusy: no process could do it.
        """

        def pack() -> str:  # of a long recording this takes seconds
            plain = to_plain(replace(transcript, prints=()))
            values = json.dumps({"transcript": plain, "places": word_ranges})
            return b64encode(zlib.compress(values.encode(), 1)).decode()

        async with self._diarizations.held(identity):
            packed = await self._pack_threads.of(identity.owner).run(pack)
            limit_s = self.embedding_s + transcript.duration / DIARIZED_S_PER_S
            given: dict[str, Any] = {"kept": kept, "packed": packed, "count": count}
            found = await self._ask(identity, "diarize", limit_s, **given)
        return b64decode(found["result"]), found["lost_names"]

    async def _ask(
        self,
        identity: Identity,
        operation: str,
        timeout_s: float,
        fds: Sequence[int] = (),
        following: Sequence[dict[str, Any]] = (),
        **arguments: Any,
    ) -> dict[str, Any]:
        """Return the answer of a process; retry in a fresh one if an idle one has died. The timeout
        counts from when the process is ready. Before that, or without a file, neither it nor a
        death can be the audio's fault."""
        async with self._lanes.held(identity):
            self._stay()
            try:
                for attempt in range(MAX_ATTEMPTS):
                    rested = self._resting and not attempt
                    worker = self._resting.pop() if rested else self._started()
                    late: errors.SidecarError = errors.MachineBusy()
                    died: errors.SidecarError = errors.MachineBusy(
                        "The process to read the file died as it started."
                    )
                    try:
                        async with asyncio.timeout(self.start_s):
                            await worker.ask("ready")
                        died = errors.EngineFailed("The process that compares voices died.")
                        if fds:
                            late = errors.AudioDecodeTimeout()
                            died = errors.AudioUndecodable("The audio crashed its decoder.")
                        async with asyncio.timeout(timeout_s):
                            return await worker.ask(operation, fds, following, **arguments)
                    except (TimeoutError, errors.MachineBusy) as error:
                        worker.kill()
                        raise late if isinstance(error, TimeoutError) else error from None
                    except WorkerDied:
                        continue
                    finally:
                        if worker.alive:
                            self._resting.append(worker)
                        else:
                            self._shutdowns.begin(worker)
            finally:
                self._stay()  # another file may have ended meanwhile
                self._idle = asyncio.get_running_loop().call_later(self.idle_s, self._drop)
        raise died

    async def close(self) -> None:
        """End the processes."""
        self._stay()
        self._drop()
        await self._shutdowns.ends.wait()

    def _started(self) -> WorkerProcess:
        try:
            return self._start_process()
        except OSError as error:  # no memory, process or descriptor: the file is not at fault
            raise errors.MachineBusy(
                f"No process to read the file can be started: {error.strerror}."
            ) from None

    def _stay(self) -> None:
        """Cancel the end of the idle processes."""
        if self._idle is not None:
            self._idle.cancel()

    def _drop(self) -> None:
        while self._resting:
            self._shutdowns.begin(self._resting.pop())


async def _within(
    seconds: float,
    run: Callable[[Callable[..., T]], Awaitable[T]],
    work: Callable[..., T],
    late: errors.SidecarError,
) -> T:
    """Return what ``work`` returns in a thread of ``run``; raise ``late`` if it takes too long.

    Raises:
        errors.MachineBusy: the owner's earlier files keep it from a thread.
    """
    begun = list[bool]()

    def begin(*given: int) -> T:
        begun.append(True)
        return work(*given)

    try:
        async with asyncio.timeout(seconds):
            return await run(begin)
    except TimeoutError:
        busy = errors.MachineBusy("The disks of files that you named before do not answer.")
        raise (late if begun else busy) from None
