"""Command `talk`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sidecar import errors
from sidecar.cli.audio_input import Microphone, devices, look_at, of_file
from sidecar.cli.backends import Where
from sidecar.cli.output import INTERRUPTED, PROGRAM, complain, interrupts, say
from sidecar.cli.talk_client import Party, connected
from sidecar.cli.talk_screen import Loudspeaker, Player, Reader, shown
from sidecar.interfaces.live_engine import LIVE_RATE

if TYPE_CHECKING:
    from vibevoice_asr_client import AsyncClient


HELP = f"""
Talk with the machine: by microphone and loudspeaker, or typed.

Who speaks over an answer ends it, and so does Enter; a line that is typed is a turn, too. Ctrl-C
ends the conversation. It goes by the service that runs on this machine, or the one that is named;
where there is none, one is started for it. Headphones keep the microphone from hearing the answers.
Both devices need the extra `microphone`: pip install 'vibevoice-asr[microphone]'.

Examples:

* `{PROGRAM} talk`
* `{PROGRAM} talk --llm auto`: a language model that runs on this machine answers
* `{PROGRAM} talk --text`: typed on both sides, without any device
* `{PROGRAM} talk --devices`, then `{PROGRAM} talk --device 3 --speaker Headphones`
* `{PROGRAM} talk --file question.wav`: a recording speaks, answers are read
* `echo "How are you?" | {PROGRAM} talk --text --server http://127.0.0.1:8765`
"""


def talk(
    text: Annotated[
        bool, typer.Option("--text", help="Type instead of speaking, and read the answers.")
    ] = False,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A recording, played in real time, instead of the microphone."
        ),
    ] = None,
    aloud: Annotated[
        bool | None,
        typer.Option(
            "--aloud/--silent",
            help="Whether answers are heard (they are, unless --text or --file is given).",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Microphone, by number or a part of its name."),
    ] = None,
    speaker: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Loudspeaker, by number or a part of its name."),
    ] = None,
    devices: Annotated[
        bool, typer.Option("--devices", help="List microphones and loudspeakers.")
    ] = False,
    voice: Annotated[
        str | None, typer.Option(metavar="NAME", help="Voice that answers are said in.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model that answers, of the service's own.")
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Who answers, as `serve --llm` has it, in a service that is started for this.",
        ),
    ] = None,
    *,
    where: Where,
) -> None:
    """What was asked for, done."""

    if devices:
        raise typer.Exit(list_devices())
    if text and file is not None:
        raise typer.BadParameter("--text goes without --file.")
    if device is not None and (text or file is not None):
        raise typer.BadParameter("--device goes without --text and --file.")
    if llm is not None and where.server is not None:
        raise typer.BadParameter("--llm goes without --server: that one has its own.")
    heard = aloud if aloud is not None else not text and file is None
    if speaker is not None and not heard:
        raise typer.BadParameter("--speaker goes with answers that are heard (--aloud).")
    order = Order(
        where,
        typed=text,
        file=file,
        aloud=heard,
        device=device,
        speaker=speaker,
        voice=voice,
        model=model,
        llm=llm,
    )
    raise typer.Exit(run(order))


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

    from sidecar.cli.backends import started

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
    from sidecar.auth.startup_token import for_clients
    from sidecar.cli.remote_service import service_at
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
