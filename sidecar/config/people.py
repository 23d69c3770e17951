"""People: whether anybody is known by voice."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from sidecar.config.group import Group


class People(Group):
    """The settings of it."""

    people: bool = Field(
        False,
        description=(
            "Whether voices of people may be stored, to be recognised in later recordings: "
            "biometric data, encrypted, in one file or in the database of `journal` "
            "(docs/people.md). Nothing is stored without."
        ),
    )
    people_dir: Path | None = Field(
        None,
        description="Folder of that file; in the user's data folder if unset. Not with `journal`.",
    )
