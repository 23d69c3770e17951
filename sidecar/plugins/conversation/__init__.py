"""Spoken conversations: recognition, LLM, TTS, interruption; and the command `talk`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sidecar.plugin import InstalledVoices, Plugin, PluginVoices, VoiceRequest
from sidecar.plugins.conversation import errors
from sidecar.plugins.conversation.settings import ConversationSettings

if TYPE_CHECKING:
    import typer

    from sidecar.config.settings import Settings
    from sidecar.engines.engine_selection import EngineChoice
    from sidecar.interfaces.engine_interface import TtsSpec
    from sidecar.service.facade import Service, ServicePart
    from sidecar.service.system_checks import CheckFinding


def _choose(settings: Settings) -> tuple[EngineChoice[TtsSpec] | None, str]:
    from sidecar.plugins.conversation.tts.tts_engine_selection import choose_tts_engine

    return choose_tts_engine(settings)


def _create_part(service: Service) -> ServicePart:
    from sidecar.plugins.conversation.conversation_registry import ConversationRegistry

    return ConversationRegistry(service.settings, service.live, service.tts)


def _checks(settings: Settings) -> Iterable[CheckFinding]:
    from sidecar.plugins.conversation.checks import check_conversations

    return check_conversations(settings)


def _pull(request: VoiceRequest) -> None:
    from sidecar.plugins.conversation.tts import pull_voice

    pull_voice.pull(request)


def _installed(settings: Settings) -> InstalledVoices | None:
    from sidecar.plugins.conversation.tts import pull_voice

    return pull_voice.installed(settings)


def _add_commands(app: typer.Typer) -> None:
    from sidecar.cli.common_options import command
    from sidecar.plugins.conversation.talk_command import talk

    app.command("talk")(command(talk, about="file"))


PLUGIN = Plugin(
    name="conversation",
    errors=errors,
    settings=ConversationSettings,
    create_part=_create_part,
    voices=PluginVoices(choose=_choose, pull=_pull, installed=_installed),
    add_commands=_add_commands,
    checks=_checks,
)
