"""Settings of services that share their jobs."""

from typing import Final, Literal

from sidecar.config.setting_types import DatabaseUrl, PathText, SettingsGroup, setting

ROLE_ALL: Final = "all"
ROLE_FRONT: Final = "front"
ROLE_NODE: Final = "node"


class SharedJobSettings(SettingsGroup):
    """Shared jobs: the database, the recordings, and what this service does."""

    role: Literal["all", "front", "node"] = setting(
        ROLE_ALL,
        "Role of this service among those that share a journal: 'front' accepts requests, 'node' "
        "runs jobs, 'all' does both (docs/scale.md).",
    )
    journal: DatabaseUrl | None = setting(
        None,
        "Address of a PostgreSQL database in which several services share and persist their jobs, "
        "such as postgresql://vibevoice@db.example/vibevoice (docs/journal.md); with a password "
        "only as '@FILE' or a variable: other programs can read command lines.",
    )
    uploads: PathText | None = setting(
        None,
        "With 'journal': recordings of jobs for all services: the full path of a folder, or a "
        "bucket of an S3-compatible storage, such as s3://recordings/asr, with keys and region as "
        "for AWS' libraries (docs/scale.md); 'jobs/uploads' in 'data_dir' if unset.",
    )

    @property
    def shares_jobs(self) -> bool:
        """Return whether the service shares its jobs with other services."""
        return self.journal is not None

    @property
    def is_front(self) -> bool:
        """Return whether the service accepts requests and runs no jobs."""
        return self.role == ROLE_FRONT

    @property
    def is_node(self) -> bool:
        """Return whether the service runs jobs and accepts none."""
        return self.role == ROLE_NODE
