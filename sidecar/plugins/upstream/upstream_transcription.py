"""Transcription and diarization of one recording that is sent to upstreams in chunks."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from sidecar.audio import SAMPLE_RATE
from sidecar.audio.signal_conditioning import Resampler
from sidecar.diarization.speaker_models import shared_speaker_models
from sidecar.interfaces import engine_interface
from sidecar.interfaces.engine_interface import TranscribeOptions
from sidecar.plugins.upstream import audio_chunks
from sidecar.plugins.upstream.chunk_requests import ChunkRequests
from sidecar.plugins.upstream.reported_segments import ReportedSegments
from sidecar.plugins.upstream.upstream_client import UpstreamClient
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


CANCEL_POLL_S = 0.05
"""Poll interval for cancellation."""

STEP_S = 5.0
"""Audio processed between two checks for cancellation."""


class _UpstreamCancelled(Exception):
    """The transcription was cancelled."""


_Early = SimpleQueue[tuple[audio_chunks.AudioChunk, Sequence[Segment], Sequence[Segment]]]
"""Chunks, their answers so far, and the next segments of these."""


@dataclass(frozen=True, slots=True)
class _PendingChunk:
    """Chunk in progress, and segments of it or its halves that arrived before their answer is
    complete."""

    chunk: audio_chunks.AudioChunk
    future: Future[list[audio_chunks.ChunkResult]]
    segments: _Early
    reported: ReportedSegments = field(default_factory=ReportedSegments)


class UpstreamTranscription:
    """Transcription of one request with audio at ``rate`` Hz. Its events end early, without
    `Finished`, if it is cancelled."""

    def __init__(
        self,
        chunk_requests: ChunkRequests,
        request: engine_interface.TranscriptionRequest,
        rate: int,
    ) -> None:
        self._chunk_requests, self._rate = chunk_requests, rate
        self._audio, self._options = request.audio, request.options
        self._cancelled = request.cancelled
        self._over = False
        self._futures: set[Future[list[audio_chunks.ChunkResult]]] = set()
        self._diarization: UpstreamDiarization | None = None
        self._left_out = defaultdict[UpstreamClient, set[str]](set)
        self._results: list[audio_chunks.ChunkResult] = []
        self._upstream_count = len(chunk_requests.upstreams)
        self._ready = 0
        self._done_s = self._end_s = 0.0

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
            if self._diarization is not None:
                self._diarization.close()

    def _events(self) -> Iterator[TranscriptionEvent]:
        chunk_requests = self._chunk_requests
        limit_s = chunk_requests.limits.probe_timeout_s
        chunk_requests.run(chunk_requests.get_ready(limit_s)).result()
        pending: deque[_PendingChunk] = deque()
        audio = engine_interface.InterruptibleAudio(self._audio, self._check)
        even, longest_s = self._even_s(), chunk_requests.longest_s
        for chunk in audio_chunks.cut_into_chunks(audio, self._rate, longest_s, even=even):
            self._end_s = chunk.end_s
            if self._diarization is not None or self._needs_diarization(chunk):
                self._feed_diarization(chunk)
            pending.append(self._send(chunk))
            while len(pending) > self._upstream_count:
                yield from self._pending_events(pending.popleft())
        while pending:
            yield from self._pending_events(pending.popleft())
        self._check()
        yield Progress(self._end_s, self._end_s)
        yield Finished(self._with_names(self._transcript()))

    def _even_s(self) -> float | None:
        """Return the length of chunks that keeps all servers busy; None if the settings set it. If
        several chunks could not be diarized here, return None, too: as few chunks as possible."""
        chunk_requests = self._chunk_requests
        if not chunk_requests.cuts:
            return None
        even_s = audio_chunks.even_chunk_s(
            self._audio.total_s, self._upstream_count, chunk_requests.longest_s
        )
        if even_s and self._options.diarize and shared_speaker_models() is None:
            return None
        return even_s

    def _needs_diarization(self, chunk: audio_chunks.AudioChunk) -> bool:
        """Return whether diarization has to run here: a server does not diarize, several chunks
        each have their own speakers, or the client asks for enrolled speakers."""
        lacking = (
            not _is_whole(chunk)
            or not self._chunk_requests.diarize
            or self._options.identifies_speakers
        )
        return self._options.diarize and lacking

    def _feed_diarization(self, chunk: audio_chunks.AudioChunk) -> None:
        """Feed the next chunk to the diarization."""
        if self._diarization is None and (models := shared_speaker_models()) is not None:
            self._diarization = UpstreamDiarization(
                models, self._options, lambda: self._over or self._cancelled()
            )
        if self._diarization is not None:
            self._diarization.feed(chunk)

    def _send(self, chunk: audio_chunks.AudioChunk) -> _PendingChunk:
        segments: _Early = SimpleQueue()
        options = self._options
        if not _is_whole(chunk) and options.speaker_counts:  # some may be silent in a chunk
            most = options.num_speakers or options.max_speakers
            options = replace(options, num_speakers=None, min_speakers=None, max_speakers=most)
        if self._diarization is not None and self._chunk_requests.by_voices:
            # Words with times go to the speakers of the whole recording.
            options = replace(options, diarize=False, words=True)
        future = self._chunk_requests.run(
            self._chunk_requests.transcribe(
                chunk, options, self._left_out, lambda *found: segments.put(found)
            )
        )
        future.add_done_callback(
            lambda over: segments.put((chunk, (), ()))
        )  # wakes the thread in `_pending_events`
        self._futures.add(future)
        return _PendingChunk(chunk, future, segments)

    def _pending_events(self, pending: _PendingChunk) -> Iterator[TranscriptionEvent]:
        """Yield the events of a chunk as they come."""
        while not (pending.future.done() and pending.segments.empty()):
            self._check()
            with suppress(Empty):
                chunk, answer, segments = pending.segments.get(timeout=CANCEL_POLL_S)
                new = pending.reported.add(answer, segments, chunk.start_s)
                yield from self._report(self._early(chunk, new))
        self._check()
        self._futures.discard(pending.future)
        results = pending.future.result()
        if self._options.diarize and len(results) > 1 and self._diarization is None:
            # it was too large, and each part has its own speakers now
            self._feed_diarization(pending.chunk)
        for result in results:
            yield from self._take(pending.reported, result)

    def _early(
        self, chunk: audio_chunks.AudioChunk, segments: Sequence[Segment]
    ) -> Sequence[Segment]:
        """Return the segments of a chunk as they are sent before it is finished: without local
        speakers if those of the whole recording are still open, and words that were not
        requested."""
        shifted = audio_chunks.shift_segments(segments, chunk.start_s)
        if not self._options.diarize or self._needs_diarization(chunk):
            shifted = [replace(one, speaker=None) for one in shifted]
        if not self._options.words:
            shifted = audio_chunks.without_words(shifted)
        return shifted

    def _take(
        self, reported: ReportedSegments, result: audio_chunks.ChunkResult
    ) -> Iterator[TranscriptionEvent]:
        """Add an answer and yield the segments not yet reported, with speakers as known so far."""
        self._results.append(result)
        answer = result.answer
        late = answer.late
        if late is None:
            late = tuple(reported.add(answer.segments, answer.segments, result.start_s))
        result = replace(result, answer=replace(answer, segments=late))
        # Segments that were streamed came without speakers: do not wait for those of the others.
        lacking = not (result.answer.diarized or self._chunk_requests.by_voices)
        turns = self._known_turns() if self._options.diarize and lacking else ()
        yield from self._report(self._assigned([result], turns))
        yield self._progress(result.end_s)

    def _assigned(
        self, results: Sequence[audio_chunks.ChunkResult], turns: Sequence[SpeakerTurn]
    ) -> Sequence[Segment]:
        """Return the segments with speakers, and without words that were requested for these."""
        segments = audio_chunks.assign_speakers(results, turns, diarize=self._options.diarize)
        extra_words = self._chunk_requests.by_voices and not self._options.words
        return audio_chunks.without_words(segments) if extra_words else segments

    def _report(self, segments: Sequence[Segment]) -> Iterator[TranscriptionEvent]:
        for segment in segments:
            yield SegmentReady(self._ready, segment)
            self._ready += 1
            yield self._progress(segment.end)

    def _progress(self, done_s: float) -> Progress:
        self._done_s = max(self._done_s, done_s)
        return Progress.of(self._done_s, self._audio.total_s)

    def _transcript(self) -> Transcript:
        diarize, results = self._options.diarize, self._results
        turns = self._known_turns() if diarize else ()
        own = len(results) == 1 and results[0].answer.diarized
        segments = self._assigned(results, turns)
        diarized = diarize and (own or self._diarization is not None)
        transcript = audio_chunks.assemble_transcript(
            results, segments, self._options, self._end_s, diarized=diarized
        )
        lacking = diarize and not transcript.diarized and transcript.has_speech
        return transcript.with_notice(SPEAKERS_UNAVAILABLE) if lacking else transcript

    def _with_names(self, transcript: Transcript) -> Transcript:
        """Add the names of enrolled speakers; these are never sent to a server."""
        if not self._options.identifies_speakers:
            return transcript
        from sidecar.diarization.speaker_identification import identify_speakers

        speakers = None if self._diarization is None else self._diarization.speakers()
        return identify_speakers(transcript, speakers, self._options)

    def _known_turns(self) -> Sequence[SpeakerTurn]:
        """Return the turns of all chunks so far; none if diarization does not run here."""
        return () if self._diarization is None else self._diarization.known_turns()

    def _check(self) -> None:
        if self._cancelled():
            raise _UpstreamCancelled


def _is_whole(chunk: audio_chunks.AudioChunk) -> bool:
    """Return whether a chunk is the whole recording."""
    return chunk.start_s == 0 and chunk.last


class UpstreamDiarization:
    """Diarization of a recording from its first chunk on; times in seconds."""

    def __init__(
        self, models: SpeakerModels, options: TranscribeOptions, stop: Callable[[], bool]
    ) -> None:
        from sidecar.diarization.diarizer import Diarizer

        self._diarizer = Diarizer.wished(models, options)
        self._thread = ThreadPoolExecutor(1, "voices")
        self._stop = stop
        self._resampler: Resampler | None = None
        self._fed: list[Future[None]] = []

    def feed(self, chunk: audio_chunks.AudioChunk) -> None:
        """Submit the next chunk; return at once."""
        self._fed.append(self._thread.submit(self._diarize, chunk))

    def close(self) -> None:
        """Drop audio that is not diarized yet; ``stop`` must return true by now, or all be done."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _diarize(self, chunk: audio_chunks.AudioChunk) -> None:
        self._resampler = self._resampler or Resampler(chunk.rate, SAMPLE_RATE)
        step, count = round(STEP_S * chunk.rate), len(chunk.samples)
        for at in range(0, count, step):
            if self._stop():
                return
            block = audio_chunks.to_float(chunk.samples[at : at + step])
            over = chunk.last and at + step >= count
            self._diarizer.feed(self._resampler.take(block, last=over))
        if chunk.last:
            self._diarizer.finish()

    def speakers(self) -> DiarizedSpeakers:
        """Return the speakers of the recording, all of which is diarized."""
        self.known_turns()
        return self._diarizer.speakers()

    def known_turns(self) -> list[SpeakerTurn]:
        """Return the turns of all audio that was fed, once it is diarized, or ``stop`` says so.
        They are final after the last chunk."""
        while self._fed:
            self._fed.pop().result()
        return self._diarizer.turns
