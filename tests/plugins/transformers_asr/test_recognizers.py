"""Each architecture by a tiny checkpoint of its real classes: the text is that of transformers."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_transformers
from tiny_vibevoice import clip

pytest.importorskip("transformers")

from sidecar.audio import SAMPLE_RATE, Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.interfaces.engine_interface import LoadOptions, Precision, TranscribeOptions
from sidecar.plugins.transformers_asr.architectures import ARCHITECTURES

TRANSDUCERS = ["parakeet_rnnt", "parakeet_tdt", "nemotron_asr_streaming", "nemotron3_5_asr"]


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


def test_ctc_text_is_that_of_transformers_and_word_times_are_in_order_within_the_audio(
    load: Callable[[str], Any], speech: Block
) -> None:
    recognizer = load("parakeet_ctc")
    found = recognizer.recognize(speech, TranscribeOptions(), never, words=True)
    ids = recognizer.model.generate(**recognizer.inputs(speech, TranscribeOptions()))
    assert found.text == recognizer.processor.batch_decode(ids)[0].strip()
    assert len(found.text.split()) > 5, "the words do not hang on the sound"
    assert [one.text for one in found.words] == found.text.split()
    at = [edge for one in found.words for edge in (one.start, one.end)]
    assert at == sorted(at)
    assert at[-1] <= 3.0
    assert all(0 < (one.confidence or 0) <= 1 for one in found.words)


@pytest.mark.parametrize("kind", TRANSDUCERS)
def test_transducer_text_and_word_starts_are_those_of_transformers(
    load: Callable[[str], Any], speech: Block, kind: str
) -> None:
    recognizer = load(kind)
    found = recognizer.recognize(speech, TranscribeOptions(), never, words=True)
    inputs = recognizer.inputs(speech, TranscribeOptions())
    output = recognizer.model.generate(**inputs, max_new_tokens=999)
    texts, tokens = recognizer.processor.decode(output.sequences, durations=output.durations)
    assert found.text == texts[0].replace("<blank>", "").strip()
    assert len(found.text.split()) > 5, "the words do not hang on the sound"
    begins = [one["start"] for one in tokens[0] if one["token"].startswith(" ")]
    starts = [one.start for one in found.words]
    assert starts[1:] == pytest.approx(begins[-len(starts) + 1 :])


@pytest.fixture
def _no_loop_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights write loops, which would be cut off."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from sidecar.plugins.transformers_asr import text_recognizers

    monkeypatch.setattr(text_recognizers, "tokens_before_loop", lambda *_, **__: None)


@pytest.mark.usefixtures("_no_loop_guard")
@pytest.mark.parametrize("kind", ["moonshine", "moonshine_streaming"])
def test_moonshine_text_is_that_of_transformers_and_has_no_word_times(
    load: Callable[[str], Any], speech: Block, kind: str
) -> None:
    recognizer = load(kind)
    found = recognizer.recognize(speech, TranscribeOptions(), never, words=True)
    inputs = recognizer.inputs(speech, TranscribeOptions())
    ids = recognizer.model.generate(**inputs, max_new_tokens=69)
    text = recognizer.processor.batch_decode(ids, skip_special_tokens=True)[0].strip()
    assert found.text == text
    assert len({*found.text.split()}) > 3, "the words do not hang on the sound"
    assert found.words == ()
    assert 0 < (found.likelihood or 0) <= 1


def generated(recognizer: Any, inputs: Any, prompt: int) -> str:
    """What transformers makes of the inputs, with at most the tokens that the engine allows."""
    ids = recognizer.model.generate(**inputs, max_new_tokens=69)[:, prompt:]
    return str(recognizer.processor.batch_decode(ids, skip_special_tokens=True)[0]).strip()


@pytest.mark.usefixtures("_no_loop_guard")
@pytest.mark.parametrize(("language", "translate"), [("auto", False), ("de-AT", True)])
def test_canary_prompt_has_language_and_translation_and_the_text_is_that_of_transformers(
    load: Callable[[str], Any], speech: Block, language: str, translate: bool
) -> None:
    recognizer = load("canary")
    options = TranscribeOptions(language=language, translate=translate)
    found = recognizer.recognize(speech, options, never, words=False)
    source = "en" if language == "auto" else "de"
    inputs = recognizer.processor.apply_transcription_request(
        speech, source_language=source, target_language="en"
    )
    prompt = recognizer.processor.tokenizer.decode(inputs["decoder_input_ids"][0])
    assert f"<|{source}|><|en|>" in prompt.replace(" ", "")
    assert found.text
    assert found.text == generated(recognizer, inputs, inputs["decoder_input_ids"].shape[1])
    assert found.language == source


@pytest.mark.usefixtures("_no_loop_guard")
def test_cohere_text_is_that_of_transformers_asked_for_the_requested_language(
    load: Callable[[str], Any], speech: Block
) -> None:
    recognizer = load("cohere_asr")
    found = recognizer.recognize(speech, TranscribeOptions(language="de"), never, words=False)
    inputs = recognizer.processor(speech, language="de", sampling_rate=SAMPLE_RATE)
    prompt = inputs["decoder_input_ids"].shape[1]
    assert found.text
    assert found.text == generated(recognizer, inputs, prompt)
    assert found.language == "de"


def test_qwen_takes_prompt_hotwords_and_language_and_otherwise_names_the_language_itself(
    load: Callable[[str], Any], speech: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer = load("qwen3_asr")
    options = TranscribeOptions(language="de", prompt="ta ku", hotwords=("pi",))
    found = recognizer.recognize(speech, options, never, words=False)
    ask = recognizer.processor.apply_transcription_request
    inputs = ask(speech, language="German", prompt="ta ku, pi")
    whole = generated(recognizer, inputs, inputs["input_ids"].shape[1])
    assert found.text
    # its processor shortens repetitions
    assert recognizer.processor.parse_output(whole)["transcription"] == found.text
    assert found.language == "de"
    said = "language Japanese<asr_text>ta ku"
    monkeypatch.setattr(recognizer.processor.tokenizer, "decode", lambda *_, **__: said)
    found = recognizer.recognize(speech, TranscribeOptions(), never, words=False)
    assert (found.text, found.language) == ("ta ku", "ja")


class Asked:
    """A processor that keeps the prompts of Granite, without torchaudio."""

    audio_token = "<|audio|>"

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.tokenizer = self

    def apply_chat_template(self, turns: list[dict[str, str]], **_: object) -> str:
        return f"USER: {turns[0]['content']}"

    def __call__(self, prompt: str, samples: Any, **_: object) -> Any:
        self.prompts.append(prompt)
        from transformers import BatchFeature

        return BatchFeature({"samples": samples})


def test_granite_prompt_asks_in_words_for_transcription_or_translation(speech: Block) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    import torch

    from sidecar.plugins.transformers_asr.prompted_recognizers import GraniteRecognizer

    model = SimpleNamespace(
        config=SimpleNamespace(has_lora_adapter=False), device="cpu", dtype=torch.float32
    )
    asked = Asked()
    recognizer = GraniteRecognizer(model, asked, ARCHITECTURES["granite_speech"])
    for translate in (False, True):
        inputs = recognizer.inputs(speech, TranscribeOptions(translate=translate))
        assert inputs["samples"].shape == (1, len(speech))
    transcribe, translate_it = asked.prompts
    assert transcribe.startswith("USER: <|audio|>can you transcribe the speech")
    assert translate_it.startswith("USER: <|audio|>can you translate the speech to English")


@pytest.mark.usefixtures("_no_loop_guard")
def test_granite_text_of_translation_is_that_of_transformers(
    load: Callable[[str], Any], speech: Block
) -> None:
    recognizer = load("granite_speech")
    found = recognizer.recognize(speech, TranscribeOptions(translate=True), never, words=False)
    inputs = recognizer.inputs(speech, TranscribeOptions(translate=True))
    assert found.text
    assert found.text == generated(recognizer, inputs, inputs["input_ids"].shape[1])


def test_granite_without_package_of_its_adapter_is_refused(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sidecar.plugins.transformers_asr import prompted_recognizers

    model = load("granite_speech").model
    monkeypatch.setattr(model.config, "has_lora_adapter", True)
    monkeypatch.setattr(prompted_recognizers, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match="peft"):
        prompted_recognizers.GraniteRecognizer(model, None, ARCHITECTURES["granite_speech"])


def test_language_tag_of_nemotron_is_no_word_but_the_language_of_the_text(
    load: Callable[[str], Any],
) -> None:
    from sidecar.plugins.transformers_asr.frame_recognizers import TimedToken

    recognizer = load("nemotron3_5_asr")
    names = ["▁ta", "ku", ".", "<de-DE>"]
    ids = recognizer.processor.tokenizer.convert_tokens_to_ids(names)
    found = recognizer.hypothesis([TimedToken(one, at, at + 1, 0.0) for at, one in enumerate(ids)])
    assert (found.text, found.language) == ("taku.", "de")
    assert [(one.text, one.start, one.end) for one in found.words] == [("taku.", 0.0, 0.24)]


def test_kyutai_text_is_that_of_transformers_and_word_times_leave_out_the_padding(
    load: Callable[[str], Any], speech: Block
) -> None:
    recognizer = load("kyutai_speech_to_text")
    found = recognizer.recognize(speech, TranscribeOptions(), never, words=True)
    inputs = recognizer.inputs(speech, TranscribeOptions())
    assert inputs["input_values"].shape[-1] == 5.5 * 24_000, "with silence before and behind"
    assert found.text == generated(recognizer, inputs, 0)
    assert found.words
    assert 0 <= found.words[0].start <= found.words[-1].end <= 3.0


@pytest.mark.parametrize(
    "kind", ["parakeet_ctc", "parakeet_tdt", "canary", "kyutai_speech_to_text"]
)
def test_cancelled_recognition_has_no_result(
    load: Callable[[str], Any], speech: Block, kind: str
) -> None:
    asked = iter([False, True] if kind != "parakeet_ctc" else [True])
    found = load(kind).recognize(speech, TranscribeOptions(), lambda: next(asked), words=False)
    assert found is None


@pytest.mark.parametrize("kind", sorted(tiny_transformers.BUILDERS))
def test_silence_of_9_samples_has_no_text_and_words_of_99_samples_end_within_them(
    load: Callable[[str], Any], kind: str
) -> None:
    recognizer = load(kind)
    assert recognizer.recognize(np.zeros(9, np.float32), TranscribeOptions(), never).text == ""
    short = np.full(99, 0.01, np.float32)
    found = recognizer.recognize(short, TranscribeOptions(), never, words=True)
    assert all(word.end <= 99 / SAMPLE_RATE for word in found.words)


def test_every_architecture_has_a_tiny_checkpoint_for_tests_and_a_class_in_transformers() -> None:
    import transformers

    assert {*ARCHITECTURES} == {*tiny_transformers.BUILDERS}
    for one in ARCHITECTURES.values():
        assert hasattr(transformers, one.model), one.title
