"""Settings of the service, assembled from their groups.

Each topic has its own file; `Settings` combines them. `vibevoice-asr serve --help` and
`docs/settings.md` are generated from it.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from sidecar import errors
from sidecar.config import config_files, job_settings, server_settings
from sidecar.config.config_files import config_file_path
from sidecar.config.conversation_settings import ConversationSettings, TtsSettings
from sidecar.config.engine_settings import EngineSettings, EnrolledSpeakerSettings, UpstreamSettings
from sidecar.config.live_settings import CaptureSettings, GrpcSettings, LiveSettings
from sidecar.config.removed_settings import refuse_removed
from sidecar.config.setting_types import (
    ENV_PREFIX,
    ROLE_ALL,
    ROLE_FRONT,
    ROLE_NODE,
    DatabaseUrl,
    SettingsGroup,
    parse_duration,
)


class Settings(
    server_settings.ProcessSettings,
    server_settings.AccessSettings,
    EngineSettings,
    UpstreamSettings,
    job_settings.RecordingSettings,
    job_settings.JobSettings,
    EnrolledSpeakerSettings,
    LiveSettings,
    CaptureSettings,
    GrpcSettings,
    server_settings.WyomingSettings,
    ConversationSettings,
    TtsSettings,
    server_settings.OperationsSettings,
    BaseSettings,
):
    """All settings. Precedence: flags, environment, configuration file, defaults."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        defer_build=False,
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
        return math.inf if self.keeps_jobs else job_settings.DEFAULT_JOB_RETENTION_S

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
        """Return the sources: flags, environment, yap's variables, file; neither .env nor secret
        folders."""
        known = [name for name in settings_cls.model_fields if name != "config"]
        file = config_files.file_settings(init_settings().get("config"), known)
        yap = InitSettingsSource(settings_cls, config_files.yap_settings())
        return init_settings, env_settings, yap, InitSettingsSource(settings_cls, file)


_PYDANTIC_PREFIX = "Value error, "
"""Begin of pydantic's message for a validator of ours."""


def load_settings(**flags: Any) -> Settings:
    """Load the settings; ``flags`` that were given take precedence.

    Raises:
        errors.SettingsInvalid: a value is not valid; the detail names the setting.
    """
    refuse_removed(flags)
    if DatabaseUrl(str(flags.get("journal") or "")).has_password:
        raise errors.SettingsInvalid(
            "Other programs can read the password on the command line.",
            hint="Give it in VIBEVOICE_JOURNAL, by --journal @FILE, or in PGPASSWORD.",
        )
    try:
        return Settings(**flags)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix(_PYDANTIC_PREFIX)}"
            for problem in error.errors()
        )
        raise errors.SettingsInvalid(f"Bad setting: {wrong}.") from None
    except (OSError, ValueError) as error:  # pydantic could not read the environment
        raise errors.SettingsInvalid(f"The settings cannot be read: {error}") from None


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
    """Return the folder ``name`` in `data_dir`; in the user's data folder if that is unset."""
    if settings.data_dir is not None:
        return settings.data_dir.expanduser().absolute() / name
    import platformdirs

    return Path(platformdirs.user_data_dir("vibevoice-asr", appauthor=False)) / name
