"""Settings of live sessions, captures and gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from sidecar.config.setting_types import Duration, SettingsGroup, parse_duration
from sidecar.interfaces.live_engine import Probability, SilenceSeconds


class LiveSettings(SettingsGroup):
    """Live sessions: how many there are, how long they last, and how much of them waits."""

    live_engine: Literal[
        "auto", "vibevoice", "whisper", "voxtral", "moonshine", "upstream", "scripted"
    ] = Field(
        "auto",
        description=(
            "Engine for live audio, in a process of its own: 'auto' takes the one that "
            "transcribes files where it can hear live, the embedded one otherwise; 'voxtral' "
            "hears nothing else; 'vibevoice' cannot, and ends the start; with 'upstream' others of "
            "this program hear it, those of the setting upstream."
        ),
    )
    live_sessions: int = Field(
        100, ge=0, description="Most live sessions at once; fewer where the engine hears fewer."
    )
    live_sessions_per_owner: int | None = Field(
        None,
        ge=0,
        description=(
            "Most live sessions of one owner; 0 is no limit of its own. If unset: any number, or "
            "32 where others can reach the service, except for tokens with the scope 'lease'."
        ),
    )
    live_delay: Duration = Field(
        1.0,
        ge=0,
        description=(
            "How long a final may wait because of others. Where that is predicted to take longer, "
            "live sessions that begin to speak are refused, partials, labels and then utterances "
            "left out; 0 counts sessions only."
        ),
    )
    live_idle: Duration = Field(
        150.0, gt=0, description="How long a live session waits for sound before it ends."
    )
    live_longest: Duration = Field(5400.0, gt=0, description="How long a live session lasts.")
    live_grace: Duration = Field(
        15.0, ge=0, description="How long a live session waits for a client whose connection broke."
    )
    live_buffer_mb: int = Field(
        256,
        ge=1,
        description=(
            "MB of sound that all live sessions keep; beyond it clients wait, all but one, whose "
            "sentence is heard first."
        ),
    )
    live_timeout: Duration = Field(
        20.0, gt=0, description="How long one stretch of live speech may take to recognise."
    )


class CaptureSettings(SettingsGroup):
    """Captures: live sessions written to files, for debugging."""

    capture: bool = Field(
        False,
        description=(
            "Whether sound and events of live sessions are written to files for debugging, "
            "encrypted; every client is told (docs/capture.md)."
        ),
    )
    capture_mb: int = Field(
        1024, ge=0, description="Most MB of captures; then the oldest go. 0: any number."
    )
    capture_age: Duration = Field(
        7 * 86_400, ge=0, description="How old a capture becomes before it goes; 0: any age."
    )


class GrpcSettings(SettingsGroup):
    """gRPC: live audio by it, and what holds where a session says nothing."""

    grpc_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description=(
            "Port for live audio over gRPC, on the same address as HTTP (docs/grpc.md); 0 takes a "
            "free one, which the ready line tells. There is no gRPC if unset."
        ),
    )
    grpc_client_ca: Path | None = Field(
        None,
        description=(
            "File (PEM) with the certificates of those who vouch for clients over gRPC: who shows "
            "no certificate of theirs gets no connection (mTLS). Asks for --tls FILE or --tls "
            "self-signed; read again when it changes."
        ),
    )
    grpc_silence: Annotated[SilenceSeconds, BeforeValidator(parse_duration)] = Field(
        0.5,
        description="Silence that ends an utterance of a gRPC session which names none.",
    )
    grpc_threshold: Probability = Field(
        0.5,
        description=(
            "Probability of speech from which on somebody speaks in a gRPC session which names "
            "none; with 0 all is speech."
        ),
    )
    grpc_profile: Literal["realtime", "accurate"] = Field(
        "realtime", description="Decode profile of a gRPC session which names none."
    )
    grpc_task: Literal["transcribe", "translate"] = Field(
        "transcribe",
        description=(
            "Task of a gRPC session which names none; 'translate' (into English) where the "
            "engine can."
        ),
    )
