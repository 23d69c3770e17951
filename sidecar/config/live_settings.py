"""Settings of live sessions and gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator

from sidecar.config.setting_types import Duration, SettingsGroup, parse_duration, setting
from sidecar.interfaces.live_options import Probability, SilenceSeconds


class LiveSettings(SettingsGroup):
    """Live sessions: engine, limits and timeouts."""

    live_engine: Literal[
        "auto", "none", "vibevoice", "whisper", "voxtral", "moonshine", "scripted"
    ] = setting(
        "auto",
        "Engine for live audio, in its own process: 'auto' uses the engine for files if it "
        "supports live audio, else the embedded one; 'none' refuses live audio; 'voxtral' supports "
        "live audio only; 'vibevoice' does not support it, and ends the start.",
    )
    live_sessions: int = setting(
        100, "Maximum live sessions at once; fewer if the engine supports fewer.", ge=0
    )
    live_sessions_per_owner: int | None = setting(
        None,
        "Maximum live sessions of one owner; 0: unlimited. If unset: unlimited on the "
        "loopback, 32 if other machines can reach the service.",
        ge=0,
    )
    live_delay: Duration = setting(
        1.0,
        "Delay of a final under load. If more is predicted, the service rejects new speech "
        "of live sessions, then omits partials, labels and utterances; 0 limits the number "
        "of sessions only.",
        ge=0,
    )
    live_idle: Duration = setting(
        150.0, "Time without a message after which a live session ends.", gt=0
    )
    live_longest: Duration = setting(5400.0, "Maximum duration of a live session.", gt=0)
    live_grace: Duration = setting(
        15.0, "Time that a live session waits for a disconnected client.", ge=0
    )
    live_buffer_mb: int = setting(
        256,
        "MB of audio that all live sessions buffer; beyond it clients wait, except one, "
        "whose utterance is recognized first.",
        ge=1,
    )
    live_timeout: Duration = setting(20.0, "Timeout of the recognition of a live segment.", gt=0)


class GrpcSettings(SettingsGroup):
    """gRPC: port, and defaults of sessions."""

    grpc_port: int | None = setting(
        None,
        "Port for live audio over gRPC, on the same address as HTTP (docs/grpc.md); 0 "
        "takes a free one, named in the ready line. If unset: no gRPC.",
        ge=0,
        le=65535,
    )
    grpc_client_ca: Path | None = setting(
        None,
        "PEM file of the authorities that sign clients' certificates: gRPC clients without "
        "such a certificate are rejected (mTLS). Requires --tls FILE or --tls self-signed; "
        "reloaded when it changes.",
    )
    grpc_silence: Annotated[SilenceSeconds, BeforeValidator(parse_duration)] = setting(
        0.5, "Silence that ends an utterance: default of gRPC sessions."
    )
    grpc_threshold: Probability = setting(
        0.5,
        "Threshold of the probability of speech: default of gRPC sessions; with 0 all "
        "audio is speech.",
    )
    grpc_profile: Literal["realtime", "accurate"] = setting(
        "realtime", "Decode profile: default of gRPC sessions."
    )
    grpc_task: Literal["transcribe", "translate"] = setting(
        "transcribe",
        "Task: default of gRPC sessions; 'translate' (into English) if the engine supports it.",
    )
    grpc_keep: bool = setting(
        False,
        "Keep gRPC sessions as jobs of their owners, as 'keep' does on /v1/live (docs/live.md); "
        "with 'keep_jobs' and 'keep_recordings_mb' their audio too.",
    )
