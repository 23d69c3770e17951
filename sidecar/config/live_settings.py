"""Settings of live sessions, captures and gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator

from sidecar.config.setting_types import Duration, SettingsGroup, parse_duration, setting
from sidecar.interfaces.live_options import Probability, SilenceSeconds


class LiveSettings(SettingsGroup):
    """Live sessions: how many there are, how long they last, and how much of them waits."""

    live_engine: Literal[
        "auto", "vibevoice", "whisper", "voxtral", "moonshine", "upstream", "scripted"
    ] = setting(
        "auto",
        "Engine for live audio, in a process of its own: 'auto' takes the one that transcribes "
        "files where it can hear live, the embedded one otherwise; 'voxtral' hears nothing else; "
        "'vibevoice' cannot, and ends the start; with 'upstream' others of this program hear it, "
        "those of the setting upstream.",
    )
    live_sessions: int = setting(
        100, "Most live sessions at once; fewer where the engine hears fewer.", ge=0
    )
    live_sessions_per_owner: int | None = setting(
        None,
        "Most live sessions of one owner; 0 is no limit of its own. If unset: any number, or 32 "
        "where others can reach the service, except for tokens with the scope 'lease'.",
        ge=0,
    )
    live_delay: Duration = setting(
        1.0,
        "How long a final may wait because of others. Where that is predicted to take longer, "
        "live sessions that begin to speak are refused, partials, labels and then utterances left "
        "out; 0 counts sessions only.",
        ge=0,
    )
    live_idle: Duration = setting(
        150.0, "How long a live session waits for sound before it ends.", gt=0
    )
    live_longest: Duration = setting(5400.0, "How long a live session lasts.", gt=0)
    live_grace: Duration = setting(
        15.0, "How long a live session waits for a client whose connection broke.", ge=0
    )
    live_buffer_mb: int = setting(
        256,
        "MB of sound that all live sessions keep; beyond it clients wait, all but one, whose "
        "sentence is heard first.",
        ge=1,
    )
    live_timeout: Duration = setting(
        20.0, "How long one stretch of live speech may take to recognise.", gt=0
    )


class CaptureSettings(SettingsGroup):
    """Captures: live sessions written to files, for debugging."""

    capture: bool = setting(
        False,
        "Whether sound and events of live sessions are written to files for debugging, encrypted; "
        "every client is told (docs/capture.md).",
    )
    capture_mb: int = setting(1024, "Most MB of captures; then the oldest go. 0: any number.", ge=0)
    capture_age: Duration = setting(
        7 * 86_400, "How old a capture becomes before it goes; 0: any age.", ge=0
    )


class GrpcSettings(SettingsGroup):
    """gRPC: live audio by it, and what holds where a session says nothing."""

    grpc_port: int | None = setting(
        None,
        "Port for live audio over gRPC, on the same address as HTTP (docs/grpc.md); 0 takes a "
        "free one, which the ready line tells. There is no gRPC if unset.",
        ge=0,
        le=65535,
    )
    grpc_client_ca: Path | None = setting(
        None,
        "File (PEM) with the certificates of those who vouch for clients over gRPC: who shows no "
        "certificate of theirs gets no connection (mTLS). Asks for --tls FILE or --tls "
        "self-signed; read again when it changes.",
    )
    grpc_silence: Annotated[SilenceSeconds, BeforeValidator(parse_duration)] = setting(
        0.5, "Silence that ends an utterance of a gRPC session which names none."
    )
    grpc_threshold: Probability = setting(
        0.5,
        "Probability of speech from which on somebody speaks in a gRPC session which names none; "
        "with 0 all is speech.",
    )
    grpc_profile: Literal["realtime", "accurate"] = setting(
        "realtime", "Decode profile of a gRPC session which names none."
    )
    grpc_task: Literal["transcribe", "translate"] = setting(
        "transcribe",
        "Task of a gRPC session which names none; 'translate' (into English) where the engine can.",
    )
