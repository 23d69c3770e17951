"""Settings of gRPC: port, clients' certificates, defaults of sessions."""

from typing import Annotated, Literal

from pydantic import BeforeValidator

from sidecar.config.setting_types import OptionalPath, SettingsGroup, parse_duration, setting
from sidecar.interfaces.live_options import Probability, SilenceSeconds


class GrpcSettings(SettingsGroup):
    """gRPC: port, and defaults of sessions."""

    grpc_port: int | None = setting(
        None,
        "Port for live audio over gRPC, on the same address as HTTP (docs/grpc.md); 0 "
        "takes a free one, named in the ready line. If unset: no gRPC.",
        ge=0,
        le=65535,
    )
    grpc_client_ca: OptionalPath = setting(
        None,
        "PEM file of the authorities that sign clients' certificates: gRPC clients without one "
        "are rejected (mTLS). Requires TLS; reloaded when it changes.",
    )
    grpc_silence: Annotated[SilenceSeconds, BeforeValidator(parse_duration)] = setting(
        0.5, "Default silence that ends an utterance."
    )
    grpc_threshold: Probability = setting(
        0.5,
        "Default threshold of the probability of speech; with 0 all audio is speech.",
    )
    grpc_profile: Literal["realtime", "accurate"] = setting("realtime", "Default decode profile.")
    grpc_task: Literal["transcribe", "translate"] = setting(
        "transcribe",
        "Default task; 'translate' (into English) if the engine supports it.",
    )
    grpc_keep: bool = setting(
        False,
        "Keep gRPC sessions as jobs of their owners, as 'keep' does on /v1/live (docs/live.md).",
    )
