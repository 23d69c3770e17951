"""The checkpoints that the other tests stand on, asked through the released classes alone."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import tiny_vibevoice

pytest.importorskip("torch", reason="the extra 'vibevoice' is not installed")

import torch
from tiny_vibevoice import CLIPS, CONTEXT, LOOP_TOKENS, LOOPED, Checkpoint, Segment
from transformers import AutoProcessor, VibeVoiceAsrForConditionalGeneration


@functools.cache
def load(size: Checkpoint) -> tuple[Any, Any]:
    folder = tiny_vibevoice.checkpoint(size)
    model = VibeVoiceAsrForConditionalGeneration.from_pretrained(folder)
    return AutoProcessor.from_pretrained(folder), model


def ask(
    size: Checkpoint, audio: np.ndarray, prompt: str | None = None, most: int = 400
) -> tuple[list[Segment] | str, int]:
    """What it says (its own words where that is no list), and in how many tokens."""
    processor, model = load(size)
    inputs = processor.apply_transcription_request(audio=audio, prompt=prompt)
    with torch.inference_mode():
        ids = model.generate(**inputs, sample=False, max_new_tokens=most)
    ids = ids[0, inputs["input_ids"].shape[1] :]
    return processor.decode(ids, return_format="parsed"), len(ids)


@pytest.mark.slow_except("beckett-None")
@pytest.mark.parametrize("prompt", [None, CONTEXT])
@pytest.mark.parametrize("name", CLIPS)
def test_a_checkpoint_says_what_it_was_trained_to(prompt: str | None, name: str) -> None:
    said, _ = ask("tiny", tiny_vibevoice.clip_24k(name), prompt)
    assert said == tiny_vibevoice.answers("tiny", prompt)[name]


@pytest.mark.slow
def test_the_prompt_changes_what_is_said() -> None:
    """As `answers` has it, to which the checkpoints are held above."""
    plain, prompted = tiny_vibevoice.answers("tiny"), tiny_vibevoice.answers("tiny", CONTEXT)
    assert [name for name in CLIPS if plain[name] != prompted[name]] == [*CLIPS[:2]]


@pytest.mark.slow
def test_a_clip_is_known_by_its_sound_and_not_by_its_length() -> None:
    sound = {name: tiny_vibevoice.clip_24k(name) for name in CLIPS}
    longest = len(sound["two_cities"])
    swapped = {
        "endgame_nagg_nell": np.resize(sound["endgame_nagg_nell"], longest),
        "two_cities": sound["two_cities"][: len(sound["beckett"])],
    }
    for name, audio in swapped.items():
        assert ask("tiny", audio)[0] == tiny_vibevoice.answers("tiny")[name]
    assert (
        ask("tiny", np.zeros(longest, np.float32))[0] not in tiny_vibevoice.answers("tiny").values()
    )


@pytest.mark.slow
def test_the_loop_goes_on_until_it_is_stopped() -> None:
    said, count = ask("loop", tiny_vibevoice.clip_24k(LOOPED), most=LOOP_TOKENS)
    once = tiny_vibevoice.answers("loop")[LOOPED]
    assert count == LOOP_TOKENS
    assert len(said) > 20
    assert said == once + once[-1:] * (len(said) - len(once))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "prompt"), [(LOOPED, CONTEXT), ("endgame_nagg_nell", None), ("two_cities", None)]
)
def test_the_looping_checkpoint_is_right_about_everything_else(
    name: str, prompt: str | None
) -> None:
    said, _ = ask("loop", tiny_vibevoice.clip_24k(name), prompt)
    assert said == tiny_vibevoice.answers("loop", prompt)[name]


@pytest.mark.slow
def test_the_audio_on_disk_is_what_the_product_decodes() -> None:
    from sidecar.audio.audio_decoder import decode_audio_file

    for name, seconds in zip(CLIPS, (9.963, 28.277, 30.0), strict=True):
        audio = tiny_vibevoice.clip_24k(name)
        assert len(audio) / tiny_vibevoice.RATE == pytest.approx(seconds, abs=0.001)
        original = decode_audio_file(tiny_vibevoice.clip(name), tiny_vibevoice.RATE)[: len(audio)]
        assert np.abs(audio - original).max() < 1e-4
