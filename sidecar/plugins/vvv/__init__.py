"""Queue protocol of the vvv server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.plugin import HttpRoutes, Plugin

if TYPE_CHECKING:
    from sidecar.service.facade import Service


def _http(service: Service, _: Any) -> HttpRoutes:
    from sidecar.plugins.vvv import routes

    return HttpRoutes(
        routers=[routes.build_router(service)],
        dialects=dict.fromkeys(routes.PATHS, routes.error_response),
    )


PLUGIN = Plugin(name="vvv", http=_http)
