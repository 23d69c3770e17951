"""Settings of jobs and recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import SecretStr

from sidecar.config import setting_types
from sidecar.config.setting_types import setting

DEFAULT_JOB_RETENTION_S = 600.0
"""Default retention of results in memory, in seconds: long enough to fetch a result after a network
failure."""


class JobSettings(setting_types.SettingsGroup):
    """Jobs: queue, retention, persistence, sharing."""

    queue_limit: int = setting(
        64,
        "Jobs that may wait, including those being uploaded; beyond it the answer is 503 "
        "with Retry-After, before the recording is read.",
        ge=1,
    )
    openai_strict: bool = setting(
        False,
        "Reject requests of OpenAI's transcription API that cannot be fulfilled: a model "
        "whose name GET /v1/models does not list, or none; log probabilities; "
        "granularities without verbose_json. Otherwise the service answers with a Warning "
        "header (docs/openai.md).",
    )
    job_retention: setting_types.OptionalDuration = setting(
        None,
        "Time that the result of a finished job can be fetched, from its end or from its "
        "owner's last access. If unset: 10m (1d if 'open' or 'demo' starts the service); "
        "unlimited with 'keep_jobs' or 'journal'.",
        ge=0,
    )
    job_retention_mb: int = setting(
        64,
        "Memory in MB for finished results of one owner; beyond it the oldest are deleted "
        "early. Without 'Prefer: respond-async' nothing is kept.",
        ge=1,
    )
    keep_jobs: bool = setting(
        False,
        "Persist jobs across crashes and restarts: those submitted for later, with their "
        "recordings, encrypted, in a folder (docs/keeping-jobs.md). Default: nothing is "
        "persisted.",
    )
    keep_recordings_mb: int = setting(
        0,
        "With 'keep_jobs': disk space in MB for recordings of finished jobs, encrypted, to "
        "play them as long as their transcripts exist; beyond it the oldest of that owner "
        "are deleted. With 0 a recording is deleted when its job ends.",
        ge=0,
    )
    role: Literal["all", "front", "node"] = setting(
        setting_types.ROLE_ALL,
        "Role of this service among those that share a journal: 'front' accepts requests "
        "and runs no jobs, 'node' runs jobs and accepts none, 'all' does both. Live audio "
        "is transcribed by the service that receives it (docs/scale.md).",
    )
    journal: setting_types.DatabaseUrl | None = setting(
        None,
        "Address of a PostgreSQL database in which several services share their jobs, such "
        "as postgresql://vibevoice@db.example/vibevoice (docs/journal.md). Jobs persist as "
        "with 'keep_jobs', and 'uploads' has to be visible to all services. A command "
        "line, which other programs can read, may not contain a password: '@FILE' has the "
        "address in a file.",
    )
    uploads: str | None = setting(
        None,
        "With 'journal': recordings of jobs for all services: the full path of a folder, "
        "or a bucket of an S3-compatible storage, such as s3://recordings/asr "
        "(docs/journal.md); 'jobs/uploads' in 'data_dir' if unset. Keys, address and "
        "region as for AWS' libraries: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a "
        "profile, or a role; AWS_ENDPOINT_URL_S3 if it is not AWS; AWS_DEFAULT_REGION.",
    )
    journal_key: Annotated[
        SecretStr | None, setting_types.at_least(setting_types.MIN_JOURNAL_KEY_CHARACTERS)
    ] = setting(
        None,
        "Key that encrypts persisted jobs and enrolled speakers (@FILE), of 32 characters or "
        "more. If unset: one in the system's keyring, if the package 'keyring' is installed.",
    )


class RecordingSettings(setting_types.SettingsGroup):
    """Recordings: limits of uploads and duration, and their folders."""

    max_upload_mb: int = setting(2048, "Largest upload in MB.", ge=1)
    upload_room_mb: int = setting(
        4096,
        "Maximum MB of uploads in progress; beyond it the answer is 503 with Retry-After, "
        "for owners with more than an equal share. A single upload may exceed it.",
        ge=1,
    )
    max_audio_hours: float = setting(5.0, "Longest recording in hours.", gt=0, le=1000)
    audio_roots: setting_types.Folders = setting(
        (), "Folders in which 'audio_path' must lie; anywhere if unset."
    )
    spool_dir: Path | None = setting(
        None, "Folder for uploads in progress; the system's temporary folder if unset."
    )
