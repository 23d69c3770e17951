"""Upstreams: other servers that recognize for this one.

They are for users with a GPU server in their network. Audio leaves this machine only if the engine
is chosen by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sidecar.audio import SAMPLE_RATE
from sidecar.config.settings import Settings
from sidecar.interfaces import engine_interface
from sidecar.plugin import Plugin
from sidecar.plugins.upstream import errors
from sidecar.plugins.upstream.settings import UpstreamSettings, upstream_options

if TYPE_CHECKING:
    from sidecar.service.system_checks import CheckFinding

SPEC = engine_interface.EngineSpec(
    name="upstream",
    factory="sidecar.plugins.upstream.engine:UpstreamEngine",
    title="Another server transcribes",
    sample_rate=SAMPLE_RATE,
    precisions=(engine_interface.Precision.AUTO,),  # the upstreams choose
    languages=(),
    diarizes=True,
    requires=("httpx",),
    steerable=True,
    counted=True,
    together=8,
    remote=True,
    sessions=100,  # the servers have no limit of their own
)


def _checks(settings: Settings) -> Iterable[CheckFinding]:
    if SPEC.name not in (settings.engine, settings.live_engine):
        return ()
    from sidecar.plugins.upstream.checks import check_upstreams

    return check_upstreams(settings)


PLUGIN = Plugin(
    name="upstream",
    errors=errors,
    settings=UpstreamSettings,
    engines=(
        engine_interface.PluginEngine(
            spec=SPEC,
            description="'upstream' sends recordings to another server ('auto' never does that).",
            live="'upstream' sends live audio to Microsoft's streaming server ('auto' never does).",
            servers=upstream_options,
        ),
    ),
    checks=_checks,
)
