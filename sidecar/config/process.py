"""The process: where it listens, with whom it lives and ends, where it leaves its log."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from sidecar.config.group import Group
from sidecar.config.settings_values import Duration


class Process(Group):
    """The settings of it."""

    config: Path | None = Field(
        None,
        description=(
            "File with settings: TOML with these names, or YAML of another gRPC server "
            "(docs/grpc.md)."
        ),
    )
    config_model: Path | None = Field(
        None, description="File (YAML) of that server with its 'model' and 'decode_profiles'."
    )
    host: str = Field(
        "127.0.0.1",
        description=(
            "Address to listen on; one beyond this machine's loopback needs a token or keys."
        ),
    )
    port: int = Field(8765, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    takeover: bool = Field(
        False,
        description="Where another vibevoice-asr has the port: stop it, and take its place.",
    )
    reuse: bool = Field(
        False,
        description=(
            "Where another vibevoice-asr of this version has the port: say so in the ready line, "
            "and leave it to it."
        ),
    )
    parent_pid: int | None = Field(
        None,
        ge=1,
        description=(
            "Process to go with: the service ends when it does. Hosts that are known by their "
            "environment are watched without it."
        ),
    )
    exit_with_stdin: bool = Field(
        False, description="End when standard input is closed, as it is when the host ends."
    )
    request_deadline: Duration = Field(
        15.0, gt=0, description="How long a client may take to send the head of a request."
    )
    shutdown_grace: Duration = Field(
        10.0, ge=0, description="How long the running job may go on after the order to stop."
    )
    data_dir: Path | None = Field(
        None,
        description=(
            "Folder for the log file and notes of crashes; the user's state folder if unset. No "
            "audio and no transcript is ever written there, with 'keep_jobs' neither."
        ),
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is logged (to stderr and the log file)."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Lines of text, or of JSON, on stderr and in the log file."
    )
    traces: str | None = Field(
        None,
        pattern=r"^https?://",
        description=(
            "Address of an OpenTelemetry collector (OTLP over HTTP), such as "
            "'http://127.0.0.1:4318': stages of jobs and of live sessions go there, nothing of "
            "what was said (docs/tracing.md). If unset: as the variables OTEL_… say, or nowhere."
        ),
    )
