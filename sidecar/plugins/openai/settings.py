"""Settings of OpenAI's API."""

from sidecar.config.setting_types import SettingsGroup, setting


class OpenAISettings(SettingsGroup):
    """OpenAI's API: how strict it is."""

    openai_strict: bool = setting(
        False,
        "Reject requests of OpenAI's transcription API that cannot be fulfilled "
        "(docs/openai-wire.md). Otherwise the service answers them with a Warning header.",
    )
