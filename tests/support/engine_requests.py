"""What an engine in this process is asked, and what it answers."""

from collections import Counter
from collections.abc import Iterable, Iterator

from sidecar import errors
from sidecar.audio import Block
from sidecar.interfaces.engine_interface import (
    AudioStream,
    CancelCheck,
    TranscribeOptions,
    TranscriptionRequest,
)
from sidecar.transcripts.transcript import (
    Finished,
    Segment,
    SegmentReady,
    Transcript,
    TranscriptionEvent,
)


class SampleStream:
    """Samples as an engine reads them, in blocks of uneven length."""

    def __init__(self, samples: Block, rate: int, block: int = 37_123) -> None:
        self.samples, self.rate, self._block = samples, rate, block
        self.total_s: float | None = len(samples) / rate

    def __iter__(self) -> Iterator[Block]:
        for at in range(0, len(self.samples), self._block):
            yield self.samples[at : at + self._block]


def request_of(
    audio: AudioStream,
    options: TranscribeOptions | None = None,
    cancelled: CancelCheck = lambda: False,
) -> TranscriptionRequest:
    return TranscriptionRequest(audio, options or TranscribeOptions(), cancelled)


def transcript_of(events: Iterable[TranscriptionEvent | errors.SidecarError]) -> Transcript:
    """That of the last event, with which all transcriptions end. Each word of its speech was
    reported before, and no other but those of a repetition that was removed."""
    *before, last = events
    assert isinstance(last, Finished), last
    reported = {one.index: one.segment for one in before if isinstance(one, SegmentReady)}
    told, whole = words_of(reported.values()), words_of(last.transcript.segments)
    assert not whole - told
    assert told == whole or any(one.code.startswith("loop_") for one in last.transcript.notices)
    return last.transcript


def words_of(segments: Iterable[Segment]) -> Counter[str]:
    return Counter(word for one in segments if one.is_speech for word in one.text.split())
