"""What hearing a recording in windows costs, and what linking the speakers gives back.

The embedded engine stands in for a model that takes a window at once: it hears each window by
itself, knowing nothing of the others, and the windows are put together as the flagship engine does
it. Beside it: the same windows linked by what both hear alone, not linked at all (every window's
speakers are new), cut blindly with speakers by their number (what there was before), and the
recording in one piece. "By the reference" gives each window's speaker the person whose turns it has
most of: what is wrong there, the stand-in does by itself in so short a window. "Told apart by the
reference" is what linking does for a model that tells everybody apart. CPU-seconds of cutting and
linking are by themselves, for each border.

With ``--reference`` no engine is heard: every window says what the reference has there. So linking
is measured alone, and quickly.

With ``--voices`` it is how often the voices of two people come out as one, and one person's as two,
over recordings of one reader each whose names begin with who it is ("1688-142285-0000.flac", as
LibriSpeech has them).

    python -m bench.windows                              # the conversations; about 20 min
    python -m bench.windows --only panel --windows 60    # 3 min
    python -m bench.windows --reference --windows 30 60 120    # 1 min
    python -m bench.windows --voices LibriSpeech         # 4 min for 350 recordings
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.metrics import Clip, Piece, Scores, clips, score
from sidecar.audio import Block
from sidecar.diarization.word_attribution import dominant_speaker
from sidecar.engines.moonshine import MoonshineEngine
from sidecar.engines.moonshine.moonshine_decoder import SAMPLE_RATE
from sidecar.engines.vibevoice.vibevoice_windows import (
    SAME_SPEAKER_SIMILARITY,
    TranscriptStitcher,
    VibeVoiceWindow,
    VibeVoiceWindows,
    WindowSpeakerMatcher,
    detect_window_speech,
)
from sidecar.interfaces.engine_interface import LoadOptions, TranscribeOptions, TranscriptionRequest
from sidecar.transcripts.speaker_turns import SpeakerTurn, speaking_seconds
from sidecar.transcripts.transcript import Finished, Segment

LEAST = (SAME_SPEAKER_SIMILARITY - 0.05, SAME_SPEAKER_SIMILARITY, SAME_SPEAKER_SIMILARITY + 0.1)
Heard = list[tuple[VibeVoiceWindow, list[Segment]]]


class Samples:
    """An array as a stream."""

    def __init__(self, samples: Block) -> None:
        self._samples = samples
        self.total_s: float | None = len(samples) / SAMPLE_RATE

    def __iter__(self) -> Iterator[Block]:
        for at in range(0, len(self._samples), SAMPLE_RATE):
            yield self._samples[at : at + SAMPLE_RATE]


class Unlinked(TranscriptStitcher):
    """Every window's speakers are new ones."""

    def _signs(self, *window: object) -> dict[tuple[int, int], float]:
        return {}


class ByReference(TranscriptStitcher):
    """Every window's speakers are who speaks most in their segments."""

    def __init__(self, turns: Sequence[tuple[float, float, str]]) -> None:
        super().__init__(None)
        self._names = sorted({name for _, _, name in turns})
        self.turns = [
            SpeakerTurn(start, end, self._names.index(name)) for start, end, name in turns
        ]

    def _link(self, window: VibeVoiceWindow, segments: Sequence[Segment]) -> dict[int, int]:
        persons: dict[int, int] = {}
        for label in {one.speaker for one in segments if one.speaker is not None}:
            seconds = [0.0] * len(self._names)
            for one in segments:
                if one.speaker == label:
                    for person, share in speaking_seconds(self.turns, one.start, one.end).items():
                        seconds[person] += share
            persons[label] = seconds.index(max(seconds))
        return persons


def told_apart(clip: Clip, heard: Heard) -> Heard:
    """The same windows with speakers from the reference, numbered anew in each."""
    turns = ByReference(clip.turns or []).turns
    count = len({turn.label for turn in turns})
    told = []
    for index, (window, segments) in enumerate(heard):
        speakers = [dominant_speaker(turns, one.start, one.end) or 0 for one in segments]
        pairs = zip(segments, speakers, strict=True)
        told.append((window, [replace(one, speaker=(who + index) % count) for one, who in pairs]))
    return told


def referred(clip: Clip, windows: VibeVoiceWindows) -> Heard:
    """Every window as the reference has it; its speakers are numbered anew."""
    heard = []
    for window in windows:
        end_s = window.start_s + len(window.samples) / SAMPLE_RATE
        numbers: dict[str, int] = {}
        segments = [
            Segment(
                max(start, window.start_s),
                min(end, end_s),
                text,
                numbers.setdefault(name, len(numbers)),
            )
            for start, end, name, text in clip.utterances or []
            if start < end_s and end > window.start_s
        ]
        heard.append((replace(window, samples=window.samples.copy()), segments))
    return heard


def hear(engine: MoonshineEngine, samples: Block) -> list[Segment]:
    """What the stand-in says of one piece."""
    *_, last = engine.transcribe(
        TranscriptionRequest(Samples(samples), TranscribeOptions(), lambda: False)
    )
    assert isinstance(last, Finished)
    return list(last.transcript.segments)


def by_window(engine: MoonshineEngine, windows: VibeVoiceWindows) -> Heard:
    """Every window by itself, on the recording's clock."""
    heard = []
    for window in windows:
        segments = [
            replace(one, start=one.start + window.start_s, end=one.end + window.start_s)
            for one in hear(engine, window.samples)
        ]
        heard.append((replace(window, samples=window.samples.copy()), segments))
    return heard


def stitched(stitching: TranscriptStitcher, heard: Heard) -> tuple[list[Segment], float]:
    """The recording, and the CPU-seconds that putting it together took."""
    begun = time.process_time()
    for window, segments in heard:
        stitching.begin(window)
        stitching.end(window, segments)
    return stitching.segments, time.process_time() - begun


def blindly(engine: MoonshineEngine, samples: Block, window_s: float) -> list[Segment]:
    """Pieces that end wherever they end; a speaker is a number."""
    found = []
    size = round(window_s * SAMPLE_RATE)
    for at in range(0, len(samples), size):
        start_s = at / SAMPLE_RATE
        for one in hear(engine, samples[at : at + size]):
            found.append(replace(one, start=one.start + start_s, end=one.end + start_s))
    return found


def measured(clip: Clip, segments: Sequence[Segment]) -> Scores:
    """The rates of a hypothesis."""
    pieces = [Piece(one.start, one.end, str(one.speaker), one.text) for one in segments]
    return score(clip, pieces)


def tell(clip: Clip, row: str, segments: Sequence[Segment], more: str = "") -> None:
    """A row of the table."""
    voices = len({one.speaker for one in segments})
    real = len({turn[2] for turn in clip.turns or []})
    cells = measured(clip, sorted(segments, key=lambda one: one.start)).row()
    print(f"| {clip.name} | {row} | {cells} | {voices}/{real} | {more} |", flush=True)


def compare(folder: Path, seconds: float) -> None:
    """How readers compare by so many seconds at a recording's beginning, and as many at its end."""
    from sidecar.audio.audio_decoder import decode_audio_file

    voices = WindowSpeakerMatcher(SAMPLE_RATE)
    names, vectors = [], []
    for path in sorted(folder.rglob("*-*.flac")):
        samples = np.ascontiguousarray(decode_audio_file(path, SAMPLE_RATE))
        length_s = len(samples) / SAMPLE_RATE
        for start in (0.0, length_s - seconds) if length_s >= 2 * seconds else ():
            heard = voices.hear(samples, [SpeakerTurn(start, start + seconds, 0)])
            names.append(path.name.split("-")[0])
            vectors.append(heard[0].vector)
    alike = np.stack(vectors) @ np.stack(vectors).T
    pairs = np.triu(np.ones_like(alike, dtype=bool), 1)
    same = np.array(names)[:, None] == np.array(names)
    one, two = alike[pairs & same], alike[pairs & ~same]
    cells = [
        f"{100 * (two >= least).mean():.2f}, {100 * (one < least).mean():.2f}" for least in LEAST
    ]
    row = f"{len(set(names))} | {len(one)}, {len(two)} | {' | '.join(cells)}"
    print(f"| {seconds:g} s | {row} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="part of a clip's name")
    parser.add_argument("--windows", nargs="+", type=float, default=[60.0, 120.0, 180.0])
    parser.add_argument("--no-blind", action="store_true", help="leave out what there was before")
    parser.add_argument("--no-whole", action="store_true", help="leave out the one piece")
    parser.add_argument("--reference", action="store_true", help="linking alone, no engine")
    parser.add_argument("--voices", type=Path, help="a folder of recordings of one reader each")
    args = parser.parse_args()
    if args.voices:
        over = " | ".join(f"two taken for one, one for two at {least:g}, %" for least in LEAST)
        print(f"| of each voice | readers | pairs of one, of two | {over} |")
        print("|---" * (3 + len(LEAST)) + "|")
        for seconds in (3.0, 5.0):
            compare(args.voices, seconds)
        return
    engine = MoonshineEngine()
    if not args.reference:
        list(engine.load(LoadOptions()))
    from sidecar.audio.audio_decoder import decode_audio_file

    print("| clip | row | WER | DER | cpWER | speakers found/real | CPU-s a border: cut, link |")
    print("|---|---|---|---|---|---|---|")
    shortest = min(args.windows)
    chosen = [clip for clip in clips() if args.only in clip.name and clip.utterances]
    for clip in [clip for clip in chosen if clip.duration_s > shortest]:
        samples = np.ascontiguousarray(decode_audio_file(clip.path, SAMPLE_RATE))
        if not args.no_whole and not args.reference:
            tell(clip, "in one piece", hear(engine, samples))
        for window_s in [length for length in args.windows if length < clip.duration_s]:
            row = f"{window_s:.0f} s"
            cuts_s = cut_s(samples, window_s)
            windows = VibeVoiceWindows(
                Samples(samples), SAMPLE_RATE, window_s, detect_window_speech
            )
            heard = referred(clip, windows) if args.reference else by_window(engine, windows)
            linked, link_s = stitched(TranscriptStitcher(WindowSpeakerMatcher(SAMPLE_RATE)), heard)
            each_s = cuts_s / (len(heard) - 1), link_s / (len(heard) - 1)
            tell(clip, f"{row}, linked", linked, f"{each_s[0]:.1f}, {each_s[1]:.1f}")
            if args.reference:
                tell(
                    clip,
                    f"{row}, by the overlap alone",
                    stitched(TranscriptStitcher(None), heard)[0],
                )
                continue
            by_reference = stitched(ByReference(clip.turns or []), heard)[0]
            tell(clip, f"{row}, linked by the reference", by_reference)
            told, _ = stitched(
                TranscriptStitcher(WindowSpeakerMatcher(SAMPLE_RATE)), told_apart(clip, heard)
            )
            tell(clip, f"{row}, told apart by the reference, linked", told)
            tell(clip, f"{row}, by the overlap alone", stitched(TranscriptStitcher(None), heard)[0])
            tell(clip, f"{row}, not linked", stitched(Unlinked(None), heard)[0])
            if not args.no_blind:
                tell(clip, f"{row}, as before", blindly(engine, samples, window_s))


def cut_s(samples: Block, window_s: float) -> float:
    """CPU-seconds of cutting alone."""
    begun = time.process_time()
    for _ in VibeVoiceWindows(Samples(samples), SAMPLE_RATE, window_s, detect_window_speech):
        pass
    return time.process_time() - begun


if __name__ == "__main__":
    main()
