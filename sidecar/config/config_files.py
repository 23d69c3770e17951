"""Configuration files: TOML of ours, sources and precedence of settings."""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from sidecar import files
from sidecar.config import grpc_yaml_config
from sidecar.config.grpc_yaml_config import Meant
from sidecar.config.setting_types import ENV_PREFIX
from sidecar.errors import SettingsInvalid
from sidecar.version import is_frozen

LARGEST = 256 << 10
"""Bytes."""
YAML = frozenset({".yaml", ".yml"})
DEEPEST = 20
"""Levels of a YAML file, of which two mean something."""


def is_yaml(path: Path) -> bool:
    """Whether a file is one of the other server's, by its name."""
    return path.suffix.lower() in YAML


def read_settings(path: Path | None, model: Path | None, known: Sequence[str]) -> Meant:
    """What a file says, and with it the one that says more of the ``model`` (YAML as well).
    ``known``: the names of settings.

    Raises:
        errors.SettingsInvalid: one cannot be read, or has a key that is not known.
    """
    if model is not None and not is_yaml(model):
        raise SettingsInvalid(f"The file {model} is no YAML.", hint="Name it NAME.yaml.")
    ours = _toml(path, known) if path is not None and not is_yaml(path) else {}
    theirs = [one for one in (path, model) if one is not None and is_yaml(one)]
    meant = grpc_yaml_config.meant([(str(one), _yaml(one)) for one in theirs])
    return Meant({**ours, **meant.settings}, meant.unheeded)


def _toml(path: Path, known: Sequence[str]) -> dict[str, Any]:
    try:
        given = tomllib.loads(files.read(path, LARGEST).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SettingsInvalid(f"The file {path} cannot be read: {error}") from None
    for name in given:
        if name not in known:
            raise SettingsInvalid(
                f"{path}: there is no setting '{name}'.",
                hint=grpc_yaml_config.suggestion(name, known),
            )
    return given


def _yaml(path: Path) -> object:
    try:
        import yaml
    except ImportError:
        raise SettingsInvalid(
            f"The file {path} is YAML, and the package 'pyyaml' is missing.",
            hint="This executable has it not; 'config convert' elsewhere makes TOML of it."
            if is_frozen()
            else "pip install 'vibevoice-asr[grpc]'",
        ) from None
    data = files.read(path, LARGEST)
    try:
        depth = 0
        for event in yaml.parse(data, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise SettingsInvalid(f"{path}: aliases ('*{event.anchor}') are not read.")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise SettingsInvalid(f"{path}: this is nested deeper than any key.")
        _refuse_twins(path, yaml.compose(data, Loader=yaml.SafeLoader))
        return yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise SettingsInvalid(f"The file {path} cannot be read: {said}.") from None


def _refuse_twins(path: Path, node: Any) -> None:
    """A key that is there twice: the first would be lost without a word."""
    seen = set()
    for pair in node.value if node is not None and node.id == "mapping" else ():
        key, value = pair
        if key.value in seen and key.id == "scalar":
            line = key.start_mark.line + 1
            raise SettingsInvalid(f"{path}: '{key.value}' is there twice (line {line}).")
        if key.id == "scalar":
            seen.add(key.value)
        _refuse_twins(path, value)


def text_of(meant: Meant, sources: Sequence[str]) -> str:
    """The file that says what ``meant`` does; ``sources``: the names of the files it came from."""
    lines = [f"# Settings of vibevoice-asr, from {', '.join(sources)}."]
    if meant.unheeded:
        lines += ["# Nothing here corresponds to:", *(f"#   {key}" for key in meant.unheeded)]
    return "\n".join([*lines, "", *_pairs(meant.settings)]) + "\n"


def _pairs(settings: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {_value(value)}" for name, value in settings.items()]


def _value(value: Any) -> str:
    """JSON's texts, numbers and truths are TOML's too, but for one character that TOML wants
    escaped."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")


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
