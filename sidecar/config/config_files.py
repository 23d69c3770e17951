"""Configuration files: TOML, environment variables of the yap server, default paths."""

from __future__ import annotations

import difflib
import functools
import logging
import os
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sidecar import files
from sidecar.config.removed_settings import CONVERT, REMOVED
from sidecar.config.setting_types import ENV_PREFIX
from sidecar.errors import SettingsInvalid

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 256 << 10


def is_yaml(path: Path) -> bool:
    """Return whether a file is YAML, by its name: a configuration of the replaced gRPC server."""
    return path.suffix.lower() in (".yaml", ".yml")


def suggestion(word: str, known: Sequence[str]) -> str:
    """Return a hint for an unknown word: the closest known one, or all of them."""
    close = difflib.get_close_matches(word, known, 1)
    return f"Did you mean '{close[0]}'?" if close else f"There are: {', '.join(sorted(known))}."


def read_config_files(path: Path, known: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a TOML file; ``known`` are the valid names.

    Raises:
        errors.SettingsInvalid: it cannot be read, or has an unknown key.
    """
    if is_yaml(path):
        raise SettingsInvalid(f"The file {path} is YAML.", hint=CONVERT)
    try:
        given = tomllib.loads(files.read(path, MAX_FILE_BYTES).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SettingsInvalid(f"The file {path} cannot be read: {error}") from None
    for name in given:
        if name not in known:
            raise SettingsInvalid(
                f"{path}: there is no setting '{name}'.",
                hint=REMOVED[name].hint if name in REMOVED else suggestion(name, known),
            )
    return given


YAP_VARIABLES = {
    "MAX_CONCURRENT_CONNECTIONS": "live_sessions",
    "WS_IDLE_TIMEOUT_S": "live_idle",
    "WS_MAX_CONNECTION_DURATION_S": "live_longest",
}
"""Settings by their variables in the yap server, whose protocol is served at `/api/asr-streaming`
(docs/live.md)."""
UNSUPPORTED_YAP_VARIABLES = (
    "WS_INBOUND_QUEUE_MAX",
    "WS_MAX_MESSAGES_PER_WINDOW",
    "WS_MAX_CANCELS_PER_WINDOW",
)
"""Variables whose values are fixed in this service; if one is set, the service logs a warning."""


def config_file_path() -> Path:
    """Return the path of the TOML file: ``VIBEVOICE_CONFIG``, or the one in the user's config
    folder."""
    if named := os.environ.get(f"{ENV_PREFIX}CONFIG"):
        return Path(named)
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA", Path.home() / "AppData/Roaming"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Application Support"
    else:
        base = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config"))
    return base / "vibevoice-asr" / "config.toml"


def yap_variable(name: str) -> str:
    """Return a variable of the yap server's environment; "" if it is unset or means the default
    (empty, zero or negative, "none" or "off")."""
    value = os.environ.get(name, "")
    usual = re.compile(r"\s*(|none|off|-.*|0+(\.0*)?)\s*", re.IGNORECASE)
    return "" if usual.fullmatch(value) else value


def yap_settings() -> dict[str, Any]:
    """Return the settings from the environment of a deployment that ran the yap server before."""
    given = {name: yap_variable(foreign) for foreign, name in YAP_VARIABLES.items()}
    return {name: value for name, value in given.items() if value}


def file_settings(named: str | Path | None, known: Sequence[str]) -> dict[str, Any]:
    """Return the settings of the file ``named`` by a flag, else of the default file if it exists
    and may be read; ``known`` are the valid names.

    Raises:
        errors.SettingsInvalid: as `read_config_files`.
    """
    if named:
        return read_config_files(Path(named), known)
    file, by_variable = config_file_path(), f"{ENV_PREFIX}CONFIG" in os.environ
    try:
        if not file.exists():
            return {}
        if not by_variable:
            os.close(os.open(file, files.OPEN_FLAGS))
    except PermissionError:
        if not by_variable and files.belongs_to_another_user(file.parent):  # as after setpriv
            _warn_once(f"the settings in {file} are not used: the folder is another user's")
            return {}
    return read_config_files(file, known)


@functools.cache
def _warn_once(text: str) -> None:
    log.warning("%s", text)
