"""Conversations: how many there are, who answers in them, and with which words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from sidecar.config.group import Group
from sidecar.config.settings_values import Duration, TalkPorts, parse_talk_ports


class Talk(Group):
    """The settings of it."""

    conversations: int = Field(
        1, ge=0, description="Most spoken conversations at once; each is a live session, too."
    )
    talk_idle: Duration = Field(
        600.0,
        gt=0,
        description=(
            "How long a conversation waits for sound, for typed text or for another wish of its "
            "client's, once nothing is said any more, before it ends."
        ),
    )
    talk_ports: Annotated[TalkPorts | None, NoDecode, BeforeValidator(parse_talk_ports)] = Field(
        None,
        description=(
            "'original': conversations are had at port 8005 of the loopback, too, as the page of "
            "the speech-to-speech demo, served at port 3000, expects it; or other ports for the "
            "two, such as '8006:3001' (docs/talk.md)."
        ),
    )
    talk_instructions: str = Field(
        "You are spoken with. Answer in one or two short sentences, without lists or markup.",
        description="What a language model is told before a conversation.",
    )
    talk_voice: str = Field("", description="Voice that answers are said in; the engine's own.")
    llm: str = Field(
        "repeat",
        description=(
            "Who answers in conversations: 'repeat' says what it heard; 'auto' takes a language "
            "model that listens on this machine (Ollama, LM Studio, llama.cpp, vLLM), and repeats "
            "where there is none; an address such as 'http://127.0.0.1:11434' has OpenAI's chat "
            "completions."
        ),
    )
    llm_model: str = Field("", description="Its model; the server's first if unset.")
    llm_key: SecretStr | None = Field(
        None, description="Key that is sent to it as 'Authorization: Bearer'. No flag."
    )
    llm_key_file: Path | None = Field(
        None, description="File with that key, which nobody else may read (0600)."
    )
    llm_max_tokens: int = Field(200, ge=1, description="Most tokens of one of its answers.")
    llm_first_token: Duration = Field(
        20.0, gt=0, description="How long it may take to its first word: it may have to load."
    )
    llm_next_token: Duration = Field(
        10.0, gt=0, description="How long it may take from one word to the next."
    )
