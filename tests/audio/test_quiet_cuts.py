"""Where sound is least."""

import numpy as np
import pytest

from sidecar.audio.loudness import quietest_sample

RATE = 16_000


@pytest.mark.parametrize("over_s", [0.1, 0.2])
def test_quietest_sample_is_the_middle_of_the_quietest_stretch(over_s: float) -> None:
    sound = np.random.default_rng(1).normal(size=4 * RATE).astype(np.float32)
    sound[int(2.9 * RATE) : int(3.1 * RATE)] *= 0.1
    assert quietest_sample(sound, RATE, over_s) / RATE == pytest.approx(3.0, abs=0.06)


@pytest.mark.parametrize("samples", [0, 1, RATE // 50])
def test_quietest_sample_of_a_short_silence_is_the_middle(samples: int) -> None:
    assert quietest_sample(np.zeros(samples, np.float32), RATE, 0.1) == samples // 2
