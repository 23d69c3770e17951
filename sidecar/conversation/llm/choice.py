"""Who thinks in conversations, by the settings; looked for on this machine only if they say so."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace

from sidecar.config import servers
from sidecar.config.settings import Settings
from sidecar.conversation.llm import chat
from sidecar.conversation.llm.endpoint import Address, Endpoint
from sidecar.conversation.llm.thinker import REPEAT, Repeat, Thinker

log = logging.getLogger(__name__)

AUTO = "auto"
KNOWN = {
    "Ollama": "http://127.0.0.1:11434",
    "LM Studio": "http://127.0.0.1:1234",
    "llama.cpp": "http://127.0.0.1:8080",
    "vLLM": "http://127.0.0.1:8000",
}
"""Where they listen unless told otherwise, by their own documentation."""
LOOK_S = 2.0
"""So long one of them may take to answer on a busy machine; where nobody listens that is known at
once."""


@dataclass(frozen=True, slots=True)
class Meant:
    """Whom the settings mean: how a model is to be asked, and where, if that is said (`looked_for`
    otherwise); None where what is said is repeated."""

    address: Address | None

    @property
    def looked_for(self) -> bool:
        """Whether it is whoever answers on this machine."""
        return self.address is not None and not self.address.url


def meant_by(settings: Settings) -> Meant:
    """Whom the settings mean; nobody is asked.

    Raises:
        errors.SettingsInvalid: the address is none, or the key is no secret.
    """
    wanted = settings.llm.strip()
    if wanted == REPEAT:
        return Meant(None)
    return Meant(
        Address(
            "" if wanted == AUTO else servers.address(wanted, "llm"),
            settings.llm_model,
            servers.key(settings.llm_key, settings.llm_key_file, "llm"),
            settings.llm_max_tokens,
            settings.llm_first_token,
            settings.llm_next_token,
        )
    )


async def thinker_of(meant: Meant, *, again: bool = False) -> Thinker:
    """Who thinks. With 'auto' it is whoever answers on this machine, and nobody else; ``again``:
    nobody did before, and the log says so already."""
    address = meant.address
    if address is None:
        return Repeat()
    if not meant.looked_for:
        return Endpoint(address)
    looks = {url: asyncio.ensure_future(_looked(url, address.model)) for url in KNOWN.values()}
    try:
        for name, url in KNOWN.items():
            if model := await looks[url]:
                log.info("language model: %s of %s at %s", model, name, url)
                return Endpoint(replace(address, url=url, model=model))
    finally:
        for look in looks.values():
            look.cancel()
    if not again:
        log.info("language model: none of %s answers; what is said is repeated", ", ".join(KNOWN))
    return Repeat()


async def _looked(url: str, wanted: str) -> str:
    """The model that a server on this machine has: the one that is wanted, else its first; ''
    without one."""
    import httpx

    try:
        async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(LOOK_S):
            response = await client.get(url + chat.MODELS)
            body = response.json() if response.status_code == 200 else None
    except (TimeoutError, httpx.HTTPError, ValueError):
        return ""
    return wanted or chat.model_of(body) if chat.model_of(body) else ""
