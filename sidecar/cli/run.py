"""`vibevoice-asr talk`: from what the command line asked for to its exit code."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar import errors
from sidecar.cli.backends import Where
from sidecar.cli.ctrl_c import interrupts
from sidecar.cli.party import Party
from sidecar.cli.player import Loudspeaker, Player, Reader
from sidecar.cli.said import INTERRUPTED, complain, say
from sidecar.cli.screen import shown
from sidecar.cli.sounds import Microphone, devices, look_at, of_file
from sidecar.cli.wire import connected
from sidecar.interfaces.live import LIVE_RATE

if TYPE_CHECKING:
    from vibevoice_asr_client import AsyncClient

HIGHEST_RATE = 48_000
"""Samples a second of a conversation, both ways."""
LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Order:
    """What the command line asked for. ``typed``: nothing is heard; ``file``: that instead of the
    microphone; ``device`` and ``speaker`` as sounddevice calls them; ``llm``: who answers in a
    service of this command's own."""

    where: Where
    typed: bool = False
    file: Path | None = None
    aloud: bool = True
    device: str | None = None
    speaker: str | None = None
    voice: str | None = None
    model: str | None = None
    llm: str | None = None


def list_devices() -> int:
    """Print microphones and loudspeakers; the exit code."""
    try:
        found = {"Microphones": devices("input"), "Loudspeakers": devices("output")}
    except errors.SidecarError as error:
        return complain(error)
    for kind, those in found.items():
        print("\n".join([f"{kind}:", *(those or ["  none"])]))
    return 0


def run(order: Order) -> int:
    """Do it; the exit code. Every failure is one line on stderr."""
    try:
        if order.file is not None:
            look_at(order.file)
        rate, sound = _sound_of(order)
        player = Loudspeaker(order.speaker, rate) if order.aloud else Reader(rate)
        with _service(order) as where:
            if where is None:  # it has said why
                return 1
            return asyncio.run(_run(order, where, rate, sound, player))
    except errors.SidecarError as error:
        return complain(error, about=str(order.file) if order.file else "")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED


def _sound_of(order: Order) -> tuple[int, AsyncGenerator[bytes, None] | None]:
    """Samples a second, and what is heard."""
    if order.typed:
        return LIVE_RATE, None
    if order.file is not None:
        return LIVE_RATE, of_file(order.file, 1.0)
    microphone = Microphone(order.device)
    microphone.rate = min(microphone.rate, HIGHEST_RATE)
    return microphone.rate, microphone.sound()


@contextmanager
def _service(order: Order) -> Generator[Where | None, None, None]:
    """The one that was named, the one that runs here, or else one that is started for this and ends
    with it; None if it does not start."""
    where = order.where if order.where.server else _running(order)
    if where is not None:
        yield where
        return
    from vibevoice_asr_client import Trust

    from sidecar.cli.started import started

    given: dict[str, object] = {"port": 0}
    given |= {"llm": order.llm} if order.llm else {}
    given |= {} if order.aloud else {"voice_engine": "none"}
    with started(given) as (service, ready):
        if ready is None:
            service.wait()
            yield None
            return
        pinned = Trust(fingerprint=ready["fingerprint"]) if "fingerprint" in ready else None
        yield replace(order.where, server=ready["url"], token=ready.get("token"), trust=pinned)


def _running(order: Order) -> Where | None:
    """The service of this machine, if one runs where the settings say, and will do."""
    from sidecar.cli.status import configured_service
    from sidecar.config.settings import load_settings
    from sidecar.server import port_owner

    settings = load_settings()
    if order.llm is not None or not settings.port:
        return None
    other = port_owner.at(settings.host, settings.port)
    if other is None or other.stopping:
        return None
    server, own = configured_service()
    given = order.where.trust
    return replace(order.where, server=server, trust=given if given and given.given else own)


async def _run(
    order: Order,
    where: Where,
    rate: int,
    sound: AsyncGenerator[bytes, None] | None,
    player: Player,
) -> int:
    from sidecar.auth.credentials import for_clients
    from sidecar.cli.remote import service_at
    from sidecar.config.settings import load_settings

    token = where.token or for_clients(load_settings())
    ended = asyncio.Event()
    wishes = {"voice": order.voice, "model": order.model}
    begin = {"rate": rate, **{name: wish for name, wish in wishes.items() if wish is not None}}
    with interrupts(ended) as interrupted:
        async with service_at(where.server or "", token, where.trust) as client:
            await client.health()  # nobody there is said now
            async with connected(client.url, token, where.trust) as wire:
                await wire.say("begin", **begin)
                with shown(spoken=sound is not None) as show, player.playing():
                    party = Party(wire, player, show, rate=rate)
                    await party.go_on(_heard(sound, client) if sound else None, ended)
    # A microphone has no end but this one; the others have.
    bounded = order.typed or order.file is not None
    return INTERRUPTED if interrupted() and bounded else 0


async def _heard(
    sound: AsyncGenerator[bytes, None], client: AsyncClient
) -> AsyncGenerator[bytes, None]:
    """The sound, once somebody hears it: what is said before is answered late."""
    told = False
    async with aclosing(sound):
        while (await client.health()).get("live_engine_state") in ("absent", "loading"):
            if not told:
                say("The engine is being loaded.")
                told = True
            await asyncio.sleep(LOOK_S)
        async for piece in sound:
            yield piece
