"""Settings of the service, from their groups; configuration files, default paths.

Each topic has its own file; `Settings` combines them. `vibevoice-asr serve --help` and
`docs/settings.md` are generated from it.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import logging
import math
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

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
    DatabaseUrl,
    SettingsGroup,
    WordList,
    parse_duration,
    with_engines,
)
from sidecar.errors import SettingsInvalid
from sidecar.interfaces.engine_interface import PluginEngine

_PYDANTIC_PREFIX = "Value error, "
"""Begin of pydantic's message for a validator of ours."""
_NOT_SETTINGS = re.compile(
    r"(ASR|TEST|SCRIPTED|WORKER)_|(EXECUTABLE|CLIENT_TOKEN)$|.*SERVICE_(HOST|PORT)|.*PORT_\d+_(TCP|UDP)"
)
"""Variables with the prefix that are not settings: of clients, tests, workers and Kubernetes."""
log = logging.getLogger(__name__)
MAX_FILE_BYTES = 256 << 10


class FileSettings(BaseSettings):
    """Settings from flags, the environment, and a configuration file. There is no .env, nor a
    folder of secrets."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="ignore", defer_build=True
    )

    @classmethod
    def known_names(cls) -> list[str] | None:
        """Return the names that the file may have; `None`: any."""
        return None

    @classmethod
    def foreign_settings(cls) -> dict[str, str]:
        """Return the settings from the environment of a system that was served before."""
        return {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources: flags, environment, file, replaced systems' variables."""
        file = file_settings(init_settings().get("config"), cls.known_names())
        more = (file, cls.foreign_settings())
        return init_settings, env_settings, *(InitSettingsSource(cls, one) for one in more)


class Settings(
    server_settings.ProcessSettings,
    server_settings.AccessSettings,
    engine_settings.EngineSettings,
    engine_settings.RecordingSettings,
    engine_settings.JobSettings,
    engine_settings.EnrolledSpeakerSettings,
    live_settings.LiveSettings,
    server_settings.OperationsSettings,
    FileSettings,
):
    """Settings of the core; `with_plugins` adds those of plugins. Precedence: flags, environment,
    configuration file, the environment of replaced systems, defaults."""

    model_config = FileSettings.model_config
    foreign_variables: ClassVar[Mapping[str, str]] = {}
    """Settings by their variables in the environment of systems that this service replaces."""

    plugin_engines: ClassVar[Sequence[PluginEngine]] = ()
    """Engines that the setting `engine` can name beside those of the core."""

    @classmethod
    def with_plugins(
        cls,
        groups: Iterable[type[SettingsGroup]],
        engines: Sequence[PluginEngine],
        foreign_variables: Mapping[str, str],
    ) -> type[Settings]:
        """Return the class of the core's settings, these ``groups``, and these ``engines``."""
        members = {
            "__module__": __name__,
            "foreign_variables": foreign_variables,
            "plugin_engines": engines,
        }
        files = {one.spec.name: one.description for one in engines}
        live = {one.spec.name: one.live for one in engines if one.live}
        bases = (
            *groups,
            with_engines(engine_settings.EngineSettings, "engine", files),
            with_engines(live_settings.LiveSettings, "live_engine", live),
            cls,
        )
        return type("Settings", bases, members)

    @classmethod
    def groups(cls) -> list[type[SettingsGroup]]:
        """Return the groups of settings: the core's, then those of plugins. A group that extends
        another stands in its place."""
        bases = dict.fromkeys((*Settings.__bases__, *cls.__bases__))
        groups = [
            base
            for base in bases
            if issubclass(base, SettingsGroup) and base not in (cls, Settings)
        ]
        last = [next(one for one in reversed(groups) if issubclass(one, base)) for base in groups]
        return list(dict.fromkeys(last))

    @classmethod
    def known_names(cls) -> list[str]:
        """Return the names of all settings but that of the file."""
        return [name for name in cls.model_fields if name != "config"]

    @classmethod
    def foreign_settings(cls) -> dict[str, str]:
        """Return the settings from the environment of a system that was served before."""
        given = {name: foreign_variable(word) for word, name in cls.foreign_variables.items()}
        return {name: value for name, value in given.items() if value}

    @classmethod
    def foreign_names(cls, flags: Mapping[str, Any]) -> dict[str, str]:
        """Return the settings that are from a replaced system's environment by name, each with its
        variable, as messages name it."""
        return {
            name: f"{name} (by {variable})"
            for variable, name in cls.foreign_variables.items()
            if foreign_variable(variable)
            and not (name in flags or f"{ENV_PREFIX}{name.upper()}" in os.environ)
        }

    @property
    def shares_jobs(self) -> bool:
        """Return whether the service shares its jobs with other services; a plugin decides it."""
        return False

    @property
    def is_front(self) -> bool:
        """Return whether the service only accepts shared jobs, and others run them."""
        return False

    @property
    def is_node(self) -> bool:
        """Return whether the service only runs shared jobs, which others accept."""
        return False

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
        if self.keeps_jobs:
            return math.inf
        shared = self.token_keys is not None or not server_settings.is_loopback_address(self.host)
        if shared:
            return engine_settings.SHARED_JOB_RETENTION_S
        return engine_settings.DEFAULT_JOB_RETENTION_S

    @property
    def encrypted(self) -> bool:
        """Return whether the service uses HTTPS."""
        return self.tls != server_settings.TLS_OFF


class PluginChoice(FileSettings):
    """The setting `plugins`, which decides what other settings there are."""

    config: Path | None = None
    plugins: WordList = (server_settings.ALL_PLUGINS,)


def read_settings(settings_class: type[Settings], **flags: Any) -> Settings:
    """Read the settings of a class; ``flags`` that were given take precedence.

    Raises:
        errors.SettingsInvalid: a value is not valid; the detail names the setting.
    """
    if DatabaseUrl(str(flags.get("journal") or "")).has_password:
        raise errors.SettingsInvalid(
            "Other programs can read the password on the command line.",
            hint="Give it in VIBEVOICE_JOURNAL, by --journal @FILE, or in PGPASSWORD.",
        )
    with _problems_as_errors(settings_class.foreign_names(flags)):
        return settings_class(**flags)


def read_plugin_choice(**flags: Any) -> tuple[str, ...]:
    """Read the setting `plugins` alone.

    Raises:
        errors.SettingsInvalid: it is not valid, or the file cannot be read.
    """
    given = {name: flags[name] for name in ("config", "plugins") if name in flags}
    with _problems_as_errors({}):
        return PluginChoice(**given).plugins


@contextlib.contextmanager
def _problems_as_errors(names: Mapping[str, str]) -> Iterator[None]:
    """Raise what pydantic reports as `errors.SettingsInvalid`; ``names``: of settings that have
    another name in the message."""
    try:
        yield
    except ValidationError as error:
        wrong = "; ".join(
            f"{names.get(name := '.'.join(map(str, problem['loc'])), name)}: "
            f"{problem['msg'].removeprefix(_PYDANTIC_PREFIX)}"
            for problem in error.errors()
        )
        raise errors.SettingsInvalid(f"Bad setting: {wrong}.") from None
    except (OSError, ValueError) as error:  # pydantic could not read the environment
        raise errors.SettingsInvalid(f"The settings cannot be read: {error}") from None


def unknown_variables(
    settings: Settings, plugins_off: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield the problem and the remedy for each variable that has the prefix and is not a
    setting. ``plugins_off``: the plugins that are off, by their settings."""
    known = [name.upper() for name in type(settings).model_fields]
    for name in sorted(name for name, value in os.environ.items() if value):
        word = name.upper().removeprefix(ENV_PREFIX)
        if word not in (name.upper(), *known) and not _NOT_SETTINGS.match(word):
            if plugin := plugins_off.get(word.lower()):
                remedy = "Unset it, or turn the plugin on by the setting 'plugins'."
                yield f"{name} has no effect: it is of the plugin '{plugin}', which is off.", remedy
                continue
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
        return settings.data_dir.absolute() / name
    if (folder := files.user_folder("data")) is None:
        raise errors.SettingsInvalid(
            "There is no folder for data, as the user has no home folder.",
            hint="Set VIBEVOICE_DATA_DIR.",
        )
    return folder / name


def suggestion(word: str, known: Sequence[str]) -> str:
    """Return a hint for an unknown word: the closest known one, or all of them."""
    close = difflib.get_close_matches(word, known, 1)
    return f"Did you mean '{close[0]}'?" if close else f"There are: {', '.join(sorted(known))}."


def read_config_files(path: Path, known: Sequence[str] | None) -> dict[str, Any]:
    """Return the settings of a TOML file; ``known`` are the valid names
    (None: any).

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
        if known is not None and name not in known:
            hint = suggestion(name, known)
            raise SettingsInvalid(f"{path}: there is no setting '{name}'.", hint=hint)
    return given


def config_file_path() -> Path:
    """Return the path of the TOML file: ``VIBEVOICE_CONFIG``, or the one in the user's config
    folder."""
    if named := os.environ.get(f"{ENV_PREFIX}CONFIG"):
        return files.expand_home(Path(named))
    if sys.platform == "win32":
        base = os.environ.get("APPDATA") or "~/AppData/Roaming"
    elif sys.platform == "darwin":
        base = "~/Library/Application Support"
    else:
        base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return files.expand_home(Path(base)) / "vibevoice-asr" / "config.toml"


def foreign_variable(name: str) -> str:
    """Return a variable of a replaced system's environment; "" if it is unset or means the default
    (empty, zero or negative, "none" or "off")."""
    value = os.environ.get(name, "")
    usual = re.compile(r"\s*(|none|off|-.*|0+(\.0*)?)\s*", re.IGNORECASE)
    return "" if usual.fullmatch(value) else value


def file_settings(named: str | Path | None, known: Sequence[str] | None) -> dict[str, Any]:
    """Return the settings of the file ``named`` by a flag, else of the default file if it exists
    and may be read; ``known`` are the valid names (None: any).

    Raises:
        errors.SettingsInvalid: as `read_config_files`.
    """
    if named:
        return read_config_files(files.expand_home(Path(named)), known)
    file, by_variable = config_file_path(), f"{ENV_PREFIX}CONFIG" in os.environ
    try:
        if not files.exists(file):
            return {}
        if not by_variable:
            os.close(files.open_to_read(file))
    except PermissionError:
        if not by_variable and files.belongs_to_another_user(file.parent):  # as after setpriv
            _warn_once(f"the settings in {file} are not used: the folder is another user's")
            return {}
    return read_config_files(file, known)


@functools.cache
def _warn_once(text: str) -> None:
    log.warning("%s", text)
