"""Transcription and diarization of one recording that is sent to upstreams in chunks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

from sidecar.audio import SAMPLE_RATE
from sidecar.audio.signal_conditioning import Resampler
from sidecar.diarization.speaker_models import shared_speaker_models
from sidecar.interfaces import engine_interface
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.plugins.upstream import audio_chunks
from sidecar.plugins.upstream.chunk_requests import ChunkRequests
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import (
    SPEAKERS_UNAVAILABLE,
    Finished,
    Progress,
    Segment,
    SegmentReady,
    Transcript,
    TranscriptionEvent,
)

if TYPE_CHECKING:
    from sidecar.diarization.speaker_identification import DiarizedSpeakers
    from sidecar.diarization.speaker_models import SpeakerModels


Result = TypeVar("Result")

CANCEL_POLL_S = 0.05
"""Poll interval for cancellation."""


class _UpstreamCancelled(Exception):
    """The transcription was cancelled."""


@dataclass(frozen=True, slots=True)
class _PendingChunk:
    """Chunk in progress, and its segments that arrived before the answer is complete."""

    piece: audio_chunks.AudioChunk
    future: Future[list[audio_chunks.ChunkResult]]
    told: SimpleQueue[Sequence[Segment]]


class UpstreamTranscription:
    """Transcription of one request with audio at ``rate`` Hz. Its events end early, without
    `Finished`, if it is cancelled."""

    def __init__(
        self, upstreams: ChunkRequests, request: engine_interface.TranscriptionRequest, rate: int
    ) -> None:
        self._upstreams, self._rate = upstreams, rate
        self._audio, self._options = request.audio, request.options
        self._cancelled = request.cancelled
        self._over = False
        self._futures: set[Future[list[audio_chunks.ChunkResult]]] = set()
        self._turns: UpstreamDiarization | None = None
        self._followed_s = 0.0
        self._heard: list[audio_chunks.ChunkResult] = []
        self._lanes = len(upstreams.servers)
        self._ready = 0
        self._ready_s = self._done_s = self._end_s = 0.0

    def events(self) -> Iterator[TranscriptionEvent]:
        """Yield the events of the transcription.

        Raises:
            UpstreamError: no server could transcribe it.
        """
        try:
            for event in self._events():
                self._check()
                yield event
        except _UpstreamCancelled:
            return
        finally:
            self._over = True
            for future in self._futures:
                future.cancel()  # this closes its connection
            if self._turns is not None:
                self._turns.close()

    def _events(self) -> Iterator[TranscriptionEvent]:
        upstreams = self._upstreams
        self._wait(upstreams.run(upstreams.meet()))
        sent: deque[_PendingChunk] = deque()
        watched = engine_interface.InterruptibleAudio(self._audio, self._check)
        even, longest_s = self._even_s(), upstreams.longest_s
        for piece in audio_chunks.cut_into_chunks(watched, self._rate, longest_s, even=even):
            self._end_s = piece.end_s
            if self._turns is not None or self._needs_turns(piece):
                self._follow(piece)
            if upstreams.timed:
                sent.append(self._send(piece))
            while len(sent) > self._ahead or (sent and not upstreams.timed):
                yield from self._come(sent.popleft())
            heard_s = self._heard[-1].piece.end_s if self._heard else 0.0
            if not upstreams.timed and heard_s < piece.end_s:
                yield from self._by_stretches(piece)
        while sent:
            yield from self._come(sent.popleft())
        self._check()
        yield Progress(self._end_s, self._end_s)
        yield Finished(self._recognised(self._transcript()))

    def _even_s(self) -> float | None:
        """Return the length of chunks that keeps all servers busy; None if the settings set it. If
        several chunks could not be diarized here, return None, too: as few chunks as possible."""
        upstreams = self._upstreams
        if not upstreams.cuts:
            return None
        found = audio_chunks.even_chunk_s(self._audio.total_s, self._lanes, upstreams.longest_s)
        if found and self._options.diarize and shared_speaker_models() is None:
            return None
        return found

    def _needs_turns(self, piece: audio_chunks.AudioChunk) -> bool:
        """Return whether diarization has to run here: a server does not diarize, several chunks
        each have their own speakers, or the client asks for enrolled speakers."""
        several = piece.start_s > 0 or not piece.last
        lacking = several or not self._upstreams.diarize or self._options.identifies_speakers
        return self._options.diarize and lacking

    @property
    def _ahead(self) -> int:
        """Return the number of chunks in progress. Without diarization here it is 0 until the first
        answer shows whether the server returns times."""
        known = self._turns is not None or self._heard or self._upstreams.surely_timed
        return self._lanes if known else 0

    def _follow(self, piece: audio_chunks.AudioChunk) -> None:
        """Feed the next chunk to the diarization."""
        if piece.end_s <= self._followed_s:
            return
        self._followed_s = piece.end_s
        if self._turns is None and (here := shared_speaker_models()) is not None:
            self._turns = UpstreamDiarization(
                here, self._options, lambda: self._over or self._cancelled()
            )
        if self._turns is not None:
            self._turns.feed(piece)

    def _send(self, piece: audio_chunks.AudioChunk) -> _PendingChunk:
        told: SimpleQueue[Sequence[Segment]] = SimpleQueue()
        options = self._options
        if self._turns is not None and self._upstreams.by_voices:
            # Words with times go to the speakers of the whole recording.
            options = replace(options, diarize=False, words=True)
        future = self._upstreams.run(self._upstreams.hear(piece, options, told.put))
        future.add_done_callback(lambda over: told.put(()))  # wakes the thread in _come
        self._futures.add(future)
        return _PendingChunk(piece, future, told)

    def _come(self, sent: _PendingChunk) -> Iterator[TranscriptionEvent]:
        """Yield the events of a chunk as they come."""
        while not sent.future.done():
            self._check()
            with suppress(Empty):
                said = sent.told.get(timeout=CANCEL_POLL_S)
                yield from self._announce(self._early(sent.piece, said))
        self._check()
        self._futures.discard(sent.future)
        parts = sent.future.result()
        if self._options.diarize and len(parts) > 1:
            self._follow(sent.piece)  # it was too large, and each part has its own speakers now
        for heard in parts:
            if heard.answer.timed:
                yield from self._take(heard)
            else:
                yield from self._by_stretches(heard.piece)

    def _early(self, piece: audio_chunks.AudioChunk, said: Sequence[Segment]) -> Sequence[Segment]:
        """Return the segments of a chunk that can be sent before it is finished. Local speakers are
        removed if those of the whole recording are still open, and words that were not
        requested."""
        told: Sequence[Segment] = audio_chunks.shift_segments(said, piece.start_s)
        if not self._options.diarize or self._needs_turns(piece):
            told = [replace(one, speaker=None) for one in told]
        if not self._options.words:
            told = audio_chunks.without_words(told)
        return told

    def _by_stretches(self, piece: audio_chunks.AudioChunk) -> Iterator[TranscriptionEvent]:
        """Send a chunk to a server without times as one request for each speaker turn."""
        self._follow(piece)
        turns, heard_s = self._known()
        sent: deque[_PendingChunk] = deque()
        for part in audio_chunks.chunks_of_turns(piece, turns, heard_s):
            sent.append(self._send(part))
            if len(sent) > 2 * self._lanes:
                yield from self._stretch(sent.popleft())
        while sent:
            yield from self._stretch(sent.popleft())

    def _stretch(self, sent: _PendingChunk) -> Iterator[TranscriptionEvent]:
        heards = self._wait(sent.future)
        self._futures.discard(sent.future)
        for heard in heards:
            yield from self._take(heard)

    def _take(self, heard: audio_chunks.ChunkResult) -> Iterator[TranscriptionEvent]:
        """Add an answer and yield the segments not yet reported, with speakers as known so far."""
        self._heard.append(heard.settled())
        # Segments that were streamed came without speakers: do not wait for those of the others.
        lacking = not (heard.answer.diarized or self._upstreams.by_voices)
        turns = self._known()[0] if self._options.diarize and lacking else ()
        yield from self._announce(self._assigned([heard], turns))
        yield self._progress(heard.piece.end_s)

    def _assigned(
        self, heard: Sequence[audio_chunks.ChunkResult], turns: Sequence[SpeakerTurn]
    ) -> Sequence[Segment]:
        """Return the segments with speakers, and without words that were requested for these."""
        found = audio_chunks.assign_speakers(heard, turns, diarize=self._options.diarize)
        unasked = self._upstreams.by_voices and not self._options.words
        return audio_chunks.without_words(found) if unasked else found

    def _announce(self, segments: Sequence[Segment]) -> Iterator[TranscriptionEvent]:
        for segment in segments:
            if segment.start >= self._ready_s:
                yield SegmentReady(self._ready, segment)
                self._ready += 1
                self._ready_s = max(self._ready_s, segment.end)
                yield self._progress(segment.end)

    def _progress(self, done_s: float) -> Progress:
        self._done_s = max(self._done_s, done_s)
        return Progress.of(self._done_s, self._audio.total_s)

    def _transcript(self) -> Transcript:
        diarize, heard = self._options.diarize, self._heard
        turns = self._known()[0] if diarize else ()
        own = len(heard) == 1 and heard[0].answer.diarized
        segments = self._assigned(heard, turns)
        diarized = diarize and (own or self._turns is not None)
        transcript = audio_chunks.assemble_transcript(
            heard, segments, self._options, self._end_s, diarized=diarized
        )
        lacking = diarize and not transcript.diarized and transcript.has_speech
        return transcript.with_notice(SPEAKERS_UNAVAILABLE) if lacking else transcript

    def _recognised(self, transcript: Transcript) -> Transcript:
        """Add the names of enrolled speakers; these are never sent to a server."""
        if not self._options.identifies_speakers:
            return transcript
        from sidecar.diarization.speaker_identification import identify_speakers

        speakers = (
            None if self._turns is None else self._wait(self._turns.submit(self._turns.speakers))
        )
        return identify_speakers(transcript, speakers, self._options)

    def _known(self) -> tuple[Sequence[SpeakerTurn], float]:
        """Return the turns of all chunks so far, and the time up to which they are known; none if
        diarization does not run here."""
        return (
            ((), 0.0) if self._turns is None else self._wait(self._turns.submit(self._turns.known))
        )

    def _wait(self, future: Future[Result]) -> Result:
        while not future.done():
            self._check()
            wait([future], CANCEL_POLL_S)
        return future.result()

    def _check(self) -> None:
        if self._cancelled():
            raise _UpstreamCancelled


STEP_S = 5.0
"""Audio processed between two checks for cancellation."""


class UpstreamDiarization:
    """Diarization of a recording from its first chunk on; times in seconds."""

    def __init__(
        self, given: SpeakerModels, options: TranscribeOptions, stop: Callable[[], bool]
    ) -> None:
        from sidecar.diarization.diarizer import Diarizer

        self._diarizer = Diarizer.wished(given, options)
        self._thread = ThreadPoolExecutor(1, "voices")
        self._stop = stop
        self._resampler: Resampler | None = None
        self._finished = False
        self._fed: list[Future[None]] = []

    def feed(self, piece: audio_chunks.AudioChunk) -> None:
        """Submit the next chunk; return at once."""
        self._fed.append(self._thread.submit(self._hear, piece))

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Submit `known` or `speakers`, to be called once all submitted audio is diarized."""
        return self._thread.submit(work)

    def close(self) -> None:
        """Drop audio that is not diarized yet; ``stop`` must return true by now, or all be done."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _hear(self, piece: audio_chunks.AudioChunk) -> None:
        self._resampler = self._resampler or Resampler(piece.rate, SAMPLE_RATE)
        step, count = round(STEP_S * piece.rate), len(piece.samples)
        for at in range(0, count, step):
            if self._stop():
                return
            block = audio_chunks.to_float(piece.samples[at : at + step])
            over = piece.last and at + step >= count
            self._diarizer.feed(self._resampler.take(block, last=over))
        if piece.last:
            self._diarizer.finish()
            self._finished = True

    def speakers(self) -> DiarizedSpeakers:
        """Return the speakers of the recording, all of which is diarized."""
        self.known()
        return self._diarizer.speakers()

    def known(self) -> tuple[list[SpeakerTurn], float]:
        """Return the turns, and the time up to which they are known. They are final after the last
        chunk."""
        while self._fed:
            self._fed.pop().result()  # done by now; errors are raised here
        heard_s = float("inf") if self._finished else self._diarizer.heard_s
        return self._diarizer.turns, heard_s
