"""`/v1/live` as AsyncAPI 3 has it, out of the models of its messages: for generators of clients."""

import json
from typing import Any

from live_event_schemas import SERVER_MESSAGES
from pydantic.json_schema import models_json_schema

from sidecar.api.live_messages import LiveBeginRequest, LiveChangeRequest, LivePlainRequest
from sidecar.api.live_routes import DIALECT, PATH

ORDERS = (LiveBeginRequest, LiveChangeRequest, LivePlainRequest)
SOUND = "Sound"
_CHANNEL = "#/channels/live"


def asyncapi() -> str:
    """The document, as JSON (which is YAML, too)."""
    models = [*ORDERS, *SERVER_MESSAGES]
    refs = "#/components/schemas/{model}"
    _, schemas = models_json_schema([(one, "validation") for one in models], ref_template=refs)
    messages: dict[str, Any] = {
        SOUND: {
            "contentType": "application/octet-stream",
            "summary": "Little-endian samples, as `begin` says; a binary frame.",
            "payload": {"type": "string", "format": "binary"},
        }
    }
    for one in models:
        messages[one.__name__] = {
            "contentType": "application/json",
            "summary": (one.__doc__ or "").strip().splitlines()[0],
            "payload": {"$ref": f"#/components/schemas/{one.__name__}"},
        }
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "vibevoice-asr, live",
            "version": "1",
            "description": (
                "Live transcription over a WebSocket: docs/live-wire.md. Written by "
                "docs/generate.py."
            ),
        },
        "servers": {"here": {"host": "127.0.0.1:8765", "protocol": "ws"}},
        "channels": {
            "live": {
                "address": PATH,
                "description": "The first message of a client is `begin`. The subprotocol is "
                f"`{DIALECT.subprotocols[0]}`; beside it may stand `bearer.TOKEN`.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": {
            "hear": _operation("receive", [SOUND, *(one.__name__ for one in ORDERS)]),
            "tell": _operation("send", [one.__name__ for one in SERVER_MESSAGES]),
        },
        "components": {"schemas": schemas["$defs"], "messages": messages},
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _operation(action: str, names: list[str]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": _CHANNEL},
        "messages": [{"$ref": f"{_CHANNEL}/messages/{name}"} for name in names],
    }
