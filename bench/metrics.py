"""Word and speaker error rates, as the field computes them, over clips with references."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sidecar.audio.audio_decoder import decode_audio_file

COLLAR_S = 0.25
"""Seconds around each reference boundary that are not scored (NIST's usual collar)."""


@dataclass(frozen=True)
class Clip:
    """A recording with what is known of it; ``turns`` are (start, end, speaker) in seconds."""

    name: str
    path: Path
    duration_s: float
    language: str
    text: str | None
    turns: list[tuple[float, float, str]] | None
    utterances: list[tuple[float, float, str, str]] | None


@dataclass(frozen=True)
class Piece:
    """One segment of a hypothesis."""

    start: float
    end: float
    speaker: str
    text: str


@dataclass
class Scores:
    """Error counts that add up over clips; seconds for speakers, words for text."""

    word_errors: float = 0
    words: float = 0
    speaker_error_s: float = 0
    confusion_s: float = 0
    speech_s: float = 0
    cp_errors: float = 0
    cp_words: float = 0

    def __iadd__(self, other: Scores) -> Scores:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self

    @property
    def wer(self) -> float | None:
        """Word error rate in percent."""
        return 100 * self.word_errors / self.words if self.words else None

    @property
    def der(self) -> float | None:
        """Diarization error rate in percent."""
        return 100 * self.speaker_error_s / self.speech_s if self.speech_s else None

    @property
    def cpwer(self) -> float | None:
        """Concatenated minimum-permutation word error rate in percent."""
        return 100 * self.cp_errors / self.cp_words if self.cp_words else None

    def row(self) -> str:
        """The three rates as cells of a table."""
        return " | ".join(
            "–" if rate is None else f"{rate:.1f}" for rate in (self.wer, self.der, self.cpwer)
        )


def bench_folder() -> Path:
    """The folder of recordings with references: VIBEVOICE_BENCH_AUDIO, or ../shared/audio."""
    shared = Path(__file__).parents[2] / "shared/audio"
    return Path(os.environ.get("VIBEVOICE_BENCH_AUDIO", shared))


def check_references() -> None:
    """Exit if `bench_folder` has no manifest.

    Raises:
        SystemExit: it has none.
    """
    if not (bench_folder() / "manifest.json").exists():
        raise SystemExit(
            f"{bench_folder()} has no manifest.json of recordings with references. Set "
            "VIBEVOICE_BENCH_AUDIO to a folder that has one (docs/bench.md), or measure recordings "
            "of your own with --recordings."
        )


def check_packages() -> None:
    """Exit if a package of the extra is not installed, before anything is measured.

    Raises:
        SystemExit: one is missing.
    """
    wanted = ("jiwer", "whisper_normalizer", "pyannote", "meeteval")
    if missing := [name for name in wanted if find_spec(name) is None]:
        raise SystemExit(
            f"Not installed: {', '.join(missing)}. Install the extra: pip install -e '.[bench]'"
        )


def clips(english_only: bool = True) -> list[Clip]:
    """The clips of a manifest (VIBEVOICE_BENCH_AUDIO, or ../shared/audio), else the wheel's own."""
    folder = bench_folder()
    if not (folder / "manifest.json").exists():
        return wheel_clips()
    entries = json.loads((folder / "manifest.json").read_text("utf-8"))
    found = [_clip(folder, entry) for entry in entries]
    return [clip for clip in found if clip.language == "en" or not english_only]


def own_clips(folder: Path, language: str = "en") -> list[Clip]:
    """The recordings of a folder that have their text beside them, and maybe their speaker turns:
    ``talk.wav``, ``talk.txt``, ``talk.rttm``.

    Raises:
        SystemExit: there is none, or no such folder.
    """
    if not folder.is_dir():
        raise SystemExit(f"There is no folder {folder}.")
    found = [
        _own_clip(path, path.with_suffix(".txt"), language)
        for path in _recordings(folder)
        if path.with_suffix(".txt").exists()
    ]
    if not found:
        raise SystemExit(f"{folder} has no recording with its text beside it, as NAME.txt.")
    return found


def without_text(folder: Path) -> list[str]:
    """Names of the recordings of a folder that `own_clips` leaves out."""
    return [path.name for path in _recordings(folder) if not path.with_suffix(".txt").exists()]


def _recordings(folder: Path) -> list[Path]:
    """All files but texts, turns and hidden ones."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix not in (".txt", ".rttm") and path.name[0] != "."
    ]


def _own_clip(path: Path, text: Path, language: str) -> Clip:
    turns, duration_s = None, 0.0
    if (rttm := path.with_suffix(".rttm")).exists():
        turns = read_rttm(rttm)
        duration_s = len(decode_audio_file(path, 16_000)) / 16_000
    return Clip(
        path.name, path, duration_s, language, text.read_text(encoding="utf-8").strip(), turns, None
    )


def read_rttm(file: Path) -> list[tuple[float, float, str]]:
    """Speaker turns of an RTTM file: start and end in seconds, speaker."""
    lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
    return [
        (float(line[3]), float(line[3]) + float(line[4]), line[7])
        for line in lines
        if line[:1] == ["SPEAKER"]
    ]


def _clip(folder: Path, entry: dict[str, Any]) -> Clip:
    segments = entry["segments"]
    scored = entry.get("der_segments") or segments
    return Clip(
        name=entry["file"],
        path=folder / entry["file"],
        duration_s=entry["duration_s"],
        language=entry["language"],
        text=entry["reference_text"],
        turns=scored and [(s["start"], s["end"], s["speaker"]) for s in scored],
        utterances=[(s["start"], s["end"], s["speaker"], s["text"]) for s in segments]
        if segments and all(s.get("text") for s in segments)
        else None,
    )


def wheel_clips() -> list[Clip]:
    """The three recordings inside the moonshine-voice wheel; two with their well-known texts."""
    from moonshine_voice import get_assets_path

    beckett = "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better."
    two_cities = (
        "It was the best of times, it was the worst of times, it was the age of wisdom, it was the "
        "age of foolishness, it was the epoch of belief, it was the epoch of incredulity, it was "
        "the season of light, it was the season of darkness, it was the spring of hope, it was the "
        "winter of despair, we had everything before us, we had nothing before us, we were all "
        "going direct to heaven, we were all going direct the other way. In short, the period was "
        "so far like the present period that some of its noisiest authorities insisted on its "
        "being received, for good or for evil, in the superlative degree of comparison only."
    )
    assets = Path(get_assets_path())
    return [
        Clip("beckett.wav", assets / "beckett.wav", 9.963, "en", beckett, None, None),
        Clip("endgame.wav", assets / "endgame_nagg_nell.wav", 28.277, "en", None, None, None),
        Clip("two_cities.wav", assets / "two_cities.wav", 44.374, "en", two_cities, None, None),
    ]


@cache
def _normalizer(language: str = "en") -> Any:
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer() if language == "en" else BasicTextNormalizer()


def score(clip: Clip, hypothesis: list[Piece]) -> Scores:
    """All rates that the clip's references allow."""
    scores = Scores()
    if clip.text:
        _score_words(scores, clip, " ".join(piece.text for piece in hypothesis))
    if clip.turns:
        _score_turns(scores, clip, hypothesis)
    if clip.utterances:
        _score_speaker_words(scores, clip.utterances, hypothesis)
    return scores


def _score_words(scores: Scores, clip: Clip, hypothesis: str) -> None:
    import jiwer

    normalize = _normalizer(clip.language)
    result = jiwer.process_words(normalize(clip.text), normalize(hypothesis))
    scores.word_errors = result.substitutions + result.deletions + result.insertions
    scores.words = result.hits + result.substitutions + result.deletions


def right_words(clip: Clip, words: list[tuple[str, float]]) -> Iterator[tuple[float, bool]]:
    """Yield the confidence of each normalized word of ``words`` (text, confidence), and whether the
    clip's text has it there. Each is normalized alone, so that it keeps its confidence."""
    import jiwer

    normalize = _normalizer(clip.language)
    reference = " ".join(normalize(word) for word in (clip.text or "").split())
    found = [(part, each) for text, each in words for part in normalize(text).split()]
    result = jiwer.process_words(reference, " ".join(part for part, _ in found))
    for chunk in result.alignments[0]:
        for _, confidence in found[chunk.hyp_start_idx : chunk.hyp_end_idx]:
            yield confidence, chunk.type == "equal"


def _score_turns(scores: Scores, clip: Clip, hypothesis: list[Piece]) -> None:
    from pyannote.core import Annotation, Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    reference, found = Annotation(), Annotation()
    assert clip.turns is not None
    for index, (start, end, speaker) in enumerate(clip.turns):
        reference[Segment(start, end), index] = speaker
    for index, piece in enumerate(hypothesis):
        if piece.end > piece.start:
            found[Segment(piece.start, piece.end), index] = piece.speaker
    # pyannote's collar is the whole width around a boundary.
    metric = DiarizationErrorRate(collar=2 * COLLAR_S, skip_overlap=False)
    whole = Timeline([Segment(0, clip.duration_s)])
    parts: dict[str, float] = metric(reference, found, uem=whole, detailed=True)
    scores.confusion_s = parts["confusion"]
    scores.speaker_error_s = parts["confusion"] + parts["missed detection"] + parts["false alarm"]
    scores.speech_s = parts["total"]


def _score_speaker_words(
    scores: Scores, utterances: list[tuple[float, float, str, str]], hypothesis: list[Piece]
) -> None:
    from meeteval.wer import cp_word_error_rate

    normalize = _normalizer()
    reference: dict[str, str] = {}
    for _, _, speaker, text in utterances:
        reference[speaker] = f"{reference.get(speaker, '')} {normalize(text)}"
    found: dict[str, str] = {}
    for piece in hypothesis:
        found[piece.speaker] = f"{found.get(piece.speaker, '')} {normalize(piece.text)}"
    # Each speaker's words are in order already; without these it logs that it does not sort them.
    result = cp_word_error_rate(
        reference, found or {"nobody": ""}, reference_sort=False, hypothesis_sort=False
    )
    scores.cp_errors, scores.cp_words = result.errors, result.length
