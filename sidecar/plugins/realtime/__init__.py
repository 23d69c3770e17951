"""OpenAI's Realtime API: live transcription and conversations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.plugin import HttpRoutes, Plugin
from sidecar.plugins.realtime import errors

if TYPE_CHECKING:
    from sidecar.api.http.auth_gate import TicketGrant
    from sidecar.auth.authentication import OneTimeCodes
    from sidecar.service.facade import Service


def _http(service: Service, tickets: OneTimeCodes[TicketGrant]) -> HttpRoutes:
    from sidecar.plugins.openai.common import error_response
    from sidecar.plugins.realtime import routes

    return HttpRoutes(
        routers=[routes.build_router(service, tickets), routes.build_talk_router(service)],
        dialects=dict.fromkeys(routes.PATHS, error_response),
        refusals={routes.REALTIME: routes.DIALECT.send_refusal},
        tidy_prefixes=(routes.REALTIME,),
    )


PLUGIN = Plugin(name="realtime", errors=errors, requires=("openai", "conversation"), http=_http)
