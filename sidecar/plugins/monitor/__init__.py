"""Monitor: a running service in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.plugin import Plugin

if TYPE_CHECKING:
    import typer


def _add_commands(app: typer.Typer) -> None:
    from sidecar.cli.common_options import SERVER_OR_SETTINGS_HELP, command
    from sidecar.plugins.monitor.command import monitor

    app.command("monitor")(command(monitor, SERVER_OR_SETTINGS_HELP))


PLUGIN = Plugin(name="monitor", add_commands=_add_commands)
