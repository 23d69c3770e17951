"""The engine around a recognizer: which checkpoint it takes, and its transcripts and sessions."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_transformers
from engine_requests import SampleStream, request_of, transcript_of
from live_client import LiveClient
from service_process import PATIENCE_S, Server
from tiny_vibevoice import clip

pytest.importorskip("transformers")

from sidecar import errors
from sidecar.audio import SAMPLE_RATE
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.engines import engine_selection, torch_build
from sidecar.engines.engine_selection import choose_engine, choose_live_engine
from sidecar.gpu_memory import gpu_devices
from sidecar.gpu_memory.gpu_devices import GpuMemory
from sidecar.gpu_memory.memory_plan import DeviceRoom
from sidecar.interfaces.engine_interface import LoadOptions, Precision, TranscribeOptions
from sidecar.interfaces.live_options import LiveOptions
from sidecar.interfaces.recognition import RecognitionHypothesis, SegmentRequest
from sidecar.plugins import load_settings
from sidecar.plugins.transformers_asr import architectures
from sidecar.plugins.transformers_asr.architectures import ARCHITECTURES, find_checkpoint
from sidecar.plugins.transformers_asr.engine import TransformersEngine
from sidecar.plugins.transformers_asr.utterance_footprint import UtteranceFootprint
from sidecar.transcripts.language_detection import Confidence
from sidecar.workers.engine_fleet import EngineFleet

PLAY = "endgame_nagg_nell"


@pytest.fixture(scope="module")
def folder() -> Path:
    return tiny_transformers.model("parakeet_ctc")


@pytest.fixture(scope="module")
def engine(folder: Path) -> TransformersEngine:
    engine = TransformersEngine()
    list(engine.load(LoadOptions(Precision.FP32, str(folder), "cpu")))
    return engine


def test_folder_of_a_model_sets_title_word_times_and_precision_and_serves_live_too(
    folder: Path,
) -> None:
    settings = load_settings(engine="transformers", model_path=folder, device="cpu")
    found = choose_engine(settings)
    assert found.checkpoint is not None
    assert found.checkpoint.folder == folder
    assert (found.spec.title, found.spec.words) == ("Parakeet CTC (transformers)", True)
    assert found.spec.precisions[0] is Precision.FP32
    live, _ = choose_live_engine(settings, found)
    assert live is not None
    assert (live.spec.name, live.checkpoint) == ("transformers", found.checkpoint)


def test_engine_without_model_is_refused_with_remedy(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        with pytest.raises(errors.CheckpointNotFound) as missing:
            choose_engine(load_settings(engine="transformers", model_path=folder))
        assert "hf download" in missing.value.hint


def test_checkpoint_of_unknown_architecture_is_refused_with_names_of_known_ones(
    tmp_path: Path,
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": []}', "utf-8")
    with pytest.raises(errors.CheckpointUnsupported, match="model_type"):
        find_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', "utf-8")
    with pytest.raises(errors.CheckpointUnsupported, match="'bert'") as unknown:
        find_checkpoint(tmp_path)
    assert all(name in unknown.value.hint for name in ARCHITECTURES)


def test_checkpoint_with_code_pickles_or_missing_files_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(folder, tmp_path / "model")
    assert find_checkpoint(model).bytes > 10_000
    (model / "tokenizer.json").rename(model / "aside")
    with pytest.raises(errors.CheckpointIncomplete, match="tokenizer") as incomplete:
        find_checkpoint(model)
    assert "hf download" in incomplete.value.hint
    (model / "aside").rename(model / "tokenizer.json")
    config = json.loads((model / "config.json").read_text("utf-8"))
    (model / "config.json").write_text(
        json.dumps({**config, "auto_map": {"AutoModel": "x.Y"}}), "utf-8"
    )
    with pytest.raises(errors.CheckpointUnsafe, match="auto_map"):
        find_checkpoint(model)
    (model / "config.json").write_text(json.dumps(config), "utf-8")
    (model / "model.safetensors").rename(model / "model.bin")
    with pytest.raises(errors.CheckpointUnsafe, match="pickled"):
        find_checkpoint(model)


def test_model_with_an_invalid_config_fails_load_with_reason(folder: Path, tmp_path: Path) -> None:
    model = shutil.copytree(folder, tmp_path / "model")
    config = json.loads((model / "config.json").read_text("utf-8"))
    config["encoder_config"]["hidden_size"] = 30  # not a multiple of its heads
    (model / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(
        errors.ModelLoadFailed, match=r"Parakeet CTC model cannot be loaded: .*mismatched"
    ):
        list(TransformersEngine().load(LoadOptions(Precision.FP32, str(model), "cpu")))


def test_gpu_without_room_at_load_is_model_load_failed_with_its_remedy(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    import transformers

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(transformers.ParakeetForCTC, "from_pretrained", full)
    with pytest.raises(errors.ModelLoadFailed, match=r"CUDA out of memory: .* in fp32") as failed:
        list(TransformersEngine().load(LoadOptions(Precision.FP32, str(folder), "cpu")))
    assert "smaller precision" in failed.value.hint


def test_checkpoint_that_lacks_weights_or_is_quantized_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    model = shutil.copytree(folder, tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    names = sorted(weights)[::2]
    save_file(
        {name: weights[name] for name in names}, model / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(errors.ModelLoadFailed, match="lacks the weights"):
        list(TransformersEngine().load(LoadOptions(Precision.FP32, str(model), "cpu")))
    change_json(model / "config.json", quantization_config={"quant_method": "awq"})
    with pytest.raises(errors.CheckpointUnsupported, match="quantized"):
        find_checkpoint(model)


def change_json(file: Path, **values: object) -> None:
    file.write_text(
        json.dumps({**json.loads(file.read_text(encoding="utf-8")), **values}), encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("processor_config.json", {"feature_extractor": {"sampling_rate": 8000}}),
        ("tokenizer.json", None),
        ("config.json", {"vocab_size": None}),
    ],
)
def test_folder_with_an_invalid_file_fails_load_with_reason(
    folder: Path, tmp_path: Path, file: str, values: dict[str, object] | None
) -> None:
    model = shutil.copytree(folder, tmp_path / "model")
    if values is None:
        (model / file).write_text("{}", "utf-8")
    else:
        change_json(model / file, **values)
    with pytest.raises(errors.ModelLoadFailed, match=r"Parakeet CTC model cannot be loaded: .+"):
        list(TransformersEngine().load(LoadOptions(Precision.FP32, str(model), "cpu")))


def test_load_prints_no_progress_bar_of_the_library(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    list(TransformersEngine().load(LoadOptions(Precision.FP32, str(folder), "cpu")))
    assert "Loading weights" not in capfd.readouterr().err


def test_canary_without_its_prompt_template_fails_load(tmp_path: Path) -> None:
    model = shutil.copytree(tiny_transformers.model("canary"), tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    with pytest.raises(errors.ModelLoadFailed, match="template"):
        list(TransformersEngine().load(LoadOptions(Precision.FP32, str(model), "cpu")))


def test_transcript_has_speakers_word_times_and_name_of_model(
    engine: TransformersEngine, folder: Path
) -> None:
    samples = decode_audio_file(clip(PLAY), SAMPLE_RATE)[: 16 * SAMPLE_RATE]
    options = TranscribeOptions(words=True, language="de")
    found = transcript_of(engine.transcribe(request_of(SampleStream(samples, 16_000), options)))
    assert (found.engine, found.model) == ("transformers", folder.name)
    assert found.language == "auto", "the model cannot be told the language, nor says it"
    assert {one.speaker for one in found.segments} == {0, 1}
    for segment in found.segments:
        assert " ".join(word.text for word in segment.words) == segment.text
        assert segment.start <= segment.words[0].start
        assert segment.words[-1].end <= segment.end


def test_recognizer_for_many_languages_raises_no_doubt_about_english(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsure = RecognitionHypothesis("ta ku", confidence=Confidence(-40.0, 20))
    assert unsure.confidence.doubtful
    monkeypatch.setattr(engine.recognizer, "recognize", lambda *_, **__: unsure)
    found = engine.recognize(SegmentRequest(np.ones(9, np.float32), LiveOptions(), lambda: False))
    assert found is not None
    assert (found.text, found.confidence.doubtful) == ("ta ku", False)


def test_planned_memory_follows_the_precision_of_the_load_and_not_the_stored_width_of_weights(
    folder: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    model = shutil.copytree(folder, tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    narrow = {
        name: one.bfloat16() if one.is_floating_point() else one for name, one in weights.items()
    }
    save_file(narrow, model / "model.safetensors", {"format": "pt"})
    settings = {"engine": "transformers", "device": "cpu"}
    of_wide, of_narrow = (
        choose_engine(load_settings(**settings, model_path=path)).footprints
        for path in (folder, model)
    )
    loaded = {one: footprint.loaded_bytes for one, footprint in of_wide.items()}
    assert loaded == {one: footprint.loaded_bytes for one, footprint in of_narrow.items()}
    wide, half = of_wide[Precision.FP32], of_wide[Precision.BF16]
    assert isinstance(wide, UtteranceFootprint)
    assert isinstance(half, UtteranceFootprint)
    assert wide.weights_bytes > 1.9 * half.weights_bytes > 10_000


def test_weights_with_a_damaged_header_are_refused(folder: Path, tmp_path: Path) -> None:
    model = shutil.copytree(folder, tmp_path / "model")
    header = b'{"weight": {"dtype": [], "shape": [1], "data_offsets": [0, 4]}}'
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(errors.CheckpointDamaged, match="damaged header"):
        choose_engine(load_settings(engine="transformers", model_path=model, device="cpu"))


@pytest.mark.parametrize(
    ("mebibytes", "fits", "beside"), [(500, False, False), (1000, True, False), (1500, True, True)]
)
def test_model_fits_a_card_for_files_and_again_for_live_audio_as_its_memory_allows(
    mebibytes: int, fits: bool, beside: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = GpuMemory("a card", 0, mebibytes, 1e12)
    for module in (engine_selection, gpu_devices):
        monkeypatch.setattr(module, "read_gpu_memory", lambda: card)
    for module in (engine_selection, torch_build):
        monkeypatch.setattr(module, "torch_has_cuda", lambda: True)
    settings = load_settings(engine="transformers", model_path=folder)
    files = choose_engine(settings)
    live, _ = choose_live_engine(settings, files)
    assert live is not None
    assert (files.fits, live.fits) == (fits, beside)
    assert (files.spec.precisions[0], live.spec.sessions) == (Precision.BF16, 32 if fits else 1)
    room = DeviceRoom(card.free_bytes)
    forecast = files.footprints[Precision.BF16].forecast(3600.0, 7200.0, room)
    assert forecast.fits is fits
    assert "0.6" in forecast.sentence, "the context of CUDA is counted"


def test_precision_on_a_cpu_does_not_follow_the_memory_that_is_free_at_the_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_selection, "host_free_bytes", lambda: 1)
    settings = load_settings(engine="transformers", model_path=folder, device="cpu")
    files = choose_engine(settings)
    live, _ = choose_live_engine(settings, files)
    assert live is not None
    for choice in (files, live):
        assert choice.spec.resolve_precision(Precision.AUTO) is Precision.FP32
        assert (choice.fits, choice.spec.sessions) == (True, 32)


def test_gpu_that_torch_cannot_use_gives_no_memory_plan_and_fp32(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = GpuMemory("a card", 0, 100, 1e12)
    monkeypatch.setattr(engine_selection, "read_gpu_memory", lambda: card)
    monkeypatch.setattr(engine_selection, "torch_has_cuda", lambda: False)
    choice = choose_engine(load_settings(engine="transformers", model_path=folder))
    assert choice.footprints == {}
    assert choice.spec.resolve_precision(Precision.AUTO) is Precision.FP32


@pytest.mark.parametrize(
    ("kind", "encoder"),
    [
        ("parakeet_ctc", "wide"),
        ("parakeet_ctc", {"subsampling_conv_channels": None}),
        ("parakeet_ctc", {"subsampling_conv_channels": "256"}),
        ("parakeet_ctc", {"num_mel_bins": -80}),
        ("nemotron_asr_streaming", None),
        ("nemotron_asr_streaming", {"num_attention_heads": 0}),
        ("nemotron_asr_streaming", {"sliding_window": None}),
    ],
)
def test_checkpoint_with_missing_or_impossible_dimensions_in_its_config_is_refused(
    kind: str, encoder: object, folder: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(folder, tmp_path / "model")
    change_json(model / "config.json", model_type=kind, encoder_config=encoder)
    settings = load_settings(engine="transformers", model_path=model, device="cpu")
    with pytest.raises(errors.CheckpointDamaged, match="dimensions"):
        choose_engine(settings)


def test_loaded_model_may_be_replaced_by_one_of_another_size(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = shutil.copytree(folder, tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    name = next(iter(weights))
    weights["more"] = weights[name].clone()
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    settings = load_settings(engine="transformers", model_path=folder, device="cpu")
    choice, other = (
        choose_engine(settings.model_copy(update={"model_path": path})) for path in (folder, model)
    )
    EngineFleet(settings, choice, None).files.check_like(other, Precision.AUTO)


def test_architecture_without_its_packages_is_refused_with_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = shutil.copytree(folder, tmp_path / "model")
    change_json(model / "config.json", model_type="granite_speech")
    monkeypatch.setattr(architectures, "find_spec", lambda _: None)
    with pytest.raises(errors.EngineUnavailable, match="torchaudio") as refused:
        choose_engine(load_settings(engine="transformers", model_path=model, device="cpu"))
    assert refused.value.hint == "pip install torchaudio peft"


def test_live_finals_have_text_and_words_and_language_auto_whatever_was_requested(
    engine: TransformersEngine,
) -> None:
    samples = decode_audio_file(clip("beckett"), SAMPLE_RATE)[: 6 * SAMPLE_RATE]
    client = LiveClient(engine, LiveOptions(words=True, language="de", patience_s=PATIENCE_S))
    for _ in client.say(samples, 16_000):
        pass
    finals = client.end().finals
    assert finals
    for final in finals:
        assert final.segment.text
        assert final.segment.words
        assert final.segment.language == "auto"


FRAME_LETTERS = 30
"""Maximum of a frame: ten tokens of a space and two letters."""


@pytest.mark.parametrize("kind", ["nemotron_asr_streaming", "nemotron3_5_asr"])
def test_nemotron_stream_has_text_of_whole_utterance_and_its_drafts_only_grow(kind: str) -> None:
    engine = TransformersEngine()
    list(engine.load(LoadOptions(Precision.FP32, str(tiny_transformers.model(kind)), "cpu")))
    samples = decode_audio_file(clip("beckett"), SAMPLE_RATE)[: 111 * 1280]  # whole chunks
    recognizer = engine.recognizer
    assert recognizer is not None
    silence = np.zeros(640, np.float32)  # as the stream adds: the last frame needs some
    whole = recognizer.recognize(np.concatenate([samples, silence]), LiveOptions(), lambda: False)
    draft = None
    for end in range(4_000, len(samples), 7_777):
        request = SegmentRequest(samples[:end], LiveOptions(), draft)
        before, draft = draft, engine.stream(request, ended=False)
        assert draft is not None
        assert before is None or draft.text.startswith(before.text)
    assert draft is not None
    assert draft.text, "words come before the end"
    final = engine.stream(SegmentRequest(samples, LiveOptions(), draft), ended=True)
    assert final is not None
    assert final.draft is draft.draft
    assert whole is not None
    assert whole.text.startswith(final.text)
    assert len(whole.text) - len(final.text) <= FRAME_LETTERS, "but for the frame of silence"
    again = engine.stream(SegmentRequest(samples, LiveOptions()), ended=True)
    assert again is not None
    assert again.text == final.text


@pytest.mark.parametrize(("delay_s", "frames"), [(None, 13), (0.1, 0), (0.5, 6), (3.0, 13)])
def test_nemotron_delay_is_nearest_that_is_supported(delay_s: float | None, frames: int) -> None:
    from transformers import AutoProcessor

    from sidecar.plugins.transformers_asr.nemotron_stream import lookahead

    folder = tiny_transformers.model("nemotron_asr_streaming")
    assert lookahead(AutoProcessor.from_pretrained(folder), delay_s) == frames


@pytest.mark.slow
def test_service_transcribes_and_estimates_by_the_model_in_a_folder(
    folder: Path, tmp_path: Path
) -> None:
    settings = {"engine": "transformers", "model_path": folder, "device": "cpu"}
    with Server(tmp_path, precision="bf16", **settings) as server, clip(PLAY).open("rb") as file:
        answer = server.client.post("/transcribe", files={"audio": file})
        health = server.client.get("/health").json()
        estimate = server.client.post("/v1/estimate", json={"duration": 3600}).json()
    assert answer.status_code == 200, answer.text
    assert answer.json()["segments"]
    assert health["engine"] == "transformers"
    assert 570 < estimate["needed_mb"] < 700 < estimate["available_mb"]
    assert estimate["sentence"].startswith("fits: bf16, 0.6 of ")
    assert "GB for any length" in estimate["sentence"]
