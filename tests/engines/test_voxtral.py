"""Voxtral Realtime, stepped by hand, with a tiny model of the real class and random weights."""

import json
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_voxtral
from live_client import LiveClient
from not_tested import missing_extra
from service_process import PATIENCE_S
from tiny_vibevoice import clip

from sidecar import errors
from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.checkpoints import installed_checkpoints, model_repositories
from sidecar.checkpoints.checkpoint import cache_folder
from sidecar.checkpoints.installed_checkpoints import (
    TEKKEN_FILE,
    VOXTRAL_LAYOUT,
    resolve_repository,
)
from sidecar.config.settings import Settings
from sidecar.engines.engine_selection import choose_engine, choose_live_engine
from sidecar.engines.voxtral import (
    VoxtralEngine,
    VoxtralModel,
    VoxtralStream,
    delay_tokens,
    load_voxtral,
    read_tekken,
)
from sidecar.interfaces.engine_interface import LoadOptions, Precision
from sidecar.interfaces.live_events import Partial
from sidecar.interfaces.live_options import LiveOptions
from sidecar.interfaces.recognition import RecognitionHypothesis, SegmentRequest

USUAL, LONGEST = 6, 30
"""Tokens of 480 and of 2400 ms."""


@pytest.fixture(scope="module")
def voxtral() -> VoxtralModel:
    return load_voxtral(tiny_voxtral.model(), "cpu", "float32")


@pytest.fixture(scope="module")
def engine() -> VoxtralEngine:
    engine = VoxtralEngine()
    folder = str(tiny_voxtral.model())
    list(engine.load(LoadOptions(Precision.FP32, folder, "cpu", live=True)))
    return engine


@pytest.fixture(scope="module")
def audio() -> Block:
    """Not a whole number of steps; longer than the windows of both caches."""
    return decode_audio_file(Path(clip("beckett")), 16_000)[: 6 * 16_000 + 123]


def generated(voxtral: VoxtralModel, audio: Block, delay: int) -> list[int]:
    """What transformers makes of it, all at once."""
    import torch

    tokens = voxtral.tekken
    behind = -len(audio) % tokens.step + tokens.right(delay) * tokens.step
    padded = np.pad(audio, (tokens.left * tokens.step, behind))
    prompt = torch.tensor([tokens.prompt(delay)])
    with torch.inference_mode():
        found = voxtral.model.generate(
            input_ids=prompt,
            input_features=voxtral.spectra(padded, whole=True),
            num_delay_tokens=delay,
            do_sample=False,
        )
    said: list[int] = found[0, prompt.shape[1] :].tolist()
    return said


def streamed(voxtral: VoxtralModel, audio: Block, delay: int, chunk: int) -> list[int]:
    stream = VoxtralStream(voxtral, delay)
    for at in range(0, len(audio), chunk):
        stream.feed(audio[at : at + chunk])
    stream.end()
    return stream.tokens


@pytest.fixture(scope="module")
def by_steps(voxtral: VoxtralModel, audio: Block) -> list[int]:
    """The tokens of a stream that is fed a step at a time."""
    return streamed(voxtral, audio, USUAL, 1280)


@pytest.mark.slow_except("[6")
@pytest.mark.parametrize("delay", [1, USUAL, LONGEST])
def test_voxtral_stream_has_the_tokens_of_transformers_generate_for_each_delay(
    voxtral: VoxtralModel, audio: Block, by_steps: list[int], delay: int
) -> None:
    whole = generated(voxtral, audio, delay)
    assert len(set(whole)) > 5, "the words do not hang on the sound"
    found = by_steps if delay == USUAL else streamed(voxtral, audio, delay, 1280)
    assert found == whole


@pytest.mark.slow_except("[517")
@pytest.mark.parametrize("chunk", [517, 16_000])
def test_voxtral_tokens_do_not_depend_on_chunk_size(
    voxtral: VoxtralModel, audio: Block, by_steps: list[int], chunk: int
) -> None:
    assert streamed(voxtral, audio, USUAL, chunk) == by_steps


def test_interleaved_voxtral_streams_have_the_tokens_that_each_has_alone(
    voxtral: VoxtralModel, audio: Block
) -> None:
    pair = audio[: 3 * 16_000], audio[3 * 16_000 :]
    alone = [streamed(voxtral, one, USUAL, 1280) for one in pair]
    streams = [VoxtralStream(voxtral, USUAL) for _ in pair]
    for at in range(0, 3 * 16_000, 1280):
        for stream, one in zip(streams, pair, strict=True):
            stream.feed(one[at : at + 1280])
    for stream, one, before in zip(streams, pair, alone, strict=True):
        stream.feed(one[stream.fed :])
        stream.end()
        assert stream.tokens == before


def test_voxtral_tokens_come_within_delay(voxtral: VoxtralModel, audio: Block) -> None:
    stream = VoxtralStream(voxtral, USUAL)
    stream.feed(audio)
    behind = len(audio) // 1280 - len(stream.tokens)
    assert behind <= USUAL + 1
    stream.end()
    assert len(stream.tokens) == -(-len(audio) // 1280) + voxtral.tekken.right(USUAL) - USUAL - 1


def test_voxtral_stream_is_not_continued_after_a_failed_step_or_by_shorter_audio(
    voxtral: VoxtralModel, audio: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = VoxtralStream(voxtral, USUAL)
    stream.feed(audio[:16_000])
    assert stream.goes_on(20_000)
    assert not stream.goes_on(15_999), "it has heard more"

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(voxtral, "spectra", broken)
        with pytest.raises(RuntimeError):
            stream.feed(audio[16_000:32_000])
    assert not stream.goes_on(len(audio))


def test_lost_gpu_under_voxtral_raises_device_lost(
    voxtral: VoxtralModel, audio: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    stream = VoxtralStream(voxtral, USUAL)
    monkeypatch.setattr(voxtral.model, "forward", broken)
    with pytest.raises(errors.DeviceLost):
        stream.feed(audio[:16_000])


def test_voxtral_continues_a_draft_unless_the_draft_has_heard_more_audio(
    engine: VoxtralEngine, audio: Block
) -> None:
    def asked(samples: int, draft: RecognitionHypothesis | None = None) -> SegmentRequest:
        return SegmentRequest(audio[:samples], LiveOptions(delay_s=0.16), draft)

    draft = engine.glimpse(asked(32_000))
    longer = engine.glimpse(asked(40_000, draft))
    assert longer.draft is draft.draft
    plain = engine.recognize(asked(36_000))
    again = engine.recognize(asked(36_000, longer))
    assert plain is not None
    assert again is not None
    assert again.draft is not longer.draft
    assert again.text == plain.text
    gone_on = engine.recognize(asked(48_000, longer))
    whole = engine.recognize(asked(48_000))
    assert gone_on is not None
    assert whole is not None
    assert gone_on.draft is longer.draft
    assert gone_on.text == whole.text
    assert engine.recognize(replace(asked(48_000), cancelled=lambda: True)) is None


@pytest.mark.parametrize(
    ("wanted_s", "tokens"), [(None, 6), (0.08, 1), (0.48, 6), (0.5, 6), (2.4, 30), (9, 30), (0, 1)]
)
def test_voxtral_delay_is_nearest_that_is_supported(wanted_s: float | None, tokens: int) -> None:
    assert delay_tokens(wanted_s, 6) == tokens


def test_voxtral_text_and_delay_tokens_are_those_of_mistral_common(voxtral: VoxtralModel) -> None:
    if find_spec("mistral_common") is None or find_spec("tiktoken") is None:
        pytest.skip("mistral-common is not installed: its texts are not compared")
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    theirs = Tekkenizer.from_file(tiny_voxtral.model() / TEKKEN_FILE)
    ids = [32, 33, *(64 + byte for byte in "Ça va, naïf?".encode()), 33, 64 + 0xC3, 2]
    ours = voxtral.tekken.text(ids)
    assert ours == "Ça va, naïf?"
    assert theirs.decode(ids).rstrip("\ufffd") == ours
    assert theirs.audio is not None
    for delay in (1, USUAL, LONGEST):
        assert theirs.audio.n_right_pad_tokens(80.0 * delay) == voxtral.tekken.right(delay)
        assert theirs.audio.get_num_delay_tokens(80.0 * delay) == delay


def test_gpu_without_room_for_voxtral_is_model_load_failed_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch = pytest.importorskip("torch", reason=missing_extra("torch"))
    transformers = pytest.importorskip("transformers", reason=missing_extra("torch"))

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(
        transformers.VoxtralRealtimeForConditionalGeneration, "from_pretrained", full
    )
    with pytest.raises(errors.ModelLoadFailed, match="CUDA out of memory: ") as failed:
        load_voxtral(tiny_voxtral.model(), "cpu", "float32")
    assert "smaller precision" in failed.value.hint


def test_invalid_tekken_file_fails_load_with_reason(tmp_path: Path) -> None:
    with pytest.raises(errors.ModelLoadFailed, match="tekken"):
        read_tekken(tmp_path)
    (tmp_path / TEKKEN_FILE).write_text(json.dumps({"config": {}}), "utf-8")
    with pytest.raises(errors.ModelLoadFailed, match="KeyError"):
        read_tekken(tmp_path)


def test_voxtral_final_continues_the_draft_of_a_partial(
    engine: VoxtralEngine, audio: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts: list[RecognitionHypothesis | None] = []
    hear = engine.recognize

    def watched(request: SegmentRequest) -> RecognitionHypothesis | None:
        drafts.append(request.draft_hypothesis)
        return hear(request)

    monkeypatch.setattr(engine, "recognize", watched)
    client = LiveClient(engine, LiveOptions(diarize=False, delay_s=0.08, patience_s=PATIENCE_S))
    client.session.push(audio[:16_000])
    client.until(Partial)
    client.end()
    assert [draft is not None for draft in drafts] == [True]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_voxtral_model_is_found_in_the_cache_and_a_missing_one_suggests_its_pull_command(
    cache: Path,
) -> None:
    model = tiny_voxtral.model()
    settings = Settings(engine="scripted", live_engine="voxtral", device="cpu")
    files = choose_engine(settings)
    with pytest.raises(errors.CheckpointNotFound) as missing:
        choose_live_engine(settings, files)
    assert "pull voxtral" in missing.value.hint
    folder = cache_folder(model_repositories.VOXTRAL_REPOSITORY, cache) / "snapshots" / "abc"
    shutil.copytree(model, folder)
    found, reason = choose_live_engine(settings, files)
    assert found is not None
    assert found.checkpoint is not None
    assert (found.spec.name, found.checkpoint.folder, reason) == ("voxtral", folder, "as set")
    assert 1 <= found.spec.sessions <= 100


def test_incomplete_damaged_or_other_voxtral_folder_is_refused_with_its_reason(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_voxtral.model(), folder)
    assert installed_checkpoints.VOXTRAL.read(folder).bytes > 500_000
    (folder / "tekken.json").rename(folder / "aside")
    with pytest.raises(errors.CheckpointIncomplete, match="tekken"):
        installed_checkpoints.VOXTRAL.find(folder)
    (folder / "aside").rename(folder / "tekken.json")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(errors.CheckpointDamaged, match="truncated"):
        installed_checkpoints.VOXTRAL.find(folder)
    (folder / "config.json").write_text('{"model_type": "voxtral"}', "utf-8")
    with pytest.raises(errors.CheckpointUnsupported, match="'voxtral'"):
        installed_checkpoints.VOXTRAL.find(folder)


def test_pull_of_voxtral_selects_the_model_files_and_not_the_consolidated_weights() -> None:
    assert resolve_repository("voxtral") == (model_repositories.VOXTRAL_REPOSITORY, VOXTRAL_LAYOUT)
    assert resolve_repository(model_repositories.VOXTRAL_REPOSITORY) == (
        model_repositories.VOXTRAL_REPOSITORY,
        VOXTRAL_LAYOUT,
    )
    names = ["model.safetensors", "consolidated.safetensors", "tekken.json", "params.json"]
    assert [name for name in names if VOXTRAL_LAYOUT.fetched(name)] == [
        "model.safetensors",
        "tekken.json",
    ]
