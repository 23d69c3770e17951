"""The events of a conversation as OpenAI's clients read them, without their numbers. Pure.

Those of who speaks are told as in a transcription (`realtime.vocabulary`).
"""

from __future__ import annotations

from sidecar import errors
from sidecar.conversation.told import Ending
from sidecar.protocols.dialect import error_body
from sidecar.protocols.openai_realtime.dialogue_items import Item, Said

STATUSES = {
    Ending.COMPLETED: "completed",
    Ending.INTERRUPTED: "cancelled",
    Ending.CANCELLED: "cancelled",
    Ending.LIMITED: "incomplete",
    Ending.FAILED: "failed",
}
_REASONS = {
    Ending.INTERRUPTED: "turn_detected",
    Ending.CANCELLED: "client_cancelled",
    Ending.LIMITED: "max_output_tokens",
}


def began(conversation: str) -> Said:
    """There is a conversation."""
    body = {"id": conversation, "object": "realtime.conversation"}
    return {"type": "conversation.created", "conversation": body}


def item_event(what: str, item: Item, before: str | None, *, empty: bool = False) -> Said:
    """An item is ``added`` to the conversation, or ``done``."""
    view = item.view(empty=empty)
    return {"type": f"conversation.item.{what}", "previous_item_id": before, "item": view}


def retrieved(item: Item) -> Said:
    """How an item stands there."""
    return {"type": "conversation.item.retrieved", "item": item.view()}


def deleted(item: Item) -> Said:
    """It stands there no more."""
    return {"type": "conversation.item.deleted", "item_id": item.id}


def truncated(item: Item, seconds: float) -> Said:
    """Of an answer so much was heard."""
    return {
        "type": "conversation.item.truncated",
        "item_id": item.id,
        "content_index": 0,
        "audio_end_ms": round(seconds * 1000),
    }


def output_cleared(response: str) -> Said:
    """What the client has of that answer's sound is not to be played."""
    return {"type": "output_audio_buffer.cleared", "response_id": response}


def response_event(what: str, view: Said) -> Said:
    """An answer is ``created``, or ``done``."""
    return {"type": f"response.{what}", "response": view}


def details(ending: Ending, error: errors.SidecarError | None) -> Said:
    """Why an answer ended, in the words of its status."""
    found: Said = {"type": STATUSES[ending]}
    if ending in _REASONS:
        found["reason"] = _REASONS[ending]
    if ending is Ending.FAILED and error is not None:
        body = error_body(error)["error"]
        found["error"] = {name: body[name] for name in ("type", "code", "message")}
    return found


def output_item(what: str, response: str, item: Item, *, empty: bool = False) -> Said:
    """An item of an answer, ``added`` or ``done``."""
    return {
        "type": f"response.output_item.{what}",
        "response_id": response,
        "output_index": item.index,
        "item": item.view(empty=empty),
    }


def part_event(what: str, response: str, item: Item, text: str) -> Said:
    """What the item says: a part that is ``added``, or ``done``."""
    part = {"type": "audio", "transcript": text} if item.aloud else {"type": "text", "text": text}
    return {"type": f"response.content_part.{what}", **_at(response, item), "part": part}


def words_delta(response: str, item: Item, text: str) -> Said:
    """More words of an answer."""
    return {"type": f"{_words(item)}.delta", **_at(response, item), "delta": text}


def words_done(response: str, item: Item, text: str) -> Said:
    """All its words."""
    name = "transcript" if item.aloud else "text"
    return {"type": f"{_words(item)}.done", **_at(response, item), name: text}


def sound_delta(response: str, item: Item, base64: str) -> Said:
    """More sound of it."""
    return {"type": "response.output_audio.delta", **_at(response, item), "delta": base64}


def sound_done(response: str, item: Item) -> Said:
    """That was all its sound."""
    return {"type": "response.output_audio.done", **_at(response, item)}


def arguments_delta(response: str, item: Item, text: str) -> Said:
    """More of a call's arguments."""
    name = "response.function_call_arguments.delta"
    return {"type": name, **_of(response, item), "call_id": item.call, "delta": text}


def arguments_done(response: str, item: Item) -> Said:
    """All of them."""
    return {
        "type": "response.function_call_arguments.done",
        **_of(response, item),
        "call_id": item.call,
        "name": item.name,
        "arguments": item.text,
    }


def _words(item: Item) -> str:
    return f"response.output_{'audio_transcript' if item.aloud else 'text'}"


def _of(response: str, item: Item) -> Said:
    return {"response_id": response, "item_id": item.id, "output_index": item.index}


def _at(response: str, item: Item) -> Said:
    return {**_of(response, item), "content_index": 0}
