"""The YAML files of another gRPC server, and the TOML file that says the same."""

from pathlib import Path
from typing import Any

import pytest
from grpc_client import Client
from service_process import Server, new_file

from sidecar import errors
from sidecar.config.settings import Settings
from sidecar.plugins import load_settings, settings_class
from sidecar.plugins.grpc_stt import convert_command, yaml_config

pytestmark = pytest.mark.usefixtures("no_settings")
FILES = Path(__file__).with_name("grpc_server.yaml"), Path(__file__).with_name("grpc_model.yml")
"""A server's file and its model's."""
MEANT: dict[str, Any] = {
    "grpc_port": 0,
    "port": 0,
    "live_sessions": 7,
    "live_timeout": 30,
    "live_idle": 61,
    "live_buffer_mb": 65,
    "grpc_silence": 0.7,
    "grpc_threshold": 0.4,
    "grpc_keep": True,
    "keep_jobs": True,
    "keep_recordings_mb": 5,
    "job_retention": 43_200,
    "log_level": "warning",
    "metrics": ("owners",),
    "live_engine": "whisper",
    "whisper_model": "small",
    "device": "cpu",
    "precision": "int8",
    "language": "ko",
    "grpc_task": "translate",
    "grpc_profile": "accurate",
}
LEFT_OUT = (
    *("server.max_buffer_sec", "server.max_chunk_ms", "safety.speech_rms_threshold"),
    *(f"storage.{name}" for name in ("directory", "queue_max_chunks", "max_files")),
    *(f"health.{name}" for name in ("window_sec", "min_events")),
    *(f"health.{name}" for name in ("max_timeout_ratio", "min_success_ratio")),
    *("decode_profiles.accurate.beam_size", "decode_profiles.rapid"),
)


def without_config_path(settings: Settings) -> dict[str, Any]:
    """Without where they come from."""
    return settings.model_dump(exclude={"config"})


def test_each_yaml_key_sets_its_setting_and_null_sets_nothing() -> None:
    meant = yaml_config.read(FILES)
    settings = load_settings(**meant.settings)
    assert without_config_path(settings) == {**without_config_path(load_settings()), **MEANT}
    assert meant.ignored == LEFT_OUT


@pytest.mark.parametrize("way", ["flag", "environment"])
def test_yaml_as_configuration_is_refused_with_the_converting_command(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "environment":
        monkeypatch.setenv("VIBEVOICE_CONFIG", str(FILES[0]))
    with pytest.raises(errors.SettingsInvalid) as caught:
        load_settings(**({"config": FILES[0]} if way == "flag" else {}))
    assert "config convert" in caught.value.hint


def test_every_yaml_key_maps_to_an_existing_setting_or_none() -> None:
    named = [key.setting for keys in yaml_config.SECTIONS.values() for key in keys.values()]
    assert {one for one in named if one} - {"language_fix"} <= set(settings_class().model_fields)


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("sever:\n  port: 1\n", "'sever'", "'server'"),
        ("server:\n  max_session: 1\n", "'server.max_session'", "'max_sessions'"),
        ("server:\n  silence: 1\n", "'server.silence'", "'vad.silence'"),
        ("decode_profiles:\n  accurate: {beams: 5}\n", "'decode_profiles.accurate.beams'", "beam_"),
        ("server:\n  port: '50051'\n", "a whole number", ""),
        ("server:\n  port: true\n", "a whole number", ""),
        ("vad:\n  silence: .inf\n", "a number", ""),
        ("model:\n  compute_type: int3\n", "one of", ""),
        ("model:\n  default_decode_profile: quick\n", "realtime", ""),
        ("server: 5\n", "'server' has to be a section", ""),
        ("- server\n", "sections", ""),
        ("server: {port: 1\n", "cannot be read", ""),
        ("server: !!python/object/apply:os.getcwd []\n", "cannot be read", ""),
        ("a: " + "[" * 5000 + "]" * 5000, "cannot be read", ""),
        ("# " + "x" * (300 << 10), "more than", ""),
        ("server:\n  port: 99999\n", "grpc_port", ""),
    ],
)
def test_invalid_yaml_is_refused_with_a_reason_and_an_unknown_key_with_a_suggestion(
    tmp_path: Path, text: str, said: str, hint: str
) -> None:
    with pytest.raises(errors.SettingsInvalid) as caught:
        load_settings(**yaml_config.read([new_file(tmp_path / "a.yaml", text)]).settings)
    assert said in caught.value.detail
    assert hint in caught.value.hint


def test_misspelled_setting_in_toml_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "ours.toml").write_text("keep_aliv = 3\n", "utf-8")
    with pytest.raises(errors.SettingsInvalid) as caught:
        load_settings(config=tmp_path / "ours.toml")
    assert "'keep_aliv'" in caught.value.detail
    assert "'keep_alive'" in caught.value.hint


def test_configuration_file_that_is_named_and_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(errors.SettingsInvalid):
        load_settings(config=tmp_path / "nowhere.toml")


def test_yaml_model_folder_and_no_timeout_are_converted_and_an_unfixed_language_is_not() -> None:
    content = {"model": {"name": "/models/small", "language": "ko"}, "server": None}
    meant = yaml_config.convert_yaml_config([("model.yaml", content)])
    assert meant.settings == {"live_engine": "whisper", "model_path": "/models/small"}
    timeless = yaml_config.convert_yaml_config(
        [("server.yaml", {"server": {"decode_timeout_sec": 0}})]
    )
    assert timeless.settings == {"live_timeout": yaml_config.UNLIMITED_S}


ALL_RECORDINGS = {"grpc_keep": True, "keep_jobs": True, "keep_recordings_mb": 1 << 20}


@pytest.mark.parametrize(
    ("storage", "settings"),
    [
        ({"max_bytes": 1 << 20, "max_age_days": 7}, {}),
        ({"persist_audio": False, "max_bytes": 1 << 20}, {"grpc_keep": False}),
        ({"persist_audio": True, "max_bytes": -1, "max_age_days": 0}, ALL_RECORDINGS),
        ({"persist_audio": True, "max_bytes": None}, ALL_RECORDINGS),
    ],
)
def test_yaml_recording_limits_are_used_only_if_audio_is_persisted_and_may_be_unlimited(
    storage: dict[str, object], settings: dict[str, object]
) -> None:
    meant = yaml_config.convert_yaml_config([("server.yaml", {"storage": storage})])
    assert (meant.settings, meant.ignored) == (settings, ())


def test_converted_file_starts_the_service_with_the_same_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = tmp_path / "ours.toml"
    assert convert_command.convert(*FILES, ours) == 0
    said = capsys.readouterr().err
    assert all(f"corresponds to {key}\n" in said for key in LEFT_OUT)
    assert all(f"#   {key}\n" in ours.read_text("utf-8") for key in LEFT_OUT)
    converted = load_settings(config=ours)
    theirs = load_settings(**yaml_config.read(FILES).settings)
    assert without_config_path(converted) == without_config_path(theirs)
    own = {"config": ours, "live_engine": "scripted", "journal_key": "k" * 32}
    with (
        Server(tmp_path / "server", **own) as server,
        Client(server.health()["grpc_port"]) as client,
    ):
        created = client.create("a")
    assert (created.vad_silence, created.vad_threshold) == (0.7, 0.4)
    assert created.attributes["decode_profile"] == "accurate"
