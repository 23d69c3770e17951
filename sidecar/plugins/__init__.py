"""Plugins: protocols of other systems, each a folder that can be deleted with its line here."""

from sidecar.plugin import Plugin
from sidecar.plugins import grpc_stt, openai, realtime, s2s, vvv, wyoming, yap

PLUGINS: tuple[Plugin, ...] = (
    openai.PLUGIN,
    realtime.PLUGIN,
    vvv.PLUGIN,
    yap.PLUGIN,
    s2s.PLUGIN,
    grpc_stt.PLUGIN,
    wyoming.PLUGIN,
)
"""Literal imports: a packager does not see names that are built from strings."""
