"""Windows of pieces, one behind the other, against one machine that hears all of it."""

from __future__ import annotations

import base64
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from wheel_recordings import RATE

from sidecar.audio import Block
from sidecar.diarization.diarizer import STEP_S, Diarizer, window_from_json
from sidecar.diarization.speaker_models import ENCODER, SEGMENTATION, SpeakerModels
from sidecar.diarization.window_embeddings import (
    BLOCK,
    DiarizationWindow,
    WindowEmbeddingsInvalid,
    decode_windows,
    embed_windows,
    encode_windows,
    place_windows,
    window_starts,
)
from sidecar.transcripts.speaker_embeddings import (
    BLOCK_MARGIN_S,
    BLOCK_S,
    WINDOW_FORMAT,
    EncodedWindowEmbeddings,
    WindowEmbeddingsRequest,
)

CUTS_S = (13.37, 41.52)
"""Where words are cut."""
FIRSTS_S = (0.0, 20.0, 50.0)
"""Where the windows of each piece begin."""


def asked_for(number: int, end_s: float) -> tuple[float, float, WindowEmbeddingsRequest]:
    """From when to when a piece is sent, and which windows are wanted of it."""
    begin_s = (0.0, *CUTS_S)[number]
    last = number == len(CUTS_S)
    words_end_s = end_s if last else CUTS_S[number]
    until_s = None if last else FIRSTS_S[number + 1]
    asked = WindowEmbeddingsRequest(
        words_end_s - begin_s,
        FIRSTS_S[number] - begin_s,
        None if until_s is None else until_s - begin_s,
        number == 0,
    )
    return begin_s, end_s if until_s is None else until_s + BLOCK_MARGIN_S, asked


@pytest.fixture(scope="module")
def sound(play: Block, novel: Block) -> Block:
    """Three people, 72 s."""
    return np.concatenate([play, novel])


@pytest.fixture(scope="module")
def whole(models: SpeakerModels, sound: Block) -> Diarizer:
    diarizer = Diarizer(models)
    diarizer.feed(sound)
    diarizer.finish()
    return diarizer


@pytest.fixture(scope="module")
def parts(models: SpeakerModels, sound: Block) -> list[tuple[list[DiarizationWindow], list[int]]]:
    """What is made of each piece, and where its windows begin in the recording."""
    found = []
    for number in range(len(FIRSTS_S)):
        begin_s, end_s, asked = asked_for(number, len(sound) / RATE)
        piece = sound[round(begin_s * RATE) : round(end_s * RATE)]
        blocks = [piece[at : at + 33_333] for at in range(0, len(piece), 33_333)]
        begins = [round(begin_s * RATE) + at for at in window_starts(asked, len(piece), STEP_S)]
        found.append((embed_windows(models, blocks, asked, STEP_S), begins))
    return found


@pytest.mark.slow
def test_pieces_say_what_one_machine_hears_and_the_same_turns_come_of_it(
    models: SpeakerModels,
    sound: Block,
    whole: Diarizer,
    parts: list[tuple[list[DiarizationWindow], list[int]]],
) -> None:
    diarizer = Diarizer(models)
    for number, (windows, begins) in enumerate(parts):
        over = number == len(parts) - 1
        end = len(sound) if over else round(FIRSTS_S[number + 1] * RATE)
        diarizer.take(decode_windows(encode_windows(windows), begins), end, end)
    diarizer.finish()
    ones, others = (
        [window_from_json(values) for values in each.snapshot()["windows"]]
        for each in (whole, diarizer)
    )
    assert [one.start for one in others] == [one.start for one in ones]
    for one, other in zip(ones, others, strict=True):
        assert (one.packed == other.packed).all()
        assert (one.alone_s == other.alone_s).all()
        assert np.allclose(one.vectors, other.vectors, atol=2e-3)  # last digits hang on addresses
    assert (diarizer.turns, diarizer.heard_s) == (whole.turns, whole.heard_s)
    assert len({turn.label for turn in diarizer.turns}) == 3


def test_what_is_made_here_is_what_is_handed_on(
    parts: list[tuple[list[DiarizationWindow], list[int]]],
) -> None:
    for windows, begins in parts:
        again = encode_windows(decode_windows(encode_windows(windows), begins))
        assert again == encode_windows(place_windows(windows, begins))
    for (_, before), (_, after) in pairwise(parts):
        assert after[0] - before[-1] == round(STEP_S * RATE)


def test_a_recording_that_is_shorter_than_a_window_is_one_window(
    models: SpeakerModels, play: Block
) -> None:
    asked = WindowEmbeddingsRequest(4.0, begins=True)
    (window,) = embed_windows(models, [play[: 4 * RATE]], asked, STEP_S)
    assert window_starts(asked, 4 * RATE, STEP_S) == [0]
    diarizer = Diarizer(models)
    diarizer.feed(play[: 4 * RATE])
    diarizer.finish()
    other = Diarizer(models)
    other.take(decode_windows(encode_windows([window]), [0]), 4 * RATE, 4 * RATE)
    other.finish()
    assert other.turns == diarizer.turns != []


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("form", "another form"),
        ("fewer", "not 12 windows"),
        ("more", "not 12 windows"),
        ("none", "not 12 windows"),
        ("letters", "not base64"),
        ("nan", "not finite"),
        ("infinite", "not finite"),
        ("long", "length 1"),
        ("short", "length 1"),
        ("unheard", "never heard"),
    ],
)
def test_what_is_no_account_of_voices_is_refused_whole(
    parts: list[tuple[list[DiarizationWindow], list[int]]], fault: str, why: str
) -> None:
    windows, begins = parts[1]
    assert len(windows) == 12
    first = next(at for at, one in enumerate(windows) if one.heard.any())
    voice = int(windows[first].heard.argmax())
    vectors, packed = windows[first].vectors.copy(), windows[first].packed.copy()
    match fault:
        case "nan":
            vectors[voice, 7] = np.nan
        case "infinite":
            vectors[voice, 7] = np.inf
        case "long":
            vectors[voice] *= 200
        case "short":
            vectors[voice] /= 200
        case "unheard":
            packed[:] = 0
    bad = replace(windows[first], vectors=vectors, packed=packed)
    given = encode_windows([*windows[:first], bad, *windows[first + 1 :]])
    match fault:
        case "form":
            given = EncodedWindowEmbeddings("0-0", given.windows)
        case "fewer":
            given = encode_windows(windows[1:])
        case "more":
            given = EncodedWindowEmbeddings(WINDOW_FORMAT, given.windows * 1000)
        case "none":
            given = EncodedWindowEmbeddings(WINDOW_FORMAT, "")
        case "letters":
            given = EncodedWindowEmbeddings(WINDOW_FORMAT, "é" * len(given.windows))
    with pytest.raises(WindowEmbeddingsInvalid, match=why):
        decode_windows(given, begins)


def test_noise_is_refused_or_is_windows_and_never_anything_else(
    parts: list[tuple[list[DiarizationWindow], list[int]]],
) -> None:
    begins = parts[1][1]
    size = len(base64.b64decode(encode_windows(parts[1][0]).windows))
    dice = np.random.default_rng(3)
    for _ in range(50):
        noise = base64.b64encode(dice.bytes(size)).decode()
        with pytest.raises(WindowEmbeddingsInvalid):
            decode_windows(EncodedWindowEmbeddings(WINDOW_FORMAT, noise), begins)


def test_the_form_names_the_models_and_the_length_of_a_block() -> None:
    assert BLOCK_S * RATE == BLOCK
    assert f"2-{SEGMENTATION.digest[:8]}-{ENCODER.digest[:8]}" == WINDOW_FORMAT
