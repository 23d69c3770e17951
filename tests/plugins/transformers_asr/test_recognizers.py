"""Each architecture by a tiny checkpoint of its real classes: the text is that of transformers."""

from collections.abc import Callable
from typing import Any

import pytest
import tiny_transformers
from tiny_vibevoice import clip

from sidecar.audio import SAMPLE_RATE, Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.interfaces.engine_interface import LoadOptions, Precision, TranscribeOptions

TRANSDUCERS = ["parakeet_rnnt", "parakeet_tdt"]


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def speech() -> Block:
    """Three seconds."""
    return decode_audio_file(clip("beckett"), SAMPLE_RATE)[SAMPLE_RATE : 4 * SAMPLE_RATE]


@pytest.fixture(scope="module")
def load() -> Callable[[str], Any]:
    """Loads a tiny checkpoint, each once."""
    from functools import cache

    @cache
    def loaded(kind: str) -> Any:
        from sidecar.plugins.transformers_asr.model_loading import load_recognizer

        folder = str(tiny_transformers.model(kind))
        return load_recognizer(LoadOptions(Precision.FP32, folder, "cpu"))[0]

    return loaded


def test_ctc_text_and_times_are_those_of_transformers(
    load: Callable[[str], Any], speech: Block
) -> None:
    recognizer = load("parakeet_ctc")
    found = recognizer.recognize(speech, TranscribeOptions(), never, words=True)
    ids = recognizer.model.generate(**recognizer._inputs(speech))
    assert found.text == recognizer.processor.batch_decode(ids)[0].strip()
    assert len(found.text.split()) > 5, "the words do not hang on the sound"
    assert [one.text for one in found.words] == found.text.split()
    at = [edge for one in found.words for edge in (one.start, one.end)]
    assert at == sorted(at)
    assert at[-1] <= 3.0
    assert all(0 < (one.confidence or 0) <= 1 for one in found.words)


@pytest.mark.parametrize("kind", TRANSDUCERS)
def test_transducer_text_and_times_are_those_of_transformers(
    load: Callable[[str], Any], speech: Block, kind: str
) -> None:
    recognizer = load(kind)
    found = recognizer.recognize(speech, TranscribeOptions(), never, words=True)
    output = recognizer.model.generate(**recognizer._inputs(speech))
    texts, tokens = recognizer.processor.decode(output.sequences, durations=output.durations)
    assert found.text == texts[0].replace("<blank>", "").strip()
    assert len(found.text.split()) > 5, "the words do not hang on the sound"
    begins = [one["start"] for one in tokens[0] if one["token"].startswith(" ")]
    starts = [one.start for one in found.words]
    assert starts[1:] == pytest.approx(begins[-len(starts) + 1 :])


@pytest.mark.parametrize("kind", ["moonshine", "moonshine_streaming"])
def test_generated_text_is_that_of_transformers(
    load: Callable[[str], Any], speech: Block, kind: str
) -> None:
    recognizer = load(kind)
    found = recognizer.recognize(speech, TranscribeOptions(), never, words=True)
    ids = recognizer.model.generate(**recognizer._inputs(speech), max_new_tokens=69)
    text = recognizer.processor.batch_decode(ids, skip_special_tokens=True)[0].strip()
    assert text.startswith(found.text)
    assert len({*found.text.split()}) > 3, "the words do not hang on the sound"
    assert found.words == ()
    assert 0 < (found.likelihood or 0) <= 1
