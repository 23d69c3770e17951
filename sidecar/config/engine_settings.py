"""Settings of engines, upstreams and speaker identification."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from sidecar.config.setting_types import Duration, Language, SettingsGroup, WordList, setting
from sidecar.interfaces.engine_interface import AUTO, DiarizationEffort, Precision


class EngineSettings(SettingsGroup):
    """Engines: which one transcribes, with which weights, on what, and for how long it stays."""

    engine: Literal["auto", "vibevoice", "whisper", "moonshine", "upstream", "scripted"] = setting(
        "auto",
        "Engine that transcribes: 'auto' takes VibeVoice-ASR where a GPU and its checkpoint are "
        "there, Whisper where 'language' is not English and a model of it is there, the embedded "
        "engine otherwise; 'vibevoice' takes it on a CPU too; 'whisper' is the one for other "
        "languages without a GPU; 'moonshine' is the embedded one; 'upstream' has another server "
        "do it, to which the recordings go ('auto' never does that); 'scripted' answers at once "
        "with made-up text (for the developers of hosts).",
    )
    language: Language = setting(
        AUTO,
        "Language of most recordings, such as 'de': what is meant where a request names none, and "
        "what the engine 'auto' must know.",
    )
    precision: Precision = setting(
        Precision.AUTO,
        "Precision of the weights. An engine that lacks it takes its own and says so.",
    )
    model_path: Path | None = setting(
        None,
        "Folder of a checkpoint of VibeVoice-ASR, or of a Hugging Face cache that has one (of a "
        "Whisper model in CTranslate2's layout for the engine 'whisper'); if unset, the cache "
        "that 'vibevoice-asr pull' fills. A folder that is named must be usable, with the engine "
        "'auto' too.",
    )
    whisper_model: str = setting(
        "",
        "Which Whisper model, where several are there: 'tiny' to 'large-v3-turbo', "
        "'distil-large-v3' and others; if unset, the best that is there.",
    )
    device: Literal["auto", "cuda", "cpu"] = setting(
        "auto", "Device of engines that can use a GPU; 'auto' takes it if there is one."
    )
    memory_limit_mb: int | None = setting(
        None, "Most of the device's memory that the engine may take; unset: what is free.", ge=1
    )
    allow_download: bool = setting(
        False,
        "Whether 'serve --engine vibevoice' may download a checkpoint that is missing (16.7 GB) "
        "before it starts; without it, it asks where it has a terminal.",
    )
    diarization: DiarizationEffort = setting(
        DiarizationEffort.BALANCED,
        "Effort to tell speakers apart: 'balanced' (the knee of the measured curve) or 'accurate' "
        "(a third more work, for a few words).",
    )
    batch: int = setting(
        0,
        "Recordings of up to two minutes that are decoded in step where several wait; 0 takes 8 "
        "on a GPU and 1 on a CPU, where it does not pay.",
        ge=0,
        le=8,
    )
    preload: bool = setting(False, "Load the engine at the start instead of at the first request.")
    keep_alive: Duration = setting(
        600.0,
        "How long an idle engine stays in memory (such as '10m'); 0 unloads it after each job, -1 "
        "keeps it.",
        ge=-1,
    )


class UpstreamSettings(SettingsGroup):
    """Upstreams: other servers that do the hearing."""

    upstream: WordList = setting(
        (),
        "Servers that do the hearing with the engine 'upstream', such as "
        "'http://192.168.1.20:8765'; of several the least loaded is taken (docs/upstream.md).",
    )
    upstream_dialect: Literal["auto", "sidecar", "openai", "vllm"] = setting(
        "auto",
        "What kind of servers they are: 'sidecar' is another vibevoice-asr, 'openai' any with "
        "OpenAI's transcription API, 'vllm' VibeVoice-ASR in vLLM; 'auto' asks each of them.",
    )
    upstream_model: str | None = setting(
        None, "Model that an upstream is asked for; its first if unset."
    )
    upstream_key: SecretStr | None = setting(
        None,
        "Key that is sent to the upstreams as 'Authorization: Bearer' (@FILE); a file with "
        "several lines has one for each upstream in turn.",
    )
    upstream_ca: Path | None = setting(
        None, "File with certificates (PEM) to trust beside the usual ones, for https."
    )


class EnrolledSpeakerSettings(SettingsGroup):
    """People: whether anybody is known by voice."""

    people: bool = setting(
        False,
        "Whether voices of people may be stored, to be recognised in later recordings: biometric "
        "data, encrypted, in one file or in the database of `journal` (docs/people.md). Nothing "
        "is stored without.",
    )
