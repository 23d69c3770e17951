"""The embedded engine's recognition by onnxruntime, beside the library's own."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate, pairwise
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moonshine_library import LibraryRecognizer
from moonshine_voice import get_assets_path
from word_errors import word_errors

from sidecar import errors
from sidecar.audio import SAMPLE_RATE, Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.audio.loudness import quietest_sample
from sidecar.engines.moonshine import moonshine_decoder
from sidecar.engines.moonshine.moonshine_recognizer import (
    MoonshineHypothesis,
    MoonshineRecognizer,
    model_folder,
    token_spans,
)
from sidecar.engines.moonshine.moonshine_tokenizer import MoonshineTokenizer
from sidecar.transcripts.transcript import Segment, Word, collapse_commas
from sidecar.transcripts.word_timing import estimate_word_times, words_of_tokens

ASSETS = Path(get_assets_path())
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recognizer() -> MoonshineRecognizer:
    return MoonshineRecognizer(model_folder())


@pytest.fixture(scope="module")
def stretches() -> list[Block]:
    """The wheel's clips in stretches of 3 to 6 s, cut where they are quietest."""
    found = []
    for name in ("beckett.wav", "endgame_nagg_nell.wav"):
        audio = decode_audio_file(ASSETS / name, SAMPLE_RATE)
        while len(audio) > 6 * SAMPLE_RATE:
            half = 3 * SAMPLE_RATE
            cut = half + quietest_sample(audio[half : 2 * half], SAMPLE_RATE, 0.1)
            found.append(audio[:cut])
            audio = audio[cut:]
        found.append(audio)
    return found


class Passes:
    """A session that counts how often it is run."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.count = 0

    def run(self, *args: Any) -> Any:
        self.count += 1
        return self._session.run(*args)


@pytest.fixture
def passes(recognizer: MoonshineRecognizer, monkeypatch: pytest.MonkeyPatch) -> Passes:
    counting = Passes(recognizer.decoder.tokens)
    monkeypatch.setattr(recognizer.decoder, "tokens", counting)
    return counting


def heard(
    recognizer: MoonshineRecognizer, audio: Block, draft: MoonshineHypothesis | None = None
) -> MoonshineHypothesis:
    found = recognizer.recognize(audio, draft)
    assert found is not None
    return found


def text(recognizer: MoonshineRecognizer, audio: Block) -> str:
    return heard(recognizer, audio).text


@pytest.mark.slow
def test_recognizer_differs_from_moonshine_library_in_at_most_8_percent_of_words(
    recognizer: MoonshineRecognizer, stretches: list[Block]
) -> None:
    library = LibraryRecognizer()
    theirs = [library.text(audio) for audio in stretches]
    library.close()
    ours = [text(recognizer, audio) for audio in stretches]
    words = sum(len(text.split()) for text in theirs)
    assert words > 80
    assert sum(map(word_errors, theirs, ours)) <= 0.08 * words


def test_cancelled_recognition_stops_before_next_token(
    recognizer: MoonshineRecognizer, stretches: list[Block], passes: Passes
) -> None:
    assert recognizer.recognize(stretches[0], cancelled=lambda: passes.count >= 3) is None
    assert passes.count == 3
    assert recognizer.recognize(stretches[0], cancelled=lambda: True) is None
    assert passes.count == 3


def test_recognition_is_limited_to_6_5_tokens_per_second_also_with_a_longer_draft(
    recognizer: MoonshineRecognizer,
    stretches: list[Block],
    passes: Passes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert recognizer.decoder.tokens_per_s == 6.5
    monkeypatch.setattr(recognizer.decoder, "tokens_per_s", 1.5)
    audio = stretches[0][: 3 * SAMPLE_RATE]
    tokens = heard(recognizer, audio).tokens
    assert len(tokens) == passes.count == 5
    assert len(heard(recognizer, audio, MoonshineHypothesis("", tokens * 3)).tokens) <= 5


@pytest.mark.slow
def test_draft_of_shorter_audio_saves_30_percent_of_passes_and_keeps_70_percent_of_texts(
    recognizer: MoonshineRecognizer, stretches: list[Block], passes: Passes
) -> None:
    growing = [(audio[: len(audio) * 4 // 5], audio) for audio in stretches]
    drafts = [recognizer.recognize(part) for part, _ in growing]
    passes.count = 0
    plain = [text(recognizer, audio) for _, audio in growing]
    without, passes.count = passes.count, 0
    helped = [
        heard(recognizer, audio, draft).text
        for (_, audio), draft in zip(growing, drafts, strict=True)
    ]
    same = sum(text == other for text, other in zip(helped, plain, strict=True))
    assert same >= 0.7 * len(plain)
    assert passes.count < 0.7 * without


@pytest.mark.slow
def test_draft_of_another_stretch_backwards_changes_at_most_6_percent_of_words(
    recognizer: MoonshineRecognizer, stretches: list[Block]
) -> None:
    plain = [text(recognizer, audio) for audio in stretches]
    backwards = MoonshineHypothesis("", (heard(recognizer, stretches[0])).tokens[::-1])
    misled = [heard(recognizer, audio, backwards).text for audio in stretches]
    assert sum(map(word_errors, plain, misled)) <= 0.06 * sum(len(text.split()) for text in plain)


def test_preceding_text_corrects_a_word_that_sounds_alike_unless_it_repeats_itself(
    recognizer: MoonshineRecognizer,
) -> None:
    audio = decode_audio_file(ASSETS / "beckett.wav", SAMPLE_RATE)
    begin, border, end = (round(at * SAMPLE_RATE) for at in (4.7, 6.1, 7.6))
    alone = heard(recognizer, audio[border:end])
    before = heard(recognizer, audio[begin:border])
    assert (before.text, alone.text) == ("Try again.", "Fare again.")
    both = audio[begin:end]
    for words in (False, True):
        found = recognizer.recognize(both, words=words, given=before.tokens, samples=border - begin)
        assert found is not None
        assert found.text == "Fail again."
    times = [(word.start, word.end) for word in found.words]
    assert len(times) == 2
    assert 0 <= times[0][0] < times[0][1] <= times[1][0] < times[1][1] <= 1.5
    circles = MoonshineHypothesis("", before.tokens * 9)
    found = recognizer.recognize(both, given=circles.tokens, samples=border - begin)
    assert found is not None
    assert found.text == alone.text, "what went round in circles is no context"


@pytest.mark.slow
def test_concurrent_recognitions_in_two_threads_have_the_texts_of_single_ones(
    recognizer: MoonshineRecognizer, stretches: list[Block]
) -> None:
    alone = [text(recognizer, audio) for audio in stretches]
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(partial(text, recognizer), stretches + stretches)) == alone + alone


@pytest.mark.parametrize("samples", [0, 1, 800, 4097])
def test_very_short_silence_is_recognized_with_at_most_two_tokens(
    recognizer: MoonshineRecognizer, samples: int
) -> None:
    assert len(heard(recognizer, np.zeros(samples, np.float32)).tokens) <= 2


def test_missing_onnxruntime_fails_load_with_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(errors.ModelLoadFailed, match="onnxruntime"):
        MoonshineRecognizer(model_folder())


def test_recognizer_does_not_import_moonshine_library() -> None:
    code = (
        "import sys; from sidecar.engines.moonshine import moonshine_recognizer as ours;"
        "ours.MoonshineRecognizer(ours.model_folder()); print('moonshine_voice' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


@pytest.mark.parametrize("damage", ["missing", "empty", "cut short", "another model"])
def test_damaged_or_other_model_file_is_refused(tmp_path: Path, damage: str) -> None:
    for file in model_folder().iterdir():
        shutil.copy(file, tmp_path)
    model = tmp_path / moonshine_decoder.DECODER
    whole = model.read_bytes()
    match damage:
        case "missing":
            model.unlink()
        case "empty":
            model.write_bytes(b"")
        case "cut short":
            model.write_bytes(whole[: len(whole) // 2])
        case "another model":
            shutil.copy(tmp_path / moonshine_decoder.ENCODER, model)
    with pytest.raises(errors.ModelLoadFailed):
        MoonshineRecognizer(tmp_path)


def test_tokenizer_reads_entries_of_all_lengths_and_refuses_a_truncated_or_missing_file(
    tmp_path: Path,
) -> None:
    long = b"x" * 200
    entries = [b"<s>", "▁so".encode(), b"\xc3", b"\xbc", b"", long]
    lengths = [bytes([len(entry)]) for entry in entries[:5]] + [bytes([200 - 128 + 128, 1])]
    file = tmp_path / "tokenizer.bin"
    file.write_bytes(b"".join(a + b for a, b in zip(lengths, entries, strict=True)))
    tokenizer = MoonshineTokenizer.read(file)
    assert len(tokenizer) == 6
    assert tokenizer.text([0, 1, 1, 2, 3, 0]) == "so soü"
    assert tokenizer.text([1, 2]) == "so\N{REPLACEMENT CHARACTER}"
    assert tokenizer.text([5]) == long.decode()
    assert len(MoonshineTokenizer.read(model_folder() / "tokenizer.bin")) == 32_768
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(errors.ModelLoadFailed, match="truncated"):
        MoonshineTokenizer.read(file)
    with pytest.raises(errors.ModelLoadFailed, match="cannot be read"):
        MoonshineTokenizer.read(tmp_path / "none")


SENTENCES = {
    (0.10, 0.90): "Do you hear me?",
    (17.61, 18.80): "What are you talking about?",
    (20.43, 21.89): "You thought you were in pain.",
    (23.77, 24.91): "Do you remember the day?",
}
"""Of the wheel's clip of two voices: from the first sound to the last, in seconds."""


def joined(parts: list[Block], gaps_s: list[float]) -> tuple[Block, list[tuple[float, float]]]:
    """The parts, each after a silence, and where each is."""
    sound: list[Block] = []
    edges, at = [], 0
    for part, gap_s in zip(parts, gaps_s, strict=True):
        sound += [np.zeros(int(gap_s * SAMPLE_RATE), np.float32), part]
        at += len(sound[-2])
        edges.append((at / SAMPLE_RATE, (at + len(part)) / SAMPLE_RATE))
        at += len(part)
    return np.concatenate(sound), edges


def test_word_times_are_mostly_within_50_ms_of_where_the_words_are_spoken(
    recognizer: MoonshineRecognizer,
) -> None:
    """Most edges to 50 ms, where evenly spread characters are off by many times that."""
    clip = decode_audio_file(ASSETS / "endgame_nagg_nell.wav", SAMPLE_RATE)
    parts = [clip[int(a * SAMPLE_RATE) : int(b * SAMPLE_RATE)] for a, b in SENTENCES]
    audio, edges = joined(parts, [0.2, 0.9, 0.1, 0.5])
    found = recognizer.recognize(audio, words=True)
    assert found is not None
    counts = [len(text.split()) for text in SENTENCES.values()]
    assert len(found.words) == sum(counts)
    ends = list(accumulate(counts))
    first = [found.words[end - count].start for count, end in zip(counts, ends, strict=True)]
    last = [found.words[end - 1].end for end in ends]
    off = [abs(ours - edge[0]) for ours, edge in zip(first, edges, strict=True)]
    off += [abs(ours - edge[1]) for ours, edge in zip(last, edges, strict=True)]
    assert sorted(off)[len(off) // 2] < 0.05
    assert max(off) < 0.25
    even = estimate_word_times(Segment(0.0, len(audio) / SAMPLE_RATE, found.text)).words
    starts = zip(counts, ends, edges, strict=True)
    guessed = [abs(even[end - count].start - edge[0]) for count, end, edge in starts]
    assert sum(guessed) > 4 * sum(off)


def test_word_times_do_not_change_text(recognizer: MoonshineRecognizer) -> None:
    audio = decode_audio_file(ASSETS / "endgame_nagg_nell.wav", SAMPLE_RATE)[: 9 * SAMPLE_RATE]
    plain, timed = recognizer.recognize(audio), recognizer.recognize(audio, words=True)
    assert plain is not None
    assert timed is not None
    assert (timed.text, timed.tokens) == (plain.text, plain.tokens)
    assert " ".join(word.text for word in timed.words) == timed.text
    assert plain.words == ()
    for word, after in pairwise(timed.words):
        assert 0 <= word.start <= word.end <= len(audio) / SAMPLE_RATE
        assert word.start <= after.start


def test_digital_silence_has_no_words(recognizer: MoonshineRecognizer) -> None:
    for seconds in (0.01, 0.5, 5.0):
        assert heard(recognizer, np.zeros(round(seconds * SAMPLE_RATE), np.float32)).text == ""


def test_word_spans_leave_out_frames_of_silence_unless_all_frames_are_silent() -> None:
    attention = np.full((1, 2, 10), 0.01, np.float32)
    attention[0, 0, 0:3] = attention[0, 1, 7:10] = 1.0
    quiet = np.array([-1, -1, -1, 1, 1, 1, 1, -1, -1, -1], np.float32)
    assert token_spans(attention, quiet, [True, True]) == [(0, 3), (7, 10)]
    assert token_spans(attention, -np.ones(10, np.float32), [True, True])[0][1] > 3


PIECES = st.lists(st.sampled_from([" a", " b", "c", ",", " ,", ",,", ".", " ", "", " d'", "é"]))


@given(PIECES)
def test_words_of_tokens_spell_the_tidied_text_in_order_with_confidences_of_their_tokens(
    pieces: list[str],
) -> None:
    text = collapse_commas("".join(pieces).strip())
    at = [(float(number), number + 0.5, -0.1 * number) for number in range(len(pieces))]
    found = list(words_of_tokens(text, pieces, at))
    said = " ".join(word.text for word in found)
    assert said == " ".join(text.split()) or not text.strip(" ,")
    assert all(isinstance(word, Word) and word.start <= word.end for word in found)
    for word in found:  # of tokens from `start` to `end`, half a second each
        lowest, highest = (exp(-0.1 * at) for at in (word.end, word.start))
        assert lowest - 0.001 <= (word.confidence or 0.0) <= highest + 0.001
    assert all(before.start <= after.start for before, after in pairwise(found))
