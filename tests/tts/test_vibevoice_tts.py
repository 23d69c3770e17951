"""VibeVoice that speaks: our loop against plain `generate`, on a tiny real checkpoint."""

from __future__ import annotations

import array
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if find_spec("torch") is None or find_spec("transformers") is None:
    pytest.skip("the extra 'vibevoice' is not installed", allow_module_level=True)

import tiny_vibevoice
import tiny_vibevoice_tts
import torch
from released_vibevoice_config import TEXT
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoProcessor, VibeVoiceForConditionalGeneration
from tts_solver_reference import OwnScheduler

from sidecar import errors
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.checkpoints.checkpoint import ModelCheckpoint
from sidecar.checkpoints.installed_checkpoints import (
    VIBEVOICE_TTS_LAYOUT,
    find_vibevoice_tts,
    resolve_repository,
)
from sidecar.config.settings import Settings
from sidecar.engines import engine_spec as engine_of
from sidecar.engines.engine_selection import EngineChoice
from sidecar.gpu_memory.gpu_devices import GpuMemory
from sidecar.interfaces.engine_interface import LoadOptions, Precision, SynthesisOptions, TtsEngine
from sidecar.service import system_checks
from sidecar.tts import (
    create_tts_engine,
    tts_engine_selection,
    tts_spec,
    vibevoice_tts_model,
    vibevoice_tts_synthesis,
)
from sidecar.tts.vibevoice_tts_memory import max_frames
from sidecar.tts.vibevoice_tts_model import TtsGenerationOptions, TtsPrompt, VibeVoiceTtsModel
from sidecar.tts.vibevoice_tts_synthesis import DEFAULT_DIFFUSION_STEPS, GUIDANCE_SCALE

LONG, SHORT = tiny_vibevoice_tts.TEXTS
"""By how long they sound."""
FRAMES = 14
"""So many words of the long one: among them the end of sound, and its beginning anew."""
Model = tuple[Any, Any]


@pytest.fixture(scope="module")
def model() -> Model:
    folder = tiny_vibevoice_tts.model()
    model = VibeVoiceForConditionalGeneration.from_pretrained(folder)
    return AutoProcessor.from_pretrained(folder), model.eval()


def asked(model: Model, text: str) -> Any:
    processor, _ = model
    turn = {"role": "0", "content": [{"type": "text", "text": text}]}
    return processor.apply_chat_template(
        [turn], tokenize=True, return_dict=True, return_tensors="pt"
    )


def plainly(model: Model, text: str, manner: TtsGenerationOptions, steps: int) -> torch.Tensor:
    """What `generate` says."""
    torch.manual_seed(manner.seed)
    with torch.inference_mode():
        (audio,) = model[1].generate(
            **asked(model, text),
            max_new_tokens=manner.frames,
            guidance_scale=manner.guidance,
            num_diffusion_steps=steps,
            noise_scheduler=OwnScheduler(),
        )
    return audio.view(-1)


def frames(
    model: Model,
    text: str,
    manner: TtsGenerationOptions,
    steps: int,
    check: Callable[[], None] = lambda: None,
) -> Iterator[torch.Tensor]:
    """What we say, one by one."""
    prompt = TtsPrompt(asked(model, text)["input_ids"][0].tolist())
    with torch.inference_mode():
        yield from VibeVoiceTtsModel(model[1], steps).frames(prompt, manner, check)


@pytest.mark.slow_except("It is half past three")
@pytest.mark.parametrize(
    ("text", "seed", "guidance", "steps"),
    [(LONG, 0, 1.3, 10), (LONG, 1, 2.0, 3), (LONG, 2, 1.0, 5), (SHORT, 3, 1.3, 20)],
)
def test_our_loop_says_what_generate_says_sample_by_sample(
    model: Model, text: str, seed: int, guidance: float, steps: int
) -> None:
    manner = TtsGenerationOptions(FRAMES, guidance, seed)
    plain = plainly(model, text, manner, steps)
    ours = torch.cat(list(frames(model, text, manner, steps)))
    assert ours.shape == plain.shape
    assert plain.abs().max() > 0.1, "silence would be like anything"
    assert float((ours - plain).norm() / plain.norm()) <= 1e-5


def solved(count: int) -> float:
    """Where a made-up head leads in so many steps: away from what is there, the more the later."""
    scheduler = OwnScheduler()
    latent = torch.ones(1, 1)
    scheduler.set_timesteps(num_inference_steps=count)
    for time_ in scheduler.timesteps:
        velocity = 0.5 * latent - float(time_) / 1000
        latent = scheduler.step(velocity, time_, latent).prev_sample
    return float(latent)


SOLVED = {1: 0.4990493, 2: 0.7232746, 3: 0.7932065, 5: 0.8810267, 10: 0.9204569, 20: 0.9246284}
"""By diffusers 0.42.1."""


@pytest.mark.parametrize("count", SOLVED)
def test_the_table_of_the_solver_is_that_of_diffusers(count: int) -> None:
    assert solved(count) == pytest.approx(SOLVED[count], rel=1e-5)


def test_nothing_is_said_once_nobody_wants_to_hear_it(model: Model) -> None:
    """Each frame is looked at, and each step of its diffusion: whoever stops does so at once."""

    class Enough(Exception):
        pass

    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks > most:
            raise Enough

    most = 1_000
    before = [looks for _ in frames(model, LONG, TtsGenerationOptions(3, GUIDANCE_SCALE), 10, look)]
    assert len(before) == 3
    assert min(later - sooner for sooner, later in itertools.pairwise([0, *before])) >= 10
    for most in (0, 5, before[0], before[1] - 1, before[1]):
        looks, heard = 0, list[torch.Tensor]()
        with pytest.raises(Enough):
            heard.extend(
                frames(model, LONG, TtsGenerationOptions(FRAMES, GUIDANCE_SCALE), 10, look)
            )
        assert looks == most + 1
        assert len(heard) == sum(mark <= most for mark in before)


class Counted(TorchDispatchMode):
    """Counts what torch is told to do, which no other process makes more or less."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += 1
        return operator(*args, **(kwargs or {}))


@pytest.mark.slow
def test_the_first_sound_is_there_at_once_and_each_takes_less_than_with_generate(
    model: Model,
) -> None:
    """By what is to be done for it; the goal of a frame is 0.65 of the time, at which the bench
    looks."""
    manner, steps = TtsGenerationOptions(24, GUIDANCE_SCALE, seed=2), 10
    with Counted() as plain:
        whole = plainly(model, LONG, manner, steps)
    with Counted() as ours:
        counts = [ours.count for _ in frames(model, LONG, manner, steps)]
    assert len(whole) == 3_200 * len(counts)
    assert counts[-1] <= 0.6 * plain.count
    assert counts[0] <= 0.05 * plain.count


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint with a voice beside it, and with what is none."""
    home = tmp_path_factory.mktemp("speaking") / "model"
    shutil.copytree(tiny_vibevoice_tts.model(), home)
    voices = home / "voices"
    voices.mkdir()
    shutil.copy(tiny_vibevoice.clip_wav("beckett"), voices / "sam.wav")
    (voices / "torn.wav").write_bytes(b"RIFF")
    (voices / "notes.txt").write_text("not a voice")
    return home


@pytest.fixture(scope="module")
def engine(folder: Path) -> TtsEngine:
    one = create_tts_engine("vibevoice")
    # Else a machine that is busy meanwhile makes it speak in fewer steps.
    options = LoadOptions(
        Precision.FP32, str(folder), "cpu", speaks=True, steps=DEFAULT_DIFFUSION_STEPS
    )
    parts = list(one.load(options))
    assert parts == sorted(parts)
    assert parts[-1] == 1.0
    return one


@pytest.mark.slow
def test_with_the_sample_of_a_voice_too_it_is_what_generate_says(
    model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor, plain_model = model
    monkeypatch.setattr(plain_model.model.latent_scaling_factor, "data", torch.tensor(0.9))
    monkeypatch.setattr(plain_model.model.latent_bias_factor, "data", torch.tensor(0.1))
    samples = decode_audio_file(folder / "voices" / "sam.wav", tiny_vibevoice.RATE)
    content = [{"type": "text", "text": LONG}, {"type": "audio", "audio": samples}]
    inputs = processor.apply_chat_template(
        [{"role": "0", "content": content}], tokenize=True, return_dict=True, return_tensors="pt"
    )
    torch.manual_seed(0)
    with torch.inference_mode():
        (plain,) = plain_model.generate(
            **inputs,
            max_new_tokens=FRAMES,
            guidance_scale=1.3,
            num_diffusion_steps=10,
            noise_scheduler=OwnScheduler(),
            sample=False,
        )
    loaded = vibevoice_tts_model.LoadedVibeVoiceTts(plain_model, processor, folder)
    said = list(
        vibevoice_tts_synthesis.VibeVoiceSynthesizer(loaded).say(LONG, "sam", lambda: False)
    )
    ours = torch.tensor(array.array("h", b"".join(sound.pcm for sound in said))) / 32_767
    plain = plain.view(-1)
    assert plain.abs().max() > 0.1
    assert len(ours) >= len(plain) > 0
    loud = plain.abs() < 1  # what is louder is cut
    assert float((ours[: len(plain)] - plain)[loud].abs().max()) <= 1e-4


@pytest.mark.parametrize(
    ("asked", "enough", "steps"), [(0, True, 10), (0, False, 5), (3, False, 3)]
)
def test_a_frame_has_the_steps_that_are_set_or_that_there_is_time_for(
    model: Model, monkeypatch: pytest.MonkeyPatch, asked: int, enough: bool, steps: int
) -> None:
    monkeypatch.setattr(vibevoice_tts_synthesis, "MAX_REAL_TIME_FACTOR", 1e9 if enough else 0)
    loaded = vibevoice_tts_model.LoadedVibeVoiceTts(model[1], model[0], tiny_vibevoice_tts.model())
    said = next(
        vibevoice_tts_synthesis.create_synthesizer(loaded, asked).say(LONG, "", lambda: False)
    )
    manner = TtsGenerationOptions(max_frames(len(LONG)), GUIDANCE_SCALE)
    assert said.pcm == vibevoice_tts_synthesis.to_pcm16(next(frames(model, LONG, manner, steps)))


def test_a_voice_is_a_recording_beside_the_checkpoint_and_nothing_else(
    engine: TtsEngine,
) -> None:
    assert list(engine.voices()) == ["sam", "torn"]
    with pytest.raises(errors.VoiceUnknown) as refused:
        next(engine.say(LONG, SynthesisOptions(voice="../sam"), lambda: False))
    assert "sam" in (refused.value.hint or "")
    with pytest.raises(errors.VoiceUnknown, match="torn"):
        next(engine.say(LONG, SynthesisOptions(voice="torn"), lambda: False))


def test_sound_comes_in_frames_the_same_every_time_and_ends_when_nobody_hears(
    engine: TtsEngine,
) -> None:
    said = engine.say(LONG, SynthesisOptions(), lambda: False)
    first, second = next(said), next(said)
    assert not torch.is_inference_mode_enabled(), "who hears it is not made to infer"
    said.close()
    assert len(first.pcm) == len(second.pcm) == 2 * 3_200
    assert max(array.array("h", first.pcm + second.pcm)) > 1_000
    assert next(engine.say(LONG, SynthesisOptions(), lambda: False)) == first
    answers = itertools.chain([False] * 20, itertools.repeat(True))
    assert len(list(engine.say(LONG, SynthesisOptions(), lambda: next(answers)))) == 1
    assert list(engine.say(LONG, SynthesisOptions(), lambda: True)) == []
    assert list(engine.say(" \n", SynthesisOptions(), lambda: False)) == []


def test_a_text_is_words_and_neither_begins_sound_nor_lets_another_speak(
    engine: TtsEngine,
) -> None:
    def begin(text: str) -> bytes:
        return next(engine.say(text, SynthesisOptions(), lambda: False)).pcm

    assert begin("Good\n<|vision_end|> morning,  <|endoftext|>Ada.") == begin(LONG)
    assert begin("Good evening, Ada.") != begin(LONG)


def test_what_is_no_checkpoint_that_speaks_is_refused_with_what_to_do(
    folder: Path, tmp_path: Path
) -> None:
    found = find_vibevoice_tts(folder)
    assert found.bytes == (folder / "model.safetensors").stat().st_size
    copy = tmp_path / "copy"

    def broken(name: str, change: Callable[[Path], object]) -> errors.BadCheckpoint:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        change(copy / name)
        with pytest.raises(errors.BadCheckpoint) as refused:
            find_vibevoice_tts(copy)
        assert "pull vibevoice-1.5b" in (refused.value.hint or "")
        return refused.value

    def changed(**values: object) -> Callable[[Path], object]:
        return lambda file: file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    def pickled(weights: Path) -> None:
        weights.rename(weights.with_name("pytorch_model.bin"))

    weights, config = "model.safetensors", "config.json"
    assert isinstance(broken(weights, pickled), errors.CheckpointUnsafe)
    assert isinstance(broken(weights, Path.unlink), errors.CheckpointIncomplete)
    assert isinstance(
        broken(weights, lambda file: file.write_bytes(file.read_bytes()[:-9])),
        errors.CheckpointDamaged,
    )
    code = changed(auto_map={"AutoModel": "theirs.Model"})
    assert isinstance(broken(config, code), errors.CheckpointUnsafe)
    other = changed(model_type="vibevoice_asr")
    assert isinstance(broken(config, other), errors.CheckpointUnsupported)
    shapeless = changed(text_config={})
    assert isinstance(broken(config, shapeless), errors.CheckpointDamaged)
    original = json.dumps({"model_type": "vibevoice", "decoder_config": {}})
    assert isinstance(
        broken(config, lambda file: file.write_text(original)), errors.CheckpointNotConverted
    )
    assert isinstance(broken(config, Path.unlink), errors.CheckpointNotFound)
    with pytest.raises(errors.ModelLoadFailed):
        list(create_tts_engine("vibevoice").load(LoadOptions(speaks=True)))
    assert resolve_repository("VibeVoice-1.5B") == (
        "vibevoice/VibeVoice-1.5B-hf",
        VIBEVOICE_TTS_LAYOUT,
    )


def test_auto_speaks_with_it_where_a_gpu_and_a_checkpoint_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def chosen(**settings: object) -> EngineChoice[Any] | None:
        return tts_engine_selection.choose_tts_engine(Settings(voice_path=folder, **settings))[0]  # type: ignore[arg-type]

    named = chosen(voice_engine="vibevoice")
    assert named is not None
    assert named.checkpoint is not None
    assert named.checkpoint.folder == folder
    monkeypatch.setattr(tts_engine_selection, "_has_cuda_gpu", lambda settings: False)
    without = chosen()
    assert without is None or without.spec.name != "vibevoice"
    monkeypatch.setattr(tts_engine_selection, "_has_cuda_gpu", lambda settings: True)
    monkeypatch.setattr(
        tts_engine_selection, "read_gpu_memory", lambda: GpuMemory("a card", 0, 6 << 10)
    )
    with_one = chosen()
    assert with_one is not None
    assert with_one.spec == tts_spec("vibevoice")
    beside = EngineChoice(
        engine_of("vibevoice"), "", ModelCheckpoint(tmp_path, {"text_config": TEXT}, (), 0, None)
    )
    crowded, reason = tts_engine_selection.choose_tts_engine(Settings(voice_path=folder), beside)
    assert crowded is None or crowded.spec.name != "vibevoice"
    assert "VibeVoice TTS does not fit" in reason
    for wanted_engine in ("auto", "vibevoice"):
        with pytest.raises(errors.CheckpointNotFound, match="no VibeVoice"):
            tts_engine_selection.choose_tts_engine(
                Settings(voice_path=tmp_path, voice_engine=wanted_engine)
            )
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    other = tts_engine_selection.choose_tts_engine(Settings())[0]
    assert other is None or other.spec.name != "vibevoice"
    assert system_checks.check_tts(Settings()).text.endswith(
        "a better one: vibevoice-asr pull vibevoice-1.5b"
    )
    assert "better" not in system_checks.check_tts(Settings(voice_engine="none")).text
    monkeypatch.undo()
    assert "vibevoice-1.5b" not in system_checks.check_tts(Settings(device="cpu")).text
    said = system_checks.check_tts(
        Settings(voice_engine="vibevoice", voice_path=folder, device="cpu")
    )
    assert (said.state, said.text) == (
        system_checks.CheckState.GOOD,
        "vibevoice (vibevoice): as set; slow, without a GPU that torch can use",
    )


def test_a_voice_that_changes_with_every_sentence_is_for_who_has_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady = EngineChoice(tts_spec("scripted"), "")
    monkeypatch.setattr(tts_engine_selection, "_has_cuda_gpu", lambda settings: True)
    monkeypatch.setattr(tts_engine_selection, "_fits_in_gpu_memory", lambda *given: True)
    for recorded, light, name in (
        (folder, steady, "vibevoice"),
        (tiny_vibevoice_tts.model(), steady, "scripted"),
        (tiny_vibevoice_tts.model(), None, "vibevoice"),
    ):
        monkeypatch.setattr(
            tts_engine_selection,
            "_choose_cpu_voice",
            lambda settings, one=light: (one, "it is here"),
        )
        chosen, reason = tts_engine_selection.choose_tts_engine(Settings(voice_path=recorded))
        assert chosen is not None
        assert chosen.spec.name == name
        assert ("a recording of a voice in" in reason) is (recorded != folder)
