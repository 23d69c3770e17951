"""The wheel's recordings, and the models, once for all tests."""

import pytest
from wheel_recordings import clip

from sidecar.audio import Block
from sidecar.diarization.speaker_models import SpeakerModels, load_models


@pytest.fixture(scope="session")
def models() -> SpeakerModels:
    return load_models()


@pytest.fixture(scope="session")
def play() -> Block:
    """Two people, 28 s: a man until 8.0 s, a woman from 8.75 to 11.3 s, and so on."""
    return clip("endgame_nagg_nell")


@pytest.fixture(scope="session")
def novel() -> Block:
    """One reader, 44 s."""
    return clip("two_cities")
