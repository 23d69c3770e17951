"""Scripted ASR engine for tests: no model, made-up text.

Every second of audio becomes a segment whose text is a fingerprint of its samples, so that a
transcript shows whose audio it came from. ``VIBEVOICE_SCRIPTED_SPEED`` (seconds of audio per
second, unlimited if unset) makes it take its time, ``VIBEVOICE_SCRIPTED_LOAD`` (seconds) its load;
``VIBEVOICE_SCRIPTED_FAILS`` names a precision that does not load. It settles every
``VIBEVOICE_SCRIPTED_SETTLES`` seconds of audio (30); with ``VIBEVOICE_SCRIPTED_CLOCK=1`` it says
the monotonic clock (one for all processes of a machine) instead of the fingerprint.
``VIBEVOICE_SCRIPTED_POISON`` names texts, with commas: its process dies where it hears one, and the
service, too, of one with a ``!`` behind it. Live, whatever is not quiet is speech, and each quarter
of a second of it is a word, and whoever is as loud is the same speaker; ``VIBEVOICE_SCRIPTED_HEAR``
(seconds) is what each look at a stretch takes. ``VIBEVOICE_SCRIPTED_FAULT`` names a method of
`live.runtime.stream_recognizer.Hearing` that raises, of live sessions with the prompt ``fault``.
"""

from __future__ import annotations

import math
import os
import signal
import struct
import time
import zlib
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

from sidecar import errors
from sidecar.audio import Block
from sidecar.interfaces import engine_interface
from sidecar.interfaces.live_engine import LiveSession, LiveSessionStart
from sidecar.interfaces.live_events import LiveEventCallback
from sidecar.interfaces.live_options import LIVE_RATE, LiveOptions
from sidecar.transcripts import transcript
from sidecar.transcripts.speaker_embeddings import SpeakerEmbedding

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from sidecar.live.runtime.live_scheduler import LiveScheduler
    from sidecar.live.runtime.partial_results import RecognitionHypothesis

SPEC = engine_interface.EngineSpec(
    name="scripted",
    title="Made-up text at once, for tests",
    sample_rate=16_000,
    precisions=(engine_interface.Precision.FP32, engine_interface.Precision.INT8),
    languages=(),
    diarizes=True,
    together=4,
    sessions=200,
    resumes="scripted-1",
)

LOAD_STEPS = 20
WORD_S = 0.25
SPEECH_LEVEL = 0.01
"""The mean of what is speech."""


class ScriptedEngine:
    """Answers with fingerprints instead of words."""

    def __init__(self) -> None:
        self._precision: engine_interface.Precision | None = None
        self._speed = 0.0
        self._deaf = False
        self._settles = 30
        self._clock = False
        self._poison: dict[str, bool] = {}
        self._hear_s = 0.0
        self._fault = ""
        self._scheduler: LiveScheduler | None = None

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Load nothing.

        Raises:
            errors.ModelLoadFailed: it is told to.
        """
        load_s = float(os.environ.get("VIBEVOICE_SCRIPTED_LOAD", "0"))
        for part in range(LOAD_STEPS if load_s else 0):
            yield part / LOAD_STEPS
            time.sleep(load_s / LOAD_STEPS)
        if options.precision.value == os.environ.get("VIBEVOICE_SCRIPTED_FAILS"):
            raise errors.ModelLoadFailed(f"It is told to fail in {options.precision}.")
        self._precision = SPEC.resolve_precision(options.precision)
        self._speed = float(os.environ.get("VIBEVOICE_SCRIPTED_SPEED", "0"))
        self._deaf = os.environ.get("VIBEVOICE_SCRIPTED_DEAF") == "1"
        self._settles = int(os.environ.get("VIBEVOICE_SCRIPTED_SETTLES", "30"))
        self._clock = os.environ.get("VIBEVOICE_SCRIPTED_CLOCK") == "1"
        self._hear_s = float(os.environ.get("VIBEVOICE_SCRIPTED_HEAR", "0"))
        self._fault = os.environ.get("VIBEVOICE_SCRIPTED_FAULT", "")
        names = os.environ.get("VIBEVOICE_SCRIPTED_POISON", "").split(",")
        self._poison = {name.rstrip("!"): name.endswith("!") for name in names}
        yield 1.0

    def transcribe(
        self, request: engine_interface.TranscriptionRequest
    ) -> Iterator[transcript.TranscriptionEvent]:
        """One segment a second, two speakers in turn."""
        for event in self.transcribe_from((), request):
            if not isinstance(event, transcript.Checkpoint):
                yield event

    def transcribe_from(
        self,
        settled: Sequence[transcript.Checkpoint],
        request: engine_interface.TranscriptionRequest,
    ) -> Iterator[transcript.TranscriptionEvent]:
        """The same, from what is settled on."""
        assert self._precision is not None
        audio, options = request.audio, request.options
        segments = [segment for one in settled for segment in one.segments]
        samples, fingerprint = 0, 0
        told, done_s = len(segments), settled[-1].audio_s if settled else 0.0
        if settled:
            fingerprint = settled[-1].state["fingerprint"]
        due = time.monotonic()
        for second in () if self._deaf else _one_second_blocks(audio):
            start, samples = samples, samples + len(second)
            if start / SPEC.sample_rate < done_s:
                continue
            fingerprint = zlib.crc32(second.tobytes(), fingerprint)
            if self._speed:
                due += len(second) / SPEC.sample_rate / self._speed
                time.sleep(max(0.0, due - time.monotonic()))
            if request.cancelled():
                return
            segment = transcript.Segment(
                start=start / SPEC.sample_rate,
                end=samples / SPEC.sample_rate,
                text=f"{time.monotonic():.6f}" if self._clock else f"{fingerprint:08x}",
                speaker=len(segments) % 2 if options.diarize else None,
            )
            if segment.text in self._poison:
                _exit_process(with_service=self._poison[segment.text])
            segments.append(segment)
            yield transcript.SegmentReady(len(segments) - 1, segment)
            yield transcript.Progress(segment.end, audio.total_s)
            if len(segments) - told >= self._settles:
                said, told = tuple(segments[told:]), len(segments)
                yield transcript.Checkpoint(
                    segment.end, SPEC.resumes, said, {"fingerprint": fingerprint}
                )
        yield transcript.Finished(
            transcript.Transcript(
                segments=tuple(segments),
                language=options.language,
                duration=samples / SPEC.sample_rate,
                engine=SPEC.name,
                precision=self._precision.value,
                diarized=options.diarize,
                prints=tuple(map(_speaker_embedding, segments)) if options.voiceprints else (),
            )
        )

    def transcribe_together(
        self, requests: Sequence[engine_interface.TranscriptionRequest]
    ) -> Iterator[tuple[int, transcript.TranscriptionEvent | errors.SidecarError]]:
        """A second of each in turn."""
        running = dict(enumerate(map(self.transcribe, requests)))
        while running:
            for number, events in list(running.items()):
                try:
                    event = next(events, None)
                except errors.SidecarError as error:
                    del running[number]
                    yield number, error
                    continue
                if event is None:
                    del running[number]
                else:
                    yield number, event

    def open(
        self, options: LiveOptions, begin: LiveSessionStart, tell: LiveEventCallback
    ) -> LiveSession:
        """A session in which each quarter of a second is a word."""
        import numpy as np

        from sidecar.live.runtime.live_scheduler import LiveRecognizers, LiveScheduler

        if self._scheduler is None:
            assert self._precision is not None
            precision = self._precision.value
            recognizers = LiveRecognizers(self._hear, encoder=LoudnessSpeakerEncoder())
            second = np.zeros(LIVE_RATE, np.float32)
            self._scheduler = LiveScheduler(
                recognizers, LoudnessVad(), SPEC.name, precision, sample=second
            )
        session = self._scheduler.open(options, begin, tell)
        if self._fault and options.prompt == "fault":
            setattr(session.hearing, self._fault, _raise_out_of_memory)
        return session

    def _hear(
        self,
        audio: Block,
        draft: RecognitionHypothesis | None,
        options: LiveOptions,
        cancelled: engine_interface.CancelCheck,
    ) -> RecognitionHypothesis | None:
        from sidecar.live.runtime.partial_results import RecognitionHypothesis

        due = time.monotonic() + self._hear_s
        while time.monotonic() < due and not cancelled():
            time.sleep(0.005)
        if cancelled():
            return None
        step = round(WORD_S * LIVE_RATE)
        words = tuple(
            transcript.Word(
                at / LIVE_RATE, (at + step) / LIVE_RATE, f"w{int(abs(part).mean() * 1000)}"
            )
            for at in range(0, len(audio) - step + 1, step)
            if abs(part := audio[at : at + step]).mean() > SPEECH_LEVEL
        )
        for word in words:
            if word.text in self._poison:
                _exit_process(with_service=self._poison[word.text])
        text = " ".join(word.text for word in words)
        return RecognitionHypothesis(
            text, words if options.words else (), transcript.WORDS_BY_ATTENTION, "en"
        )


class LoudnessVad:
    """Voice activity detection by loudness."""

    def state(self) -> None:
        """It remembers nothing."""

    def probabilities(self, frames: Block, states: Sequence[None]) -> npt.NDArray[np.float32]:
        """1 for each frame that is loud, 0 for the others."""
        import numpy as np

        found: npt.NDArray[np.float32] = (np.abs(frames).mean(axis=1) > SPEECH_LEVEL).astype(
            np.float32
        )
        return found


class LoudnessSpeakerEncoder:
    """Speaker encoder by loudness: speakers as loud as each other, in steps of a fifth, are one."""

    def vector(self, voice: Block) -> npt.NDArray[np.float32]:
        """One direction for each step."""
        import numpy as np

        step = round(math.log(max(float(np.abs(voice).mean()), 1e-6)) / math.log(1.2))
        found: npt.NDArray[np.float32] = np.eye(1, 256, step % 256, dtype=np.float32)[0]
        return found


def _speaker_embedding(segment: transcript.Segment) -> SpeakerEmbedding | None:
    """A made-up voice: each speaker has a direction of its own."""
    if segment.speaker is None:
        return None
    vector = struct.pack("<256e", *(float(at == segment.speaker) for at in range(256)))
    return SpeakerEmbedding(b64encode(vector).decode(), segment.end - segment.start)


def _raise_out_of_memory(*args: object) -> NoReturn:
    """As for want of memory, where it is noticed."""
    raise MemoryError


def _exit_process(*, with_service: bool) -> None:
    """As for want of memory."""
    if with_service:
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _one_second_blocks(audio: engine_interface.AudioStream) -> Iterator[Block]:
    """The audio a second at a time; what is left at the end comes last."""
    import numpy as np

    rest = np.zeros(0, np.float32)
    for block in audio:
        rest = np.concatenate([rest, block])
        while len(rest) >= SPEC.sample_rate:
            yield rest[: SPEC.sample_rate]
            rest = rest[SPEC.sample_rate :]
    if len(rest):
        yield rest
