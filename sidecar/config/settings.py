"""Settings of the service, assembled from their groups.

They lie by what they are about, a file each, and `Settings` is all of them together.
`vibevoice-asr serve --help` and `docs/settings.md` are written from it.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from sidecar import errors
from sidecar.config.config_files import AsElsewhere, Files, config_file, refuse_removed
from sidecar.config.conversation_settings import Talk, Voices
from sidecar.config.engine_settings import Engines, People, Upstream
from sidecar.config.job_settings import Jobs, Recordings
from sidecar.config.live_settings import Captures, Grpc, Live
from sidecar.config.server_settings import Access, Operations, Process, Wyoming
from sidecar.config.setting_types import (
    ALL,
    ENV_PREFIX,
    FRONT,
    NODE,
    SHORTEST_JOURNAL_KEY,
    SHORTEST_TOKEN,
    Address,
    Group,
    parse_duration,
)


class Settings(
    Process,
    Access,
    Engines,
    Upstream,
    Recordings,
    Jobs,
    People,
    Live,
    Captures,
    Grpc,
    Wyoming,
    Talk,
    Voices,
    Operations,
    BaseSettings,
):
    """Flags win over the environment, the environment over the file, the file over defaults."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        defer_build=False,
    )

    @classmethod
    def groups(cls) -> list[type[Group]]:
        """What they are about, in the order in which they are read."""
        return [base for base in cls.__bases__ if issubclass(base, Group)]

    @property
    def shares_jobs(self) -> bool:
        """Whether other services have the same jobs."""
        return self.journal is not None or self.journal_file is not None

    @property
    def keeps_jobs(self) -> bool:
        """Whether jobs outlive the service."""
        return self.keep_jobs or self.shares_jobs

    @property
    def encrypted(self) -> bool:
        """Whether the service speaks HTTPS."""
        return self.tls != "off" or self.tls_cert is not None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, the same by others' names, file; neither .env nor secret folders."""
        files = Files(settings_cls, init_settings())
        return init_settings, env_settings, AsElsewhere(settings_cls), files


def load_settings(**flags: Any) -> Settings:
    """The settings in force, with ``flags`` (those that were given) on top.

    Raises:
        errors.SettingsInvalid: a value is not possible; the detail names the setting.
    """
    refuse_removed(flags)
    if Address(str(flags.get("journal") or "")).has_password:
        raise errors.SettingsInvalid(
            "Other programs can read the password on the command line.",
            hint="Give it in VIBEVOICE_JOURNAL, by --journal-file FILE, or in PGPASSWORD.",
        )
    try:
        return Settings(**flags)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise errors.SettingsInvalid(f"Bad setting: {wrong}.") from None
    except (OSError, ValueError) as error:  # pydantic's own trouble with the environment
        raise errors.SettingsInvalid(f"The settings cannot be read: {error}") from None
