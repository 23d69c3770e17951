"""Errors of WebSockets in each protocol."""

from collections.abc import Callable

import pytest

from sidecar import errors
from sidecar.api import live_messages
from sidecar.plugins.realtime import server_events
from sidecar.plugins.yap import messages as yap_messages


@pytest.mark.parametrize(
    ("said", "page"),
    [
        (live_messages.error_message, "docs/live-wire.md"),
        (yap_messages.yap_error, "docs/live.md"),
        (server_events.error_event, "docs/openai.md"),
    ],
)
def test_websocket_error_names_the_page_of_its_protocol_in_docs_and_not_the_route_docs(
    said: Callable[[errors.SidecarError], object], page: str
) -> None:
    """/docs, which errors of HTTP name, has no WebSocket."""
    told = said(errors.FieldInvalid())
    text = str(vars(told) if isinstance(told, Exception) else told)
    assert f"The fields and their values are listed in {page}." in text
    assert " /docs" not in text
