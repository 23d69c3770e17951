"""OpenAI's transcription API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.plugin import HttpRoutes, Plugin
from sidecar.plugins.openai import errors
from sidecar.plugins.openai.settings import OpenAISettings

if TYPE_CHECKING:
    from sidecar.service.facade import Service


def _http(service: Service, _: Any) -> HttpRoutes:
    from sidecar.plugins.openai import common, routes

    return HttpRoutes(
        routers=[routes.build_router(service)],
        dialects=dict.fromkeys(routes.PATHS, common.error_response),
        tidy_prefixes=routes.PREFIXES,
    )


PLUGIN = Plugin(name="openai", errors=errors, settings=OpenAISettings, http=_http)
