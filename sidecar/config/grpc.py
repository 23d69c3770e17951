"""gRPC: live audio by it, and what holds where a session says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from sidecar.config.group import Group
from sidecar.config.settings_values import Duration, parse_duration
from sidecar.interfaces.live import Probability, Silence


class Grpc(Group):
    """The settings of it."""

    grpc_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description=(
            "Port for live audio over gRPC, on the same address as HTTP (docs/grpc.md); 0 takes a "
            "free one, which the ready line tells. There is no gRPC if unset."
        ),
    )
    grpc_message_mb: int = Field(
        8,
        ge=1,
        le=256,
        description=(
            "Largest gRPC message that is taken, in MB: the longest recording in one piece."
        ),
    )
    grpc_client_ca: Path | None = Field(
        None,
        description=(
            "File (PEM) with the certificates of those who vouch for clients over gRPC: who shows "
            "no certificate of theirs gets no connection (mTLS). Asks for --tls-cert or --tls "
            "self-signed; read again when it changes."
        ),
    )
    grpc_unused: Duration = Field(
        30.0, gt=0, description="How long a gRPC session that was created waits for its stream."
    )
    grpc_silence: Annotated[Silence, BeforeValidator(parse_duration)] = Field(
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
