"""Live: whose words they are, while somebody speaks and at the end; and what that costs.

The clips with references for speakers go through a session each, with the embedded engine's parts
and nobody else there: what is due is done before the next frame comes. Its file path stands beside.
Three labels of the same pieces are scored: those that the finals had when they were told, those
that stood ten seconds later, and those of the summary. CPU of the encoder is per second of voice
that it hears and per second of sound; the curve tells how much voice a piece needs.

    python -m bench.live_speakers
    python -m bench.live_speakers FOLDER_WITH_A_MANIFEST
    python -m bench.live_speakers --curve
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bench.diarization import engine_row
from bench.metrics import Clip, Piece, Scores, clips, score
from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.diarization.speaker_models import EMBEDDING_SIZE, SpeakerEncoder, Vector, load_models
from sidecar.engines.moonshine.moonshine_recognizer import load_recognizer
from sidecar.interfaces.live_events import (
    NEW_SESSION,
    Final,
    InputProcessed,
    LiveEvent,
    SpeakersRevised,
    Summary,
)
from sidecar.interfaces.live_options import LIVE_RATE, LiveOptions
from sidecar.live.runtime import live_speaker_labels, segment_embeddings
from sidecar.live.runtime.endpointing import FRAME_SAMPLES
from sidecar.live.runtime.live_speaker_labels import RelabelRequest, relabel
from sidecar.live.runtime.partial_results import RecognitionHypothesis, RecognitionTask
from sidecar.live.runtime.stream_recognizer import StreamRecognizer
from sidecar.live.runtime.vad import SileroVad, VadState, load_vad_weights
from sidecar.transcripts.transcript import Segment

LATER_S = 10.0
CURVE = (1.0, 1.0), (1.5, 1.5), (2.0, 1.5), (3.0, 1.0), (3.0, 1.5), (3.0, 2.0), (4.0, 1.5)
"""The curve: seconds of voice that become a vector, and that found a speaker."""
DECIDED = (100, 480, 1000)

Said = list[Segment]


@dataclass
class Story:
    """What a session told."""

    first: dict[int, Segment] = field(default_factory=dict)
    later: dict[int, int | None] = field(default_factory=dict)
    now: dict[int, int | None] = field(default_factory=dict)
    summary: Said = field(default_factory=list)
    heard: float = 0.0

    def take(self, events: Iterable[LiveEvent]) -> None:
        """More of it."""
        for event in events:
            self.tell(event)

    def tell(self, event: LiveEvent) -> None:
        """One event more."""
        match event:
            case Final():
                self.first[event.piece] = event.segment
                self.now[event.piece] = event.segment.speaker
            case SpeakersRevised(changes):
                self._settle()
                self.now.update(changes)
            case InputProcessed(at):
                self.heard = at
                self._settle()
            case Summary(transcript):
                self.later = {**self.now, **self.later}
                self.summary = list(transcript.segments)

    def _settle(self) -> None:
        for piece, segment in self.first.items():
            if piece not in self.later and self.heard - segment.end >= LATER_S:
                self.later[piece] = self.now[piece]

    def ways(self) -> Iterator[tuple[str, Said]]:
        """The three labels of the same pieces."""
        yield "in the final", list(self.first.values())
        later = [replace(one, speaker=self.later[piece]) for piece, one in self.first.items()]
        yield f"{LATER_S:g} s later", later
        yield "in the summary", self.summary


class Room:
    """The embedded engine's parts; what they said once they need not say again."""

    def __init__(self) -> None:
        self._recognizer = load_recognizer()
        self._detector = SileroVad(load_vad_weights())
        self._encoder = SpeakerEncoder(load_models())
        self._likely: dict[str, list[float]] = {}
        self._texts: dict[tuple[str, int, int], RecognitionHypothesis | None] = {}
        self._vectors: dict[bytes, Vector] = {}
        self.cpu_s = self.voice_s = 0.0

    def session(self, clip: Clip, sound: Block) -> Story:
        """One session over a clip."""
        story = Story()
        hearing = StreamRecognizer(LiveOptions(partials=False), NEW_SESSION, voices=True)
        hearing.sound(sound)
        for likely in self._speech(clip, sound):
            hearing.frames(1)
            story.take(hearing.looked(likely, 0.0))
            self._work(clip, hearing, story)
        story.take(hearing.finish(0.0))
        self._work(clip, hearing, story)
        return story

    def _speech(self, clip: Clip, sound: Block) -> list[float]:
        if clip.name not in self._likely:
            state = [VadState()]
            frames = sound[: len(sound) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(
                -1, 1, FRAME_SAMPLES
            )
            found = [float(self._detector.probabilities(frame, state)[0]) for frame in frames]
            self._likely[clip.name] = found
        return self._likely[clip.name]

    def _work(self, clip: Clip, hearing: StreamRecognizer, story: Story) -> None:
        while (due := hearing.due()) is not None:
            if isinstance(due, RecognitionTask):
                found = self._text(clip, due, hearing.began(due))
                story.take(hearing.recognised(due, found, 0.0, 0.0))
            else:
                voice = hearing.began_voice(due)
                question = hearing.heard_voice(due, None if voice is None else self._vector(voice))
                story.take(hearing.decided(due, None if question is None else relabel(question)))

    def _text(
        self, clip: Clip, listen: RecognitionTask, audio: Block
    ) -> RecognitionHypothesis | None:
        key = clip.name, listen.piece.start, listen.to
        if key not in self._texts:
            found = self._recognizer.hear(audio, None, lambda: False)
            self._texts[key] = (
                None if found is None else RecognitionHypothesis(found.text, language="en")
            )
        return self._texts[key]

    def _vector(self, voice: Block) -> Vector:
        key = voice.tobytes()
        if key not in self._vectors:
            begun = time.thread_time()
            self._vectors[key] = self._encoder.vector(voice)
            self.cpu_s += time.thread_time() - begun
            self.voice_s += len(voice) / LIVE_RATE
        return self._vectors[key]


def pieces(said: Sequence[Segment]) -> list[Piece]:
    """For the scores."""
    return [Piece(one.start, one.end, str(one.speaker), one.text) for one in said]


def line(name: str, pooled: Scores, found: list[str]) -> None:
    """One row."""
    confused = 100 * pooled.confusion_s / pooled.speech_s
    print(f"| {name} | {pooled.row()} | {confused:.1f} | {' '.join(found)} |", flush=True)


def measured(room: Room, heard: list[tuple[Clip, Block]], note: str = "") -> None:
    """The rows of live sessions over all clips."""
    rows: dict[str, Scores] = {}
    counts: dict[str, list[str]] = {}
    for clip, sound in heard:
        for way, said in room.session(clip, sound).ways():
            pooled = rows.setdefault(way, Scores())
            pooled += score(clip, pieces(said))
            counts.setdefault(way, []).append(_count(clip, {one.speaker for one in said}))
    for way, pooled in rows.items():
        line(note + way, pooled, counts[way])


def _count(clip: Clip, found: set[int | None]) -> str:
    assert clip.turns is not None
    return f"{len(found - {None})}/{len({turn[2] for turn in clip.turns})}"


def files(heard: list[tuple[Clip, Block]]) -> None:
    """The row of the file path."""
    pooled, counts = Scores(), []
    for clip, _ in heard:
        hypothesis = engine_row(clip, "balanced")
        pooled += score(clip, hypothesis)
        counts.append(_count(clip, {int(one.speaker) for one in hypothesis}))
    line("the file path, `balanced`", pooled, counts)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("audio", nargs="?", help="folder of clips, with a manifest.json")
    parser.add_argument("--curve", action="store_true", help="how much voice a piece needs")
    given = parser.parse_args()
    if given.audio:
        os.environ["VIBEVOICE_BENCH_AUDIO"] = given.audio
    heard = [(clip, decode_audio_file(clip.path, LIVE_RATE)) for clip in clips() if clip.turns]
    if not heard:
        print("Lacking: clips with turns, in a folder with a manifest.json; none is measured.")
        return
    print(", ".join(f"{clip.name} {clip.duration_s:.0f} s" for clip, _ in heard) + "\n")
    print("| labels | WER | DER | cpWER | confusion | speakers found/real |")
    print("|---|---|---|---|---|---|", flush=True)
    room = Room()
    if given.curve:
        for segment_embeddings.MAX_EMBEDDING_S, live_speaker_labels.MIN_FOUNDING_S in CURVE:
            note = (
                f"{segment_embeddings.MAX_EMBEDDING_S:g} s of voice, "
                f"{live_speaker_labels.MIN_FOUNDING_S:g} s found, "
            )
            measured(room, heard, note)
        return
    measured(room, heard)
    sound_s = sum(clip.duration_s for clip, _ in heard)
    files(heard)
    print(
        f"\nThe encoder: {1000 * room.cpu_s / room.voice_s:.0f} CPU-ms per second of voice, "
        f"{1000 * room.cpu_s / sound_s:.0f} per second of sound; "
        f"{1000 * room.voice_s / sound_s:.0f} ms of each second were heard."
    )
    for count in DECIDED:
        print(f"A decision over {count} pieces: {1000 * deciding(count):.0f} CPU-ms.")


def deciding(count: int) -> float:
    """CPU of one decision over made-up pieces of six people."""
    chance = np.random.default_rng(1)
    noise = 0.05 * chance.normal(size=(count, EMBEDDING_SIZE))
    vectors = (np.eye(EMBEDDING_SIZE)[chance.integers(6, size=count)] + noise).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    question = RelabelRequest(tuple(range(count)), vectors, np.full(count, 3.0, np.float32))
    begun = time.process_time()
    relabel(question)
    return time.process_time() - begun


if __name__ == "__main__":
    main()
