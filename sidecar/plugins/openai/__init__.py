"""OpenAI's transcription API, and whisper.cpp's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.plugin import HttpRoutes, Plugin
from sidecar.plugins.openai import errors
from sidecar.plugins.openai.settings import OpenAISettings

if TYPE_CHECKING:
    import typer

    from sidecar.service.facade import Service


def _http(service: Service, _: Any) -> HttpRoutes:
    from sidecar.plugins.openai import common, routes

    return HttpRoutes(
        routers=[routes.build_router(service)],
        dialects=dict.fromkeys(routes.PATHS, common.error_response)
        | dict.fromkeys(routes.WRONG_PATHS, common.wrong_base_url_response),
        tidy_prefixes=routes.PREFIXES,
    )


def _add_commands(app: typer.Typer) -> None:
    from sidecar.plugins.openai.whisper_server import add_command

    add_command(app)


PLUGIN = Plugin(
    name="openai",
    errors=errors,
    settings=OpenAISettings,
    http=_http,
    add_commands=_add_commands,
)
