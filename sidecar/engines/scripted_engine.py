"""Scripted ASR engine for tests: no model, made-up text.

Each second of audio becomes a segment whose text is a fingerprint of its samples, so that a
transcript shows which audio it came from. Environment variables, all with the prefix
``VIBEVOICE_SCRIPTED_``, change its behaviour:

- ``SPEED``: seconds of audio per second; unlimited if unset. ``LOAD``: seconds that loading takes.
- ``LOAD_HOLD``: path of a file; while there is one, loading does not end.
- ``FAILS``: a precision that does not load.
- ``HOLD``: path of a file; while there is one, an attempt goes no further than as many seconds as
  it says, or its first.
- ``SETTLES``: seconds of audio between resume points. Default: 30.
- ``DEAF=1``: no audio is read.
- ``POISON``: texts, with commas. The worker process dies at one of them; with a ``!`` behind it the
  service dies, too.
- ``RAISES``: path of a file; while there is one, a transcription raises the error that it names,
  of Python or of `sidecar.errors`, after as many seconds as it says.
- ``EVENTS``: path of a file with the events of a transcription as JSON (`transcript.to_wire`),
  which are reported for every recording.
- ``HEAR``: seconds that each live recognition takes.
- ``FAULT``: a method of `live.runtime.stream_recognizer.StreamRecognizer` that raises in live
  sessions with the prompt ``fault``.

In live audio everything loud is speech. A quarter of a second of it is a word. Equally loud speech
is one speaker's.
"""

from __future__ import annotations

import builtins
import json
import math
import os
import signal
import struct
import sys
import time
import zlib
from base64 import b64encode
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from sidecar import errors, files
from sidecar.audio import SAMPLE_RATE, Block
from sidecar.interfaces import engine_interface
from sidecar.interfaces.live_events import LiveEventCallback, LiveSessionStart
from sidecar.interfaces.live_options import LIVE_RATE, LiveOptions
from sidecar.transcripts import transcript
from sidecar.transcripts.transcript import SpeakerEmbedding

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from sidecar.interfaces.recognition import RecognitionHypothesis, SegmentRequest
    from sidecar.live.runtime.live_scheduler import EngineSession, LiveScheduler

SPEC = engine_interface.EngineSpec(
    name="scripted",
    factory="sidecar.engines.scripted_engine:ScriptedEngine",
    title="Made-up text at once, for tests",
    sample_rate=SAMPLE_RATE,
    precisions=(engine_interface.Precision.FP32, engine_interface.Precision.INT8),
    languages=(),
    diarizes=True,
    together=4,
    sessions=200,
    resumes="scripted-1",
)

LOAD_STEPS = 20
CANCEL_POLL_S = 0.02
"""Pause between two looks whether a slow job was cancelled; a worker that goes on is killed after
some seconds."""
WORD_S = 0.25
TICK_S = 0.01
"""Seconds between two runs of the VAD, so that a minute of audio takes a third of a second."""
SPEECH_LEVEL = 0.01
"""Mean amplitude of a frame or word from which it is speech."""


class ScriptedEngine:
    """Engine whose text is fingerprints of the audio."""

    sample_rate = SPEC.sample_rate

    def __init__(self) -> None:
        self._precision: engine_interface.Precision | None = None
        self._speed = float(_behaviour("SPEED", "0"))
        self._hold = _behaviour("HOLD")
        self._raises = _behaviour("RAISES")
        self._events = _behaviour("EVENTS")
        self._deaf = _behaviour("DEAF") == "1"
        self._settles = int(_behaviour("SETTLES", "30"))
        self._hear_s = float(_behaviour("HEAR", "0"))
        self._fault = _behaviour("FAULT")
        names = _behaviour("POISON").split(",")
        self._poison = {name.rstrip("!"): name.endswith("!") for name in names}

    def load(self, options: engine_interface.LoadOptions) -> Iterator[float]:
        """Load nothing.

        Raises:
            errors.ModelLoadFailed: the environment requests it.
        """
        load_s = float(_behaviour("LOAD", "0"))
        for part in range(LOAD_STEPS if load_s else 0):
            yield part / LOAD_STEPS
            time.sleep(load_s / LOAD_STEPS)
        while os.path.exists(_behaviour("LOAD_HOLD")):
            yield 0.5
            time.sleep(0.005)
        if options.precision.value == _behaviour("FAILS"):
            raise errors.ModelLoadFailed(
                f"The scripted engine is set to fail in {options.precision}."
            )
        self._precision = SPEC.resolve_precision(options.precision)
        yield 1.0

    def transcribe(
        self, request: engine_interface.TranscriptionRequest
    ) -> Iterator[transcript.TranscriptionEvent]:
        """Yield one segment a second, with two speakers in turn."""
        for event in self.transcribe_from((), request):
            if not isinstance(event, transcript.ResumePoint):
                yield event

    def transcribe_from(
        self,
        resume_points: Sequence[transcript.ResumePoint],
        request: engine_interface.TranscriptionRequest,
    ) -> Iterator[transcript.TranscriptionEvent]:
        """Transcribe from the last resume point on."""
        from sidecar.audio.audio_decoder import equal_blocks

        if self._events:
            yield from _scripted_events(self._events)
            return
        assert self._precision is not None
        audio, options = request.audio, request.options
        segments = [segment for one in resume_points for segment in one.segments]
        samples, fingerprint = 0, 0
        first = in_resume_points = len(segments)
        done_s = resume_points[-1].audio_s if resume_points else 0.0
        if resume_points:
            fingerprint = resume_points[-1].state["fingerprint"]
        due = time.monotonic()
        for second in () if self._deaf else equal_blocks(audio, SPEC.sample_rate):
            start, samples = samples, samples + len(second)
            if start / SPEC.sample_rate < done_s:
                continue
            fingerprint = zlib.crc32(second.tobytes(), fingerprint)
            if self._speed:
                due += len(second) / SPEC.sample_rate / self._speed
                while (rest_s := due - time.monotonic()) > 0 and not request.cancelled():
                    time.sleep(min(rest_s, CANCEL_POLL_S))
            while self._hold and len(segments) - first >= _held_at(self._hold):
                if request.cancelled():
                    break
                time.sleep(0.005)
            if request.cancelled():
                return
            if self._raises:
                _raise_named(self._raises, len(segments))
            segment = transcript.Segment(
                start=start / SPEC.sample_rate,
                end=samples / SPEC.sample_rate,
                text=f"{fingerprint:08x}",
                speaker=len(segments) % 2 if options.diarize else None,
            )
            if segment.text in self._poison:
                _exit_process(with_service=self._poison[segment.text])
            segments.append(segment)
            yield transcript.SegmentReady(len(segments) - 1, segment)
            yield transcript.Progress(segment.end, audio.total_s)
            if len(segments) - in_resume_points >= self._settles:
                new_segments, in_resume_points = tuple(segments[in_resume_points:]), len(segments)
                yield transcript.ResumePoint(
                    segment.end, SPEC.resumes, new_segments, {"fingerprint": fingerprint}
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

    def open(
        self, options: LiveOptions, start: LiveSessionStart, tell: LiveEventCallback
    ) -> EngineSession:
        """Open a live session in which each quarter of a second is a word."""
        session = self._scheduler.open(options, start, tell)
        if self._fault and options.prompt == "fault":
            setattr(session.recognizer, self._fault, _raise_out_of_memory)
        return session

    @cached_property
    def _scheduler(self) -> LiveScheduler:
        import numpy as np

        from sidecar.live.runtime.live_scheduler import LiveRecognizers, LiveScheduler

        assert self._precision is not None
        recognizers = LiveRecognizers(self._recognize, encoder=LoudnessSpeakerEncoder())
        second = np.zeros(LIVE_RATE, np.float32)
        return LiveScheduler(
            recognizers,
            LoudnessVad(),
            SPEC.name,
            self._precision.value,
            sample=second,
            tick_s=TICK_S,
        )

    def _recognize(self, request: SegmentRequest) -> RecognitionHypothesis | None:
        from sidecar.interfaces.recognition import RecognitionHypothesis

        due = time.monotonic() + self._hear_s
        while time.monotonic() < due and not request.cancelled():
            time.sleep(0.005)
        if request.cancelled():
            return None
        audio, step = request.audio, round(WORD_S * LIVE_RATE)
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
            text, words if request.options.words else (), transcript.WORDS_BY_ATTENTION, "en"
        )


def _scripted_events(path: str) -> Iterator[transcript.TranscriptionEvent]:
    """Yield the events in a file; if its end has more segments than were reported, the others are
    reported before it."""
    reported = list[transcript.Segment]()
    for event in map(transcript.from_wire, json.loads(Path(path).read_text("utf-8"))):
        if isinstance(event, transcript.SegmentReady):
            reported.append(event.segment)
        if isinstance(event, transcript.Finished):
            late = transcript.unreported_segments(reported, event.transcript.segments)
            more = range(len(reported), len(event.transcript.segments))
            yield from map(transcript.SegmentReady, more, late)
        yield event


def _behaviour(name: str, default: str = "") -> str:
    """Return the value of an environment variable of this engine."""
    return os.environ.get(f"VIBEVOICE_SCRIPTED_{name}", default)


def _held_at(path: str) -> float:
    """Return the number of seconds at which an attempt stops; infinity if the file has gone."""
    try:
        with open(files.open_to_read(path), encoding="utf-8") as file:
            return int(file.read() or 1)
    except (FileNotFoundError, PermissionError):  # Windows: it goes once nobody reads it
        return math.inf


class LoudnessVad:
    """Voice activity detection by loudness."""

    def state(self) -> None:
        """Return `None`: there is no state."""

    def probabilities(self, frames: Block, states: Sequence[None]) -> npt.NDArray[np.float32]:
        """Return 1 for each loud frame, 0 for the others."""
        import numpy as np

        found: npt.NDArray[np.float32] = (np.abs(frames).mean(axis=1) > SPEECH_LEVEL).astype(
            np.float32
        )
        return found


class LoudnessSpeakerEncoder:
    """Speaker encoder by loudness: a speaker is a step of 20 % in loudness."""

    def vector(self, voice: Block) -> npt.NDArray[np.float32]:
        """Return a unit vector of its own for each step of loudness."""
        import numpy as np

        step = round(math.log(max(float(np.abs(voice).mean()), 1e-6)) / math.log(1.2))
        found: npt.NDArray[np.float32] = np.eye(1, 256, step % 256, dtype=np.float32)[0]
        return found


def _speaker_embedding(segment: transcript.Segment) -> SpeakerEmbedding | None:
    """Return a made-up speaker embedding: a unit vector of its own for each speaker."""
    if segment.speaker is None:
        return None
    vector = struct.pack("<256e", *(float(at == segment.speaker) for at in range(256)))
    return SpeakerEmbedding(b64encode(vector).decode(), segment.end - segment.start)


def _raise_out_of_memory(*args: object) -> NoReturn:
    """Raise an error as if memory ran out."""
    raise MemoryError


def _raise_named(path: str, seconds: int) -> None:
    """Raise the error that the file names, if there is one, after so many seconds of audio."""
    try:
        with open(files.open_to_read(path), encoding="utf-8") as file:
            name, after = file.read().split()
    except (FileNotFoundError, PermissionError):  # Windows: it goes once nobody reads it
        return
    if seconds >= int(after):
        error: type[Exception] = getattr(errors, name, None) or getattr(builtins, name)
        raise error


def _exit_process(*, with_service: bool) -> None:
    """Kill the process as the kernel does when memory runs out."""
    if sys.platform == "win32":
        at_once = signal.SIGTERM
    else:
        at_once = signal.SIGKILL
    if with_service:
        os.kill(os.getppid(), at_once)
    os.kill(os.getpid(), at_once)
