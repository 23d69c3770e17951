"""Settings of the speech-to-speech demo's protocol: its port and that of its page."""

import re
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

from sidecar.config.setting_types import SettingsGroup, setting


class ConversationPorts(NamedTuple):
    """Ports of the speech-to-speech demo's API and of its page. Defaults: those of the demo."""

    wire: int = 8005
    page: int = 3000


def parse_talk_ports(value: object) -> object:
    """Return the ports of ``"original"``, ``"8005"`` (the API) or ``"8005:3000"`` (the API and the
    page)."""
    if value is None or isinstance(value, ConversationPorts):
        return value
    if value == "original":
        return ConversationPorts()
    match = re.fullmatch(r"(\d{1,5})(?::(\d{1,5}))?", str(value).strip())
    ports = ConversationPorts(*(int(port) for port in match.groups() if port)) if match else None
    if ports is None or ports.wire > 65535 or not 0 < ports.page <= 65535:
        raise ValueError("not 'original', nor ports such as '8005' or '8005:3000'")
    return ports


TalkPorts = Annotated[ConversationPorts | None, NoDecode, BeforeValidator(parse_talk_ports)]


class S2SSettings(SettingsGroup):
    """Speech-to-speech demo: its ports."""

    talk_ports: TalkPorts = setting(
        None,
        "'original' serves conversations at port 8005 of the loopback, too, for the page of the "
        "speech-to-speech demo at port 3000; or other ports for the two, such as '8006:3001' "
        "(docs/talk.md).",
    )
