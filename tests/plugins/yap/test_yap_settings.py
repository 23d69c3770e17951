"""Variables of the yap server's environment."""

from pathlib import Path

import pytest

from sidecar import errors
from sidecar.plugins import load_settings
from sidecar.plugins.yap.settings import YapCloseCodes
from sidecar.server.app import create_app, create_service


def test_variables_of_the_original_server_set_limits_and_close_codes_and_yield_to_ours(
    no_settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WS_CLOSE_BUSY_CODE", "1013")
    monkeypatch.setenv("WS_IDLE_TIMEOUT_S", "30")
    monkeypatch.setenv("MAX_CONCURRENT_CONNECTIONS", "7")
    monkeypatch.setenv("WS_MAX_CONNECTION_DURATION_S", "off")
    settings = load_settings()
    assert (settings.live_idle, settings.live_sessions) == (30, 7)
    assert YapCloseCodes.of_environment() == YapCloseCodes(busy=1013)
    assert settings.live_longest == 5400
    monkeypatch.setenv("VIBEVOICE_LIVE_IDLE", "40")
    assert load_settings().live_idle == 40
    monkeypatch.setenv("WS_CLOSE_BUSY_CODE", "busy")
    with pytest.raises(errors.SettingsInvalid, match="WS_CLOSE_BUSY_CODE"):
        create_app(settings, create_service(settings))


def test_variable_of_the_original_server_yields_to_the_settings_file_and_is_named_if_invalid(
    no_settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_CONCURRENT_CONNECTIONS", "100k")
    with pytest.raises(errors.SettingsInvalid, match="by MAX_CONCURRENT_CONNECTIONS"):
        load_settings()
    no_settings.write_text("live_sessions = 5\n", encoding="utf-8")
    assert load_settings().live_sessions == 5
