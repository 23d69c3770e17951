"""Settings of engines, upstreams and speaker identification."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from sidecar.config.setting_types import Duration, Language, SettingsGroup, WordList, setting
from sidecar.interfaces.engine_interface import AUTO, DiarizationEffort, Precision


class EngineSettings(SettingsGroup):
    """Engines: the one for recordings, its weights and device, and its time in memory."""

    engine: Literal["auto", "vibevoice", "whisper", "moonshine", "upstream", "scripted"] = setting(
        "auto",
        "Engine for recordings: 'auto' uses VibeVoice-ASR if there are a GPU and its "
        "checkpoint, Whisper if 'language' is not English and a model is installed, else "
        "the embedded engine; 'vibevoice' runs on a CPU, too; 'whisper' is for other "
        "languages without a GPU; 'moonshine' is the embedded engine; 'upstream' sends "
        "recordings to another server ('auto' never does that); 'scripted' returns made-up "
        "text at once (for developers of hosts).",
    )
    language: Language = setting(
        AUTO,
        "Language of most recordings, such as 'de': the default of requests, and one that "
        "the engine 'auto' has to support.",
    )
    precision: Precision = setting(
        Precision.AUTO,
        "Precision at the start; requests and POST /reload-model change it for those after "
        "them. An engine that lacks it uses its own and logs a warning.",
    )
    model_path: Path | None = setting(
        None,
        "Folder of a checkpoint of VibeVoice-ASR, or of a Hugging Face cache with one (of "
        "a Whisper model in CTranslate2's layout for the engine 'whisper'); if unset, the "
        "cache of 'vibevoice-asr pull'. A named folder has to be usable, with the engine "
        "'auto' too.",
    )
    whisper_model: str = setting(
        "",
        "Whisper model: 'tiny' to 'large-v3-turbo', 'distil-large-v3' and others; if "
        "unset, the best installed one.",
    )
    device: Literal["auto", "cuda", "cpu"] = setting(
        "auto", "Device of engines that can use a GPU; 'auto' uses one if available."
    )
    memory_limit_mb: int | None = setting(
        None, "Maximum device memory of the engine in MB. If unset: what is free.", ge=1
    )
    allow_download: bool = setting(
        False,
        "Let 'serve --engine vibevoice' download a missing checkpoint (16.7 GB) before it "
        "starts; otherwise it asks on a terminal.",
    )
    diarization: DiarizationEffort = setting(
        DiarizationEffort.BALANCED,
        "Effort of diarization: 'balanced' (the knee of the measured curve) or 'accurate' "
        "(a third more work, slightly fewer errors).",
    )
    batch: int = setting(
        0,
        "Recordings of up to two minutes that are decoded in one batch if several wait; 0: "
        "8 on a GPU and 1 on a CPU, where batches do not pay.",
        ge=0,
        le=8,
    )
    preload: bool = setting(
        False, "Load the engine of recordings at the start instead of at the first request."
    )
    keep_alive: Duration = setting(
        600.0,
        "Time that an idle engine stays in memory (such as '10m'); 0 unloads it after each "
        "job, -1 keeps it.",
        ge=-1,
    )


class UpstreamSettings(SettingsGroup):
    """Upstreams: other servers that transcribe."""

    upstream: WordList = setting(
        (),
        "Servers that transcribe for the engine 'upstream', such as "
        "'http://192.168.1.20:8765'; of several, the least loaded is used "
        "(docs/upstream.md).",
    )
    upstream_dialect: Literal["auto", "sidecar", "openai", "vllm"] = setting(
        "auto",
        "Kind of those servers: 'sidecar' is another vibevoice-asr, 'openai' any with "
        "OpenAI's transcription API, 'vllm' VibeVoice-ASR in vLLM; 'auto' detects it for "
        "each.",
    )
    upstream_model: str | None = setting(
        None, "Model requested of an upstream; its first if unset."
    )
    upstream_key: SecretStr | None = setting(
        None,
        "Key for the upstreams, sent as 'Authorization: Bearer' (@FILE); a file with "
        "several lines has one for each upstream in order.",
    )
    upstream_ca: Path | None = setting(
        None, "PEM file of certificates to trust for https, beside the system's."
    )


class EnrolledSpeakerSettings(SettingsGroup):
    """People: enrolled speakers."""

    people: bool = setting(
        False,
        "Store enrolled speakers, to identify them in later recordings: biometric data, "
        "encrypted, in a file or in the database of journal (docs/people.md). Default: "
        "nothing is stored.",
    )
