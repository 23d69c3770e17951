"""Realtime API: events and items."""

from sidecar.errors import BadRequest, ErrorKind, SidecarError


class EventUnsupported(BadRequest, code="event_unsupported", kind=ErrorKind.UNSUPPORTED):
    """Event type that a live connection does not support."""

    default_detail = "The type of the event is not supported here."
    default_hint = "docs/openai-wire.md lists the supported events."


class CommitEmpty(BadRequest, code="input_audio_buffer_commit_empty"):
    """Commit of an empty audio buffer (the code is OpenAI's)."""

    default_detail = "There is less than 0.1 s of audio since the last commit."
    default_hint = "Send audio first; with turn detection on, the service commits by itself."


class ItemUnknown(SidecarError, code="item_unknown", kind=ErrorKind.NOT_FOUND):
    """Item that a conversation does not have."""

    param = "item_id"
    default_detail = "The conversation has no item with this id."
    default_hint = "Name an item that was sent and was neither deleted nor dropped for its age."


class ResponseActive(
    SidecarError, code="conversation_already_has_active_response", kind=ErrorKind.CONFLICT
):
    """Request for an answer while one is in progress (the code is OpenAI's)."""

    default_detail = "The conversation already has a response in progress."
    default_hint = "Wait for its response.done, or cancel it first."
