"""Settings of conversations."""

from typing import Literal

from pydantic import SecretStr

from sidecar.config.setting_types import SettingsGroup, setting


class ConversationSettings(SettingsGroup):
    """Conversations: limit, language model, TTS engine and voice of answers."""

    conversations: int = setting(
        1, "Maximum spoken conversations at once; each is a live session, too.", ge=0
    )
    talk_instructions: str = setting(
        "You are spoken with. Answer in one or two short sentences, without lists or markup.",
        "System prompt of the language model.",
    )
    talk_voice: str = setting("", "Voice of the answers; the engine's default if unset.")
    llm: str = setting(
        "repeat",
        "Language model of conversations: 'repeat' repeats the user; 'auto' uses one that runs on "
        "this machine, else repeats (docs/talk.md); or the address of a server with OpenAI's chat "
        "completions, such as 'http://127.0.0.1:11434'.",
    )
    llm_model: str = setting("", "Model of that server; its first if unset.")
    llm_key: SecretStr | None = setting(None, "Key for that server (@FILE).")
    voice_engine: Literal["auto", "none", "moonshine", "system", "espeak", "speech", "scripted"] = (
        setting(
            "auto",
            "TTS engine of conversations, in its own process: 'auto' uses what is installed, "
            "'none' returns text only (docs/voices.md); 'speech' uses a server, to which the "
            "answers are sent ('auto' never does that).",
        )
    )
    speech_url: str = setting(
        "", "Server with OpenAI's /v1/audio/speech, for the voice_engine 'speech'."
    )
    speech_model: str | None = setting(None, "Model of that server; 'tts-1' if unset.")
    speech_key: SecretStr | None = setting(None, "Key for that server (@FILE).")
