"""Plugin of vibevoice-asr: how long each speaker of a recording spoke, and an engine.

Every start of the service imports this module, so it imports next to nothing: the routes are
imported when they are built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.config.setting_types import SettingsGroup, setting
from sidecar.interfaces.engine_interface import EngineSpec, PluginEngine
from sidecar.plugin import HttpRoutes, Plugin

if TYPE_CHECKING:
    from sidecar.service.facade import Service


class SpeakingTimeSettings(SettingsGroup):
    """Speaking time: who is left out."""

    speaking_time_least: float = setting(
        0.0, "Least seconds of a speaker who is listed by the plugin 'speaking_time'.", ge=0
    )


def _http(service: Service, _: Any) -> HttpRoutes:
    from speaking_time import routes

    return HttpRoutes(routers=[routes.build_router(service)])


LOUDNESS = PluginEngine(
    spec=EngineSpec(
        name="loudness",
        title="Where somebody speaks, without words",
        factory="speaking_time.engine:LoudnessEngine",
        sample_rate=16_000,
        diarizes=False,
    ),
    description="'loudness' says where somebody speaks.",
)
PLUGIN = Plugin(
    name="speaking_time", settings=SpeakingTimeSettings, http=_http, engines=(LOUDNESS,)
)
