"""Command `people`: enrolled speakers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sidecar import errors
from sidecar.cli.audio_input import open_file
from sidecar.cli.backends import ServiceTarget, client_of
from sidecar.cli.common_options import argument, option, subcommands
from sidecar.cli.output import PROGRAM, print_error_line, print_text, printable

if TYPE_CHECKING:
    from vibevoice_asr_client import AsyncClient

PERSON = argument(..., "Id of the person, or an unambiguous beginning of it.", metavar="ID")
NAME = argument(..., "Name to show in transcripts.", metavar="NAME")


def people() -> None:
    """Enrol, list, rename and delete speakers of a running service (--people).

    Voices are biometric data, see docs/people.md. The service is the one of the settings, or the
    one that --server names.

    Examples:

    * `vibevoice-asr people add Nell nell.wav`: enrol Nell by a clip of 5 to 10 s
    * `vibevoice-asr people list`
    * `vibevoice-asr people delete 0f3a`: delete by id, or by an unambiguous beginning of it
    * `vibevoice-asr people export > people.json`: write all that is stored
    * `vibevoice-asr people carry-over`: copy a file's speakers to the database of --journal
    """


def build() -> typer.Typer:
    """Return the command group `people`."""
    return subcommands(people, _list, _add, _rename, _delete, _export, _carry_over)


async def _list(*, target: ServiceTarget) -> None:
    """List enrolled speakers: id, recordings, seconds of speech, name."""
    async with client_of(target) as client:
        for one in (await client.people())["people"]:
            print_text(_line(one))


async def _add(
    name: str = NAME,
    clip: Path = argument(..., "Recording of one person, 5 to 10 s.", metavar="FILE"),
    consent: bool = option(False, "Agree that voices are stored on this computer: needed once."),
    *,
    target: ServiceTarget,
) -> None:
    """Enrol a speaker by a clip of one person."""
    async with client_of(target) as client:
        with open_file(clip) as source, os.fdopen(os.dup(source.fd), "rb") as file:
            print_text(_line(await client.add_person(name, file, consent=consent)))


async def _rename(person: str = PERSON, name: str = NAME, *, target: ServiceTarget) -> None:
    """Rename an enrolled speaker."""
    async with client_of(target) as client:
        print_text(_line(await client.change_person(await _id_of(client, person), name)))


async def _delete(person: str = PERSON, *, target: ServiceTarget) -> None:
    """Delete an enrolled speaker permanently."""
    async with client_of(target) as client:
        found = await _id_of(client, person)
        await client.delete_person(found)
        print_error_line(f"deleted: {found}")


async def _export(*, target: ServiceTarget) -> None:
    """Print all that is stored, as JSON."""
    async with client_of(target) as client:
        exported = await client.export_people()
        print_text(json.dumps(exported, ensure_ascii=False, indent=2) + "\n")


async def _carry_over(
    people_dir: Path | None = option(
        None, "Folder of the file, instead of the settings'.", metavar="DIR"
    ),
) -> None:
    """Copy the speakers of a file to the database of the settings."""
    from sidecar.plugins import load_settings, shared_jobs_of
    from sidecar.storage.encryption import journal_key
    from sidecar.storage.speaker_import import import_speaker_file
    from sidecar.storage.speaker_store import speaker_folder

    settings = load_settings()
    folder = people_dir or speaker_folder(settings)
    if (shared := shared_jobs_of(settings)) is None:
        raise errors.SettingsInvalid(
            "No database is named to import the enrolled speakers into.",
            hint="Set VIBEVOICE_JOURNAL to the one that the services share, with the plugin "
            "'shared_jobs' on.",
        )
    store = shared.create_speaker_store()
    new, there = await import_speaker_file(folder, journal_key(settings), store)
    print_error_line(f"carried over: {new}; there already: {there}. The file is still in {folder}.")


async def _id_of(client: AsyncClient, given: str) -> str:
    """Return the only id with the prefix ``given``."""
    ids = [str(one["id"]) for one in (await client.people())["people"]]
    found = [one for one in ids if given and one.startswith(given)]
    if len(found) != 1:
        raise errors.PersonNotFound(
            f"{len(found) or 'No'} ids begin with '{given}'.", hint=f"{PROGRAM} people list"
        )
    return found[0]


def _line(person: dict[str, Any]) -> str:
    seconds = sum(one["seconds"] for one in person["voices"])
    voices, name = len(person["voices"]), printable(person["name"])
    return f"{person['id']}  {voices:>2}  {seconds:>6.1f} s  {name}\n"
