"""Protocol of the speech-to-speech demo, at the port of HTTP and at one for the demo's own page."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sidecar.config.settings import Settings
from sidecar.errors import SettingsInvalid
from sidecar.plugin import HttpRoutes, Plugin, PluginPort, PortParts, ProtocolListener
from sidecar.plugins.s2s.settings import S2SSettings

if TYPE_CHECKING:
    from sidecar.service.facade import Service


def _http(service: Service, _: Any) -> HttpRoutes:
    from sidecar.plugins.s2s import routes

    return HttpRoutes(
        routers=[routes.build_router(service)], refusals={routes.PATH: routes.DIALECT.send_refusal}
    )


def _address(settings: Settings) -> tuple[str, int] | None:
    ports = S2SSettings.of(settings).talk_ports
    return ("127.0.0.1", ports.wire) if ports is not None else None


def create_listener(parts: PortParts) -> ProtocolListener:
    """Create the listener for the page of the demo at its own port.

    It has only that protocol's routes. Pages served on this machine at the page's port of the
    setting may send requests.

    Raises:
        errors.SettingsInvalid: clients need a token, which that page cannot send.
    """
    from sidecar.api.http.auth_gate import PortRules
    from sidecar.plugins.s2s import routes

    ports = S2SSettings.of(parts.settings).talk_ports
    assert ports is not None  # as `_address` says
    if not parts.access.authenticator.local_only:
        raise SettingsInvalid(
            "The service requires a token, and the pages of --talk-ports cannot send one.",
            hint="Remove one of the two; the routes of --port serve pages with a token, too.",
        )
    service = parts.service
    return parts.serve_http(
        replace(parts.access, origins=routes.page_origins(ports.page)),
        [routes.build_router(service), routes.build_secondary_port_router(service)],
        PortRules(refusals={routes.PATH: routes.DIALECT.send_refusal}),
    )


PLUGIN = Plugin(
    name="s2s",
    requires=("conversation",),
    settings=S2SSettings,
    http=_http,
    ports=(
        PluginPort(
            field="talk_port",
            setting="talk_ports",
            address=_address,
            create_listener=create_listener,
            hint="Stop the program that uses it, perhaps the demo itself: its page connects to no "
            "other port. For another page, choose another port with --talk-ports.",
        ),
    ),
)
