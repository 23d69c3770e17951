"""Load test of a running service: the group `bench` of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.plugin import Plugin

if TYPE_CHECKING:
    import typer


def _add_commands(app: typer.Typer) -> None:
    from sidecar.plugins.load_test import command

    app.add_typer(command.build(), name="bench")


PLUGIN = Plugin(name="load_test", requires=("grpc_stt",), add_commands=_add_commands)
