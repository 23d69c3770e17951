"""Load test of a running service: the group `bench` of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import SettingsInvalid
from sidecar.installation import install_command
from sidecar.plugin import Plugin

if TYPE_CHECKING:
    import typer


def _add_commands(app: typer.Typer) -> None:
    """Add the group. An editable installation of an earlier version lacks its package; then `bench`
    only says so, and all other commands work."""
    try:
        from sidecar.plugins.load_test import command as bench
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("vibevoice_asr_load_test"):
            raise
        from sidecar.cli.common_options import command

        app.command(
            "bench",
            help="Load-test a running service. Its package is not installed.",
            add_help_option=False,
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )(command(_refuse))
    else:
        app.add_typer(bench.build(), name="bench")


def _refuse() -> None:
    raise SettingsInvalid(
        "The load test is not installed (missing: vibevoice_asr_load_test).",
        hint=f"Install it again: {install_command('')}",
    )


PLUGIN = Plugin(name="load_test", requires=("grpc_stt",), add_commands=_add_commands)
