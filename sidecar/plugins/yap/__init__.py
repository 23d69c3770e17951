"""Live protocol of the yap server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.plugin import HttpRoutes, Plugin
from sidecar.plugins.yap import settings

if TYPE_CHECKING:
    from sidecar.service.facade import Service


def _http(service: Service, _: Any) -> HttpRoutes:
    from sidecar.plugins.yap import routes

    return HttpRoutes(
        routers=[routes.build_router(service)],
        refusals={routes.PATH: routes.dialect().send_refusal},
    )


def _create_part(service: Service) -> None:
    settings.YapCloseCodes.of_environment()  # its routes read it after the ready line


PLUGIN = Plugin(
    name="yap",
    http=_http,
    create_part=_create_part,
    foreign_variables=settings.YAP_VARIABLES,
    fixed_variables=settings.UNSUPPORTED_YAP_VARIABLES,
)
