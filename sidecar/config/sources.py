"""Where settings come from beside flags and our environment: files, and another server's names."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from sidecar.config.files import read_settings
from sidecar.config.original import Meant
from sidecar.config.settings_values import ENV_PREFIX

ELSEWHERE = {
    "MAX_CONCURRENT_CONNECTIONS": "live_sessions",
    "WS_IDLE_TIMEOUT_S": "live_idle",
    "WS_MAX_CONNECTION_DURATION_S": "live_longest",
    "WS_INBOUND_QUEUE_MAX": "live_inbound",
    "WS_MAX_MESSAGES_PER_WINDOW": "live_messages_per_minute",
    "WS_MAX_CANCELS_PER_WINDOW": "live_cancels_per_minute",
    "WS_CLOSE_UNAUTHORIZED_CODE": "live_close_unauthorized",
    "WS_CLOSE_BUSY_CODE": "live_close_busy",
    "WS_CLOSE_IDLE_REASON": "live_close_idle_reason",
}
"""Settings by the names that they have with the server whose wire is at `/api/asr-streaming`
(docs/live.md)."""


def config_file() -> Path:
    """The TOML file that is read: ``VIBEVOICE_CONFIG``, or the one in the user's config folder."""
    if named := os.environ.get(f"{ENV_PREFIX}CONFIG"):
        return Path(named)
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA", Path.home() / "AppData/Roaming"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Application Support"
    else:
        base = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config"))
    return base / "vibevoice-asr" / "config.toml"


class AsElsewhere(PydanticBaseSettingsSource):
    """The environment of a deployment that had that server before. What there means "as usual"
    (nothing, zero and below, or "off") means so here too."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Nothing for a field alone: all of them come at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Values by the names of our settings."""
        given = {name: os.environ.get(foreign, "") for foreign, name in ELSEWHERE.items()}
        usual = re.compile(r"\s*(|none|off|-.*|0+(\.0*)?)\s*", re.IGNORECASE)
        return {name: value for name, value in given.items() if not usual.fullmatch(value)}


class Files(PydanticBaseSettingsSource):
    """The file with settings, and the one of the model; ``given`` as flags, or by the
    environment."""

    def __init__(self, settings_cls: type[BaseSettings], given: dict[str, Any]) -> None:
        super().__init__(settings_cls)
        self._given = given

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Nothing for a field alone: all of them come at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Values by the names of our settings."""
        named, model = self._given.get("config"), self._given.get("config_model")
        model = model or os.environ.get(f"{ENV_PREFIX}CONFIG_MODEL")
        file = Path(named) if named else config_file()
        is_there = bool(named) or file.exists()
        meant = read(self.settings_cls, file if is_there else None, Path(model) if model else None)
        return dict(meant.settings)


def read(settings_cls: type[BaseSettings], file: Path | None, model: Path | None) -> Meant:
    """What the two files say of the settings that there are.

    Raises:
        errors.SettingsInvalid: one of them cannot be read.
    """
    names = [name for name in settings_cls.model_fields if not name.startswith("config")]
    return read_settings(file, model, names)
