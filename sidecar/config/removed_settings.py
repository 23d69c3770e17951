"""Removed settings and their replacements, as flags, variables and in files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from sidecar.config.setting_types import ENV_PREFIX
from sidecar.errors import SettingsInvalid

CONVERT = "Make TOML of it with 'vibevoice-asr config convert', and name that by --config."


class RemovedSetting(NamedTuple):
    """Removed setting. ``hint``: the replacement. ``switch``: True if its flag took no value.
    ``option``: its flag, if it differed from the name."""

    hint: str
    switch: bool = False
    option: str = ""


def _fixed(value: str) -> RemovedSetting:
    """Return a removed setting whose value is now a constant."""
    return RemovedSetting(f"It is fixed now: {value}. Remove it.")


REMOVED: dict[str, RemovedSetting] = {
    "config_model": RemovedSetting(CONVERT, option="--model-config"),
    "reuse": RemovedSetting("Say --if-port-taken reuse (VIBEVOICE_IF_PORT_TAKEN).", switch=True),
    "takeover": RemovedSetting(
        "Say --if-port-taken takeover (VIBEVOICE_IF_PORT_TAKEN).", switch=True
    ),
    "metrics_open": RemovedSetting("Say --metrics open (VIBEVOICE_METRICS).", switch=True),
    "metrics_owners": RemovedSetting("Say --metrics owners (VIBEVOICE_METRICS).", switch=True),
    "token_file": RemovedSetting("Say --token @FILE (VIBEVOICE_TOKEN=@FILE)."),
    "upstream_key_file": RemovedSetting("Say --upstream-key @FILE (VIBEVOICE_UPSTREAM_KEY=@FILE)."),
    "journal_file": RemovedSetting("Say --journal @FILE (VIBEVOICE_JOURNAL=@FILE)."),
    "journal_key_file": RemovedSetting("Say --journal-key @FILE (VIBEVOICE_JOURNAL_KEY=@FILE)."),
    "llm_key_file": RemovedSetting("Say --llm-key @FILE (VIBEVOICE_LLM_KEY=@FILE)."),
    "speech_key_file": RemovedSetting("Say --speech-key @FILE (VIBEVOICE_SPEECH_KEY=@FILE)."),
    "token_stdin": RemovedSetting("Say --token @- (VIBEVOICE_TOKEN=@-).", switch=True),
    "jobs_dir": RemovedSetting(
        "Jobs are in the folder 'jobs' of VIBEVOICE_DATA_DIR; recordings that services share are "
        "where VIBEVOICE_UPLOADS says (of the old folder: its folder 'uploads')."
    ),
    "people_dir": RemovedSetting("They are in the folder 'people' of VIBEVOICE_DATA_DIR."),
    "capture_dir": RemovedSetting("They are in the folder 'captures' of VIBEVOICE_DATA_DIR."),
    "voices_dir": RemovedSetting("They are in the folder 'voices' of VIBEVOICE_DATA_DIR."),
    "allow_localhost_origins": RemovedSetting(
        "Put 'localhost' into --allowed-origins (VIBEVOICE_ALLOWED_ORIGINS).", switch=True
    ),
    "uploads_endpoint": RemovedSetting("Set AWS_ENDPOINT_URL_S3."),
    "uploads_region": RemovedSetting("Set AWS_DEFAULT_REGION."),
    "traces": RemovedSetting("Set OTEL_EXPORTER_OTLP_ENDPOINT (docs/tracing.md)."),
    "tls_cert": RemovedSetting("Say --tls FILE (VIBEVOICE_TLS=FILE)."),
    "revoked_tokens": RemovedSetting("It is 'revoked.txt' beside VIBEVOICE_TOKEN_KEYS."),
    "voices_url": RemovedSetting("Say 'pull voice --from URL'."),
    "live_close_unauthorized": RemovedSetting("Set WS_CLOSE_UNAUTHORIZED_CODE."),
    "live_close_busy": RemovedSetting("Set WS_CLOSE_BUSY_CODE."),
    "live_close_idle_reason": RemovedSetting("Set WS_CLOSE_IDLE_REASON."),
    "job_retention_count": _fixed("1000"),
    "request_deadline": _fixed("15 s"),
    "upload_stall": _fixed("20 s"),
    "upstream_timeout": _fixed("a minute, and three seconds a second of audio"),
    "upstream_piece": _fixed("recordings are cut so that all upstreams have work"),
    "live_chunk": _fixed("10 s"),
    "live_buffer": _fixed("60 s"),
    "live_ping": _fixed("20 s"),
    "live_inbound": _fixed("256 messages"),
    "live_messages_per_minute": _fixed("5000"),
    "live_cancels_per_minute": _fixed("50"),
    "live_short_windows": RemovedSetting("No session has them now. Remove it.", switch=True),
    "grpc_unused": _fixed("30 s"),
    "grpc_message_mb": _fixed("8 MB"),
    "unschedulable_after": _fixed("10 min"),
    "talk_idle": _fixed("10 min"),
    "llm_max_tokens": _fixed("200"),
    "llm_first_token": _fixed("20 s"),
    "llm_next_token": _fixed("10 s"),
    "voice_steps": _fixed("ten, and five where a machine is too slow for ten"),
    "capture_files": _fixed("1000"),
    "capture_queue": _fixed("256 chunks"),
    "health_window": _fixed("a minute"),
    "health_min_events": _fixed("5"),
    "health_max_timeout_ratio": _fixed("0.5"),
    "health_min_success_ratio": _fixed("0.5"),
}
"""Removed settings by name. `refuse_removed`, the configuration files and the flags of `serve`
check it."""


def refuse_removed(flags: Iterable[str]) -> None:
    """Refuse removed settings that are given as flags or in the environment.

    Raises:
        errors.SettingsInvalid: one is given.
    """
    for name, removed in REMOVED.items():
        variable = f"{ENV_PREFIX}{name.upper()}"
        if name in flags or os.environ.get(variable):
            raise SettingsInvalid(
                f"There is no setting '{name}' ({variable}) any more.", hint=removed.hint
            )
