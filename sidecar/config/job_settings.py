"""Settings of jobs and recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import SecretStr

from sidecar.config import secret_settings, setting_types
from sidecar.config.setting_types import setting

DEFAULT_JOB_RETENTION_S = 600.0
"""Where results are in memory: long enough to be fetched, also after a network failure."""


class JobSettings(setting_types.SettingsGroup):
    """Jobs: how many wait, and what is kept of them, where and for how long."""

    queue_limit: int = setting(
        64,
        "Jobs that may wait, with those whose recordings are on their way; beyond it the answer "
        "is 503 with Retry-After, before the recording is read.",
        ge=1,
    )
    openai_strict: bool = setting(
        False,
        "Whether OpenAI's transcription API refuses what it cannot give: a model whose name GET "
        "/v1/models does not list, or none; log probabilities; granularities without "
        "verbose_json. Otherwise it answers, with a Warning header (docs/openai.md).",
    )
    job_retention: setting_types.OptionalDuration = setting(
        None,
        "How long the result of a finished job can be fetched, from its end or from when its "
        "owner last read or edited it. If unset: 10m; no limit with 'keep_jobs' or 'journal'.",
        ge=0,
    )
    job_retention_mb: int = setting(
        64,
        "Memory in MB for results of one owner that can be fetched; where they need more, the "
        "oldest go before their time. Without 'Prefer: respond-async' nothing is kept.",
        ge=1,
    )
    keep_jobs: bool = setting(
        False,
        "Whether jobs outlive a crash and a restart: those that are fetched later, with their "
        "recordings, encrypted, in a folder (docs/keeping-jobs.md). Nothing is kept without.",
    )
    keep_recordings_mb: int = setting(
        0,
        "With 'keep_jobs': disk in MB for recordings of jobs that are done, encrypted, so that "
        "they can be listened to as long as their transcripts are there; where those of one owner "
        "need more, the oldest go. With 0 a recording goes when its job ends.",
        ge=0,
    )
    role: Literal["all", "front", "node"] = setting(
        setting_types.ROLE_ALL,
        "What this service is of those that share a journal: 'front' takes requests in and works "
        "on none of them, 'node' works and takes none in, 'all' does both. Live audio is heard by "
        "the service that is asked (docs/scale.md).",
    )
    journal: setting_types.DatabaseUrl | None = setting(
        None,
        "Address of a PostgreSQL database in which several services share their jobs, such as "
        "postgresql://vibevoice@db.example/vibevoice (docs/journal.md). As with 'keep_jobs', and "
        "'uploads' has to be a place that all of them see. A password in it is not taken from a "
        "command line, which other programs can read: '@FILE' has the address in a file.",
    )
    uploads: str | None = setting(
        None,
        "With 'journal': where recordings of jobs are for all services: a folder by its whole "
        "path, or a bucket of an S3-compatible object storage, such as s3://recordings/asr "
        "(docs/journal.md); 'jobs/uploads' in 'data_dir' if unset. Keys, address and region as "
        "AWS' libraries find them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a "
        "role; AWS_ENDPOINT_URL_S3 where it is not AWS; AWS_DEFAULT_REGION.",
    )
    journal_key: Annotated[
        SecretStr | None, secret_settings.at_least(secret_settings.MIN_JOURNAL_KEY_CHARACTERS)
    ] = setting(
        None,
        "Key that kept jobs, people and captures are encrypted with (@FILE); the system's keyring "
        "has one if unset and the package 'keyring' is installed.",
    )


class RecordingSettings(setting_types.SettingsGroup):
    """Recordings: how large, how slow and how long they may be, and where they lie meanwhile."""

    max_upload_mb: int = setting(2048, "Largest upload in MB.", ge=1)
    upload_room_mb: int = setting(
        4096,
        "Most MB of uploads on their way at once; beyond it the answer is 503 with Retry-After, "
        "for owners with more than an equal share. One upload alone may have more.",
        ge=1,
    )
    max_audio_hours: float = setting(5.0, "Longest recording in hours.", gt=0, le=1000)
    audio_roots: setting_types.Folders = setting(
        (), "Folders in which 'audio_path' must lie; anywhere if unset."
    )
    spool_dir: Path | None = setting(
        None, "Folder for uploads in transit; the system's temporary folder if unset."
    )
