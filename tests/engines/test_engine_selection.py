"""Which engine serves is decided by what is there, and the reason is said."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_whisper
from many_cases import parametrize_by_name
from released_vibevoice_config import TEXT

from sidecar import engines, errors
from sidecar.checkpoints.checkpoint import ModelCheckpoint, cache_folder
from sidecar.checkpoints.model_repositories import WHISPER_MODELS
from sidecar.config.settings import Settings
from sidecar.engines import engine_selection
from sidecar.engines.engine_selection import (
    EngineChoice,
    EngineFacts,
    choose_engine,
    choose_live_engine,
    decide_engine,
    language_hint,
)
from sidecar.gpu_memory import cards, gpu_devices
from sidecar.gpu_memory.gpu_devices import GpuMemory
from sidecar.gpu_memory.memory_plan import GB, DeviceRoom
from sidecar.gpu_memory.streaming_memory import StreamingFootprint
from sidecar.interfaces.engine_interface import EngineSpec, Precision, TranscribeOptions
from sidecar.interfaces.live_options import LiveOptions
from sidecar.live.sessions.session_limits import SessionBounds, accepted_options
from sidecar.service.system_checks import CheckState, check_live_engine
from sidecar.transcripts.language_detection import doubtful_language_notice
from sidecar.workers.engine_fleet import EngineFleet

ENGINES = ("vibevoice", "whisper", "moonshine", "moonshine-whisper", "upstream", "scripted")
ALL: dict[str, list[str]] = {name: [] for name in ENGINES}
FOUND = ModelCheckpoint(Path("checkpoint"), {}, (), 0, None)
WHISPER = ModelCheckpoint(Path("whisper"), {"multilingual": True}, (), 0, None)
NOT_HERE = errors.CheckpointNotFound("not here")
READY = {"lacking": ALL, "gpu": "H200", "cuda": True, "vibevoice": FOUND}


def facts_of(*values):
    """The facts by these values, of which later ones win; models have the names of engines."""
    merged = {name: value for one in values for name, value in one.items()}
    names = ("vibevoice", "whisper", "moonshine-whisper")
    models = {name: merged.pop(name, None) for name in names}
    return EngineFacts(**merged, models={one: found for one, found in models.items() if found})


@pytest.mark.parametrize(
    ("changes", "name", "reason"),
    [
        ({}, "vibevoice", "H200"),
        ({"lacking": {**ALL, "vibevoice": ["torch"]}}, "moonshine", "torch"),
        ({"lacking": {"moonshine": []}}, "moonshine", "pip install"),
        ({"gpu": None}, "moonshine", "no NVIDIA GPU"),
        ({"cuda": False}, "moonshine", "cannot use the GPU"),
        ({"vibevoice": errors.CheckpointNotFound()}, "moonshine", "vibevoice-asr pull vibevoice"),
        ({"vibevoice": errors.CheckpointDamaged("bad.")}, "moonshine", "bad."),
    ],
)
def test_auto_selects_vibevoice_if_complete_else_moonshine_and_names_what_is_missing(
    changes, name, reason
):
    chosen, why = decide_engine("auto", facts_of(READY, changes))
    assert chosen == name
    assert reason in why


@pytest.mark.parametrize(
    ("wanted", "changes", "reason"),
    [
        ("vibevoice", {}, "as set"),
        ("vibevoice", {"gpu": None}, "slow"),
        ("vibevoice", {"cuda": False}, "slow"),
        ("moonshine", {}, "as set"),
        ("scripted", {"vibevoice": errors.CheckpointNotFound()}, "as set"),
    ],
)
def test_named_engine_is_selected_and_vibevoice_without_a_usable_gpu_is_called_slow(
    wanted, changes, reason
):
    chosen, why = decide_engine(wanted, facts_of(READY, changes))
    assert (chosen, reason in why) == (wanted, True)


NO_GPU = {**READY, "gpu": None, "vibevoice": None, "language": "de", "whisper": WHISPER}


@pytest.mark.parametrize(
    ("changes", "name", "reason"),
    [
        ({}, "whisper", "'de'"),
        ({"language": "en-GB"}, "moonshine", "no NVIDIA GPU"),
        ({"language": "auto"}, "moonshine", "no NVIDIA GPU"),
        ({"gpu": "H200", "vibevoice": FOUND}, "vibevoice", "H200"),
        ({"whisper": errors.CheckpointNotFound(hint="pull x")}, "moonshine", "pull x"),
        ({"lacking": {**ALL, "whisper": ["ctranslate2"]}}, "moonshine", "ctranslate2"),
        ({"language": "auto", "named": True}, "whisper", "named"),
        ({"language": "auto", "moonshine-whisper": WHISPER}, "moonshine-whisper", "installed"),
        ({"language": "auto", "moonshine-whisper": NOT_HERE}, "moonshine", "no NVIDIA GPU"),
        ({"language": "en", "moonshine-whisper": None}, "moonshine", "no NVIDIA GPU"),
        ({"named": True, "vibevoice": errors.CheckpointUnsupported()}, "whisper", "named"),
    ],
    ids=str,
)
def test_auto_without_vibevoice_selects_whisper_moonshine_or_both_by_language_and_installed_models(
    changes, name, reason
):
    chosen, why = decide_engine("auto", facts_of(NO_GPU, changes))
    assert chosen == name
    assert reason in why


@pytest.mark.parametrize(
    ("name", "facts", "wrong"),
    [
        ("whisper", {**NO_GPU, "whisper": None}, errors.CheckpointNotFound("none here.")),
        ("vibevoice", {**READY, "vibevoice": None}, errors.CheckpointIncomplete("half of it.")),
    ],
    ids=["whisper", "vibevoice"],
)
def test_named_engine_without_model_raises_error_of_checkpoint(name, facts, wrong):
    with pytest.raises(type(wrong), match=wrong.detail):
        decide_engine(name, facts_of(facts, {name: wrong}))


@pytest.mark.parametrize(
    ("tag", "installed", "there", "parts"),
    [
        ("de", True, True, ["--language de"]),
        ("de", True, False, ["vibevoice-asr pull whisper:small (0.48 GB)", "--language de"]),
        ("ja-JP", False, False, ["pip install -e '.[languages]'", "--language ja-JP"]),
        ("tlh", True, True, ["No engine"]),
    ],
)
def test_language_hint_names_the_commands_that_set_up_an_engine_for_the_language(
    tag, installed, there, parts, tmp_path, monkeypatch
):
    monkeypatch.setattr("sidecar.engines.missing_packages", lambda spec: [] if installed else ["x"])
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    if there:
        tiny_whisper.write_like(
            cache_folder(WHISPER_MODELS["base"].repository, tmp_path) / "snapshots/a"
        )
    hint = language_hint(tag, Settings())
    for part in parts:
        assert part in hint
    assert there or "is here" not in hint


def test_engine_with_a_plan_and_without_live_audio_leaves_that_to_the_embedded_one() -> None:
    spec = replace(engines.engine_spec("scripted"), sessions=0)
    planned: dict[Precision, Any] = {spec.precisions[0]: None}
    files = EngineChoice(spec, "of a plugin", footprints=planned, fits=True)
    found, _ = choose_live_engine(Settings(engine="scripted"), files)
    assert found is not None
    assert found.spec.name == "moonshine"


def test_refusal_and_warning_of_live_audio_not_in_english_name_the_live_engine_whisper() -> None:
    with pytest.raises(errors.LanguageUnsupported) as refused:
        accepted_options(
            LiveOptions(language="de"), SessionBounds(), engines.engine_spec("moonshine")
        )
    for text in (refused.value.hint, doubtful_language_notice(live=True).message):
        assert "[languages]" in text
        assert "--live-engine whisper" in text
    assert "--live-engine" not in doubtful_language_notice().message


def test_language_hint_in_executable_without_torch_says_english_only_and_no_command(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert "English only" not in language_hint("tlh", Settings())  # a build with torch inside
    monkeypatch.setattr("sidecar.installation.find_spec", lambda name: None)
    for text in (language_hint("de", Settings()), doubtful_language_notice().message):
        assert "This build knows English only." in text
        assert "pip install" not in text
        assert "pull" not in text


def test_language_hint_in_executable_without_whisper_suggests_upstream_and_no_pip_or_pull(
    monkeypatch,
):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr("sidecar.installation.find_spec", lambda name: object())  # with torch
    monkeypatch.setattr("sidecar.engines.missing_packages", lambda spec: ["faster_whisper"])
    hint = language_hint("de", Settings())
    assert "upstream" in hint
    assert "pip install" not in hint
    assert "pull" not in hint


def test_english_only_whisper_model_supports_english_only_and_a_multilingual_one_german(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("sidecar.engines.missing_packages", lambda spec: [])
    folder = tiny_whisper.write_like(tmp_path / "model", words=51_864)
    choice = choose_engine(Settings(engine="whisper", model_path=folder))
    assert choice.spec.languages == ("en",)
    folder = tiny_whisper.write_like(tmp_path / "other")
    assert "de" in choose_engine(Settings(engine="whisper", model_path=folder)).spec.languages


@pytest.mark.parametrize("engine", ["whisper", "moonshine-whisper"])
@pytest.mark.parametrize(("layers", "translates"), [((32, 32), True), ((32, 4), False)])
def test_whisper_model_translates_unless_its_decoder_was_made_small_whatever_its_folder_is_called(
    engine, layers, translates, tmp_path, monkeypatch
):
    monkeypatch.setattr("sidecar.engines.missing_packages", lambda spec: [])
    folder = tiny_whisper.write_like(tmp_path / "model", words=51_866, layers=layers)
    spec = choose_engine(Settings(engine=engine, model_path=folder)).spec
    assert spec.translates is translates
    assert spec.speaks("de")


@pytest.mark.parametrize("changes", [{}, {"gpu": None}, {"lacking": {"moonshine": []}}], ids=str)
@pytest.mark.parametrize("wrong", errors.BadCheckpoint.__subclasses__())
def test_unusable_model_path_is_an_error_for_engine_auto_and_none_for_named_moonshine(
    wrong, changes
):
    facts = {**READY, **changes, "vibevoice": wrong(), "named": True}
    with pytest.raises(wrong):
        decide_engine("auto", facts_of(facts))
    assert decide_engine("moonshine", facts_of(facts)) == ("moonshine", "as set")


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("what", ["is not a folder", "has no config.json"])
def test_engine_auto_refuses_a_model_path_without_model_even_if_torch_is_missing_and_moonshine_not(
    what, installed, tmp_path, monkeypatch
):
    lacking = [] if installed else ["torch"]
    monkeypatch.setattr(
        "sidecar.engines.missing_packages", lambda spec: lacking if spec.name == "vibevoice" else []
    )
    folder = tmp_path if what == "has no config.json" else tmp_path / "nothing"
    with pytest.raises(errors.CheckpointNotFound, match=what) as caught:
        choose_engine(Settings(engine="auto", model_path=folder))
    assert "VIBEVOICE_MODEL_PATH" in caught.value.hint
    assert choose_engine(Settings(engine="moonshine", model_path=folder)).spec.name == "moonshine"


@pytest.mark.parametrize(
    ("wanted", "lacking", "parts"),
    [
        ("vibevoice", {"vibevoice": ["torch", "accelerate"]}, ["torch, accelerate", "[vibevoice]"]),
        (
            "auto",
            {**ALL, "vibevoice": ["torch"], "moonshine": ["moonshine_voice"]},
            ["moonshine_voice"],
        ),
        ("moonshine", {"moonshine": ["soxr"]}, ["soxr", "pip install -e '.'"]),
    ],
)
def test_missing_packages_are_named_with_install_command(wanted, lacking, parts):
    with pytest.raises(errors.EngineUnavailable) as caught:
        decide_engine(wanted, EngineFacts(lacking))
    for part in parts:
        assert part in f"{caught.value.detail} {caught.value.hint}"


@pytest.mark.parametrize("lacking", [[], ["torch"]])
@pytest.mark.parametrize("embedded", [[], ["moonshine_voice"]])
def test_auto_selects_no_engine_of_a_plugin_even_if_packages_of_the_others_are_missing(
    lacking, embedded
):
    facts = facts_of(READY, {"lacking": {**ALL, "vibevoice": lacking, "moonshine": embedded}})
    try:
        assert decide_engine("auto", facts)[0] != "upstream"
    except errors.EngineUnavailable:
        assert lacking
        assert embedded


@parametrize_by_name(
    "hear, wanted, live, reason",
    {
        "file-engine-hears-live": ({"scripted", "moonshine"}, "auto", "scripted", "and live"),
        "moonshine-instead": ({"moonshine"}, "auto", "moonshine", "'scripted'"),
        "no-live-engine": (set(), "auto", None, "nor does the embedded"),
        "other-than-file-engine": ({"scripted", "moonshine"}, "moonshine", "moonshine", "as set"),
        "file-engine-named": ({"scripted"}, "scripted", "scripted", "as set"),
        "named-engine-without-live": ({"scripted"}, "moonshine", "scripted", "refused"),
        "live-turned-off": ({"scripted"}, "none", None, "as set"),
    },
)
def test_auto_live_engine_is_the_file_engine_else_moonshine_and_a_named_one_must_hear_live(
    hear: set[str], wanted: str, live: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``hear``: who hears live in this build."""
    sessions = {spec.name: 4 if spec.name in hear else 0 for spec in engines.ENGINES}
    specs = [replace(spec, sessions=sessions[spec.name]) for spec in engines.ENGINES]
    monkeypatch.setattr(engines, "specs", lambda _: iter(specs))
    monkeypatch.setattr(
        engines, "engine_spec", lambda name: next(spec for spec in specs if spec.name == name)
    )
    settings = Settings(engine="scripted", live_engine=wanted)
    chosen = choose_engine(settings)
    if reason == "refused":
        with pytest.raises(errors.EngineUnavailable, match="does not transcribe live") as refused:
            choose_live_engine(settings, chosen)
        assert f"do: {live};" in refused.value.hint
        return
    found, why = choose_live_engine(settings, chosen)
    assert (found and found.spec.name, reason in why) == (live, True)


SMALL = {
    "hidden_size": 1_536,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "intermediate_size": 8_960,
    "vocab_size": 151_936,
    "tie_word_embeddings": True,
}
"""What the decoder of the 1.5B has other than the 7B's."""


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Callable[..., EngineChoice[EngineSpec]]:
    """Puts a card of so many GB here, with all models; returns VibeVoice-ASR for files."""
    encoder = {"encoder_depths": [3, 3, 3, 3, 3, 3, 8], "encoder_ratios": [8, 5, 5, 4, 2, 2]}
    encoder |= {"encoder_n_filters": 32, "layernorm_eps": 1e-5, "layer_scale_init_value": 1e-6}
    original = {
        "acoustic_tokenizer_config": encoder | {"vae_dim": 64},
        "semantic_tokenizer_config": encoder | {"vae_dim": 128},
        "decoder_config": TEXT,
    }
    configs = {"vibevoice": {"text_config": TEXT}, "vibevoice-streaming": original, "voxtral": {}}

    def put(
        gigabytes: float, speed: float = 1e12, *, bf16: bool = True, **decoder: Any
    ) -> EngineChoice[EngineSpec]:
        gpu = GpuMemory("a card", 0, int(gigabytes * 1024), speed, bf16)
        original["decoder_config"] = TEXT | decoder
        models = {
            name: ModelCheckpoint(Path("snapshot"), config, (), 17_000_000_000, None)
            for name, config in configs.items()
        }
        for module in (engine_selection, gpu_devices):
            monkeypatch.setattr(module, "read_gpu_memory", lambda: gpu)
        monkeypatch.setattr(engine_selection, "torch_has_cuda", lambda: True)
        monkeypatch.setattr(engine_selection, "find_model", lambda name, settings: models[name])
        monkeypatch.setattr(engines, "missing_packages", lambda spec: [])
        return EngineChoice(engines.engine_spec("vibevoice"), "as set", models["vibevoice"])

    return put


@pytest.mark.parametrize(
    ("gigabytes", "language", "live"),
    [
        *((40, language, True) for language in ("auto", "de")),
        *((size, language, False) for size, language in ((40, "nl"), (24, "auto"), (12, "auto"))),
    ],
)
def test_auto_live_engine_is_the_streaming_model_if_language_and_memory_beside_files_allow_it(
    gigabytes: int, language: str, live: bool, card: Callable[[int], EngineChoice[EngineSpec]]
) -> None:
    settings = Settings(engine="vibevoice", language=language)
    files = card(gigabytes)
    found, _ = choose_live_engine(settings, files)
    assert found is not None
    assert (found.spec.name == "vibevoice-streaming") is live
    if live:
        fleet = EngineFleet(settings, files, found)
        assert fleet.files.precision is Precision.BF16  # as without a live engine


@pytest.mark.parametrize(
    ("gigabytes", "wanted", "files", "live", "decoder"),
    [
        (18, "auto", "int4", "int4", {}),
        (24, "auto", "int4", "int4", {}),
        (32, "auto", "bf16", "int4", {}),
        (80, "auto", "bf16", "bf16", {}),
        (40, "int8", "int8", "int8", {}),
        (12, "auto", "int4", "int4", SMALL),
        (24, "auto", "bf16", "bf16", SMALL),
    ],
)
def test_named_streaming_live_engine_reserves_gpu_memory_and_both_get_precisions_that_fit(
    gigabytes: int,
    wanted: str,
    files: str,
    live: str,
    decoder: dict[str, Any],
    card: Callable[..., EngineChoice[EngineSpec]],
) -> None:
    settings = Settings(
        engine="vibevoice", live_engine="vibevoice-streaming", precision=Precision(wanted)
    )
    choice = card(gigabytes, **decoder)
    found, _ = choose_live_engine(settings, choice)
    assert found is not None
    fleet = EngineFleet(settings, choice, found)
    used = fleet.recognizers["live"].spec.resolve_precision(settings.precision)
    assert (fleet.files.precision, used) == (files, live)
    reserved = fleet.recognizers[
        "live"
    ].memory.reserved_bytes  # before it is loaded, so that it can be
    assert reserved == found.footprints[used].loaded_bytes + found.session_bytes
    free = fleet.files.memory.now(fleet.files.model).free_bytes
    assert free == (gigabytes << 30) - reserved
    text = check_live_engine(settings).text
    assert text.endswith(f"{live}, at most {found.spec.sessions} sessions")


def test_doctor_warns_of_a_streaming_model_that_does_not_fit_in_gpu_memory(
    card: Callable[[int], EngineChoice[EngineSpec]],
) -> None:
    card(8)
    finding = check_live_engine(Settings(engine="vibevoice", live_engine="vibevoice-streaming"))
    assert finding.state is CheckState.WARNING
    assert "memory is short even for one" in finding.text


@pytest.mark.parametrize(
    ("gigabytes", "precision", "device"),
    [(12, "auto", "auto"), (16, "auto", "auto"), (24, "bf16", "auto"), (80, "auto", "cpu")],
)
def test_live_engine_too_large_beside_the_file_engine_reserves_no_gpu_memory_and_doctor_warns(
    gigabytes: int, precision: str, device: str, card: Callable[[int], EngineChoice[EngineSpec]]
) -> None:
    named = {"engine": "vibevoice", "live_engine": "vibevoice-streaming"}
    settings = Settings.model_validate({**named, "precision": precision, "device": device})
    files = card(gigabytes)
    found, _ = choose_live_engine(settings, files)
    assert found is not None
    fleet = EngineFleet(settings, files, found)
    assert fleet.recognizers["live"].memory.reserved_bytes == 0
    if device != "cpu":
        assert (Precision.BF16 in found.spec.precisions) is (gigabytes == 24)  # as it is alone
        finding = check_live_engine(settings)
        assert finding.state is CheckState.WARNING
        assert finding.text.endswith("even for one session beside 'vibevoice' for files")


def test_voxtral_live_engine_is_planned_as_if_the_file_engine_took_no_memory(
    card: Callable[[int], EngineChoice[EngineSpec]], monkeypatch: pytest.MonkeyPatch
) -> None:
    files, asked = card(24), []
    monkeypatch.setattr(
        engine_selection,
        "choose_engine",
        lambda settings, beside_bytes=0: (
            asked.append(beside_bytes) or EngineChoice(engines.engine_spec("voxtral"), "as set")
        ),
    )
    choose_live_engine(Settings(engine="vibevoice", live_engine="voxtral"), files)
    assert asked == [0]


@pytest.mark.parametrize("live_engine", ["auto", "vibevoice-streaming"])
@pytest.mark.parametrize(
    ("gigabytes", "wanted", "used"),
    [
        (12, "auto", None),
        (24, "auto", ("int4", "int4")),
        (24, "bf16", None),  # a precision that was named holds for files
        (32, "auto", ("bf16", "int4")),
        (80, "auto", ("bf16", "bf16")),
    ],
)
def test_streaming_model_for_files_and_live_gets_precisions_in_which_both_processes_fit_the_gpu(
    gigabytes: int,
    wanted: str,
    used: tuple[str, str] | None,
    live_engine: str,
    card: Callable[[int], EngineChoice[EngineSpec]],
) -> None:
    card(gigabytes)
    named = {"engine": "vibevoice-streaming", "live_engine": live_engine, "precision": wanted}
    settings = Settings.model_validate(named)
    files = choose_engine(settings)
    live, _ = choose_live_engine(settings, files)
    assert live is not None
    hosts = EngineFleet(settings, files, live).recognizers
    precisions = {
        role: host.spec.resolve_precision(settings.precision) for role, host in hosts.items()
    }
    forecast = hosts["files"].memory.footprint_forecast(
        hosts["files"].model.at(precisions["files"]), 600.0, 3600.0
    )
    assert forecast is not None
    assert forecast.fits
    assert live.fits is (used is not None)
    assert used in (None, (precisions["files"], precisions["live"]))
    assert wanted in ("auto", precisions["files"])


@pytest.mark.parametrize(
    ("written", "frames"),
    [
        ({"chunk_frames": 15, "lookahead_frames": 4}, (15, 4)),
        ({"chunk_frames": 22, "lookahead_frames": 4}, (22, 4)),
        ({"chunk_frames": 0, "lookahead_frames": 4}, (22, 4)),  # the load refuses it
        ({}, (22, 4)),
    ],
)
def test_plan_of_streaming_model_has_the_frames_of_windows_of_its_checkpoint(
    written: dict[str, int],
    frames: tuple[int, int],
    card: Callable[..., EngineChoice[EngineSpec]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = {"target_sample_rate": 24_000, "speech_tok_compress_ratio": 3_200, **written}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(sizes), "utf-8")
    card(40)
    find = engine_selection.find_model
    monkeypatch.setattr(
        engine_selection, "find_model", lambda *wanted: replace(find(*wanted), folder=tmp_path)
    )
    settings = Settings.model_validate({"engine": "vibevoice-streaming", "live_engine": "none"})
    for footprint in choose_engine(settings).footprints.values():
        assert isinstance(footprint, StreamingFootprint)
        assert (footprint.chunk_frames, footprint.lookahead_frames) == frames


@pytest.mark.parametrize("engine", ["vibevoice-streaming", "voxtral"])
def test_loaded_model_may_be_replaced_by_the_same_one_after_free_gpu_memory_has_shrunk(
    engine: str, card: Callable[..., EngineChoice[EngineSpec]]
) -> None:
    settings = Settings(live_engine="none").model_copy(update={"engine": engine})
    files = card(40)
    first = choose_engine(settings)
    host = EngineFleet(settings, files, first).recognizers["live"]
    card(17)
    now = choose_engine(settings)
    assert now.spec != first.spec, "fewer sessions, or fewer precisions"
    host.check_like(now, Precision.AUTO)


def test_streaming_model_may_not_be_replaced_by_one_of_another_size(
    card: Callable[..., EngineChoice[EngineSpec]],
) -> None:
    settings = Settings.model_validate({"engine": "vibevoice-streaming", "live_engine": "none"})
    card(40)
    host = EngineFleet(settings, choose_engine(settings), None).files
    card(40, num_hidden_layers=27)
    with pytest.raises(errors.ModelUnsuited):
        host.check_like(choose_engine(settings), Precision.AUTO)


def test_live_engine_of_a_card_that_holds_twice_the_sessions_in_int4_says_why_it_is_the_default(
    card: Callable[..., EngineChoice[EngineSpec]],
) -> None:
    card(24)
    settings = Settings.model_validate({"engine": "vibevoice-streaming", "live_engine": "none"})
    choice = choose_engine(settings)
    assert choice.spec.resolve_precision(Precision.AUTO) is Precision.INT4
    wide = choice.footprints[Precision.BF16].sessions(DeviceRoom(24 * 1024**3, 1e12))
    assert 0 < 2 * wide <= choice.spec.sessions
    reason = f"int4 by default: {choice.spec.sessions} live sessions, {wide} in bf16"
    assert choice.reason.endswith(reason)
    named = choose_engine(settings.model_copy(update={"precision": Precision.BF16}))
    assert named.spec.resolve_precision(Precision.BF16) is Precision.BF16
    assert "by default" not in named.reason


@pytest.mark.parametrize("wanted", ["auto", "bf16", "fp16", "int8"])
@pytest.mark.parametrize("name", ["T4", "V100 32GB", "RTX 2080 Ti", "RTX 4090"])
def test_precision_and_sessions_of_the_streaming_model_are_those_forecast_for_its_card(
    name: str, wanted: str, card: Callable[..., EngineChoice[EngineSpec]]
) -> None:
    there = cards.find_card(name)
    named = {"engine": "vibevoice-streaming", "live_engine": "none", "precision": wanted}
    settings = Settings.model_validate(named)
    options = TranscribeOptions(precision=settings.precision)
    forecast = cards.forecast_on(there, 600.0, options, "vibevoice-streaming")
    speed = 1e9 * there.bandwidths[0]
    card(there.memory_bytes / GB, speed, bf16=not name.startswith(cards.WITHOUT_BF16))
    choice = choose_engine(settings)
    if forecast.fits:
        assert EngineFleet(settings, choice, None).files.precision is forecast.precision
        assert f"at most {choice.spec.sessions} live session" in forecast.sentence
