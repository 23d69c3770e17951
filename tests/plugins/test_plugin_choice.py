"""The setting `plugins`."""

import functools
from pathlib import Path

import pytest

from sidecar import errors
from sidecar.config.setting_types import SettingsGroup, setting
from sidecar.config.settings import unknown_variables
from sidecar.plugin import Plugin
from sidecar.plugins import (
    PLUGINS,
    enabled,
    load_settings,
    plugins_on,
    settings_of,
    settings_of_plugins_off,
)
from sidecar.server.app import create_app, create_service
from sidecar.server.listeners import reserve_ports

NAMES = [plugin.name for plugin in PLUGINS]
WITHOUT_PATHS = ("yap", "tracing")
"""A WebSocket only, and middleware only."""


@pytest.fixture(autouse=True)
def config(no_settings: Path) -> Path:
    """An environment without settings of the machine's, and a file of our own."""
    no_settings.touch()
    return no_settings


def names(*choice: str) -> list[str]:
    return [plugin.name for plugin in plugins_on(choice)]


@functools.cache
def paths(choice: str) -> frozenset[str]:
    settings = load_settings(engine="scripted", plugins=choice)
    return frozenset(create_app(settings, create_service(settings)).openapi()["paths"])


def test_all_plugins_are_on_by_default() -> None:
    assert [plugin.name for plugin in enabled(load_settings())] == NAMES


def test_plugins_are_chosen_by_name_or_left_out() -> None:
    assert names("vvv", "yap") == ["vvv", "yap"]
    assert names("-vvv", "-yap") == [name for name in NAMES if name not in ("vvv", "yap")]
    assert names("all", "-vvv") == names("-vvv")


def test_plugin_without_a_required_one_is_off_or_refused_if_named() -> None:
    assert {"openai", "realtime"}.isdisjoint(names("-openai"))
    with pytest.raises(errors.SettingsInvalid, match="'realtime' requires conversation, openai"):
        names("realtime")


def test_plugin_setting_with_the_name_of_a_core_setting_is_refused() -> None:
    class Twin(SettingsGroup):
        """Twin: a setting of the core."""

        queue_limit: int = setting(1, "Another limit.")

    with pytest.raises(errors.SettingsInvalid, match="already: queue_limit"):
        settings_of((Plugin(name="twin", settings=Twin),))


def test_environment_variable_of_a_plugin_that_is_off_is_named_with_the_plugin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIBEVOICE_JOURNAL", "postgresql://me:pw@db/jobs")
    settings = load_settings(plugins="-shared_jobs")
    ((problem, remedy),) = unknown_variables(settings, settings_of_plugins_off(type(settings)))
    assert "'shared_jobs', which is off" in problem
    assert "VIBEVOICE_JOURNAL_KEY" not in remedy


def test_unknown_plugin_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(errors.SettingsInvalid) as caught:
        names("-wyomin")
    assert caught.value.hint == "Did you mean 'wyoming'?"
    with pytest.raises(errors.SettingsInvalid, match="no plugin 'all'"):
        names("-all")


def test_plugins_are_chosen_by_flag_before_environment_before_file(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text('plugins = ["yap"]\n', encoding="utf-8")
    assert [plugin.name for plugin in enabled(load_settings())] == ["yap"]
    monkeypatch.setenv("VIBEVOICE_PLUGINS", "vvv")
    assert [plugin.name for plugin in enabled(load_settings())] == ["vvv"]
    assert [plugin.name for plugin in enabled(load_settings(plugins="-vvv"))] == names("-vvv")


@pytest.mark.parametrize("plugin", PLUGINS, ids=NAMES)
def test_plugin_that_is_off_has_no_route_port_or_setting(
    plugin: Plugin, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if plugin.http is not None and plugin.name not in WITHOUT_PATHS:
        assert paths("-" + plugin.name) < paths("all")
    for name in plugin.settings.model_fields if plugin.settings else ():
        with pytest.raises(errors.SettingsInvalid, match=f"plugin '{plugin.name}', which is off"):
            load_settings(plugins=f"-{plugin.name}", **{name: "1"})
        config.write_text(f'{name} = "1"\n', encoding="utf-8")
        with pytest.raises(errors.SettingsInvalid, match=f"there is no setting '{name}'"):
            load_settings(plugins=f"-{plugin.name}")
    config.write_text("", encoding="utf-8")
    for port in plugin.ports:
        monkeypatch.setenv(f"VIBEVOICE_{port.setting.upper()}", "0")
    assert reserve_ports(load_settings(plugins=f"-{plugin.name}")) == {}
