"""Engine that lets other servers recognize.

It supplies what a server lacks: cutting, diarization, a loop guard. Live audio goes to Microsoft's
streaming servers alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from sidecar.audio import SAMPLE_RATE
from sidecar.engines.live_sessions import LiveSessions
from sidecar.interfaces import engine_interface
from sidecar.plugins.upstream import SPEC
from sidecar.plugins.upstream.load_balancer import DEFAULT_LIMITS, FailoverLimits
from sidecar.transcripts.transcript import TranscriptionEvent

if TYPE_CHECKING:
    from sidecar.live.runtime.live_scheduler import LiveScheduler
    from sidecar.plugins.upstream.chunk_requests import ChunkRequests
    from sidecar.plugins.upstream.live_streams import LiveStreams

LIVE_THREADS = 16
"""Live segments that wait for servers at once."""


class UpstreamEngine(LiveSessions):
    """Engine that sends chunks to upstreams and joins their transcripts."""

    def __init__(self, limits: FailoverLimits = DEFAULT_LIMITS) -> None:
        self.sample_rate = SAMPLE_RATE
        self._limits = limits
        self._chunk_requests: ChunkRequests | None = None
        self._live_streams: LiveStreams | None = None

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Find out what each server is and can; one that does not answer is asked again when it is
        needed.

        Raises:
            errors.ModelLoadFailed: the certificate file of the servers has no certificates; for
                live audio, none of them takes that.
            UpstreamUnreachable: for live audio, none of them has answered.
        """
        assert options.upstream is not None
        for name in ("httpx", "httpcore"):  # no log line for each request
            logging.getLogger(name).setLevel(logging.WARNING)
        from sidecar.plugins.upstream.chunk_requests import ChunkRequests

        yield 0.0
        self._chunk_requests = ChunkRequests(options.upstream, self._limits)
        self._chunk_requests.run(self._chunk_requests.get_ready()).result()
        self.sample_rate = self._chunk_requests.rate
        if options.live:
            from sidecar.diarization.speaker_models import load_models
            from sidecar.plugins.upstream.live_streams import LiveStreams

            self._live_streams = LiveStreams(self._chunk_requests)
            self.sample_rate = self._live_streams.windows.rate
            self._speaker_models = load_models()
        yield 1.0

    def transcribe(
        self, request: engine_interface.TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        """Yield segments as the servers return them; their speakers are final at the end."""
        from sidecar.plugins.upstream.upstream_transcription import UpstreamTranscription

        assert self._chunk_requests is not None
        yield from UpstreamTranscription(self._chunk_requests, request, self.sample_rate).events()

    def _start_scheduler(self) -> LiveScheduler:
        from sidecar.interfaces.recognition import PartialSchedule

        assert self._live_streams is not None
        recognize, windows = self._live_streams.recognize, self._live_streams.windows
        first_s = windows.window_samples / windows.rate
        return self._schedule(
            SPEC,
            engine_interface.Precision.AUTO,
            partial(recognize, last=True),
            partial(recognize, last=False),
            threads=LIVE_THREADS,
            schedule=PartialSchedule(first_s, windows.chunk_s, grows=True, turns=True),
        )
