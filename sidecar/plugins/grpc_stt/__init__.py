"""gRPC live protocol `stt`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sidecar.config.settings import Settings
from sidecar.errors import SettingsInvalid
from sidecar.installation import needed_for
from sidecar.plugin import HttpRoutes, Plugin, PluginPort, PortParts, ProtocolListener
from sidecar.plugins.grpc_stt import errors
from sidecar.plugins.grpc_stt.settings import GrpcSettings

if TYPE_CHECKING:
    import typer

    from sidecar.service.facade import Service


def disable_fork_support() -> None:
    """Turn off gRPC's fork support; call this before gRPC is imported.

    With it, gRPC prepares for child processes that use gRPC. If calls are in progress, that kills
    other children, such as an ffmpeg that decodes a recording (gRPC's doc/fork_support.md).
    """
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def _address(settings: Settings) -> tuple[str, int] | None:
    port = GrpcSettings.of(settings).grpc_port
    return None if port is None else (settings.host, port)


def _create_listener(parts: PortParts) -> ProtocolListener:
    disable_fork_support()
    with needed_for("Calls over gRPC", "grpc"):
        from sidecar.plugins.grpc_stt.server import GrpcServer, server_credentials
    authorities, tls = GrpcSettings.of(parts.settings).grpc_client_ca, parts.tls
    if authorities is not None and tls is None:
        raise SettingsInvalid(
            "--grpc-client-ca requires clients' certificates, but TLS is off.",
            hint="Set --tls FILE with --tls-key, or --tls self-signed.",
        )
    credentials = server_credentials(tls, parts.watcher, authorities) if tls else None
    return GrpcServer(parts.service, parts.access, parts.socket, credentials)


def _http(service: Service, _: Any) -> HttpRoutes:
    from sidecar.plugins.grpc_stt import admin_routes

    return HttpRoutes(
        routers=[admin_routes.build_router(service)],
        dialects={admin_routes.PATH: admin_routes.install_error_format(on=service.settings.admin)},
    )


def _add_commands(app: typer.Typer) -> None:
    from sidecar.plugins.grpc_stt import convert_command

    app.add_typer(convert_command.build(), name="config")


PLUGIN = Plugin(
    name="grpc_stt",
    errors=errors,
    settings=GrpcSettings,
    http=_http,
    add_commands=_add_commands,
    ports=(
        PluginPort(
            field="grpc_port",
            setting="grpc_port",
            address=_address,
            create_listener=_create_listener,
        ),
    ),
)
