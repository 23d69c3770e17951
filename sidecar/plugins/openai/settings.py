"""Settings of OpenAI's API."""

from sidecar.config.setting_types import SettingsGroup, setting


class OpenAISettings(SettingsGroup):
    """OpenAI's API: how strict it is."""

    openai_strict: bool = setting(
        False,
        "Reject requests of OpenAI's transcription API that cannot be fulfilled: a model whose "
        "name GET /v1/models does not list, or none; log probabilities; granularities without "
        "verbose_json. Otherwise the service answers with a Warning header (docs/openai.md).",
    )
