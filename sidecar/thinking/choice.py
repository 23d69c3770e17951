"""Who thinks in conversations, by the settings; looked for on this machine only if they say so."""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import urlsplit

from sidecar import errors, private
from sidecar.settings import Settings
from sidecar.thinking import chat
from sidecar.thinking.endpoint import Address, Endpoint
from sidecar.thinking.thinker import Repeat, Thinker

log = logging.getLogger(__name__)

AUTO, REPEAT = "auto", "repeat"
KNOWN = {
    "Ollama": "http://127.0.0.1:11434",
    "LM Studio": "http://127.0.0.1:1234",
    "llama.cpp": "http://127.0.0.1:8080",
    "vLLM": "http://127.0.0.1:8000",
}
"""Where they listen unless told otherwise, by their own documentation."""
LOOK_S = 0.3
LONGEST_KEY = 1 << 12


async def thinker_of(settings: Settings) -> Thinker:
    """Whom the settings mean. With 'auto' it is whoever answers on this machine, and nobody else.

    Raises:
        errors.SettingsInvalid: the address is none, or the key is no secret.
    """
    wanted = settings.llm.strip()
    if wanted == REPEAT:
        return Repeat()
    if wanted != AUTO:
        return Endpoint(_address(settings, base_of(wanted)))
    for name, url in KNOWN.items():
        if model := await _looked(url, settings.llm_model):
            log.info("language model: %s of %s at %s", model, name, url)
            return Endpoint(_address(settings, url, model))
    log.info("language model: none of %s answers; what is said is repeated", ", ".join(KNOWN))
    return Repeat()


def base_of(text: str) -> str:
    """An address without what is no part of it: a slash at the end, '/v1'.

    Raises:
        errors.SettingsInvalid: it is none, or has a password in it. What it was is not repeated.
    """
    try:
        parts = urlsplit(text)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        whole = None
    if not whole or "@" in parts.netloc or parts.query or parts.fragment:
        raise errors.SettingsInvalid(
            "The setting llm is neither 'repeat' nor 'auto' nor an address.",
            hint="Write it like http://127.0.0.1:11434; a key goes into VIBEVOICE_LLM_KEY.",
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1')}"


def _address(settings: Settings, url: str, model: str = "") -> Address:
    return Address(
        url,
        model or settings.llm_model,
        _key(settings),
        settings.llm_max_tokens,
        settings.llm_first_token,
        settings.llm_next_token,
    )


def _key(settings: Settings) -> str:
    if settings.llm_key is not None and settings.llm_key_file is not None:
        raise errors.SettingsInvalid(
            "The settings llm_key and llm_key_file each give a key.", hint="Keep one of them."
        )
    key = ""
    if settings.llm_key is not None:
        key = settings.llm_key.get_secret_value().strip()
    elif settings.llm_key_file is not None:
        key = private.read(settings.llm_key_file, LONGEST_KEY, private=True).decode().strip()
    if not (key.isascii() and key.isprintable()):
        raise errors.SettingsInvalid("The key for the language model is not printable ASCII.")
    return key


async def _looked(url: str, wanted: str) -> str:
    """The model that a server on this machine has: the one that is wanted, else its first; ''
    without one."""
    import httpx

    try:
        async with asyncio.timeout(LOOK_S), httpx.AsyncClient(trust_env=False) as client:
            response = await client.get(url + chat.MODELS)
            body = response.json() if response.status_code == 200 else None
    except (TimeoutError, httpx.HTTPError, ValueError):
        return ""
    return wanted or chat.model_of(body) if chat.model_of(body) else ""
