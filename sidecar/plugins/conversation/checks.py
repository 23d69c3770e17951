"""Checks of conversations for the command `doctor`: the voice and the language model."""

from collections.abc import Iterator

from sidecar import errors
from sidecar.config import secret_settings
from sidecar.config.settings import Settings
from sidecar.plugins.conversation.llm_client import LOCAL_LLM_SERVERS, choose_llm
from sidecar.plugins.conversation.settings import ConversationSettings
from sidecar.plugins.conversation.tts.tts_engine_selection import (
    better_voice_hint,
    choose_tts_engine,
)
from sidecar.service.system_checks import CheckFinding, CheckState


def check_conversations(settings: Settings) -> Iterator[CheckFinding]:
    """Yield the findings of both."""
    yield check_tts(settings)
    yield check_llm(settings)


def check_tts(settings: Settings) -> CheckFinding:
    """Check the TTS engine of conversations; return it with the reason, and what a better one
    lacks."""
    name = ConversationSettings.of(settings).voice_engine
    try:
        chosen, reason = choose_tts_engine(settings)
    except errors.SidecarError as error:
        return CheckFinding("voice", CheckState.BAD, error.detail, error.hint)
    better = better_voice_hint(settings, chosen)
    more = f"; a better one: {better}" if better else ""
    if chosen is None:
        text = f"none ({name}), answers are text only: {reason}{more}"
        return CheckFinding("voice", CheckState.ABSENT, text)
    text = f"{chosen.spec.name} ({name}): {reason}{more}"
    return CheckFinding("voice", CheckState.GOOD, text)


def check_llm(settings: Settings) -> CheckFinding:
    """Check the LLM of conversations, without a request to its server."""
    try:
        address = choose_llm(settings)
    except errors.SidecarError as error:
        return CheckFinding("answers", CheckState.BAD, error.detail, error.hint)
    if address is None:
        text = "no language model (llm): conversations repeat the user"
        return CheckFinding("answers", CheckState.ABSENT, text)
    text = f"by the model at {secret_settings.host_of(address.url)}"
    if address.looked_for:
        text = f"by the first that runs here: {', '.join(LOCAL_LLM_SERVERS)}"
    return CheckFinding("answers", CheckState.GOOD, text)
