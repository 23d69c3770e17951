"""The functions that a client has, as it says them and reads them again. Pure.

They are called by the model that answers and carried out by the client; nothing here knows what
they do, and an MCP server is asked by nobody.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sidecar import errors
from sidecar.conversation.llm.dialogue import Choice, Tool, Tools
from sidecar.interfaces.options import parse_word
from sidecar.protocols.openai_realtime.updates import object_of

MOST = 128
LONGEST = 65_536
"""Characters of all of them together, as JSON: a model reads them before each answer."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
FUNCTION = "function"
HINT = "Tools are functions of the client's: type, name, description and parameters."


def tools_of(given: Mapping[str, Any], at: str, before: Tools) -> Tools:
    """The tools of a session or of one answer, ``at`` by its name; what is not said stays.

    Raises:
        errors.FieldInvalid: they mean nothing, or are others than functions.
    """
    after = before
    if given.get("tools") is not None:
        after = replace(after, all=_all(given["tools"], f"{at}.tools"))
    if given.get("tool_choice") is not None:
        after = _chosen(after, given["tool_choice"], f"{at}.tool_choice")
    if after.named and after.named not in {tool.name for tool in after.all}:
        if given.get("tool_choice") is None:  # what was to be called is gone
            return replace(after, choice=Choice.AUTO, named="")
        raise errors.FieldInvalid(f"'{at}.tool_choice' names no tool that is there.")
    return after


def tools_view(tools: Tools) -> list[dict[str, Any]]:
    """As clients read them."""
    return [
        {
            "type": FUNCTION,
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
        }
        for tool in tools.all
    ]


def choice_view(tools: Tools) -> str | dict[str, Any]:
    """Which of them are to be called, as clients read it."""
    return {"type": FUNCTION, "name": tools.named} if tools.named else tools.choice.value


def _all(given: object, at: str) -> tuple[Tool, ...]:
    if not isinstance(given, list) or len(given) > MOST:
        raise errors.FieldInvalid(f"'{at}' is no list of at most {MOST}.", hint=HINT)
    if len(json.dumps(given)) > LONGEST:
        raise errors.FieldInvalid(f"'{at}' has more than {LONGEST} characters.")
    found = tuple(_one(object_of(at, tool), at) for tool in given)
    if len({tool.name for tool in found}) < len(found):
        raise errors.FieldInvalid(f"'{at}' has two of one name.")
    return found


def _one(given: Mapping[str, Any], at: str) -> Tool:
    if given.get("type") != FUNCTION:
        raise errors.FieldInvalid(f"'{at}' has one that is no function.", hint=HINT)
    name = parse_word(f"{at}.name", given.get("name"))
    if not _NAME.fullmatch(name):
        raise errors.FieldInvalid(
            f"'{at}' has one without a name.",
            hint="Of 1 to 64 letters, digits, '_', '-' and '.'.",
        )
    parameters = given.get("parameters")
    if parameters is not None:
        parameters = object_of(f"{at}.parameters", parameters)
    return Tool(name, parse_word(f"{at}.description", given.get("description")), parameters)


def _chosen(tools: Tools, given: object, at: str) -> Tools:
    match given:
        case {"type": "function", "name": str(name)}:
            return replace(tools, choice=Choice.AUTO, named=name)
        case str(word) if word in tuple(Choice):
            return replace(tools, choice=Choice(word), named="")
    raise errors.FieldInvalid(
        f"'{at}' has a value that is not possible.",
        hint=f"Use one of: {', '.join(Choice)}, or a function by its name.",
    )
