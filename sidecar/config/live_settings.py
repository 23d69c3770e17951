"""Settings of live sessions, conversations and TTS."""

from typing import Literal

from sidecar.config.setting_types import Duration, SettingsGroup, setting


class LiveSettings(SettingsGroup):
    """Live sessions: engine, limits and timeouts."""

    live_engine: Literal[
        "auto",
        "none",
        "vibevoice",
        "vibevoice-streaming",
        "whisper",
        "voxtral",
        "moonshine",
        "scripted",
    ] = setting(
        "auto",
        "Engine for live audio: 'auto' uses the engine for files if it supports live audio, else "
        "'vibevoice-streaming' if the GPU holds it beside that one, else the embedded one; 'none' "
        "refuses live audio.",
    )
    live_sessions: int = setting(
        100, "Maximum live sessions at once; fewer if the engine supports fewer.", ge=0
    )
    live_sessions_per_owner: int | None = setting(
        None,
        "Maximum live sessions of one owner; 0: unlimited. If unset: 32 if other machines can "
        "reach the service.",
        ge=0,
    )
    live_delay: Duration = setting(
        1.0,
        "Delay of a final under load. If more is predicted, the service sheds work "
        "(docs/live.md); 0 limits the number of sessions only.",
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
        "MB of audio that all live sessions buffer, one owner at most four fifths; beyond it "
        "clients wait.",
        ge=1,
    )
    live_timeout: Duration = setting(20.0, "Timeout of the recognition of a live segment.", gt=0)
