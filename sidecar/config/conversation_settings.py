"""Settings of conversations and TTS."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from sidecar.config.setting_types import SettingsGroup, TalkPorts, setting


class ConversationSettings(SettingsGroup):
    """Conversations: how many there are, who answers in them, and with which words."""

    conversations: int = setting(
        1, "Most spoken conversations at once; each is a live session, too.", ge=0
    )
    talk_ports: TalkPorts = setting(
        None,
        "'original': conversations are had at port 8005 of the loopback, too, as the page of the "
        "speech-to-speech demo, served at port 3000, expects it; or other ports for the two, such "
        "as '8006:3001' (docs/talk.md).",
    )
    talk_instructions: str = setting(
        "You are spoken with. Answer in one or two short sentences, without lists or markup.",
        "What a language model is told before a conversation.",
    )
    talk_voice: str = setting("", "Voice that answers are said in; the engine's own.")
    llm: str = setting(
        "repeat",
        "Who answers in conversations: 'repeat' says what it heard; 'auto' takes a language model "
        "that listens on this machine (Ollama, LM Studio, llama.cpp, vLLM), and repeats where "
        "there is none; an address such as 'http://127.0.0.1:11434' has OpenAI's chat completions.",
    )
    llm_model: str = setting("", "Its model; the server's first if unset.")
    llm_key: SecretStr | None = setting(
        None, "Key that is sent to it as 'Authorization: Bearer' (@FILE)."
    )


class TtsSettings(SettingsGroup):
    """Voices: who speaks in conversations, and with what."""

    voice_engine: Literal[
        "auto", "none", "vibevoice", "moonshine", "system", "espeak", "speech", "scripted"
    ] = setting(
        "auto",
        "Engine that speaks in conversations, in a process of its own: 'auto' takes what is here, "
        "'none' leaves answers to be read; 'vibevoice' needs a GPU to keep up, and a checkpoint "
        "('vibevoice-asr pull vibevoice-1.5b'); 'moonshine' has the voices that 'vibevoice-asr "
        "pull voice' brought, 'system' those of macOS and Windows, 'espeak' a robot's in a "
        "hundred languages (the extra 'espeak'); 'speech' has a server speak, to which the "
        "answers go ('auto' never does that); 'scripted' says tones (for the developers of pages).",
    )
    voice_path: Path | None = setting(
        None,
        "Folder of a checkpoint of VibeVoice that speaks, or of a Hugging Face cache that has "
        "one; if unset, the cache that 'vibevoice-asr pull' fills.",
    )
    speech_url: str = setting(
        "", "Server with OpenAI's /v1/audio/speech, for the voice_engine 'speech'."
    )
    speech_model: str | None = setting(None, "Its model; 'tts-1' if unset.")
    speech_key: SecretStr | None = setting(
        None, "Key that is sent to it as 'Authorization: Bearer' (@FILE)."
    )
