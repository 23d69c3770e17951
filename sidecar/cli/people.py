"""Command `people`: enrolled speakers."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sidecar import errors
from sidecar.cli.backends import Where
from sidecar.cli.common_options import addressed
from sidecar.cli.output import PROGRAM, complain, say, shown

if TYPE_CHECKING:
    from vibevoice_asr_client import AsyncClient

HELP = f"""
Whose voices a running service knows (--people): biometric data, see docs/people.md.

The service is the one of the settings, or the one that --server names.

Examples:

* `{PROGRAM} people add Nell nell.wav`: known by some seconds of her voice
* `{PROGRAM} people list`
* `{PROGRAM} people delete 0f3a`: an id, or as much of it as no other begins with
* `{PROGRAM} people export > people.json`: all that is stored
* `{PROGRAM} people carry-over`: those in a file, into the database of --journal, without a service
"""

PersonArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The person's, or how it alone begins.")
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As it is shown.")]
Ask = Callable[["AsyncClient"], Awaitable[None]]


def build() -> typer.Typer:
    """The word `people` and the words after it."""
    app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="markdown")
    app.command("list", help="Everybody: id, recordings, seconds of voice, name.")(addressed(_list))
    app.command("add", help="Make somebody known by a clip of one voice.")(addressed(_add))
    app.command("rename", help="Give somebody another name.")(addressed(_rename))
    app.command("delete", help="Forget somebody, for good.")(addressed(_delete))
    app.command("export", help="All that is stored, as JSON.")(addressed(_export))
    app.command("carry-over", help="Take people of a file into the database of the settings.")(
        _carry_over
    )
    return app


def _list(*, where: Where) -> None:
    async def ask(client: AsyncClient) -> None:
        for one in (await client.people())["people"]:
            print(_line(one))

    _run(where, ask)


def _add(
    name: NameArgument,
    clip: Annotated[Path, typer.Argument(metavar="FILE", help="5 to 10 s of one person.")],
    *,
    where: Where,
) -> None:
    async def ask(client: AsyncClient) -> None:
        from sidecar.cli.audio_input import open_file

        with open_file(clip) as source, os.fdopen(os.dup(source.fd), "rb") as file:
            print(_line(await client.add_person(name, file)))

    _run(where, ask)


def _rename(
    person: PersonArgument,
    name: NameArgument,
    *,
    where: Where,
) -> None:
    async def ask(client: AsyncClient) -> None:
        print(_line(await client.change_person(await _id_of(client, person), name)))

    _run(where, ask)


def _delete(
    person: PersonArgument,
    *,
    where: Where,
) -> None:
    async def ask(client: AsyncClient) -> None:
        found = await _id_of(client, person)
        await client.delete_person(found)
        say(f"deleted: {found}")

    _run(where, ask)


def _export(*, where: Where) -> None:
    async def ask(client: AsyncClient) -> None:
        print(json.dumps(await client.export_people(), ensure_ascii=False, indent=2))

    _run(where, ask)


def _carry_over(
    people_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the file, instead of the settings'."),
    ] = None,
) -> None:
    from sidecar.config.settings import load_settings
    from sidecar.storage.encryption import journal_key
    from sidecar.storage.postgres_settings import journal_address
    from sidecar.storage.postgres_speaker_store import SharedPeople, carry_over
    from sidecar.storage.speaker_store import people_folder

    try:
        settings = load_settings()
        address, secret = journal_address(settings), journal_key(settings)
        if address is None:
            raise errors.SettingsInvalid(
                "No database is named for people to come into.",
                hint="Set VIBEVOICE_JOURNAL to the one that the services share.",
            )
        folder = people_dir or people_folder(settings)
        came, there = asyncio.run(carry_over(folder, secret, SharedPeople(address, secret)))
    except errors.SidecarError as error:
        raise typer.Exit(complain(error)) from None
    say(f"carried over: {came}; there already: {there}. The file is still in {folder}.")


async def _id_of(client: AsyncClient, given: str) -> str:
    """The id that begins so, if there is one."""
    ids = [str(one["id"]) for one in (await client.people())["people"]]
    found = [one for one in ids if given and one.startswith(given)]
    if len(found) != 1:
        raise errors.PersonNotFound(
            f"{len(found) or 'No'} ids begin with '{given}'.", hint=f"{PROGRAM} people list"
        )
    return found[0]


def _line(person: dict[str, Any]) -> str:
    seconds = sum(one["seconds"] for one in person["voices"])
    return f"{person['id']}  {len(person['voices']):>2}  {seconds:>6.1f} s  {shown(person['name'])}"


def _run(where: Where, ask: Ask) -> None:
    try:
        asyncio.run(_asked(where, ask))
    except errors.SidecarError as error:
        raise typer.Exit(complain(error)) from None


async def _asked(where: Where, ask: Ask) -> None:
    from sidecar.auth.startup_token import for_clients
    from sidecar.cli.remote_service import service_at
    from sidecar.cli.status import configured_service
    from sidecar.config.settings import load_settings

    server, trust = where.server, where.trust
    if server is None:
        server, own = configured_service()
        trust = trust if trust is not None and trust.given else own
    token = where.token or for_clients(load_settings())
    async with service_at(server, token, trust) as client:
        await ask(client)
