"""Settings of live sessions, gRPC, conversations and TTS."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, SecretStr

from sidecar.config.setting_types import Duration, SettingsGroup, TalkPorts, parse_duration, setting
from sidecar.interfaces.live_options import Probability, SilenceSeconds


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


class GrpcSettings(SettingsGroup):
    """gRPC: port, and defaults of sessions."""

    grpc_port: int | None = setting(
        None,
        "Port for live audio over gRPC, on the same address as HTTP (docs/grpc.md); 0 "
        "takes a free one, named in the ready line. If unset: no gRPC.",
        ge=0,
        le=65535,
    )
    grpc_client_ca: Path | None = setting(
        None,
        "PEM file of the authorities that sign clients' certificates: gRPC clients without "
        "such a certificate are rejected (mTLS). Requires --tls FILE or --tls self-signed; "
        "reloaded when it changes.",
    )
    grpc_silence: Annotated[SilenceSeconds, BeforeValidator(parse_duration)] = setting(
        0.5, "Silence that ends an utterance: default of gRPC sessions."
    )
    grpc_threshold: Probability = setting(
        0.5,
        "Threshold of the probability of speech: default of gRPC sessions; with 0 all "
        "audio is speech.",
    )
    grpc_profile: Literal["realtime", "accurate"] = setting(
        "realtime", "Decode profile: default of gRPC sessions."
    )
    grpc_task: Literal["transcribe", "translate"] = setting(
        "transcribe",
        "Task: default of gRPC sessions; 'translate' (into English) if the engine supports it.",
    )
    grpc_keep: bool = setting(
        False,
        "Keep gRPC sessions as jobs of their owners, as 'keep' does on /v1/live (docs/live.md); "
        "with 'keep_jobs' and 'keep_recordings_mb' their audio too.",
    )


class ConversationSettings(SettingsGroup):
    """Conversations: limit, language model, and voice of answers."""

    conversations: int = setting(
        1, "Maximum spoken conversations at once; each is a live session, too.", ge=0
    )
    talk_ports: TalkPorts = setting(
        None,
        "'original' serves conversations at port 8005 of the loopback, too, as the page of "
        "the speech-to-speech demo, served at port 3000, expects it; or other ports for "
        "the two, such as '8006:3001' (docs/talk.md).",
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
