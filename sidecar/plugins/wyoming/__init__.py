"""Wyoming: the protocol of Home Assistant's voice pipeline."""

from __future__ import annotations

from sidecar.config.settings import Settings
from sidecar.plugin import Plugin, PluginPort, PortParts, ProtocolListener
from sidecar.plugins.wyoming import errors
from sidecar.plugins.wyoming.settings import WyomingSettings


def _address(settings: Settings) -> tuple[str, int] | None:
    port = WyomingSettings.of(settings).wyoming_port
    return None if port is None else (settings.host, port)


def _create_listener(parts: PortParts) -> ProtocolListener:
    from sidecar.plugins.wyoming.server import WyomingAllowlist, WyomingServer

    allowlist = WyomingAllowlist.of(parts.settings, parts.access)
    return WyomingServer(parts.service, allowlist, parts.socket)


PLUGIN = Plugin(
    name="wyoming",
    errors=errors,
    settings=WyomingSettings,
    ports=(
        PluginPort(
            field="wyoming_port",
            setting="wyoming_port",
            address=_address,
            create_listener=_create_listener,
        ),
    ),
)
