"""Settings of live sessions, conversations and TTS."""

from typing import Literal

from pydantic import SecretStr

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
        "Engine for live audio, in its own process: 'auto' uses the engine for files if it "
        "supports live audio, else 'vibevoice-streaming' if the GPU holds it beside that one, else "
        "the embedded one; 'none' refuses live audio; 'voxtral' supports live audio only; "
        "'vibevoice' does not support it, and ends the start.",
    )
    live_sessions: int = setting(
        100, "Maximum live sessions at once; fewer if the engine supports fewer.", ge=0
    )
    live_sessions_per_owner: int | None = setting(
        None,
        "Maximum live sessions of one owner; 0: unlimited. If unset: unlimited on the "
        "loopback, 32 if other machines can reach the service.",
        ge=0,
    )
    live_delay: Duration = setting(
        1.0,
        "Delay of a final under load. If more is predicted, the service rejects new speech "
        "of live sessions, then omits partials, labels and utterances; 0 limits the number "
        "of sessions only.",
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
        "MB of audio that all live sessions buffer; beyond it clients wait, except one, "
        "whose utterance is recognized first.",
        ge=1,
    )
    live_timeout: Duration = setting(20.0, "Timeout of the recognition of a live segment.", gt=0)


class ConversationSettings(SettingsGroup):
    """Conversations: limit, language model, and voice of answers."""

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
        "this machine (Ollama, LM Studio, llama.cpp, vLLM), else repeats; or the address of a "
        "server with OpenAI's chat completions, such as 'http://127.0.0.1:11434'.",
    )
    llm_model: str = setting("", "Model of that server; its first if unset.")
    llm_key: SecretStr | None = setting(
        None, "Key for that server, sent as 'Authorization: Bearer' (@FILE)."
    )


class TtsSettings(SettingsGroup):
    """Voices: TTS engine of conversations."""

    voice_engine: Literal["auto", "none", "moonshine", "system", "espeak", "speech", "scripted"] = (
        setting(
            "auto",
            "TTS engine of conversations, in its own process: 'auto' uses what is installed, "
            "'none' returns text only; 'moonshine' has the voices of 'vibevoice-asr pull voice', "
            "'system' those of macOS and Windows, 'espeak' robotic ones in a hundred languages "
            "(the extra 'espeak'); 'speech' uses a server, to which the answers are sent "
            "('auto' never does that); 'scripted' returns tones (for developers of pages).",
        )
    )
    speech_url: str = setting(
        "", "Server with OpenAI's /v1/audio/speech, for the voice_engine 'speech'."
    )
    speech_model: str | None = setting(None, "Model of that server; 'tts-1' if unset.")
    speech_key: SecretStr | None = setting(
        None, "Key for that server, sent as 'Authorization: Bearer' (@FILE)."
    )
