"""Settings of the service, from their groups; configuration files, default paths, yap's variables.

Each topic has its own file; `Settings` combines them. `vibevoice-asr serve --help` and
`docs/settings.md` are generated from it.
"""

from __future__ import annotations

import difflib
import functools
import logging
import math
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from sidecar import errors, files
from sidecar.config import engine_settings, live_settings, server_settings
from sidecar.config.setting_types import (
    ENV_PREFIX,
    ROLE_ALL,
    ROLE_FRONT,
    ROLE_NODE,
    DatabaseUrl,
    SettingsGroup,
    parse_duration,
)
from sidecar.errors import SettingsInvalid


class Settings(
    server_settings.ProcessSettings,
    server_settings.AccessSettings,
    engine_settings.EngineSettings,
    engine_settings.UpstreamSettings,
    engine_settings.RecordingSettings,
    engine_settings.JobSettings,
    engine_settings.EnrolledSpeakerSettings,
    live_settings.LiveSettings,
    live_settings.GrpcSettings,
    server_settings.WyomingSettings,
    live_settings.ConversationSettings,
    live_settings.TtsSettings,
    server_settings.OperationsSettings,
    BaseSettings,
):
    """All settings. Precedence: flags, environment, configuration file, defaults."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="ignore", defer_build=False
    )

    @classmethod
    def groups(cls) -> list[type[SettingsGroup]]:
        """Return the groups of settings, in the order in which they are read."""
        return [base for base in cls.__bases__ if issubclass(base, SettingsGroup)]

    @property
    def shares_jobs(self) -> bool:
        """Return whether the service shares its jobs with other services."""
        return self.journal is not None

    @property
    def keeps_jobs(self) -> bool:
        """Return whether jobs persist across restarts of the service."""
        return self.keep_jobs or self.shares_jobs

    @property
    def retention_s(self) -> float:
        """Return the seconds for which results of jobs are kept; infinite: until they are
        deleted."""
        if self.job_retention is not None:
            return self.job_retention
        return math.inf if self.keeps_jobs else engine_settings.DEFAULT_JOB_RETENTION_S

    @property
    def encrypted(self) -> bool:
        """Return whether the service uses HTTPS."""
        return self.tls != server_settings.TLS_OFF

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources: flags, environment, file, yap's variables; neither .env nor secret
        folders."""
        known = [name for name in settings_cls.model_fields if name != "config"]
        file = file_settings(init_settings().get("config"), known)
        yap = InitSettingsSource(settings_cls, yap_settings())
        return init_settings, env_settings, InitSettingsSource(settings_cls, file), yap


_PYDANTIC_PREFIX = "Value error, "
"""Begin of pydantic's message for a validator of ours."""


def load_settings(**flags: Any) -> Settings:
    """Load the settings; ``flags`` that were given take precedence.

    Raises:
        errors.SettingsInvalid: a value is not valid; the detail names the setting.
    """
    if DatabaseUrl(str(flags.get("journal") or "")).has_password:
        raise errors.SettingsInvalid(
            "Other programs can read the password on the command line.",
            hint="Give it in VIBEVOICE_JOURNAL, by --journal @FILE, or in PGPASSWORD.",
        )
    try:
        return Settings(**flags)
    except ValidationError as error:
        wrong = "; ".join(
            f"{_named(problem['loc'], flags)}: {problem['msg'].removeprefix(_PYDANTIC_PREFIX)}"
            for problem in error.errors()
        )
        raise errors.SettingsInvalid(f"Bad setting: {wrong}.") from None
    except (OSError, ValueError) as error:  # pydantic could not read the environment
        raise errors.SettingsInvalid(f"The settings cannot be read: {error}") from None


def _named(place: tuple[int | str, ...], flags: Mapping[str, Any]) -> str:
    """Return the name of a setting, with the variable of yap's that it has its value from."""
    name = ".".join(map(str, place))
    own = name in flags or f"{ENV_PREFIX}{name.upper()}" in os.environ
    return name if own or name not in yap_settings() else f"{name} (by {YAP_NAMES[name]})"


_NOT_SETTINGS = re.compile(
    r"(ASR|TEST|SCRIPTED|WORKER)_|(EXECUTABLE|CLIENT_TOKEN)$|.*SERVICE_(HOST|PORT)|.*PORT_\d+_(TCP|UDP)"
)
"""Variables with the prefix that are not settings: of clients, tests, workers and Kubernetes."""


def unknown_variables() -> Iterator[tuple[str, str]]:
    """Yield the problem and the remedy for each variable that has the prefix and is not a
    setting."""
    known = [name.upper() for name in Settings.model_fields]
    for name in sorted(name for name, value in os.environ.items() if value):
        word = name.upper().removeprefix(ENV_PREFIX)
        if word not in (name.upper(), *known) and not _NOT_SETTINGS.match(word):
            close = difflib.get_close_matches(word, known, 1)
            remedy = f"Unset {name}; docs/settings.md has all settings."
            if close:
                remedy = f"Did you mean {ENV_PREFIX}{close[0]}? Set that instead of {name}."
            yield f"There is no setting {name}; it has no effect.", remedy


def data_folder(settings: Settings, name: str) -> Path:
    """Return the folder ``name`` in `data_dir`; in the user's data folder if that is unset.

    Raises:
        errors.SettingsInvalid: it is unset, and the user has no home folder.
    """
    if settings.data_dir is not None:
        return settings.data_dir.expanduser().absolute() / name
    import platformdirs

    try:
        return Path(platformdirs.user_data_dir("vibevoice-asr", appauthor=False)) / name
    except (OSError, KeyError, RuntimeError):
        raise errors.SettingsInvalid(
            "There is no folder for data, as the user has no home folder.",
            hint="Set VIBEVOICE_DATA_DIR.",
        ) from None


log = logging.getLogger(__name__)

MAX_FILE_BYTES = 256 << 10


def suggestion(word: str, known: Sequence[str]) -> str:
    """Return a hint for an unknown word: the closest known one, or all of them."""
    close = difflib.get_close_matches(word, known, 1)
    return f"Did you mean '{close[0]}'?" if close else f"There are: {', '.join(sorted(known))}."


def read_config_files(path: Path, known: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a TOML file; ``known`` are the valid names.

    Raises:
        errors.SettingsInvalid: it cannot be read, or has an unknown key.
    """
    if path.suffix.lower() in (".yaml", ".yml"):
        raise SettingsInvalid(
            f"The file {path} is YAML.",
            hint="Make TOML of it with 'vibevoice-asr config convert', and name that by --config.",
        )
    try:
        given = tomllib.loads(files.read(path, MAX_FILE_BYTES).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SettingsInvalid(f"The file {path} cannot be read: {error}") from None
    for name in given:
        if name not in known:
            hint = suggestion(name, known)
            raise SettingsInvalid(f"{path}: there is no setting '{name}'.", hint=hint)
    return given


YAP_VARIABLES = {
    "MAX_CONCURRENT_CONNECTIONS": "live_sessions",
    "WS_IDLE_TIMEOUT_S": "live_idle",
    "WS_MAX_CONNECTION_DURATION_S": "live_longest",
}
"""Settings by their variables in the yap server, whose protocol is served at `/api/asr-streaming`
(docs/live.md)."""
YAP_NAMES = {name: variable for variable, name in YAP_VARIABLES.items()}
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
        return expand_home(Path(named))
    if sys.platform == "win32":
        base = os.environ.get("APPDATA") or "~/AppData/Roaming"
    elif sys.platform == "darwin":
        base = "~/Library/Application Support"
    else:
        base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return expand_home(Path(base)) / "vibevoice-asr" / "config.toml"


def expand_home(path: Path) -> Path:
    """Return a path with ``~`` replaced by the user's home folder. If there is none, return one of
    no file."""
    try:
        return path.expanduser()
    except RuntimeError:  # no HOME, and a user who is not in the list of users
        return Path(os.devnull) / path


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
        return read_config_files(expand_home(Path(named)), known)
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


MAX_REASON_BYTES = 123
"""Maximum bytes of a close frame's reason (RFC 6455, 5.5)."""


@dataclass(frozen=True, slots=True)
class YapCloseCodes:
    """Close codes of connections; newer clients expect 1008, 1013 and `idle_timeout`."""

    unauthorized: int = 4001
    busy: int = 4002
    idle_reason: str = "idle timeout"

    @classmethod
    def of_environment(cls) -> YapCloseCodes:
        """Return the codes that the variables of the yap server configure (docs/live.md).

        Raises:
            SettingsInvalid: a code is not a close code, or the reason is too long for a
                frame.
        """
        reason = yap_variable("WS_CLOSE_IDLE_REASON") or cls().idle_reason
        if len(reason.encode()) > MAX_REASON_BYTES:
            raise SettingsInvalid("WS_CLOSE_IDLE_REASON is too long for a close frame.")
        return cls(
            _close_code("WS_CLOSE_UNAUTHORIZED_CODE", cls().unauthorized),
            _close_code("WS_CLOSE_BUSY_CODE", cls().busy),
            reason,
        )


def _close_code(variable: str, usual: int) -> int:
    value = yap_variable(variable) or str(usual)
    if not re.fullmatch(r"[1-4][0-9]{3}", value, re.ASCII):
        raise SettingsInvalid(
            f"{variable} is not a close code.", hint="Use a number from 1000 to 4999."
        )
    return int(value)
