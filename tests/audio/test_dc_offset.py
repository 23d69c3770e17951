"""Constant offsets of faulty inputs are removed, and nothing else."""

import numpy as np
import pytest

from sidecar.audio.signal_conditioning import DcOffsetRemover

RATE = 16_000
VOICE = (0.1 * np.random.default_rng(1).standard_normal(4 * RATE)).astype(np.float32)
VOICE -= VOICE.mean()


def without_offset(samples: np.ndarray, block: int = RATE) -> np.ndarray:
    remover = DcOffsetRemover(RATE)
    blocks = [samples[at : at + block] for at in range(0, len(samples), block)]
    return np.concatenate([remover.remove(one.astype(np.float32)) for one in blocks])


@pytest.mark.parametrize("offset", [0.2, -0.5])
def test_constant_offset_is_removed(offset: float) -> None:
    assert np.allclose(without_offset(VOICE + offset), VOICE, atol=0.01)


def test_slowly_changing_offset_is_removed_and_the_voice_is_kept() -> None:
    found = without_offset(VOICE + np.linspace(0.1, 0.5, len(VOICE)))
    assert abs(found.mean()) < 0.05
    assert np.corrcoef(found, VOICE)[0, 1] > 0.9


def test_recording_without_offset_stays_as_it_is() -> None:
    assert np.array_equal(without_offset(VOICE), VOICE)


def test_short_last_block_is_corrected_by_the_offset_of_the_block_before() -> None:
    tail = np.full(10, 0.9, np.float32)
    assert np.array_equal(without_offset(np.concatenate([VOICE, tail]))[-10:], tail)
