"""Upstreams: other servers that recognize for this one, and the engine that uses them.

The engine is for users with a GPU server in their network. Audio leaves this machine only if it is
chosen by name. It supplies what a server lacks: cutting, diarization, a loop guard.
"""

import logging
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from sidecar import errors
from sidecar.audio import SAMPLE_RATE
from sidecar.interfaces import engine_interface
from sidecar.transcripts.transcript import TranscriptionEvent
from sidecar.upstream.load_balancer import USUAL_LIMITS, FailoverLimits

if TYPE_CHECKING:
    from sidecar.upstream.chunk_requests import ChunkRequests

log = logging.getLogger(__name__)

SPEC = engine_interface.EngineSpec(
    name="upstream",
    title="Another server transcribes",
    sample_rate=SAMPLE_RATE,
    precisions=(engine_interface.Precision.AUTO,),  # the upstreams choose
    languages=(),
    diarizes=True,
    requires=("httpx",),
    steerable=True,
    counted=True,
    together=8,
    remote=True,
)


class UpstreamEngine:
    """Engine that sends chunks to upstreams and joins their transcripts."""

    def __init__(self, limits: FailoverLimits = USUAL_LIMITS) -> None:
        self.sample_rate = SPEC.sample_rate
        self._limits = limits
        self._upstreams: ChunkRequests | None = None

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Detect the kind of each server; one that does not answer is tried again when it is
        needed.

        Raises:
            errors.ModelLoadFailed: the certificate file of the servers has no certificates.
        """
        assert options.upstream is not None
        for name in ("httpx", "httpcore"):  # no log line for each request
            logging.getLogger(name).setLevel(logging.WARNING)
        from sidecar.upstream.chunk_requests import ChunkRequests

        yield 0.0
        self._upstreams = ChunkRequests(options.upstream, self._limits)
        self._upstreams.run(self._upstreams.meet()).result()
        self.sample_rate = self._upstreams.rate
        yield 1.0

    def transcribe(
        self, request: engine_interface.TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        """Yield segments as the servers return them; their speakers are final at the end."""
        from sidecar.upstream.upstream_transcription import UpstreamTranscription

        assert self._upstreams is not None
        yield from UpstreamTranscription(self._upstreams, request, self.sample_rate).events()

    def transcribe_together(
        self, requests: Sequence[engine_interface.TranscriptionRequest]
    ) -> Iterator[tuple[int, TranscriptionEvent | errors.SidecarError]]:
        """Transcribe each on its own thread, which mostly waits; the pool chooses servers for
        all."""
        told = queue.SimpleQueue[tuple[int, TranscriptionEvent | errors.SidecarError | None]]()
        over = threading.Event()

        def run(number: int, one: engine_interface.TranscriptionRequest) -> None:
            def unwanted() -> bool:
                return over.is_set() or one.cancelled()

            try:
                for event in self.transcribe(replace(one, cancelled=unwanted)):
                    told.put((number, event))
            except errors.SidecarError as error:
                told.put((number, error))
            except Exception:
                log.exception("internal error in one of several recordings of an upstream")
                told.put((number, errors.EngineFailed()))
            finally:
                told.put((number, None))

        with ThreadPoolExecutor(len(requests), "upstream") as threads:
            try:
                for number, one in enumerate(requests):
                    threads.submit(run, number, one)
                left = len(requests)
                while left:
                    number, event = told.get()
                    if event is None:
                        left -= 1
                    else:
                        yield number, event
            finally:
                over.set()
