"""Command `talk`: spoken or typed conversation."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    aclosing,
    closing,
    nullcontext,
)
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sidecar import errors
from sidecar.cli.audio_input import devices, open_input
from sidecar.cli.backends import ServiceTarget, client_of, running_service, started_for
from sidecar.cli.common_options import option
from sidecar.cli.output import (
    INTERRUPTED,
    cancelled_by,
    handle_interrupts,
    print_error_line,
    print_text,
)
from sidecar.interfaces.live_options import LIVE_RATE
from sidecar.plugins import enabled, load_settings
from sidecar.plugins.conversation import talk_client

if TYPE_CHECKING:
    from vibevoice_asr_client import AsyncClient

ENGINE_POLL_S = 0.2


def talk(
    text: bool = option(False, "Type instead of speaking, and read the answers."),
    file: Path | None = option(
        None, "Play this recording in real time instead of the microphone.", metavar="FILE"
    ),
    aloud: bool | None = option(
        None, "Play the answers (default without --text and --file), or not.", "--aloud/--silent"
    ),
    device: str | None = option(
        None, "Record from this microphone, by number or a part of its name.", metavar="NAME"
    ),
    speaker: str | None = option(
        None, "Play to this loudspeaker, by number or a part of its name.", metavar="NAME"
    ),
    devices: bool = option(False, "List microphones and loudspeakers."),
    voice: str | None = option(None, "Speak answers with this voice.", metavar="NAME"),
    model: str | None = option(None, "Answer with this model of the service.", metavar="NAME"),
    llm: str | None = option(
        None,
        "Answer with this LLM (as serve --llm) in a service that this command starts.",
        metavar="NAME",
    ),
    *,
    target: ServiceTarget,
) -> int:
    """Hold a conversation by microphone and loudspeaker, or typed.

    To interrupt an answer, speak or press Enter; a typed line is a turn, too. Ctrl-C ends the
    conversation once the last words are recognized, which takes a minute at most. The command uses
    the service of this machine or of --server; if none runs, it starts one. With headphones the
    microphone does not pick up the answers. Both devices need the extra `microphone`; if it is
    missing, the command prints how to install it.

    Examples:

    * `vibevoice-asr talk`
    * `vibevoice-asr talk --llm auto`: answer with a language model on this machine
    * `vibevoice-asr talk --text`: type and read, without a device
    * `vibevoice-asr talk --devices`, then `vibevoice-asr talk --device 3 --speaker Headphones`
    * `vibevoice-asr talk --file question.wav`: play a recording as the user, read the answers
    * `echo "How are you?" | vibevoice-asr talk --text --server http://127.0.0.1:8765`
    """
    if devices:
        return list_devices()
    if text and file is not None:
        raise typer.BadParameter("--text goes without --file.")
    if device is not None and (text or file is not None):
        raise typer.BadParameter("--device goes without --text and --file.")
    if llm is not None and target.server is not None:
        raise typer.BadParameter("--llm goes without --server: that one has its own.")
    aloud = aloud if aloud is not None else not text and file is None
    if speaker is not None and not aloud:
        raise typer.BadParameter("--speaker goes with answers that are heard (--aloud).")
    ended = asyncio.Event()
    rate, audio = (LIVE_RATE, None) if text else open_input(file, device, ended)
    loudspeaker = talk_client.Loudspeaker(speaker) if aloud else None
    with _service(target, llm, aloud=aloud) as service:
        if service is None:  # it has printed the reason
            return 1
        conversation = _run(service.with_token(), rate, (voice, model), audio, loudspeaker, ended)
        interrupted, failed = asyncio.run(conversation)
    if not (text or file is not None):  # Ctrl-C is the only end of a microphone
        return 0
    attended = text and sys.stdin is not None and sys.stdin.isatty()
    return INTERRUPTED if interrupted else int(failed and not attended)


def list_devices() -> int:
    """Print microphones and loudspeakers; return the exit code."""
    devices_by_kind = {"Microphones": devices("input"), "Loudspeakers": devices("output")}
    for kind, names in devices_by_kind.items():
        print_text("\n".join([f"{kind}:", *(names or ["  none"]), ""]))
    return 0


def _service(
    target: ServiceTarget, llm: str | None, *, aloud: bool
) -> AbstractContextManager[ServiceTarget | None]:
    """Return the named service, or the one that runs on this machine. Otherwise return a child
    service that ends with the block; `None` if it does not start."""
    running = target if target.server else None if llm is not None else running_service(target)
    if running is not None:
        return nullcontext(running)
    if "conversation" not in {plugin.name for plugin in enabled(load_settings())}:
        raise errors.SettingsInvalid(
            "The plugin 'conversation' is off.",
            hint="Turn it on by the setting 'plugins', or name a service with --server.",
        )
    given: dict[str, object] = {"port": 0}
    given |= {"llm": llm} if llm else {}
    given |= {} if aloud else {"voice_engine": "none"}
    return started_for(target, given)


async def _run(
    target: ServiceTarget,
    rate: int,
    voice_and_model: tuple[str | None, str | None],
    audio: AsyncGenerator[bytes, None] | None,
    loudspeaker: talk_client.Loudspeaker | None,
    ended: asyncio.Event,
) -> tuple[bool, bool]:
    """Hold the conversation to its end, or until ``ended``; return whether Ctrl-C ended it, and
    whether an answer failed."""
    with handle_interrupts(ended) as interrupted:
        async with AsyncExitStack() as opened:
            async with cancelled_by(ended):
                client = await opened.enter_async_context(client_of(target))
                socket = await opened.enter_async_context(
                    talk_client.connect_talk(client.url, target.token, target.trust)
                )
            playing = nullcontext() if loudspeaker is None else loudspeaker.stream
            display = talk_client.TalkDisplay(spoken=audio is not None)
            with closing(display), playing:
                session = talk_client.TalkSession(socket, loudspeaker, display, rate=rate)
                await session.begin(*voice_and_model)
                heard = _audio_when_loaded(audio, client, ended) if audio else None
                await session.run(heard, ended)
        return interrupted(), session.failed


async def _audio_when_loaded(
    audio: AsyncGenerator[bytes, None], client: AsyncClient, ended: asyncio.Event
) -> AsyncGenerator[bytes, None]:
    """Yield the audio once the engine is loaded: earlier speech would be answered late."""
    printed = False
    async with aclosing(audio):
        while (await client.health()).get("live_engine_state") in ("absent", "loading"):
            if ended.is_set():
                return
            if not printed:
                print_error_line("The engine is being loaded.")
                printed = True
            await asyncio.sleep(ENGINE_POLL_S)
        async for chunk in audio:
            yield chunk
