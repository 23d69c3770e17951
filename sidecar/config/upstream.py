"""Upstreams: other servers that do the hearing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from sidecar.config.group import Group
from sidecar.config.settings_values import Duration, Words


class Upstream(Group):
    """The settings of it."""

    upstream: Words = Field(
        (),
        description=(
            "Servers that do the hearing with the engine 'upstream', such as "
            "'http://192.168.1.20:8765'; of several the least loaded is taken (docs/upstream.md)."
        ),
    )
    upstream_dialect: Literal["auto", "sidecar", "openai", "vllm"] = Field(
        "auto",
        description=(
            "What kind of servers they are: 'sidecar' is another vibevoice-asr, 'openai' any with "
            "OpenAI's transcription API, 'vllm' VibeVoice-ASR in vLLM; 'auto' asks each of them."
        ),
    )
    upstream_model: str | None = Field(
        None, description="Model that an upstream is asked for; its first if unset."
    )
    upstream_key: SecretStr | None = Field(
        None, description="Key that is sent to the upstreams as 'Authorization: Bearer'. No flag."
    )
    upstream_key_file: Path | None = Field(
        None,
        description=(
            "File with that key, which nobody else may read (0600); with several lines, a key for "
            "each upstream in turn."
        ),
    )
    upstream_ca: Path | None = Field(
        None, description="File with certificates (PEM) to trust beside the usual ones, for https."
    )
    upstream_timeout: float = Field(
        3.0,
        gt=0,
        description=(
            "Longest time in seconds that an upstream may take for a second of audio, beside a "
            "minute for the beginning."
        ),
    )
    upstream_piece: Duration = Field(
        0.0,
        ge=0,
        description=(
            "Longest piece of a recording that is sent at once; 0 cuts it so that all upstreams "
            "have work, and one of them gets what the dialect allows (an hour, ten minutes for "
            "'openai')."
        ),
    )
