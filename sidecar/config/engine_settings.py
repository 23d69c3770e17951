"""Settings of engines and speaker identification, of jobs and recordings."""

from typing import Annotated, Literal

from pydantic import SecretStr

from sidecar.config import setting_types
from sidecar.config.setting_types import Duration, Language, SettingsGroup, setting
from sidecar.interfaces.engine_interface import (
    AUTO,
    DiarizationEffort,
    Precision,
)

DEFAULT_JOB_RETENTION_S = 600.0
"""Default retention of results in memory: long enough to fetch one after a network failure."""
SHARED_JOB_RETENTION_S = 7 * 86_400.0
"""The same of a service that several people use: a week, so that one who is away finds a result."""


class EngineSettings(SettingsGroup):
    """Engines: the one for recordings, its weights and device, and its time in memory."""

    engine: Literal[
        "auto",
        "vibevoice",
        "vibevoice-streaming",
        "whisper",
        "moonshine",
        "moonshine-whisper",
        "scripted",
    ] = setting(
        "auto",
        "Engine for recordings: 'auto' uses VibeVoice-ASR if there are a GPU and its checkpoint; "
        "else, with a Whisper model, 'whisper' if 'language' is neither English nor 'auto', and "
        "'moonshine-whisper' if it is 'auto'; else 'moonshine', the embedded engine; 'scripted' "
        "returns made-up text at once (for developers of hosts).",
    )
    language: Language = setting(
        AUTO,
        "Language of most recordings, such as 'de': the default of requests, and one that "
        "the engine 'auto' has to support.",
    )
    hotwords: setting_types.Hotwords = setting(
        (),
        "Names and terms to expect in every recording, separated by commas; those of a request "
        "come first (docs/people.md).",
    )
    precision: Precision = setting(
        Precision.AUTO,
        "Precision at the start; requests and POST /reload-model change it. An engine that lacks "
        "it uses its own.",
    )
    model_path: setting_types.OptionalPath = setting(
        None,
        "Folder of a checkpoint of VibeVoice-ASR, or of a Hugging Face cache with one (for "
        "'whisper' of a model in CTranslate2's layout); if unset, the cache of 'vibevoice-asr "
        "pull'.",
    )
    whisper_model: str = setting(
        "",
        "Whisper model, such as 'small' (docs/models.md); if unset, the best installed one.",
    )
    device: Literal["auto", "cuda", "cpu"] = setting(
        "auto", "Device of engines that can use a GPU; 'auto' uses one if available."
    )
    memory_limit_mb: int | None = setting(
        None, "Maximum device memory of the engine in MB. If unset: what is free.", ge=1
    )
    allow_download: bool = setting(
        False,
        "Let 'serve --engine vibevoice' download a missing checkpoint (16.7 GB) before it starts, "
        "without asking.",
    )
    diarization: DiarizationEffort = setting(
        DiarizationEffort.BALANCED,
        "Effort of diarization: 'accurate' does a third more work, with slightly fewer errors.",
    )
    batch: int = setting(
        0,
        "Recordings that VibeVoice-ASR decodes in step, or that an upstream has at once; 0: 8, "
        "and 1 for VibeVoice-ASR on a CPU.",
        ge=0,
        le=8,
    )
    preload: bool = setting(
        False, "Load the engine of recordings at the start instead of at the first request."
    )
    keep_alive: Duration = setting(
        600.0,
        "Time that an idle engine stays in memory; 0 unloads it after each job, -1 keeps it.",
        ge=-1,
    )


class EnrolledSpeakerSettings(SettingsGroup):
    """People: enrolled speakers."""

    people: bool | None = setting(
        None,
        "Store enrolled speakers, to identify them in later recordings: biometric data, encrypted "
        "(docs/people.md). If unset: on a person's own machine once that person has agreed; never "
        "on a server.",
    )


class JobSettings(setting_types.SettingsGroup):
    """Jobs: queue, retention, persistence."""

    queue_limit: int = setting(
        64,
        "Jobs that may wait, including those being uploaded; beyond it the answer is 503 with "
        "Retry-After.",
        ge=1,
    )
    job_retention: setting_types.OptionalDuration = setting(
        None,
        "Time that the result of a finished job can be fetched, from its end or its owner's last "
        "access. If unset: 10m (1d if 'open' or 'demo' starts the service; 7d with 'token_keys' "
        "or a 'host' that other machines reach); unlimited with 'keep_jobs' or 'journal'.",
        ge=0,
    )
    job_retention_mb: int | None = setting(
        None,
        "Space in MB for finished results of one owner; beyond it those that nobody edited are "
        "deleted, the longest unread first. If unset: 64; more with 'keep_jobs' "
        "(docs/keeping-jobs.md); 1024 with 'journal'.",
        ge=1,
    )
    keep_jobs: bool = setting(
        False,
        "Persist jobs that are submitted for later, with their recordings, encrypted, across "
        "crashes and restarts (docs/keeping-jobs.md).",
    )
    keep_recordings_mb: int = setting(
        0,
        "With 'keep_jobs': disk space in MB for recordings of finished jobs, to play them; beyond "
        "it the oldest of that owner are deleted. With 0 a recording is deleted when its job "
        "ends.",
        ge=0,
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
        "Maximum MB of uploads in progress, a single one excepted; beyond it owners with more "
        "than an equal share get 503 with Retry-After.",
        ge=1,
    )
    max_audio_hours: float = setting(5.0, "Longest recording in hours.", gt=0, le=1000)
    audio_roots: setting_types.Folders = setting(
        (), "Folders in which 'audio_path' must lie; anywhere if unset."
    )
    spool_dir: setting_types.OptionalPath = setting(
        None, "Folder for uploads in progress; the system's temporary folder if unset."
    )
