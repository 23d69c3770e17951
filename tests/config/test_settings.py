import math
import re
from pathlib import Path
from typing import get_args

import pytest

from sidecar import errors
from sidecar.cli.common_options import describe
from sidecar.config.settings import config_file_path, data_folder, unknown_variables
from sidecar.observability.logs import default_data_folder
from sidecar.plugins import load_settings, settings_class

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def config(no_settings):
    """An environment without settings of the machine's, and a file of our own."""
    no_settings.touch()
    return no_settings


def test_precedence_is_flags_environment_file_defaults(config, monkeypatch):
    assert load_settings().port == 8765
    config.write_text("port = 1001\nqueue_limit = 11\n", "utf-8")
    assert load_settings().port == 1001
    monkeypatch.setenv("VIBEVOICE_PORT", "1002")
    assert load_settings().port == 1002
    settings = load_settings(port="1003")
    assert (settings.port, settings.queue_limit) == (1003, 11)


def test_unknown_variable_is_warned_of_with_the_nearest_setting(monkeypatch):
    monkeypatch.setenv("VIBEVOICE_PRECISON", "fp16")
    monkeypatch.setenv("VIBEVOICE_QQQQ", "1")
    monkeypatch.setenv("VIBEVOICE_EMPTY", "")
    for fine in (
        *("PORT", "ASR_SERVICE_HOST", "ASR_PORT_8765_TCP_ADDR", "SERVICE_PORT_HTTP"),
        *("TEST_LIMITS", "SCRIPTED_SPEED"),
    ):
        monkeypatch.setenv(f"VIBEVOICE_{fine}", "1")
    precision, strange = unknown_variables(load_settings(), {})
    assert "VIBEVOICE_PRECISON" in precision[0]
    assert "VIBEVOICE_PRECISION?" in precision[1]
    assert "VIBEVOICE_QQQQ" in strange[0]
    assert "docs/settings.md" in strange[1]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("250ms", 0.25), ("10m", 600), ("1.5h", 5400), ("2d", 172_800),
     ("-1", -1), ("0", 0)],
)  # fmt: skip
def test_duration_is_a_number_with_or_without_unit(text, seconds):
    assert load_settings(keep_alive=text).keep_alive == pytest.approx(seconds)


def test_duration_in_the_file_may_be_a_number(config):
    config.write_text('keep_alive = 30\njob_retention = "2m"\n', "utf-8")
    settings = load_settings()
    assert (settings.keep_alive, settings.job_retention) == (30, 120)


def test_retention_of_persisted_jobs_is_unlimited_unless_set(config, tmp_path):
    assert load_settings().retention_s == 600
    kept = {"keep_jobs": True, "data_dir": tmp_path}
    assert load_settings(**kept).retention_s == math.inf
    assert load_settings(**kept, job_retention="2h").retention_s == 7200


@pytest.mark.parametrize(
    ("given", "days"),
    [
        ({"host": "0.0.0.0"}, 7),
        ({"host": "192.0.2.7", "token": "correct-horse-battery-staple"}, 7),
        ({"token_keys": "/tmp/public"}, 7),
        ({"host": "127.0.0.1", "token": "correct-horse-battery-staple"}, 600 / 86_400),
        ({"host": "0.0.0.0", "job_retention": "1d"}, 1),
    ],
)
def test_results_of_a_service_for_several_people_stay_a_week_unless_set(config, given, days):
    assert load_settings(**given).retention_s == days * 86_400


NUMBERS = [
    name
    for name, field in settings_class().model_fields.items()
    if {int, float} & {field.annotation, *get_args(field.annotation)}
]


WORDS = ["1e308", "-1e308", "1e305", "5e-324", "nan", "inf", "-inf", "x" * 9999, "[[1]]"]


@pytest.mark.parametrize("word", [*WORDS, "1" + "0" * 400], ids=range(len(WORDS) + 1))
def test_impossible_number_is_refused_for_every_numeric_setting(word):
    with pytest.raises(errors.SettingsInvalid) as caught:
        load_settings(**dict.fromkeys(NUMBERS, word))
    assert settings_named_in(caught.value) == {*NUMBERS}


@pytest.mark.parametrize(
    "word", ["1e308", "5e-324", "nan", "inf", "true", '"true"', "[1]", "{a = 1}"]
)
def test_impossible_number_in_the_file_is_refused_for_every_numeric_setting(word, config):
    config.write_text("".join(f"{name} = {word}\n" for name in NUMBERS), "utf-8")
    with pytest.raises(errors.SettingsInvalid) as caught:
        load_settings()
    assert settings_named_in(caught.value) == {*NUMBERS}


def settings_named_in(error):
    """The settings that an error names as wrong: each has a problem of its own."""
    problems = error.detail.removeprefix("Bad setting: ").split("; ")
    return {problem.partition(":")[0].partition(".")[0] for problem in problems} & {*NUMBERS}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "99999"),
        ("token", "short"),
        ("port", "eighty"),
        ("engine", "parrot"),
        ("precision", "fp99"),
        ("diarization", "psychic"),
        ("keep_alive", "soon"),
        ("queue_limit", "0"),
        ("max_audio_hours", "-1"),
        ("preload", "perhaps"),
        ("log_level", "loud"),
    ],
)
@pytest.mark.parametrize("way", ["flag", "environment", "file"])
def test_impossible_value_is_refused_with_its_setting(way, name, value, config, monkeypatch):
    flags = {}
    if way == "flag":
        flags[name] = value
    elif way == "environment":
        monkeypatch.setenv(f"VIBEVOICE_{name.upper()}", value)
    else:
        config.write_text(f'{name} = "{value}"\n', "utf-8")
    with pytest.raises(errors.SettingsInvalid) as caught:
        load_settings(**flags)
    assert name in caught.value.detail


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "journal_key",
            "sixteen-letters-",
            "Bad setting: journal_key: shorter than 32 characters.",
        ),
        ("live_delay", "soon", "Bad setting: live_delay: not a duration such as"),
    ],
)
def test_refusal_of_a_value_has_no_text_of_pydantic(name, value, said):
    with pytest.raises(errors.SettingsInvalid) as told:
        load_settings(**{name: value})
    assert told.value.detail.startswith(said)


def test_invalid_toml_is_refused_with_its_file(config):
    config.write_text("port = = 3", "utf-8")
    with pytest.raises(errors.SettingsInvalid) as caught:
        load_settings()
    assert str(config) in caught.value.detail


def test_every_setting_has_one_flag_whose_help_states_its_default_once():
    flags = {flag.name: flag for flag in describe()}
    assert sorted(flag.name for flag in describe()) == sorted(settings_class().model_fields)
    assert all(flag.description.endswith(".") for flag in flags.values())
    defaults = {
        name: len(re.findall("Default: |[Ii]f unset", one.help)) for name, one in flags.items()
    }
    assert {name: found for name, found in defaults.items() if found != 1} == {}
    assert flags["keep_alive"].default == "10m"
    assert flags["preload"].option == "--preload/--no-preload"
    assert flags["max_upload_mb"].env == "VIBEVOICE_MAX_UPLOAD_MB"
    assert flags["log_level"].choices == ("debug", "info", "warning", "error")


def test_documented_default_equals_the_default():
    described = {flag.name: flag.default for flag in describe() if flag.default != "none"}
    usual = load_settings()
    given = {name: load_settings(**{name: default}) for name, default in described.items()}
    wrong = [name for name, one in given.items() if getattr(one, name) != getattr(usual, name)]
    assert [name for name in wrong if name != "spool_dir"] == []


def test_host_may_have_the_brackets_of_an_address_in_a_url(monkeypatch):
    assert load_settings(host="[::1]").host == "::1"
    monkeypatch.setenv("VIBEVOICE_HOST", "[fe80::1%eth0]")
    assert load_settings().host == "fe80::1%eth0"


def test_tilde_in_the_path_of_the_file_is_the_home_folder(monkeypatch, tmp_path):
    (tmp_path / "ours.toml").write_text("port = 1004\n", "utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("VIBEVOICE_CONFIG", "~/ours.toml")
    assert load_settings().port == 1004
    monkeypatch.delenv("VIBEVOICE_CONFIG")
    assert load_settings(config="~/ours.toml").port == 1004


def test_tilde_is_the_home_folder_in_every_setting_of_a_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    lists = {"audio_roots", "admin_model_roots"}
    paths = {flag.name for flag in describe() if flag.value == "path"} - lists
    assert {"config", "data_dir", "spool_dir", "model_path"} < paths
    paths |= {"tls", "uploads"} & {flag.name for flag in describe()}
    lines = [f"{name} = '~/{name}'" for name in paths - {"config"}]
    lines += [f"{name} = ['~/{name}', '/srv/~']" for name in lists]
    (tmp_path / "config").write_text("\n".join(lines), "utf-8")
    settings = load_settings(config="~/config")
    for name in paths:
        assert Path(getattr(settings, name)) == tmp_path / name
    for name in lists:
        assert getattr(settings, name) == (tmp_path / name, Path("/srv/~"))


@pytest.mark.posix("permissions of POSIX")
@pytest.mark.parametrize("folder", ["", "given"])
def test_user_without_home_folder_has_the_default_settings_and_no_data_folder(
    folder, monkeypatch, tmp_path
):
    def unknown(user: int) -> None:  # as for a number that has no name
        raise KeyError(user)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("VIBEVOICE_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", folder and str(tmp_path))
    assert load_settings().port == 8765
    with pytest.raises(errors.SettingsInvalid, match="no home folder"):
        data_folder(load_settings(), "jobs")
    assert default_data_folder(None) is None


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("darwin", {"XDG_CONFIG_HOME": "/elsewhere"}, "~/Library/Application Support"),
        ("linux", {}, "~/.config"),
        ("linux", {"XDG_CONFIG_HOME": "/elsewhere"}, "/elsewhere"),
        ("win32", {}, "~/AppData/Roaming"),
        ("win32", {"APPDATA": "/roaming"}, "/roaming"),
    ],
)
def test_file_of_settings_is_where_each_system_keeps_those_of_a_user(
    platform, variables, folder, monkeypatch
):
    for name in ("VIBEVOICE_CONFIG", "XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", platform)
    expected = Path(folder).expanduser() / "vibevoice-asr" / "config.toml"
    assert config_file_path() == expected


def test_hotwords_of_the_host_are_cleaned_and_too_many_are_refused() -> None:
    assert load_settings(hotwords=" Acme,Old  Nagg;Acme\x07 ").hotwords == ("Acme", "Old Nagg")
    assert load_settings(hotwords=["Acme", "Nell"]).hotwords == ("Acme", "Nell")
    with pytest.raises(errors.SettingsInvalid, match="'hotwords' has 5000 characters"):
        load_settings(hotwords="x" * 5000)
