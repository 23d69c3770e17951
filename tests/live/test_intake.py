"""Sound as clients send it, at the rate that live engines hear."""

from __future__ import annotations

import numpy as np
import pytest

from sidecar.live.intake import Intake
from sidecar.speech.live import LIVE_RATE, Encoding


@pytest.mark.parametrize("rate", [8_000, LIVE_RATE, 24_000, 44_100, 48_000])
def test_every_stretch_up_to_its_rest_is_as_long_as_it_came(rate: int) -> None:
    """And the next one begins anew, at the same rate or another."""
    intake = Intake()
    second = (np.ones(rate) * 8192).astype("<i2").tobytes()
    for _ in range(2):
        block = intake.take(second, Encoding.PCM16, rate)
        whole = np.concatenate([block, intake.rest()])
        assert len(whole) == LIVE_RATE
        assert whole[LIVE_RATE // 2] == pytest.approx(0.25, abs=0.01)
    assert len(intake.take(bytes(640), Encoding.PCM16, LIVE_RATE)) == 320
