"""Engine that lets other servers recognize.

It supplies what a server lacks: cutting, diarization, a loop guard.
"""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sidecar.audio import SAMPLE_RATE
from sidecar.interfaces import engine_interface
from sidecar.plugins.upstream.load_balancer import DEFAULT_LIMITS, FailoverLimits
from sidecar.transcripts.transcript import TranscriptionEvent

if TYPE_CHECKING:
    from sidecar.plugins.upstream.chunk_requests import ChunkRequests


class UpstreamEngine:
    """Engine that sends chunks to upstreams and joins their transcripts."""

    def __init__(self, limits: FailoverLimits = DEFAULT_LIMITS) -> None:
        self.sample_rate = SAMPLE_RATE
        self._limits = limits
        self._chunk_requests: ChunkRequests | None = None

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Find out what each server is and can; one that does not answer is asked again when it is
        needed.

        Raises:
            errors.ModelLoadFailed: the certificate file of the servers has no certificates.
        """
        assert options.upstream is not None
        for name in ("httpx", "httpcore"):  # no log line for each request
            logging.getLogger(name).setLevel(logging.WARNING)
        from sidecar.plugins.upstream.chunk_requests import ChunkRequests

        yield 0.0
        self._chunk_requests = ChunkRequests(options.upstream, self._limits)
        self._chunk_requests.run(self._chunk_requests.get_ready()).result()
        self.sample_rate = self._chunk_requests.rate
        yield 1.0

    def transcribe(
        self, request: engine_interface.TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        """Yield segments as the servers return them; their speakers are final at the end."""
        from sidecar.plugins.upstream.upstream_transcription import UpstreamTranscription

        assert self._chunk_requests is not None
        yield from UpstreamTranscription(self._chunk_requests, request, self.sample_rate).events()
